"""Where the time of a step went: categories that sum to it, and the phases that a training log would time.

Pure: timeline in, numbers out. The compute stream is what a step is made of. While it is busy, time belongs to its op's
category. A gap in it belongs to whoever the next op waited for: the engine recorded that op, so the gap is followed
back through recorded causes (a copy, the collective before it, the host) until it is filled; nothing is inferred from
overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sim.analysis.split import spans_of_classes
from sim.timeline.columns import CAUSE_LAUNCH, Timeline

BUBBLE = "bubble"
HOST_LAUNCH = "host_launch"
CATEGORIES = (
    "forward", "backward", "recompute", "optimizer", "tp", "cp", "ep", "pp", "dp", "param_gather",
    "h2d", "d2h", "cpu_adam", "nvme", HOST_LAUNCH, BUBBLE,
)  # fmt: skip
_PHASE = {"F": "forward", "B": "backward", "I": "backward", "W": "backward", "R": "backward", "O": "optimizer"}


def breakdown(timeline: Timeline, compute_stream: int = 0) -> dict[str, float]:
    """Seconds by category, averaged over ranks; they sum to the makespan."""
    return averaged(timeline, breakdowns(timeline, compute_stream))


def breakdowns(timeline: Timeline, compute_stream: int = 0) -> list[dict[str, float]]:
    """Seconds by category of each rank class; each of them sums to the makespan."""
    table = _Table(timeline, compute_stream)
    return [_RankBreakdown(timeline, table, number).total() for number in range(len(timeline.rank_classes))]


def averaged(timeline: Timeline, parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean over ranks of what each rank class has, in the order of ``CATEGORIES``; zeros are left out."""
    total = dict.fromkeys(CATEGORIES, 0.0)
    ranks = sum(row.members for row in timeline.rank_classes)
    for row, part in zip(timeline.rank_classes, parts, strict=True):
        for category, seconds in part.items():
            total[category] = total.get(category, 0.0) + seconds * row.members / ranks
    return {category: seconds for category, seconds in total.items() if seconds > 0.0}


class _Table:
    """Columns of the op table, and the spans of each rank class: looked up once for all classes."""

    def __init__(self, timeline: Timeline, compute_stream: int) -> None:
        ops, of = timeline.ops, timeline.spans.op
        self.category = [op.category for op in ops]
        self.names = list(dict.fromkeys(self.category))
        self.kind = np.array([self.names.index(c) for c in self.category], dtype=np.int64)
        self.duration = np.array([op.duration for op in ops])
        self.reach = np.array([op.reach for op in ops])
        self.spans = spans_of_classes(timeline)
        self.computes = (np.array([op.stream for op in ops], dtype=np.int64) == compute_stream)[of]


class _RankBreakdown:
    """The breakdown of one rank class."""

    def __init__(self, timeline: Timeline, table: _Table, rank_class: int) -> None:
        self.timeline = timeline
        self.table = table
        self.spans = timeline.spans
        self.mine = table.spans[rank_class]
        self.computing = self.mine[table.computes[self.mine]]
        self.category = table.category
        self.seconds: dict[str, float] = {}

    def total(self) -> dict[str, float]:
        self._busy()
        order = self.computing[np.argsort(self.spans.start[self.computing], kind="stable")]
        start, end = self.spans.start[order], self.spans.end[order]
        before = np.concatenate([[0.0], end])
        gaps = np.flatnonzero(start > before[:-1])
        rest = self._simple_gaps(order, gaps, before)
        for i in rest.tolist():
            self._explain(float(before[i]), float(start[i]), int(order[i]))
        self._tail(float(before[-1]))
        return self.seconds

    def _busy(self) -> None:
        """Time in which the compute stream works."""
        ops = self.spans.op[self.computing]
        length = self.spans.end[self.computing] - self.spans.start[self.computing]
        by_op = np.bincount(ops, weights=length, minlength=len(self.category))
        late = self._launch_bound(ops, length)
        for op in np.flatnonzero(by_op).tolist():
            self._add(self.category[op], float(by_op[op] - late[op]))
        self._add(HOST_LAUNCH, float(late.sum()))

    def _launch_bound(self, ops: NDArray[np.int32], length: NDArray[np.float64]) -> NDArray[np.float64]:
        """By op: seconds that runs of several kernels waited for launches; what a rival cost them beside is theirs."""
        table, spans, mine = self.table, self.spans, self.computing
        alone = spans.launched[mine] + table.reach[ops] - spans.start[mine]
        late = np.clip(np.minimum(alone, length) - table.duration[ops], 0.0, None)
        return np.bincount(ops, weights=late, minlength=len(table.category)).astype(np.float64)

    def _simple_gaps(
        self, order: NDArray[np.int64], gaps: NDArray[np.int64], before: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Gaps that one thing explains, all at once: a late launch, or an op that was at work all through.

        Launch-bound steps have one before every kernel, exposed collectives one after each.
        """
        spans = self.spans
        span, since = order[gaps], before[gaps]
        blocker = spans.cause_span[span]
        there = blocker >= 0
        blocker = np.maximum(blocker, 0)
        late = spans.cause[span] == CAUSE_LAUNCH
        launch = late & (~there | (spans.end[blocker] <= since))
        self._add(HOST_LAUNCH, float((spans.start[span] - since)[launch].sum()))
        whole = ~late & there & (spans.end[blocker] == spans.start[span]) & (spans.start[blocker] <= since)
        length = (spans.start[span] - since)[whole]
        by_kind = np.bincount(self.table.kind[spans.op[blocker[whole]]], weights=length)
        for kind in np.flatnonzero(by_kind).tolist():
            self._add(self.table.names[kind], float(by_kind[kind]))
        rest: NDArray[np.int64] = gaps[~launch & ~whole]
        return rest

    def _explain(self, begin: float, end: float, span: int) -> None:
        """Fill the gap [begin, end] before ``span`` was ready by walking back through what each op waited for."""
        spans = self.spans
        while end > begin:
            cause, blocker = int(spans.cause[span]), int(spans.cause_span[span])
            reached = float(spans.end[blocker]) if blocker >= 0 else begin
            end = self._fill(HOST_LAUNCH if cause == CAUSE_LAUNCH else BUBBLE, max(reached, begin), end)
            if blocker < 0:
                return
            category = self.category[int(spans.op[blocker])]
            end = self._fill(category, max(float(spans.start[blocker]), begin), end)
            end = self._fill(BUBBLE, max(float(spans.ready[blocker]), begin), end)  # it waited for its peers
            span = blocker

    def _fill(self, category: str, since: float, end: float) -> float:
        """Give [since, end] to a category; where the gap ends now."""
        self._add(category, end - since)
        return min(since, end)

    def _tail(self, last: float) -> None:
        """From the last compute op to the end of the step: this rank's last activity, or waiting for other ranks."""
        makespan = self.timeline.makespan
        if last >= makespan or not len(self.mine):
            return
        final = int(self.mine[np.argmax(self.spans.end[self.mine])])
        done = float(self.spans.end[final])
        self._add(BUBBLE, makespan - max(done, last))
        if done > last:
            end = self._fill(self.category[int(self.spans.op[final])], max(float(self.spans.start[final]), last), done)
            end = self._fill(BUBBLE, max(float(self.spans.ready[final]), last), end)
            self._explain(last, end, final)

    def _add(self, category: str, seconds: float) -> None:
        if seconds > 0.0:
            self.seconds[category] = self.seconds.get(category, 0.0) + seconds


def phases(timeline: Timeline) -> dict[str, float]:
    """Forward, backward and optimizer seconds as a log with synchronising timers shows them; they sum to the makespan.

    An action ends when the last of its ops has ended, copies and collectives included; what passed since the action
    before it ended is its time. A rank that is done early waits for the others in its last action. What touches no
    compute stream at all (an update of another process, under the step) is on no timer. Averaged over ranks.
    """
    names = list(dict.fromkeys(_PHASE.values()))
    total = np.zeros(len(names))
    spans = timeline.spans
    phase = np.array([names.index(_PHASE[op.phase]) for op in timeline.ops], dtype=np.int64)
    computes = (np.array([op.stream for op in timeline.ops], dtype=np.int64) == 0)[spans.op]
    ranks = sum(row.members for row in timeline.rank_classes)
    for mine, row in zip(spans_of_classes(timeline), timeline.rank_classes, strict=True):
        action = spans.action[mine]
        actions = int(action.max(initial=-1)) + 1
        ends = np.zeros(actions)
        ends[action] = spans.end[mine]  # of an action's spans the last in order of end is written last
        timed = np.zeros(actions, dtype=bool)
        timed[action[computes[mine]]] = True
        ends[~timed] = 0.0
        ends = np.maximum.accumulate(ends)
        ends[-1:] = timeline.makespan
        lengths = np.diff(np.concatenate([[0.0], ends]))
        first = np.full(actions, -1, dtype=np.int64)
        first[action[::-1]] = mine[::-1]
        there = first >= 0
        which = phase[spans.op[first[there]]]
        total += np.bincount(which, weights=lengths[there], minlength=len(names)) * (row.members / ranks)
    return dict(zip(names, total.tolist(), strict=True))
