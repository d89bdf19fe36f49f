"""Transfers and resources: bytes moved, rates reached, exposure, utilisation. Pure: timeline in, numbers out."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from sim.analysis.result import TransferUse
from sim.analysis.split import grouped
from sim.timeline.columns import OpRow, Timeline

Intervals = tuple[NDArray[np.float64], NDArray[np.float64]]

_COLLECTIVES = {"all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0, "broadcast": 1.0, "all_to_all": 1.0}


def sent_bytes(op: OpRow) -> float:
    """Bytes that one rank sends in a span of this op (a copy: bytes copied). 0 for what moves nothing between places.

    Ring all-reduce 2S(n-1)/n; all-gather and reduce-scatter S(n-1)/n of the whole buffer S; broadcast S on all but
    one hop; all-to-all S(n-1)/n of a send buffer S (rows, also where a token crosses to a node only once).
    """
    if op.kind in ("h2d", "d2h", "ring_step") or (op.kind == "send_recv" and op.name.startswith("send")):
        return op.size
    if op.kind in _COLLECTIVES and op.group_size > 1:
        return _COLLECTIVES[op.kind] * op.size * (op.group_size - 1) / op.group_size
    return 0.0


def transfers(timeline: Timeline, exposed: dict[str, float]) -> tuple[TransferUse, ...]:
    """One row for each category of copies and collectives, averaged over ranks; ``exposed`` is the breakdown."""
    sent = np.array([sent_bytes(op) for op in timeline.ops])
    found: dict[str, list[int]] = {}
    for number in np.flatnonzero(sent > 0.0).tolist():
        found.setdefault(timeline.ops[number].category, []).append(number)
    table = _Spans(timeline, sent)
    return tuple(_transfer(table, category, rows, exposed) for category, rows in sorted(found.items()))


class _Spans:
    """Of each op how often it ran, how many bytes one rank sends and how long that takes alone; intervals by op."""

    def __init__(self, timeline: Timeline, sent: NDArray[np.float64]) -> None:
        ops, spans = timeline.ops, timeline.spans
        self.timeline = timeline
        self.sent = sent
        self.times = np.bincount(spans.op, minlength=len(ops)).astype(np.float64)
        self.alone = np.array([op.latency + op.duration for op in ops])
        self.rank_class = np.array([op.rank_class for op in ops], dtype=np.int64)
        self.members = np.array([row.members for row in timeline.rank_classes], dtype=np.float64)
        held = {ops[number].bound_by for number in np.flatnonzero(sent > 0.0).tolist()}
        self.users = _users(timeline, held)
        wanted = sent > 0.0
        wanted[[number for users in self.users.values() for number in users]] = True
        there = np.flatnonzero(wanted[spans.op])
        order, begins = grouped(spans.op[there], len(ops))
        self.order, self.begins = there[order], begins.tolist()

    def sharers(self, rows: NDArray[np.int64], resource: int) -> float:
        """Ranks that use one member of a resource class for copies of their own; a group's exchange is no such copy."""
        ops = [self.timeline.ops[r] for r in rows.tolist()]
        classes = {op.rank_class for op in ops if op.group_size == 1 and any(one == resource for one, _ in op.demands)}
        if not classes:
            return 1.0
        return float(self.members[sorted(classes)].sum() / self.timeline.resources[resource].members)

    def company(self, category: str, rows: NDArray[np.int64], resource: int) -> dict[str, float]:
        """Other categories whose ops used the resource while one of these was in flight: seconds of that."""
        least = 1e-9 * self.timeline.makespan
        others: dict[str, list[int]] = {}
        for number in self.users.get(resource, ()):
            other = self.timeline.ops[number].category
            if other != category:
                others.setdefault(other, []).append(number)
        mine = self.intervals(rows.tolist()) if others else None
        found = {name: overlap(mine, self.intervals(ops)) for name, ops in others.items() if mine is not None}
        return {name: seconds for name, seconds in sorted(found.items(), key=lambda one: -one[1]) if seconds > least}

    def intervals(self, ops: Sequence[int]) -> Intervals:
        """Starts and ends of all spans of these ops."""
        mine = np.concatenate([self.order[self.begins[op] : self.begins[op + 1]] for op in ops])
        return self.timeline.spans.start[mine], self.timeline.spans.end[mine]

    def busy(self, rows: NDArray[np.int64]) -> float:
        """Seconds in which one of these ops of one rank class was in flight."""
        return union(*self.intervals(rows.tolist()))


def _users(timeline: Timeline, resources: Collection[int]) -> dict[int, list[int]]:
    """Of each of these resources the ops that ask anything of it."""
    found: dict[int, list[int]] = {}
    for number, op in enumerate(timeline.ops):
        for resource in {one for one, amount in op.demands if amount > 0 and one in resources}:
            found.setdefault(resource, []).append(number)
    return found


def _transfer(table: _Spans, category: str, rows: list[int], exposed: dict[str, float]) -> TransferUse:
    ops, ranks = np.array(rows, dtype=np.int64), table.members.sum()
    classes = table.rank_class[ops]
    weight = table.members[classes] / ranks
    bytes_of_class = np.bincount(classes, weights=table.times[ops] * table.sent[ops], minlength=len(table.members))
    moved = float(bytes_of_class @ table.members / ranks)
    needed = float((table.times[ops] * table.alone[ops]) @ weight)
    busy = sum(table.busy(ops[classes == c]) * float(table.members[c] / ranks) for c in np.unique(classes).tolist())
    largest = max(rows, key=lambda r: (table.sent[r], -r))
    held = table.timeline.ops[largest].bound_by
    return TransferUse(
        category=category,
        bytes=moved,
        most=float(bytes_of_class.max()),
        count=float(table.times[ops] @ weight),
        busy=busy,
        exposed=exposed.get(category, 0.0),
        alone=moved / needed if needed > 0.0 else 0.0,
        achieved=moved / busy if busy > 0.0 else 0.0,
        bound_by=table.timeline.resources[held].name if held >= 0 else "latency",
        ranks=table.sharers(ops, held),
        shared_with=table.company(category, ops, held),
    )


def union(start: NDArray[np.float64], end: NDArray[np.float64]) -> float:
    """Seconds covered by at least one of the intervals."""
    if not len(start):
        return 0.0
    order = np.argsort(start, kind="stable")
    start, end = start[order], np.maximum.accumulate(end[order])
    gaps = np.maximum(start[1:] - end[:-1], 0.0).sum()
    return float(end[-1] - start[0] - gaps)


def overlap(a: Intervals, b: Intervals) -> float:
    """Seconds covered by both of two sets of intervals: the parts, less what covers either."""
    both = (np.concatenate([a[0], b[0]]), np.concatenate([a[1], b[1]]))
    return max(0.0, union(*a) + union(*b) - union(*both))


def utilisation(timeline: Timeline) -> dict[str, float]:
    """Resource -> share of its capacity used over the step, for every resource class that was used."""
    counts = np.bincount(timeline.spans.op, minlength=len(timeline.ops))
    members = [row.members for row in timeline.rank_classes]
    asked = [0.0] * len(timeline.resources)
    for op, count in zip(timeline.ops, counts.tolist(), strict=True):
        for resource, amount in op.demands:
            asked[resource] += amount * count * members[op.rank_class]
    used = {}
    for row, amount in zip(timeline.resources, asked, strict=True):
        if amount > 0.0 and timeline.makespan > 0.0:
            used[row.name] = amount / (row.members * row.capacity * timeline.makespan)
    return used
