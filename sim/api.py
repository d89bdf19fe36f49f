"""The way through the house, for programs: scenario in, simulated and explained step out.

Strings the rooms together and owns nothing else. ``stepline`` is this module with a command line around it.

    >>> from sim.api import run
    >>> step = run("quickstart")
    >>> step.result.fits
    True
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from sim.analysis.analyse import Facts, analyse
from sim.analysis.result import Result
from sim.cluster.build import build as build_cluster
from sim.cost.lower import lower
from sim.engine.core import simulate as simulate_plan
from sim.spec.load import load
from sim.spec.types import Scenario
from sim.timeline.columns import Timeline
from sim.workload.build import build as build_workload
from sim.workload.model import params
from sim.workload.peak import Peak, peak


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One simulated step: what was asked, what happened, and what follows from it."""

    scenario: Scenario
    timeline: Timeline
    result: Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Memory of one rank without simulating: peaks by place, against one GPU and the rank's part of its host."""

    scenario: Scenario
    parameters: int
    gpu: Peak
    host: Peak
    gpu_capacity: float
    host_capacity: float

    @property
    def fits(self) -> bool:
        """Whether both peaks are within their capacities."""
        return self.gpu.size <= self.gpu_capacity and self.host.size <= self.host_capacity


def run(
    source: str, overrides: Sequence[str] = (), *, fold: bool = True, progress: Callable[[int, int], None] | None = None
) -> Step:
    """Load, simulate and explain a scenario file (or a shipped scenario, by name).

    ``overrides`` are ``key.path=value`` texts; ``progress`` is called with (spans so far, spans in all); ``fold=False``
    simulates every rank. Raises ``ScenarioError`` for bad input, ``InfeasibleError`` where ranks have no route.
    """
    return simulate(load(source, overrides).scenario, fold=fold, progress=progress)


def simulate(scenario: Scenario, *, fold: bool = True, progress: Callable[[int, int], None] | None = None) -> Step:
    """Simulate a scenario that is already loaded."""
    began = perf_counter()
    workload = build_workload(scenario)
    plan = lower(workload, build_cluster(scenario.cluster), scenario, fold=fold)
    total = sum(len(rank.blocks[block]) for rank in plan.ranks for block, _ in rank.actions)
    timeline = simulate_plan(plan, None if progress is None else lambda done: progress(done, total))
    facts = Facts(
        scenario=scenario.name,
        tokens=workload.tokens,
        model_flops=workload.model_flops,
        hardware_flops=workload.hardware_flops,
        peak_flops_per_s=scenario.cluster.device.gemm[scenario.precision.compute].peak,
        gpu_capacity=scenario.cluster.device.memory,
        host_capacity=_host_part(scenario),
    )
    return Step(scenario=scenario, timeline=timeline, result=analyse(timeline, facts, perf_counter() - began))


def check(source: str, overrides: Sequence[str] = ()) -> Verdict:
    """Validate a scenario and weigh its memory, without simulating."""
    scenario = load(source, overrides).scenario
    program = build_workload(scenario).programs[0]
    return Verdict(
        scenario=scenario,
        parameters=params(scenario.model),
        gpu=peak(program, "gpu"),
        host=peak(program, "host"),
        gpu_capacity=scenario.cluster.device.memory,
        host_capacity=_host_part(scenario),
    )


def _host_part(scenario: Scenario) -> float:
    """Host memory of one rank: its node's DRAM over the ranks that share it."""
    cluster = scenario.cluster
    return cluster.host.dram / min(scenario.layout.world, cluster.gpus_per_host)
