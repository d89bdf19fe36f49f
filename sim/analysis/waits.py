"""What spans waited on while their stream stood idle, added up. Pure: timeline in, numbers out.

Nothing is inferred: a span's recorded cause says what made it ready, its peer who came last to a collective, and
``contended`` what slowed it. Idle time of a stream is shared out between them in that order.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sim.analysis.explanation import Wait
from sim.timeline.columns import CAUSE_LAUNCH, CAUSE_NONE, CAUSE_STREAM, Timeline

HOST = "host"
PEERS = "other ranks"


def waits(timeline: Timeline) -> tuple[Wait, ...]:
    """Who waited on what, for how many seconds; means over ranks, longest first."""
    table = _Table(timeline)
    rows = [*table.readiness(), *table.peers(), *table.contention()]
    least = 1e-9 * timeline.makespan
    return tuple(sorted((w for w in rows if w.seconds > least), key=lambda w: (-w.seconds, w.category, w.on, w.whom)))


def idle_before(timeline: Timeline) -> NDArray[np.float64]:
    """When the stream of each span's rank class was last busy before it: shape (spans,), 0 for its first span."""
    spans = timeline.spans
    stream = np.array([op.stream for op in timeline.ops], dtype=np.int64)[spans.op]
    rank = np.array([op.rank_class for op in timeline.ops], dtype=np.int64)[spans.op]
    lane = rank * len(timeline.stream_names) + stream
    order = np.lexsort((spans.end, spans.start, lane))
    before = np.zeros(len(order))
    same = lane[order][1:] == lane[order][:-1]
    before[order[1:]] = np.where(same, spans.end[order[:-1]], 0.0)
    return before


class _Table:
    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        ops, spans = timeline.ops, timeline.spans
        self.names = list(dict.fromkeys(op.category for op in ops))
        self.category = np.array([self.names.index(op.category) for op in ops], dtype=np.int64)[spans.op]
        members = np.array([row.members for row in timeline.rank_classes], dtype=np.float64)
        rank = np.array([op.rank_class for op in ops], dtype=np.int64)
        self.weight = (members / max(members.sum(), 1.0))[rank[spans.op]]
        self.before = idle_before(timeline)
        self.computes = np.array([op.stream == 0 for op in ops], dtype=bool)[spans.op]

    def readiness(self) -> list[Wait]:
        """Idle time until a span was ready, by its cause."""
        spans = self.timeline.spans
        idle = spans.ready - self.before
        found = []
        for cause, on in ((CAUSE_LAUNCH, "launch"), (CAUSE_STREAM, "stream"), (-1, "dependency")):
            known = spans.cause == cause if cause >= 0 else ~np.isin(spans.cause, (CAUSE_LAUNCH, CAUSE_STREAM))
            mine = np.flatnonzero(known & (idle > 0.0) & (spans.cause != CAUSE_NONE))
            blocker = spans.cause_span[mine]
            whom = np.where((blocker >= 0) & (cause != CAUSE_LAUNCH), self.category[np.maximum(blocker, 0)], -1)
            found += self._added(mine, whom, idle[mine], on)
        return found

    def peers(self) -> list[Wait]:
        """Ready, until the last member of the collective came."""
        spans = self.timeline.spans
        late = spans.start - np.maximum(spans.ready, self.before)
        mine = np.flatnonzero((spans.peer >= 0) & (late > 0.0))
        rows = self._added(mine, np.full(len(mine), -1), late[mine], "peers")
        return [replace(wait, whom=PEERS) for wait in rows]

    def contention(self) -> list[Wait]:
        """Seconds below full speed, by the kind of resource that was full."""
        found: dict[tuple[int, str, bool], list[float]] = {}
        for span, resource, seconds in self.timeline.contended:
            key = (int(self.category[span]), self.timeline.resources[resource].kind, bool(self.computes[span]))
            total, weight = found.setdefault(key, [0.0, 0.0]), float(self.weight[span])
            total[0] += seconds * weight
            total[1] += weight
        return [
            Wait(
                category=self.names[of], on="contention", whom=kind, computing=computing, seconds=seconds, count=count
            )
            for (of, kind, computing), (seconds, count) in found.items()
        ]  # fmt: skip

    def _added(
        self, mine: NDArray[np.int64], whom: NDArray[np.int64], seconds: NDArray[np.float64], on: str
    ) -> list[Wait]:
        """Rows by (waiting category, category waited for; -1: the host), computing apart."""
        width = len(self.names) + 1
        code = (self.category[mine] * width + whom + 1) * 2 + self.computes[mine]
        weight = self.weight[mine]
        total = np.bincount(code, weights=seconds * weight)
        count = np.bincount(code, weights=weight)
        return [
            Wait(
                category=self.names[row // 2 // width], on=on,
                whom=self.names[row // 2 % width - 1] if row // 2 % width else HOST, computing=bool(row % 2),
                seconds=float(total[row]), count=float(count[row]),
            )
            for row in np.flatnonzero(count).tolist()
        ]  # fmt: skip
