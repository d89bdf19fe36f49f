"""The way through the house, for programs: scenario in, simulated and explained step out.

Strings the rooms together and owns nothing else. ``stepline`` is this module with a command line around it.

    >>> from sim.api import run
    >>> step = run("quickstart")
    >>> step.result.fits
    True
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim import mesh
from sim.analysis.analyse import Facts, analyse
from sim.analysis.published import Quoted, compare
from sim.analysis.result import Order, Result, Verdict, Weight
from sim.analysis.roofline import Roofline, bandwidth, kernel_points
from sim.cluster.build import build as build_cluster
from sim.cluster.show import NodeView, views
from sim.cluster.show_network import NetworkView, network_view
from sim.cost.choice import fastest, swept
from sim.cost.classes import Classes, classify
from sim.cost.demand import demand
from sim.cost.lower import lower
from sim.cost.placing import placing
from sim.engine.core import simulate as simulate_plan
from sim.errors import Problem, ScenarioError
from sim.plan import Plan, quicker
from sim.spec import placement
from sim.spec.faster import PARTS, faster
from sim.spec.load import Loaded, load
from sim.spec.types import ClusterSpec, DeviceSpec, Scenario
from sim.timeline import pack
from sim.timeline.columns import Timeline
from sim.workload import model
from sim.workload.build import build as build_workload
from sim.workload.build import read_schedule
from sim.workload.ops import Collective, Workload
from sim.workload.peak import peak
from sim.workload.recipes import RECIPES
from sim.workload.schedules.csv_text import to_csv
from sim.workload.schedules.dry_run import dry_run
from sim.workload.schedules.grid import draw
from sim.workload.schedules.own import faults

SCENARIO, SCHEDULE, TIMELINE = "scenario.yaml", "schedule.csv", "timeline.npz"
"""What a run's folder keeps so that it can be opened again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One simulated step: what was asked, what happened, and what follows from it.

    ``document`` is the resolved scenario as plain values with their sources, ``settings`` lists (key, value, source) of
    each; both are empty where there was no file.
    """

    scenario: Scenario
    timeline: Timeline
    result: Result
    document: Mapping[str, Any] = field(default_factory=dict)
    settings: tuple[tuple[str, str, str], ...] = ()

    def roofline(self, rank_class: int = 0) -> Roofline:
        """Kernels of a rank class under the roofs of the device that its ranks sit on."""
        row = self.timeline.rank_classes[rank_class]
        device = _Seats(self.scenario).device(row.representative)
        precision = self.scenario.precision
        narrow = [RECIPES[precision.fp8].dtype] if precision.fp8 != "none" else []
        return Roofline(
            scenario=self.scenario.name,
            rank=row.name,
            device=device.name,
            bandwidth=bandwidth(self.timeline, rank_class),
            peaks={dtype: device.gemm[dtype].peak for dtype in (precision.compute, *narrow)},
            kernels=kernel_points(self.timeline, rank_class),
        )


def run(
    source: str, overrides: Sequence[str] = (), *, fold: bool = True, progress: Callable[[int, int], None] | None = None
) -> Step:
    """Load, simulate and explain a scenario file (or a shipped scenario, by name).

    ``overrides`` are ``key.path=value`` texts; ``progress`` is called with (spans so far, spans in all); ``fold=False``
    simulates every rank. Raises ``ScenarioError`` for bad input, ``InfeasibleError`` where ranks have no route.
    """
    loaded = load(source, overrides, reader=faults)
    return _asked(simulate(loaded.scenario, fold=fold, progress=progress), loaded)


def _asked(step: Step, loaded: Loaded) -> Step:
    """The step with what was asked of it beside."""
    settings = tuple((row.key, row.value, row.source) for row in loaded.settings)
    return replace(step, document=loaded.documented, settings=settings)


def reopen(folder: Path) -> Step:
    """The step that ``stepline run`` left in ``folder``: its scenario and its timeline, explained anew.

    Raises ``ScenarioError`` where the folder holds no whole run.
    """
    scenario, path = folder / SCENARIO, folder / TIMELINE
    missing = [file.name for file in (scenario, path) if not file.is_file()]
    if missing:
        what = f"holds no run (no {' and no '.join(missing)}); make one with stepline run FILE --out {folder}"
        raise ScenarioError([Problem(str(folder), 0, 0, "", what)])
    loaded = load(str(scenario), reader=faults)
    try:
        timeline = pack.read(path)
    except (OSError, ValueError) as error:
        what = f"is no timeline of this version of Stepline: {error}; run the scenario again"
        raise ScenarioError([Problem(str(path), 0, 0, "", what)]) from error
    ranks = sum(row.members for row in timeline.rank_classes)
    if ranks != loaded.scenario.layout.world or any(row.representative >= ranks for row in timeline.rank_classes):
        there = loaded.scenario.layout.world
        what = f"is a step of {ranks} ranks, not the {there} of {SCENARIO}; run the scenario again"
        raise ScenarioError([Problem(str(path), 0, 0, "", what)])
    result = analyse(timeline, _facts(loaded.scenario, build_workload(loaded.scenario), timeline), 0.0)
    return _asked(Step(scenario=loaded.scenario, timeline=timeline, result=result), loaded)


def kept(step: Step) -> dict[str, str]:
    """The text files by which ``reopen`` knows a step's scenario; none where it came from no file."""
    if not step.document:
        return {}
    document: dict[str, Any] = json.loads(json.dumps(step.document, default=str))
    texts = {}
    if (order := step.scenario.layout.schedule_file) is not None:
        document["layout"]["schedule_file"] = SCHEDULE
        texts[SCHEDULE] = order.text
    said = "# The scenario of this folder's run, names written out and overrides applied (JSON is YAML, too).\n"
    return {SCENARIO: f"{said}{json.dumps(document, indent=2)}\n", **texts}


def simulate(scenario: Scenario, *, fold: bool = True, progress: Callable[[int, int], None] | None = None) -> Step:
    """Simulate a scenario that is already loaded."""
    began = perf_counter()
    workload = build_workload(scenario)
    plan = lower(workload, build_cluster(scenario.cluster), scenario, fold=fold)
    total = sum(len(rank.blocks[block]) for rank in plan.ranks for block, _ in rank.actions)
    timeline = simulate_plan(plan, None if progress is None else lambda done: progress(done, total))
    facts = _facts(scenario, workload, timeline)
    return Step(scenario=scenario, timeline=timeline, result=analyse(timeline, facts, perf_counter() - began))


def scenario_of(source: str, overrides: Sequence[str] = ()) -> Scenario:
    """The scenario of a file or a shipped name, checked. Raises ``ScenarioError`` for bad input."""
    return _load(source, overrides)


def step_time(scenario: Scenario, part: str = "", by: float = 1.0, *, merged: bool | None = None) -> float:
    """Seconds of the simulated step with ``part`` of the machine ``by`` times as fast.

    ``part`` is one of ``PARTS`` of ``sim.spec.faster`` or ``latency`` (of exchanges and copies); empty: as it is.
    ``merged``: runs of kernels as one op (None: in large steps).
    """
    machine = faster(scenario, part, by) if part in PARTS else scenario
    plan = lower(build_workload(machine), build_cluster(machine.cluster), machine, merged=merged)
    return simulate_plan(quicker(plan, by) if part == "latency" else plan).makespan


def _facts(scenario: Scenario, workload: Workload, timeline: Timeline) -> Facts:
    """What a timeline cannot know of its step."""
    seats, compute = _Seats(scenario), scenario.precision.compute
    first = [row.representative for row in timeline.rank_classes]
    return Facts(
        scenario=scenario.name,
        tokens=workload.tokens,
        model_flops=workload.model_flops,
        hardware_flops=workload.hardware_flops,
        peak_flops_per_s=float(np.mean([machine.device.gemm[compute].peak for machine in seats.machines])),
        gpu_capacity=[seats.machines[rank].device.memory for rank in first],
        host_capacity=[seats.host_part(rank) for rank in first],
        placement=placement.said(scenario.layout.placement),
        nvme_capacity=[seats.drives_part(rank) for rank in first],
        counts=_counts(scenario),
        quoted=_quoted(scenario),
    )


def class_of_rank(step: Step) -> NDArray[np.int64]:
    """Which rank class of the step's timeline each rank belongs to: shape (ranks,).

    Raises ``ScenarioError`` where the timeline was folded in another way than this version would.
    """
    rows = step.timeline.rank_classes
    found = np.full(step.scenario.layout.world, -1, dtype=np.int64)
    found[[row.representative for row in rows]] = np.arange(len(rows))
    if len(rows) == len(found):
        return found
    classes = _classes(step.scenario, build_workload(step.scenario))
    if classes.first.tolist() != [row.representative for row in rows]:
        what = "its ranks were folded by another version of Stepline; run the scenario again"
        raise ScenarioError([Problem(TIMELINE, 0, 0, "", what)])
    return classes.rank_class


def program(scenario: Scenario) -> tuple[Workload, Plan, NDArray[np.int64]]:
    """What the ranks do, kernel by kernel, what it costs alone, and the rank class of the plan of each rank."""
    workload = build_workload(scenario)
    plan = lower(workload, build_cluster(scenario.cluster), scenario, merged=False)
    return workload, plan, _classes(scenario, workload).rank_class


def _classes(scenario: Scenario, workload: Workload) -> Classes:
    cluster = build_cluster(scenario.cluster)
    return classify(workload, cluster, placing(scenario.layout.world, scenario.layout.placement, cluster), fold=True)


def check(source: str, overrides: Sequence[str] = ()) -> Verdict:
    """Validate a scenario, count its model and weigh its memory, without simulating."""
    scenario = _load(source, overrides)
    spec, sequence = scenario.model, scenario.batch.sequence
    workload = build_workload(scenario)
    devices, kept = [machine.device.name for machine in scenario.cluster.machines], scenario.stack.sustained
    weights = [weight for where in ("gpu", "host", "nvme") if (weight := _weigh(scenario, workload, where)).peak > 0.0]
    return Verdict(
        scenario=scenario.name,
        params=model.params(spec),
        layer_params=model.layer_params(spec),
        lecture_params=model.lecture_params(spec),
        layer_multiplications=model.exact_multiplications(spec, sequence),
        lecture_multiplications=model.lecture_multiplications(spec, sequence),
        weights=tuple(weights),
        published=compare(_quoted(scenario), _weighed(scenario, weights)),
        sustained=min(kept.get(device, 1.0) for device in devices),
        assumed=any(device not in kept for device in devices),
    )


def schedule(source: str, overrides: Sequence[str] = (), *, width: int = 0) -> Order:
    """The pipeline schedule of a scenario: its order of actions, drawn with equal stages and free messages.

    ``width``: characters of a line that are drawn (0: all). Raises ``ScenarioError`` for bad input.
    """
    scenario = _load(source, overrides)
    read = read_schedule(scenario)
    order = read.schedule
    drawn = draw(order, width=width)
    return Order(
        scenario=scenario.name,
        name=order.name,
        ranks=order.ranks,
        stages=order.stages,
        microbatches=order.microbatches,
        copies=order.copies,
        held=dry_run(order, 1, 1, 1).in_flight,
        grid=drawn.text,
        width=drawn.width,
        csv=to_csv(order),
        dropped=read.dropped,
    )


def resolved(source: str, overrides: Sequence[str] = ()) -> Mapping[str, Any]:
    """The scenario as plain values, every name written out and overrides applied: what a simulation depends on.

    Raises ``ScenarioError`` for bad input.
    """
    return load(source, overrides, reader=faults).document


SWEPT = ("all_reduce", "all_gather", "reduce_scatter", "broadcast")
"""Exchanges whose algorithm depends on the size alone."""

_LOOKED_AT = (
    "layout={dp: 1, placement: [0]}", "stack=megatron-deepspeed-2020", "precision=fp16",
    "batch={micro: 1, accumulation: 1, sequence: 128}", "recompute=none", "offload=none",
)  # fmt: skip
"""The smallest scenario around a cluster that is only looked at."""


def cluster(name: str, overrides: Sequence[str] = ()) -> ClusterSpec:
    """A cluster or node by its shipped name or path; ``overrides`` are of a scenario: ``cluster.nodes=4``.

    Raises ``ScenarioError`` for bad input.
    """
    return load("quickstart", [f"cluster={name}", *_LOOKED_AT, *overrides]).scenario.cluster


def device(name: str) -> DeviceSpec:
    """A device by its shipped name or path. Raises ``ScenarioError`` for bad input."""
    return cluster("dgx-a100", [f"cluster.device={name}"]).device


def topology(cluster: str, overrides: Sequence[str] = ()) -> tuple[NodeView, ...]:
    """A cluster or node (shipped name or path): each kind of node, bandwidth between any two GPUs, what they share.

    ``overrides`` are of a scenario: ``cluster.nics.count=4``. Raises ``ScenarioError`` for bad input.
    """
    return views(build_cluster(load("quickstart", [f"cluster={cluster}", *_LOOKED_AT, *overrides]).scenario.cluster))


def network(cluster: str, overrides: Sequence[str] = ()) -> NetworkView | None:
    """What lies between the nodes of a cluster, as ``topology`` of one node; None for a lone node."""
    loaded = load("quickstart", [f"cluster={cluster}", *_LOOKED_AT, *overrides])
    return network_view(build_cluster(loaded.scenario.cluster))


def exchange_seconds(
    spec: ClusterSpec, asked: Sequence[tuple[str, Sequence[float], Sequence[tuple[int, int]]]]
) -> list[list[float]]:
    """Seconds that exchanges take, each alone on a cluster: what a simulation of one and nothing else takes.

    ``asked`` are (kind, sizes, members): a kind of ``sim.workload.ops.Collective``, sizes in bytes as it counts them,
    two or more pairs of node and GPU. Raises ``InfeasibleError`` where they have no route.
    """
    built = build_cluster(spec)
    found = []
    for kind, sizes, members in asked:
        if kind in SWEPT:
            costs = [fastest(ways) for ways in swept(kind, sizes, members, built)]
        else:
            works = [Collective(kind=kind, axis="dp", size=size) for size in sizes]  # type: ignore[arg-type]
            costs = [demand(work, members, built) for work in works]
        found.append([cost.latency + cost.duration for cost in costs])
    return found


def _load(source: str, overrides: Sequence[str]) -> Scenario:
    """The scenario of a file; a schedule file is read by those who know its format."""
    return load(source, overrides, reader=faults).scenario


def _quoted(scenario: Scenario) -> tuple[Quoted, ...]:
    """What the scenario's sources say."""
    return tuple(
        Quoted(figure=p.figure, low=p.value, high=p.to or p.value, source=p.by, note=p.note) for p in scenario.published
    )


def _counts(scenario: Scenario) -> dict[str, float]:
    """Named figures of the model and the batch alone."""
    spec, batch = scenario.model, scenario.batch
    total = model.params(spec)
    return {
        "parameters": total,
        "parameter_bytes": total * scenario.precision.param_bytes,
        "parameters_per_layer": model.layer_params(spec),
        "multiplications_per_layer": model.exact_multiplications(spec, batch.sequence),
        "activations_per_layer": spec.hidden * batch.sequence * batch.size,
        "gpus": scenario.layout.world,
    }


def _weighed(scenario: Scenario, weights: Sequence[Weight]) -> dict[str, float]:
    """Named figures that need no simulation."""
    return _counts(scenario) | {"peak_memory": next(w.peak for w in weights if w.where == "gpu")}


class _Seats:
    """The machine that each rank runs on."""

    def __init__(self, scenario: Scenario) -> None:
        cluster, layout = scenario.cluster, scenario.layout
        self.node, _ = mesh.places(layout.world, layout.placement, cluster.gpus_of_node)
        machine_of_node = np.array(cluster.machine_of_node)
        self.machine = machine_of_node[self.node]
        self.machines = [cluster.machines[machine] for machine in self.machine.tolist()]
        ranks = np.bincount(self.node, minlength=len(machine_of_node))
        self.fullest = [int(ranks[machine_of_node == m].max()) for m in range(len(cluster.machines))]

    def device(self, rank: int) -> DeviceSpec:
        """A rank's GPU."""
        machine: ClusterSpec = self.machines[rank]
        return machine.device

    def gpu_part(self, rank: int) -> float:
        """Memory of a rank's GPU."""
        return self.device(rank).memory

    def drives_part(self, rank: int) -> float:
        """Drives of a rank: its node's over the ranks that share them."""
        machine: ClusterSpec = self.machines[rank]
        return machine.nvme.capacity / self.fullest[int(self.machine[rank])] if machine.nvme else 0.0

    def host_part(self, rank: int) -> float:
        """Host memory of a rank: its node's DRAM over the ranks that share it, on the fullest node of its type."""
        machine: ClusterSpec = self.machines[rank]
        return machine.host.dram / self.fullest[int(self.machine[rank])]


def _weigh(scenario: Scenario, workload: Workload, where: str) -> Weight:
    """The peak that comes nearest to its capacity, or exceeds it most, over programs and the machines they run on."""
    seats = _Seats(scenario)
    peaks = [peak(program, where) for program in workload.programs]
    rows: dict[tuple[int, int], Weight] = {}
    lives = zip(workload.program_of_rank.tolist(), seats.machine.tolist(), strict=True)
    for rank, (program, machine) in enumerate(lives):
        if (program, machine) not in rows:
            part = {"gpu": seats.gpu_part, "host": seats.host_part, "nvme": seats.drives_part}[where]
            capacity = part(rank)
            top = peaks[program]
            rows[program, machine] = Weight(where=where, peak=top.size, at_peak=top.by_owner, capacity=capacity)
    return max(rows.values(), key=lambda one: one.peak / one.capacity if one.capacity else one.peak)
