"""HOW MUCH of which resource each op needs: a workload on a cluster becomes a plan for the engine.

Workload and cluster meet here. Owns the translation of every kind of work into latency, duration and loads of
resource classes, and the tables of names that travel on to the timeline.

Loads. An activity of one member that asks ``amount`` of a resource and takes ``duration`` alone loads it by
``amount / (capacity * duration)``. A class of ``count`` such activities meets each member of a resource class
``count / size`` times as often as its representative meets the whole class: that is the load in the plan.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from sim.cluster.types import Cluster, Place
from sim.cost.classes import Classes, GroupClass, classify
from sim.cost.copies import copy_cost, host_cost
from sim.cost.demand import demand
from sim.cost.kernels import KernelCost, kernel_cost
from sim.cost.merge import Run, joined, runs
from sim.cost.placing import Placing, placing
from sim.cost.traffic import CollectiveCost
from sim.mesh import Mesh
from sim.plan import Plan, PlanOp, RankPlan
from sim.spec.types import LayoutSpec, Scenario
from sim.timeline.columns import MemoryRow, OpRow, RankClassRow, ResourceRow
from sim.workload.ops import (
    Block,
    Collective,
    Copy,
    HostWork,
    Kernel,
    MemoryEffect,
    Op,
    RankProgram,
    Work,
    Workload,
)

DMA_WEIGHT = 8.0
"""Weight of copies and collectives against compute kernels (1): they hold the SMs they run on and their share of memory
bandwidth while a GEMM's blocks take turns. Any weight that lets them saturate first gives the same speeds."""

STREAM_FRACTION = 0.7
"""Share of STREAM bandwidth of plain CPU passes over memory: the 2020 ZeRO-Offload log unscales 10.27e9 fp32
gradients (8 bytes each) in 1.1-1.2 s beside about 100 GB/s of STREAM a socket."""

STREAMS = ("compute", "tp", "cp", "ep", "dp", "gather", "h2d", "d2h", "cpu", "nvme")
"""Streams in the order in which they are shown; a workload's other streams follow as it names them."""


class _Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What one op costs a rank class: seconds, (resource class, load) pairs, (resource class, amount) of one member."""

    kind: str
    latency: float = 0.0
    duration: float = 0.0
    loads: tuple[tuple[int, float], ...] = ()
    demands: tuple[tuple[int, float], ...] = ()
    bound_by: int = -1
    weight: float = 1.0
    launch: float = 0.0
    flops: float = 0.0
    size: float = 0.0
    group_size: int = 1
    kernels: int = 1
    reach: float = 0.0
    parts: tuple[tuple[int, float], ...] = ()


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """An op of a block, or a run of kernels as one: what it is for every rank class that runs the block.

    ``key`` is the identity of its work; the rest is as in ``PlanOp`` and ``OpRow``.
    """

    ops: list[Op]
    key: object
    stream: int
    name: str
    layer: int
    memory: tuple[MemoryRow, ...]
    deps: tuple[int, ...]
    waits: tuple[int, ...]
    signals: tuple[int, ...]
    sync: bool


MERGE_ABOVE = 250_000
"""Ops of a step above which runs of kernels are merged, unless the caller says which."""

LONG_QUEUE = 1024
"""Kernels in the launch queue below which no runs are merged: a run is launched whole, whatever room there is."""


def lower(
    workload: Workload, cluster: Cluster, scenario: Scenario, *, fold: bool = True, merged: bool | None = None
) -> Plan:
    """The plan of one step. ``fold=False`` simulates every rank; ``merged``: runs of kernels as one op (see ``merge``).

    Raises:
        InfeasibleError: ranks that must communicate have no route.
    """
    placed = placing(scenario.layout.world, scenario.layout.placement, cluster)
    classes = classify(workload, cluster, placed, fold=fold)
    if scenario.stack.launch_queue < LONG_QUEUE:
        merged = False
    elif merged is None:
        merged = _ops(workload, classes) > MERGE_ABOVE
    return _Lowering(workload, cluster, scenario, placed, classes, merged=merged).plan()


def _ops(workload: Workload, classes: Classes) -> int:
    """Spans that the step would have with every kernel an op of its own."""
    sizes = [sum(len(program.blocks[action.block].ops) for action in program.actions) for program in workload.programs]
    return sum(sizes[int(workload.program_of_rank[first])] for first in classes.first.tolist())


class _Lowering:
    def __init__(
        self, workload: Workload, cluster: Cluster, scenario: Scenario, placed: Placing, classes: Classes,
        *, merged: bool,
    ) -> None:  # fmt: skip
        self.placed = placed
        self.merged = merged
        self.workload = workload
        self.cluster = cluster
        self.scenario = scenario
        self.classes = classes
        self.streams = stream_names(workload)
        self.stage = _pipeline_ranks(scenario.layout)
        self.stream_of = {name: number for number, name in enumerate(self.streams)}
        self.alone: dict[tuple[int, int], KernelCost] = {}  # by kind of node and the kernel's identity
        self.joined: dict[object, Run] = {}
        self.parts: dict[int, list[_Part]] = {}  # by identity of a block
        self.ops: list[OpRow] = []
        self.tokens: dict[str, int] = {}
        self.collectives: dict[tuple[int, Collective], _Cost] = {}  # (group class, work) -> cost
        self.meetings: dict[tuple[int, int], int] = {}  # (group class, stream) -> rendezvous
        self.meeting_sizes: list[int] = []

    def plan(self) -> Plan:
        ranks = tuple(self._rank(c) for c in range(len(self.classes.members)))
        return Plan(
            ranks=ranks,
            group_sizes=tuple(self.meeting_sizes),
            token_names=tuple(self.tokens),
            ops=tuple(self.ops),
            rank_classes=tuple(self._class_row(c) for c in range(len(ranks))),
            resources=self._resources(),
            stream_names=self.streams,
            launch_queue=self.scenario.stack.launch_queue,
        )

    # -- tables -----------------------------------------------------------------------------------------------------

    def _program(self, rank_class: int) -> RankProgram:
        return self.workload.programs[int(self.workload.program_of_rank[self.classes.first[rank_class]])]

    def _class_row(self, rank_class: int) -> RankClassRow:
        first = int(self.classes.first[rank_class])
        node, gpu = self.placed.at(first)
        program = self._program(rank_class)
        return RankClassRow(
            name=f"rank {first}",
            members=int(self.classes.members[rank_class]),
            representative=first,
            device=f"n{node}.gpu{gpu}",
            resident_gpu=program.resident_gpu,
            resident_host=program.resident_host,
            resident_nvme=program.resident_nvme,
            stage=int(self.stage[first]),
        )

    def _resources(self) -> tuple[ResourceRow, ...]:
        rows = []
        first = self.classes.resource_first
        capacities = self.cluster.capacities(first).tolist()
        for number, size, capacity in zip(first.tolist(), self.classes.resource_size.tolist(), capacities, strict=True):
            resource = self.cluster.resource(number)
            rows.append(
                ResourceRow(
                    name=self.cluster.name_of(number),
                    kind=resource.kind,
                    capacity=capacity,
                    unit=resource.unit,
                    members=size,
                )
            )
        return tuple(rows)

    # -- programs ---------------------------------------------------------------------------------------------------

    def _rank(self, rank_class: int) -> RankPlan:
        program = self._program(rank_class)
        costs: dict[object, _Cost] = {}  # by identity: blocks share the kernels of their layers
        blocks = tuple(self._block(block, rank_class, costs) for block in program.blocks)
        actions = tuple((a.block, a.microbatch) for a in program.actions)
        return RankPlan(blocks=blocks, actions=actions, streams=len(self.streams))

    def _block(self, block: Block, rank_class: int, costs: dict[object, _Cost]) -> tuple[PlanOp, ...]:
        if id(block) not in self.parts:  # many classes run one program
            self.parts[id(block)] = self._parts(block.ops)
        return tuple(self._op(part, rank_class, costs) for part in self.parts[id(block)])

    def _parts(self, ops: Sequence[Op]) -> list[_Part]:
        """Ops of a block, or runs of kernels as one each; dependencies by the numbers that these have in the plan."""
        groups = runs(ops) if self.merged else [[i] for i in range(len(ops))]
        number = {index: new for new, group in enumerate(groups) for index in group}
        return [self._part([ops[i] for i in group], number) for group in groups]

    def _part(self, ops: list[Op], number: dict[int, int]) -> _Part:
        first, last, stream = ops[0], ops[-1], self.stream_of[ops[0].stream]
        return _Part(
            ops=ops,
            key=id(first.work) if len(ops) == 1 else tuple(id(op.work) for op in ops),
            stream=stream,
            name=first.name if len(ops) == 1 else f"{first.name} ... {last.name}",
            layer=first.layer if first.layer == last.layer else -1,
            memory=tuple(_memory(effect) for op in ops for effect in op.memory),
            deps=tuple(number[d] for d in first.deps),
            waits=tuple(self.tokens.setdefault(t, len(self.tokens)) for t in first.waits),
            signals=tuple(self.tokens.setdefault(t, len(self.tokens)) for t in last.signals),
            sync=last.sync or self._blocks(first.work),
        )

    def _op(self, part: _Part, rank_class: int, costs: dict[object, _Cost]) -> PlanOp:
        cost = costs.get(part.key)
        if cost is None:
            cost = costs[part.key] = self._cost(part.ops, rank_class)
        work = part.ops[0].work
        self.ops.append(_row(part, cost, rank_class))
        return PlanOp(
            row=len(self.ops) - 1,
            stream=part.stream,
            latency=cost.latency,
            duration=cost.duration,
            loads=cost.loads,
            weight=cost.weight,
            launch=cost.launch,
            launch_rest=cost.launch * (cost.kernels - 1),
            reach=cost.reach,
            kernels=0 if isinstance(work, Collective) and work.kind == "send_recv" else cost.kernels,
            deps=part.deps,
            waits=part.waits,
            signals=part.signals,
            sync=part.sync,
            group=self._meeting(work, rank_class, part.stream) if isinstance(work, Collective) else -1,
        )

    def _blocks(self, work: Work | None) -> bool:
        """Whether the host waits for the end of this work. Never for a message, which waits for another rank's host."""
        if not self.scenario.stack.blocking_launches or work is None:
            return False
        return not (isinstance(work, Collective) and work.kind == "send_recv")

    def _meeting(self, work: Collective, rank_class: int, stream: int) -> int:
        """The rendezvous of a collective; none when all its members are of one class and so arrive together."""
        group = self._group(work, rank_class)
        if group < 0:
            return -1
        key = (group, stream)
        if key not in self.meetings:
            met = np.unique(self.classes.rank_class[list(self.classes.groups[group].members)])
            self.meetings[key] = len(self.meeting_sizes) if len(met) > 1 else -1
            if len(met) > 1:
                self.meeting_sizes.append(len(met))
        return self.meetings[key]

    def _group(self, work: Collective, rank_class: int) -> int:
        of_class = self.classes.group_of_class.get(work.axis)
        return -1 if of_class is None else of_class[rank_class]

    # -- costs ------------------------------------------------------------------------------------------------------

    def _cost(self, ops: Sequence[Op], rank_class: int) -> _Cost:
        work = ops[0].work
        if isinstance(work, Kernel):
            return self._kernels([op.work for op in ops if isinstance(op.work, Kernel)], rank_class)
        if isinstance(work, Collective):
            return self._collective(work, rank_class)
        if isinstance(work, Copy):
            node, place = self._place(rank_class)
            cost = copy_cost(work.direction, work.size, place, self.cluster, node, pinned=work.pinned)
            launch = self._launch(rank_class)
            return self._rank_cost(cost, rank_class, work.direction, DMA_WEIGHT, size=work.size, launch=launch)
        if isinstance(work, HostWork):
            return self._host(work, rank_class)
        return _Cost(kind="none")

    def _place(self, rank_class: int) -> tuple[int, Place]:
        """The node of a class's representative, and what its GPU meets there."""
        node, gpu = self.placed.at(int(self.classes.first[rank_class]))
        return node, self.cluster.node(node).places[gpu]

    def _kind(self, rank_class: int) -> int:
        return int(self.placed.kind[self.classes.first[rank_class]])

    def _launch(self, rank_class: int) -> float:
        """Seconds of the host for one launch, on the rank's own host."""
        host = self.cluster.kinds[self._kind(rank_class)].spec.host
        return host.launch * self.scenario.stack.launch_factor

    def _kernels(self, works: Sequence[Kernel], rank_class: int) -> _Cost:
        """SMs are taken for as long as kernels run; HBM by the bytes they move. A slow GPU takes longer."""
        node, place = self._place(rank_class)
        kind, launch = self._kind(rank_class), self._launch(rank_class)
        ids = np.array([self.cluster.at(node, place.sm), self.cluster.at(node, place.hbm)], dtype=np.int64)
        sm_speed, hbm_rate = self.cluster.capacities(ids).tolist()
        usual = self.cluster.kinds[kind].spec.device.hbm_bandwidth
        run = self._joined(works, kind, launch, (sm_speed, hbm_rate / usual))
        cost = CollectiveCost(
            latency=0.0,
            duration=run.duration,
            ids=ids,
            amounts=np.array([run.duration * sm_speed, min(run.moved, run.duration * hbm_rate)]),
            sm_load=0.0,
            bound_by=int(ids[0] if 2 * run.arithmetic >= run.duration else ids[1]),
        )
        said = works[0].kind if run.kernels == 1 else "kernels"
        found = self._rank_cost(cost, rank_class, said, 1.0, size=run.moved, flops=run.flops, launch=launch)
        if run.kernels == 1:
            return found
        share = run.arithmetic / run.duration if run.duration > 0.0 else 0.0
        sm, hbm = self.classes.resource_class[ids].tolist()
        return replace(found, kernels=run.kernels, reach=run.reach, parts=((sm, share), (hbm, 1.0 - share)))

    def _joined(self, works: Sequence[Kernel], kind: int, launch: float, speeds: tuple[float, float]) -> Run:
        """Kernels in a row on a device of these speeds: looked up, since stages share the kernels of their layers."""
        key = (kind, speeds, tuple(id(work) for work in works))
        if key not in self.joined:
            costs, blocking = [self._alone(work, kind) for work in works], self.scenario.stack.blocking_launches
            self.joined[key] = joined(works, costs, launch, speeds, blocking=blocking)
        return self.joined[key]

    def _alone(self, work: Kernel, kind: int) -> KernelCost:
        if (kind, id(work)) not in self.alone:
            device, stack = self.cluster.kinds[kind].spec.device, self.scenario.stack
            sustained = stack.sustained.get(device.name, 1.0)
            self.alone[kind, id(work)] = kernel_cost(
                work, device, stack.attention, sustained, vectorised=stack.vectorised
            )
        return self.alone[kind, id(work)]

    def _host(self, work: HostWork, rank_class: int) -> _Cost:
        node, place = self._place(rank_class)
        fraction = self.scenario.stack.cpu_adam_fraction if work.kind == "adam" else STREAM_FRACTION
        sharing = float(self.placed.sharing[self.classes.first[rank_class]])
        cost = host_cost(
            work.size,
            place,
            self.cluster,
            node,
            ranks_per_socket=sharing,
            fraction=fraction,
            threads=self.scenario.offload.threads,
        )
        return self._rank_cost(cost, rank_class, work.kind, 1.0, size=work.size, flops=work.flops)

    def _rank_cost(
        self, cost: CollectiveCost, rank_class: int, kind: str, weight: float, *, size: float, flops: float = 0.0,
        launch: float = 0.0,
    ) -> _Cost:  # fmt: skip
        """An activity of every member of a rank class, each on its own device."""
        classes, shares, amounts = self._by_class(cost.ids, cost.amounts, int(self.classes.members[rank_class]))
        return _Cost(
            kind=kind,
            latency=cost.latency,
            duration=cost.duration,
            loads=_loads(classes, shares, cost.duration),
            demands=tuple(zip(classes, amounts, strict=True)),
            bound_by=-1 if cost.bound_by < 0 else int(self.classes.resource_class[cost.bound_by]),
            weight=weight,
            launch=launch,
            flops=flops,
            size=size,
        )

    def _collective(self, work: Collective, rank_class: int) -> _Cost:
        """The same for all members, and for all layers of one size: a ring over thousands of ranks is walked once."""
        number = self._group(work, rank_class)
        if number < 0:
            return _Cost(kind=work.kind, size=work.size)
        key = (number, work)
        if key not in self.collectives:
            self.collectives[key] = self._ring(work, self.classes.groups[number])
        cost, stack, launch = self.collectives[key], self.scenario.stack, self._launch(rank_class)
        if work.kind == "send_recv":  # neither checked nor joined: there is no third rank to ask or to come late
            return replace(cost, launch=launch)
        launch += stack.collective_check * cost.group_size
        return replace(cost, launch=launch, latency=cost.latency + stack.handover)

    def _ring(self, work: Collective, group: GroupClass) -> _Cost:
        """One activity for the whole group, on the links that its ring crosses and a share of every member's SMs."""
        where = [self.placed.at(r) for r in group.members]
        cost = demand(work, where, self.cluster)
        cluster = self.cluster
        sms = np.array([cluster.at(node, cluster.node(node).places[gpu].sm) for node, gpu in where], dtype=np.int64)
        ids = np.concatenate([cost.ids, sms])
        amounts = np.concatenate([cost.amounts, np.full(len(sms), cost.sm_load)])
        classes, shares, totals = self._by_class(ids, amounts, group.count)
        return _Cost(
            kind=work.kind,
            latency=cost.latency,
            duration=cost.duration,
            loads=_loads(classes, shares, cost.duration),
            demands=tuple((c, total / len(where)) for c, total in zip(classes, totals, strict=True)),
            bound_by=int(self.classes.resource_class[cost.bound_by]),
            weight=DMA_WEIGHT,
            size=work.size,
            group_size=len(where),
        )

    def _by_class(
        self, ids: NDArray[np.int64], amounts: NDArray[np.float64], count: int
    ) -> tuple[list[int], list[float], list[float]]:
        """Resource classes met; seconds that ``count`` activities ask of one member of each; amounts that one asks."""
        of = self.classes.resource_class[ids]
        assert (of >= 0).all(), "an activity meets a resource that the folding has not seen"
        width = len(self.classes.resource_size)
        totals = np.bincount(of, weights=amounts, minlength=width)
        seconds = np.bincount(of, weights=amounts / self.cluster.capacities(ids), minlength=width)
        met = np.unique(of)
        each = seconds[met] * count / self.classes.resource_size[met]
        return met.tolist(), each.tolist(), totals[met].tolist()


def _pipeline_ranks(layout: LayoutSpec) -> NDArray[np.int64]:
    """Pipeline rank of each rank."""
    sizes = {axis: int(getattr(layout, axis)) for axis in layout.order}
    return Mesh(sizes=sizes, order=layout.order).coordinate("pp")


def stream_names(workload: Workload) -> tuple[str, ...]:
    """Streams that any program uses: the usual ones in their order, then messages between stages, by name."""
    used = {op.stream: None for program in workload.programs for block in program.blocks for op in block.ops}
    return (*(s for s in STREAMS if s in used), *sorted(s for s in used if s not in STREAMS))


def _loads(classes: list[int], seconds: list[float], duration: float) -> tuple[tuple[int, float], ...]:
    if duration <= 0.0:
        return ()
    return tuple((c, s / duration) for c, s in zip(classes, seconds, strict=True) if s > 0.0)


def _row(part: _Part, cost: _Cost, rank_class: int) -> OpRow:
    first = part.ops[0]
    return OpRow(
        name=part.name,
        kind=cost.kind,
        category=first.category,
        phase=first.phase,
        rank_class=rank_class,
        stream=part.stream,
        layer=part.layer,
        flops=cost.flops,
        size=cost.size,
        latency=cost.latency,
        duration=cost.duration,
        bound_by=cost.bound_by,
        demands=cost.demands,
        memory=part.memory,
        group_size=cost.group_size,
        kernels=cost.kernels,
        reach=cost.reach,
        parts=cost.parts,
    )


def _memory(effect: MemoryEffect) -> MemoryRow:
    return MemoryRow(owner=effect.owner, size=effect.size, at_end=effect.at == "end", where=effect.where)
