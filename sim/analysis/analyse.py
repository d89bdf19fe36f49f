"""From a timeline to a ``Result``: strings the analyses together. Pure: computes nothing that they do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sim.analysis.breakdown import breakdown
from sim.analysis.memory import Capacity, memory_use
from sim.analysis.path import bound_by, critical_path
from sim.analysis.phases import phases
from sim.analysis.published import Measured, Quoted, compare, simulated
from sim.analysis.result import Result
from sim.analysis.transfers import transfers, utilisation
from sim.timeline.columns import Timeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a timeline cannot know: how much useful work a step is, and how much memory there is.

    ``model_flops``, ``hardware_flops`` and ``tokens`` of one step over all ranks; ``peak_flops_per_s`` of one GPU
    (the mean of unlike ones); capacities in bytes, of a GPU and of a rank's part of its host. ``counts``: named figures
    of the model alone; ``quoted``: what sources say of named figures.
    """

    scenario: str
    tokens: int
    model_flops: float
    hardware_flops: float
    peak_flops_per_s: float
    gpu_capacity: Capacity
    host_capacity: Capacity
    nvme_capacity: Capacity = 0.0
    counts: Mapping[str, float] = field(default_factory=dict)
    quoted: tuple[Quoted, ...] = ()
    placement: str = "packed"


def analyse(timeline: Timeline, facts: Facts, wall: float) -> Result:
    """Everything that is shown of a step. ``wall`` is the real time the simulation took, for the record."""
    ranks = sum(row.members for row in timeline.rank_classes)
    step = timeline.makespan
    parts = breakdown(timeline)
    memory = memory_use(
        timeline,
        gpu_capacity=facts.gpu_capacity,
        host_capacity=facts.host_capacity,
        nvme_capacity=facts.nvme_capacity,
    )
    peak = facts.peak_flops_per_s * ranks * step
    timed = phases(timeline)
    measured = Measured(
        step=step,
        ranks=ranks,
        tokens=facts.tokens,
        model_flops=facts.model_flops,
        hardware_flops=facts.hardware_flops,
        peak_flops_per_s=facts.peak_flops_per_s,
        phases=timed,
        breakdown=parts,
        memory=memory,
    )
    return Result(
        scenario=facts.scenario,
        step_time=step,
        tokens_per_s_per_gpu=facts.tokens / (step * ranks),
        mfu=facts.model_flops / peak,
        hfu=facts.hardware_flops / peak,
        fits=all(use.fits for use in memory),
        breakdown=parts,
        phases=timed,
        bound_by=bound_by(timeline, critical_path(timeline)),
        memory=memory,
        transfers=transfers(timeline, parts),
        published=compare(facts.quoted, {**facts.counts, **simulated(measured)}),
        utilisation=utilisation(timeline),
        ranks=ranks,
        rank_classes=len(timeline.rank_classes),
        ops=len(timeline.spans.op),
        events=timeline.events,
        wall=wall,
        placement=facts.placement,
    )
