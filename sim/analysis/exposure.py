"""Communication and copies against computing: in flight, hidden, exposed. Pure: timeline in, numbers out.

A rank's communication is hidden while its compute stream works at the same time. What it costs the step is less or
more: see ``Exposure``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sim.analysis.explanation import Exposure
from sim.analysis.split import spans_of_classes
from sim.analysis.transfers import Intervals, overlap, union
from sim.timeline.columns import Timeline


def exposure(timeline: Timeline, parts: Mapping[str, float]) -> tuple[Exposure, ...]:
    """One row for each category that works beside the compute stream; ``parts`` is the breakdown. Longest first."""
    spans, ops = timeline.spans, timeline.ops
    names = list(dict.fromkeys(op.category for op in ops))
    category = np.array([names.index(op.category) for op in ops], dtype=np.int64)
    beside = np.array([op.stream != 0 and op.kind != "none" for op in ops], dtype=bool)
    compute = np.array([op.stream == 0 for op in ops], dtype=bool)
    ranks = sum(row.members for row in timeline.rank_classes)
    found: dict[int, list[float]] = {}
    for row, mine in zip(timeline.rank_classes, spans_of_classes(timeline), strict=True):
        op, weight = spans.op[mine], row.members / ranks
        works, flies, kinds = _intervals(timeline, mine[compute[op]]), mine[beside[op]], category[op[beside[op]]]
        for kind in np.unique(kinds).tolist():
            flying = _intervals(timeline, flies[kinds == kind])
            total = found.setdefault(kind, [0.0, 0.0])
            total[0] += union(*flying) * weight
            total[1] += overlap(flying, works) * weight
    rows = [
        Exposure(
            category=names[kind], busy=busy, overlapped=hidden, exposed=max(busy - hidden, 0.0),
            costs=parts.get(names[kind], 0.0),
        )
        for kind, (busy, hidden) in found.items()
    ]  # fmt: skip
    return tuple(sorted(rows, key=lambda one: (-one.busy, one.category)))


def _intervals(timeline: Timeline, which: NDArray[np.int64]) -> Intervals:
    return timeline.spans.start[which], timeline.spans.end[which]
