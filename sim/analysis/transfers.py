"""Transfers and resources: bytes moved, rates reached, exposure, utilisation. Pure: timeline in, numbers out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.analysis.result import TransferUse
from sim.timeline.columns import OpRow, Timeline

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


def transfers(timeline: Timeline, exposed: dict[str, float], rank_class: int = 0) -> tuple[TransferUse, ...]:
    """One row for each category of copies and collectives of a rank class; ``exposed`` is the breakdown."""
    found: dict[str, list[int]] = {}
    for number, op in enumerate(timeline.ops):
        if op.rank_class == rank_class and sent_bytes(op) > 0.0:
            found.setdefault(op.category, []).append(number)
    return tuple(_transfer(timeline, category, rows, exposed) for category, rows in sorted(found.items()))


def _transfer(timeline: Timeline, category: str, rows: list[int], exposed: dict[str, float]) -> TransferUse:
    spans = timeline.spans
    table = np.array([sent_bytes(op) for op in timeline.ops])
    alone = np.array([op.latency + op.duration for op in timeline.ops])
    mine = np.flatnonzero(np.isin(spans.op, rows))
    moved = float(table[spans.op[mine]].sum())
    needed = float(alone[spans.op[mine]].sum())
    busy = union(spans.start[mine], spans.end[mine])
    largest = timeline.ops[max(rows, key=lambda r: (table[r], -r))]
    return TransferUse(
        category=category,
        bytes=moved,
        busy=busy,
        exposed=exposed.get(category, 0.0),
        alone=moved / needed if needed > 0.0 else 0.0,
        achieved=moved / busy if busy > 0.0 else 0.0,
        bound_by=timeline.resources[largest.bound_by].name if largest.bound_by >= 0 else "latency",
    )


def union(start: NDArray[np.float64], end: NDArray[np.float64]) -> float:
    """Seconds covered by at least one of the intervals."""
    if not len(start):
        return 0.0
    order = np.argsort(start, kind="stable")
    start, end = start[order], np.maximum.accumulate(end[order])
    gaps = np.maximum(start[1:] - end[:-1], 0.0).sum()
    return float(end[-1] - start[0] - gaps)


def utilisation(timeline: Timeline) -> dict[str, float]:
    """Resource -> share of its capacity used over the step, for every resource class that was used."""
    counts = np.bincount(timeline.spans.op, minlength=len(timeline.ops))
    asked = np.zeros(len(timeline.resources))
    for op, count in zip(timeline.ops, counts.tolist(), strict=True):
        for resource, amount in op.demands:
            asked[resource] += amount * count * timeline.rank_classes[op.rank_class].members
    used = {}
    for row, amount in zip(timeline.resources, asked.tolist(), strict=True):
        if amount > 0.0 and timeline.makespan > 0.0:
            used[row.name] = amount / (row.members * row.capacity * timeline.makespan)
    return used
