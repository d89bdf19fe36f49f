"""The program of one pipeline rank: its actions in the order of the schedule, each lowered to a block.

Owns what an action consists of: messages in, gathers, the work of its units, memory, gradients, messages out. Blocks
are templates: one for each kind of action, stage, direction (of a schedule with two copies of the parameters) and role
in accumulation (first, last), shared by all microbatches. An overlap is a forward and a backward woven into one block
(``weave``), which bears the forward's microbatch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sim.spec.types import DTYPE_BYTES, Scenario
from sim.workload.block import BlockBuilder
from sim.workload.gather import Gathers, window
from sim.workload.grads import GradientStream
from sim.workload.kernels import accumulate_grads, split_backward
from sim.workload.ops import Action, Block, Collective, Phase
from sim.workload.policy import policies_for
from sim.workload.refresh import refresh
from sim.workload.schedules.types import ActionKind, Schedule, ScheduleAction
from sim.workload.stash_offload import StashOffload
from sim.workload.units import Unit, shape_of
from sim.workload.weave import weave

ALLOCATOR = "allocator"
WORKSPACE = "activations.workspace"


class _Pass(NamedTuple):
    """What makes the block of a pass: F, B, I or W, where, which way, and whether its gradients are first or last.

    NOTE: one is made and looked up for each action of a step; a dataclass hashes several times slower.
    """

    kind: ActionKind
    stage: int
    direction: int
    first: bool
    last: bool

    @property
    def source(self) -> int:
        """The stage that its message comes from."""
        return self.stage - 1 if self.kind == "F" else self.stage + 1

    @property
    def target(self) -> int:
        """The stage that its message goes to."""
        return self.stage + 1 if self.kind == "F" else self.stage - 1


class PipelineRank:
    """Builds the blocks and actions of pipeline rank ``rank``."""

    def __init__(self, scenario: Scenario, schedule: Schedule, stages: Sequence[tuple[Unit, ...]], rank: int) -> None:
        self.scenario = scenario
        self.schedule = schedule
        self.stages = stages
        self.rank = rank
        self.policies = policies_for(scenario)
        self.adjacent = scenario.layout.pp == 1  # the backward of a microbatch follows its forward at once
        self.blocks: list[Block] = []
        self.index: dict[tuple[_Pass, ...], int] = {}
        self.actions: list[Action] = []

    def build(self) -> None:
        """Fill ``blocks`` and ``actions`` with the schedule's order."""
        order = self.schedule.orders[self.rank]
        grads = [part for action in order for part in action.parts if part.kind in ("B", "W")]
        firsts = {part.stage: part for part in reversed(grads)}
        lasts = {part.stage: part for part in grads}
        opens, direction = self._opens(order), self.schedule.direction
        for action in order:
            passes = tuple(
                [
                    _Pass(
                        part.kind,
                        part.stage,
                        direction(part.microbatch),
                        part is firsts.get(part.stage) or part is opens.get(part.stage),
                        lasts.get(part.stage) is part,
                    )
                    for part in action.pair or (action,)
                ]
            )
            if passes not in self.index:
                self.index[passes] = len(self.blocks)
                blocks = [self._block(one) for one in passes]
                self.blocks.append(blocks[0] if len(blocks) == 1 else weave(*blocks))
            self.actions.append(Action(block=self.index[passes], microbatch=action.microbatch))

    def _opens(self, order: Sequence[ScheduleAction]) -> dict[int, ScheduleAction]:
        """The first forward of each stage, where that gathers what the last step updated."""
        parts = [part for action in order for part in action.parts if part.kind == "F"]
        return {part.stage: part for part in reversed(parts)} if self.scenario.layout.overlap_param_gather else {}

    def _block(self, one: _Pass) -> Block:
        if one.kind == "F":
            return self._forward(one)
        if one.kind == "W":
            return self._weights(one)
        return self._backward(one)

    # -- messages ---------------------------------------------------------------------------------------------------

    def _receive(self, block: BlockBuilder, one: _Pass, phase: Phase) -> tuple[int, ...]:
        """Wait for the message of the stage before; nothing where there is none, or both stages are here."""
        source, target = one.source, one.stage
        if not self._travels(source, target, one.direction):
            return ()
        name, stream = f"receive {source}>{target}", _boundary(source, target, one.direction)
        after = block.side(name, self._message(source, target, one.direction), stream, phase, "pp")
        if self.scenario.layout.scatter_gather and self.scenario.layout.tp > 1:
            whole = Collective(kind="all_gather", axis="tp", size=self._activation())
            after = block.side("gather message", whole, "tp", phase, "tp", deps=(after,))
        if self.scenario.stack.p2p_waits:
            block.edit(after, sync=True)
        return (after,)

    def _send(self, block: BlockBuilder, one: _Pass, after: int, phase: Phase) -> None:
        """Send what op ``after`` made. Receives are posted ahead; without overlap the sender's kernels wait."""
        source, target = one.stage, one.target
        if not self._travels(source, target, one.direction):
            return
        name, stream = f"send {source}>{target}", _boundary(source, target, one.direction)
        message = self._message(source, target, one.direction)
        sent = block.side(name, message, stream, phase, "pp", deps=(after,))
        if not self.scenario.layout.p2p_overlap:
            block.marker("message sent", phase, deps=(sent,))

    def _travels(self, source: int, target: int, direction: int) -> bool:
        """Whether there are two such stages, on two ranks."""
        there = range(len(self.stages))
        home = self.schedule.home_in
        return source in there and target in there and home(source, direction) != home(target, direction)

    def _activation(self) -> float:
        """Bytes of a microbatch's activation on a context-parallel rank, whole over tensor-parallel ranks."""
        scenario = self.scenario
        tokens = scenario.batch.micro * scenario.batch.sequence / scenario.layout.cp
        return tokens * scenario.model.hidden * DTYPE_BYTES[scenario.precision.compute]

    def _message(self, source: int, target: int, direction: int) -> Collective:
        layout = self.scenario.layout
        parts = layout.tp if layout.sequence_parallel or layout.scatter_gather else 1
        home = self.schedule.home_in
        axis = f"p2p.{home(source, direction)}.{home(target, direction)}"
        return Collective(kind="send_recv", axis=axis, size=self._activation() / parts)

    # -- passes -----------------------------------------------------------------------------------------------------

    def _gathers(self, block: BlockBuilder, units: Sequence[Unit], *, forward: bool) -> Gathers:
        layout, away = self.scenario.layout, self.scenario.offload.parameters != "none"
        gathers = Gathers(
            block,
            units,
            phase="F" if forward else "B",
            param_bytes=self.scenario.precision.param_bytes,
            prefetch=window(units, layout.prefetch, layout.live_parameters),
            policies=[p for p in self.policies if layout.zero == 3 and (p.ranks > 1 or away)],
            scenario=self.scenario,
        )
        if not forward:
            (gathers.skip_roots if layout.reshard_after_forward else gathers.skip_all)()
            if self.adjacent:
                gathers.follow()
        return gathers

    def _refresh(self, block: BlockBuilder, units: Sequence[Unit], *, first: bool) -> list[dict[int, int]]:
        """The first forward of a stage may gather what the last step updated: unit -> the gather that it waits for."""
        layout = self.scenario.layout
        wanted = [policy for policy in self.policies if first and layout.overlap_param_gather and policy.ranks > 1]
        return [refresh(block, units, policy, scenario=self.scenario) for policy in wanted]

    def _forward(self, one: _Pass) -> Block:
        block, units = BlockBuilder(f"forward {one.stage}"), self.stages[one.stage]
        updates = self._refresh(block, units, first=one.first)
        arrived = self._receive(block, one, "F")
        gathers, stash = self._gathers(block, units, forward=True), self._stash(block)
        last = -1
        for position, unit in enumerate(units):
            fresh = [gathered[position] for gathered in updates if position in gathered]
            deps = (*gathers.need(position), *fresh, *(arrived if position == 0 else ()))
            first, last = block.items(unit.forward, "F", layer=unit.layer, deps=deps)
            self._take(block, first, unit.kept)
            if stash.moves(unit):
                self._free(block, stash.leave(unit, last), unit.kept)
            block.takes(first, WORKSPACE, unit.forward_workspace)
            block.frees(last, WORKSPACE, unit.forward_workspace)
            gathers.done(position, last, free=self.scenario.layout.reshard_after_forward and not unit.root)
        if self.adjacent:
            gathers.announce()
        if not units:  # a stage that holds nothing passes on what arrives
            last = block.marker("passes on", "F", deps=arrived)
        self._send(block, one, last, "F")
        return block.block()

    def _backward(self, one: _Pass) -> Block:
        """B: both gradients; I: input gradients alone, what weight gradients need stays.

        With ZeRO 0 and 1 gradients are reduced on the last microbatch only; from ZeRO 2 on (or with gradients on the
        CPU) every microbatch's are, since no rank keeps the whole (adding a reduced part to the shard is not counted:
        it is 1/dp of the bytes).
        """
        split = one.kind == "I"
        block = BlockBuilder(f"{'input gradients' if split else 'backward'} {one.stage}")
        phase: Phase = "I" if split else "B"
        order = self.stages[one.stage][::-1]
        arrived = self._receive(block, one, phase)
        gathers = self._gathers(block, order, forward=False)
        stash = self._stash(block)
        streams = [] if split else self._streams(block, order, first=one.first, last=one.last)
        end = -1
        for position, unit in enumerate(order):
            deps = (*gathers.need(position), *stash.need(order, position), *(arrived if position == 0 else ()))
            begin = len(block.ops)
            if unit.recompute:
                block.items(unit.recompute, "R", layer=unit.layer, deps=deps)
                deps = ()
            work = split_backward(unit.backward)[0] if split else unit.backward
            opening, end = block.items(work, phase, layer=unit.layer, deps=deps)
            if not split:
                end = self._accumulate(block, unit, end, "B", first=one.first)
                self._free(block, end, _sum(unit.kept, unit.restored))
            self._take(block, begin, unit.restored)
            if stash.moves(unit):
                self._take(block, stash.begin(position, begin), unit.kept)
                stash.done(position, end)
            block.takes(opening, WORKSPACE, unit.workspace)
            block.frees(end, WORKSPACE, unit.workspace)
            gathers.done(position, end, free=True)
            for stream in streams:
                stream.unit_done(unit, opening, end)
        if not order:
            end = block.marker("passes on", phase, deps=arrived)
        self._send(block, one, end, phase)
        for stream in streams:
            stream.finish()
        gathers.hold()
        return block.block()

    def _weights(self, one: _Pass) -> Block:
        """W: weight gradients of a microbatch whose input gradients are done."""
        block = BlockBuilder(f"weight gradients {one.stage}")
        streams = self._streams(block, self.stages[one.stage], first=one.first, last=one.last)
        end = -1
        for unit in self.stages[one.stage][::-1]:
            opening, end = block.items(split_backward(unit.backward)[1], "W", layer=unit.layer)
            end = self._accumulate(block, unit, end, "W", first=one.first)
            self._free(block, end, _sum(unit.kept, unit.restored))
            for stream in streams:
                stream.unit_done(unit, opening, end)
        for stream in streams:
            stream.finish()
        return block.block()

    # -- gradients and memory ---------------------------------------------------------------------------------------

    def _streams(self, block: BlockBuilder, units: Sequence[Unit], *, first: bool, last: bool) -> list[GradientStream]:
        return [
            GradientStream(block, policy, self.scenario, units, first=first, last=last)
            for policy in self.policies
            if last or policy.transient
        ]

    def _stash(self, block: BlockBuilder) -> StashOffload:
        offload = self.scenario.offload
        on = offload.activations == "cpu"
        return StashOffload(block, on=on, pinned=offload.pinned, layers=offload.activation_layers)

    def _accumulate(self, block: BlockBuilder, unit: Unit, end: int, phase: Phase, *, first: bool) -> int:
        """Add to the gradients of earlier microbatches, where they are kept whole and no product has done it.

        What is left of a layer then, norms and biases, is too small to count; a table is not.
        """
        dense, precision = self.policies[0], self.scenario.precision
        parts = [(policy, policy.params(unit), policy.tensors(unit)) for policy in self.policies]
        if shape_of(self.scenario).adds_gradients:
            parts = [(dense, *unit.looked_up)] if unit.looked_up[0] else []
        opens = first and not self.scenario.stack.keeps_grads
        adds = [
            kernel
            for policy, params, tensors in parts
            for kernel in accumulate_grads(params, precision, tensors, first=opens or policy.transient)
        ]
        return block.items(adds, phase, layer=unit.layer)[1] if adds else end

    def _take(self, block: BlockBuilder, index: int, sizes: Mapping[str, float]) -> None:
        for owner, size in sizes.items():
            block.takes(index, owner, size)
            block.takes(index, ALLOCATOR, size * self.scenario.stack.fragmentation)

    def _free(self, block: BlockBuilder, index: int, sizes: Mapping[str, float]) -> None:
        for owner, size in sizes.items():
            block.frees(index, owner, size)
            block.frees(index, ALLOCATOR, size * self.scenario.stack.fragmentation)


def _boundary(source: int, target: int, direction: int) -> str:
    """The stream of messages across one boundary between stages: its two ends meet in the order of microbatches."""
    return f"pp.{source}>{target}{' reversed' if direction else ''}"


def _sum(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    return {owner: a.get(owner, 0.0) + b.get(owner, 0.0) for owner in dict.fromkeys([*a, *b])}
