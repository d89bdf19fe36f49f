"""The program of a rank as a Chakra execution trace: the same step, to be run by another simulator.

Owns the translation of ops into nodes of the published schema (MLCommons Chakra, ``et_def.proto``, 0.0.4): a file of
length-delimited messages, a ``GlobalMetadata`` and then a ``Node`` each. What an op waits for are data dependencies:
the op before it in its stream, its own dependencies, events of its rank, and a host that was held. Computing carries
the duration that it has alone, its FLOPs (``num_ops``) and bytes (``tensor_size``); exchanges carry sizes and no time,
which is for whoever runs the trace. Launches of the host are left out.

Sizes: of an all-gather the shard, of other collectives the whole buffer, of an all-to-all what one rank sends, of a
message its bytes. A ring step is a send to the next and a receive from the one before. Durations are whole
microseconds; their ends are rounded, so that sums stay right.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim.export import wire
from sim.plan import Plan, PlanOp
from sim.workload.ops import Collective, Copy, HostWork, Kernel, Op, RankProgram, Workload

SCHEMA = "0.0.4"
LOAD, STORE, COMPUTE, SEND, RECEIVE, COLLECTIVE = 2, 3, 4, 5, 6, 7
"""``NodeType``."""
_COLLECTIVES = {"all_reduce": 0, "all_gather": 2, "broadcast": 5, "all_to_all": 6, "reduce_scatter": 7}
"""``CollectiveCommType``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a trace is made from: all programs, their costs (``plan``, unmerged), and the rank class of every rank."""

    workload: Workload
    plan: Plan
    rank_class: NDArray[np.int64]


def write_traces(program: Program, ranks: tuple[int, ...], out: Path) -> Iterator[Path]:
    """Write ``chakra.N.et`` for each rank, and ``comm_groups.json``: process groups by number, with their ranks."""
    groups = _Groups(program.workload)
    for rank in ranks:
        path = out / f"chakra.{rank}.et"
        with path.open("wb") as file:
            file.write(wire.delimited(wire.text(1, SCHEMA)))
            for node in _Trace(program, rank, groups).nodes():
                file.write(wire.delimited(node))
        yield path
    path = out / "comm_groups.json"
    path.write_text(json.dumps(groups.used, indent=1) + "\n", "utf-8")
    yield path


class _Groups:
    """Process groups by axis and rank, numbered from 1 over all axes; those that were asked for."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.begin: dict[str, int] = {}
        total = 1
        for axis, rows in workload.groups.items():
            self.begin[axis] = total
            total += len(rows)
        self.row: dict[str, NDArray[np.int64]] = {}
        self.used: dict[str, list[int]] = {}

    def of(self, axis: str, rank: int) -> tuple[str, list[int]]:
        """The name and the members of a rank's group; a rank outside of all of them is alone."""
        rows = self.workload.groups.get(axis)
        if rows is None:
            return "", [rank]
        if axis not in self.row:
            row = np.full(len(self.workload.program_of_rank), -1, dtype=np.int64)
            row[rows.reshape(-1)] = np.repeat(np.arange(len(rows)), rows.shape[1])
            self.row[axis] = row
        at = int(self.row[axis][rank])
        if at < 0:
            return "", [rank]
        members: list[int] = rows[at].tolist()
        name = str(self.begin[axis] + at)
        self.used[name] = members
        return name, members


@dataclass(slots=True)
class _State:
    """Where a program stands: the last nodes of each stream and of each signal, nodes of a held host, the clock."""

    next: int = 0
    tails: dict[str, tuple[int, ...]] = field(default_factory=dict)
    signals: dict[str, tuple[int, ...]] = field(default_factory=dict)
    held: tuple[int, ...] = ()
    clock: dict[str, float] = field(default_factory=dict)
    messages: dict[tuple[int, int], int] = field(default_factory=dict)


class _Trace:
    """The nodes of one rank, one after another."""

    def __init__(self, program: Program, rank: int, groups: _Groups) -> None:
        workload, number = program.workload, int(program.rank_class[rank])
        self.rank = rank
        self.groups = groups
        self.program: RankProgram = workload.programs[int(workload.program_of_rank[rank])]
        self.costs = program.plan.ranks[number].blocks
        self.rows = program.plan.ops
        self.state = _State()

    def nodes(self) -> Iterator[bytes]:
        """Every op of every action, in the order in which the host issues them."""
        for action in self.program.actions:
            block, costs = self.program.blocks[action.block].ops, self.costs[action.block]
            done: list[tuple[int, ...]] = []
            for op, cost in zip(block, costs, strict=True):
                waits = self._waits(op, done)
                made = list(self._made(op, cost, waits))
                ids = tuple(range(self.state.next, self.state.next + len(made)))
                yield from (wire.number(1, one) + node if one else node for one, node in zip(ids, made, strict=True))
                self.state.next += len(made)
                self._after(op, ids, done)

    def _waits(self, op: Op, done: list[tuple[int, ...]]) -> tuple[int, ...]:
        state = self.state
        found = dict.fromkeys(state.tails.get(op.stream, ()))
        found |= dict.fromkeys(one for index in op.deps for one in done[index])
        found |= dict.fromkeys(one for name in op.waits for one in state.signals.get(name, ()))
        found |= dict.fromkeys(state.held)
        return tuple(sorted(found))

    def _after(self, op: Op, ids: tuple[int, ...], done: list[tuple[int, ...]]) -> None:
        state = self.state
        done.append(ids)
        state.tails[op.stream] = ids
        for name in op.signals:
            state.signals[name] = ids
        if op.sync:
            state.held = ids

    def _made(self, op: Op, cost: PlanOp, waits: tuple[int, ...]) -> Iterator[bytes]:
        """The nodes of an op, without their numbers: one, or two of a ring step."""
        work = op.work
        if isinstance(work, Collective):
            yield from self._exchange(op, work, waits)
            return
        attributes = _attribute("is_cpu_op", 27, int(isinstance(work, HostWork)))
        kind = COMPUTE
        if isinstance(work, Copy):
            kind = LOAD if work.direction in ("h2d", "nvme_read") else STORE
            attributes += _attribute("tensor_size", 13, round(work.size))
        elif isinstance(work, Kernel | HostWork):
            size = self.rows[cost.row].size
            attributes += _attribute("num_ops", 9, round(work.flops)) + _attribute("tensor_size", 13, round(size))
        seconds = cost.latency + cost.duration if work is not None else 0.0
        yield _node(op.name, kind, waits, self._micros(op.stream, seconds), attributes)

    def _micros(self, stream: str, seconds: float) -> int:
        """Whole microseconds such that the sum over a stream is right."""
        before = self.state.clock.get(stream, 0.0)
        self.state.clock[stream] = before + seconds
        return round((before + seconds) * 1e6) - round(before * 1e6)

    def _exchange(self, op: Op, work: Collective, waits: tuple[int, ...]) -> Iterator[bytes]:
        name, members = self.groups.of(work.axis, self.rank)
        common = _attribute("is_cpu_op", 27, 0)
        if len(members) < 2:
            yield _node(op.name, COMPUTE, waits, 0, common)
            return
        if work.kind in _COLLECTIVES:
            size = work.size / len(members) if work.kind == "all_gather" else work.size
            attributes = common + _attribute("comm_type", 9, _COLLECTIVES[work.kind])
            attributes += _attribute("comm_size", 9, round(size)) + _attribute("pg_name", 29, name)
            yield _node(op.name, COLLECTIVE, waits, 0, attributes)
            return
        at = members.index(self.rank)
        if work.kind == "ring_step":
            ways = [(self.rank, members[(at + 1) % len(members)]), (members[at - 1], self.rank)]
        else:
            ways = [(members[0], members[1])]
        for source, target in ways:
            kind = SEND if source == self.rank else RECEIVE
            tag = self.state.messages.get((source, target), 0)
            self.state.messages[source, target] = tag + 1
            attributes = common + _attribute("comm_src", 7, source) + _attribute("comm_dst", 7, target)
            attributes += _attribute("comm_tag", 7, tag) + _attribute("comm_size", 9, round(work.size))
            yield _node(op.name, kind, waits, 0, attributes)


def _node(name: str, kind: int, waits: tuple[int, ...], micros: int, attributes: bytes) -> bytes:
    """A ``Node`` but for its number. Zeros are left out."""
    duration = wire.number(7, micros) if micros else b""
    return wire.text(2, name) + wire.number(3, kind) + wire.packed(5, waits) + duration + attributes


def _attribute(name: str, field_number: int, value: int | str) -> bytes:
    """An ``AttributeProto``: int32 is field 7, int64 9, uint64 13, bool 27, string 29."""
    said = wire.text(field_number, value) if isinstance(value, str) else wire.number(field_number, value)
    return wire.block(10, wire.text(1, name) + said)
