"""Where the time of a step went: categories that sum to it.

Pure: timeline in, numbers out. The compute stream is what a step is made of. While it is busy, time belongs to its op's
category. A gap in it belongs to whoever the next op waited for: the engine recorded that op, so the gap is followed
back through recorded causes (a copy, the collective before it, the host) until it is filled; nothing is inferred from
overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sim.analysis.split import Indexes, batches, spans_of_classes
from sim.timeline.columns import CAUSE_LAUNCH, Timeline

COMPUTE = 0
"""The compute stream."""

BUBBLE = "bubble"
HOST_LAUNCH = "host_launch"
CATEGORIES = (
    "forward", "backward", "recompute", "optimizer", "tp", "cp", "ep", "pp", "dp", "param_gather",
    "h2d", "d2h", "cpu_adam", "nvme", HOST_LAUNCH, BUBBLE,
)  # fmt: skip

Column = NDArray[np.float64]


def breakdown(timeline: Timeline) -> dict[str, float]:
    """Seconds by category, averaged over ranks; they sum to the makespan."""
    return averaged(timeline, breakdowns(timeline))


def breakdowns(timeline: Timeline) -> list[dict[str, float]]:
    """Seconds by category of each rank class; each of them sums to the makespan."""
    table = _Table(timeline)
    return [parts for classes in batches(spans_of_classes(timeline)) for parts in _Ranks(table, classes).total()]


def averaged(timeline: Timeline, parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean over ranks of what each rank class has, in the order of ``CATEGORIES``; zeros are left out."""
    total = dict.fromkeys(CATEGORIES, 0.0)
    ranks = sum(row.members for row in timeline.rank_classes)
    for row, part in zip(timeline.rank_classes, parts, strict=True):
        for category, seconds in part.items():
            total[category] = total.get(category, 0.0) + seconds * row.members / ranks
    return {category: seconds for category, seconds in total.items() if seconds > 0.0}


class _Table:
    """Columns of the op table, looked up once for all rank classes."""

    def __init__(self, timeline: Timeline) -> None:
        ops = timeline.ops
        self.spans = timeline.spans
        self.makespan = timeline.makespan
        self.names = list(dict.fromkeys([HOST_LAUNCH, BUBBLE, *(op.category for op in ops)]))
        number = {name: i for i, name in enumerate(self.names)}
        self.launch, self.bubble = number[HOST_LAUNCH], number[BUBBLE]
        self.kind = np.array([number[op.category] for op in ops], dtype=np.int64)
        self.duration = np.array([op.duration for op in ops])
        self.reach = np.array([op.reach for op in ops])
        self.computes = np.array([op.stream == COMPUTE for op in ops], dtype=bool)


class _Ranks:
    """The breakdown of some rank classes at once.

    ``span``, ``op``, ``start``, ``end`` and ``before`` (when the stream was last busy) have an entry for each span of a
    compute stream, class after class in order of start; ``rank`` is its class, counted from 0.
    """

    def __init__(self, table: _Table, classes: Sequence[Indexes]) -> None:
        self.table, self.classes, spans = table, classes, table.spans
        computing = [mine[table.computes[spans.op[mine]]] for mine in classes]
        ordered = [mine[np.argsort(spans.start[mine], kind="stable")] for mine in computing]
        lengths = [len(mine) for mine in ordered]
        self.span = np.concatenate(ordered)
        self.rank = np.repeat(np.arange(len(classes)), lengths)
        self.op, self.start, self.end = spans.op[self.span], spans.start[self.span], spans.end[self.span]
        self.before = np.concatenate([np.zeros(1), self.end[:-1]])[: len(self.end)]
        self.before[np.flatnonzero(np.diff(self.rank)) + 1] = 0.0
        self.last = np.zeros(len(classes))  # when each compute stream was busy last
        self.last[self.rank] = self.end  # the last one is written last
        self.seconds = np.zeros((len(classes), len(table.names)))

    def total(self) -> list[dict[str, float]]:
        """Seconds by category of each class."""
        self._busy()
        rest = self._simple_gaps(np.flatnonzero(self.start > self.before))
        self._explain(self.rank[rest], self.before[rest], self.start[rest], self.span[rest])
        self._tail()
        names = self.table.names
        return [{n: s for n, s in zip(names, row, strict=True) if s > 0.0} for row in self.seconds.tolist()]

    def _add(self, rank: Indexes, kind: Indexes | int, seconds: Column) -> None:
        """Add what is above zero, one after the other."""
        np.add.at(self.seconds.reshape(-1), rank * len(self.table.names) + kind, np.maximum(seconds, 0.0))

    def _busy(self) -> None:
        """Time in which the compute stream works."""
        table = self.table
        length = self.end - self.start
        by_op, late = self._by_op(self.op, length), self._launch_bound(length)
        ops, rank = np.flatnonzero(by_op), np.zeros(len(table.kind), dtype=np.int64)
        rank[self.op] = self.rank
        self._add(rank[ops], table.kind[ops], (by_op - late)[ops])
        self._add(rank[ops], table.launch, late[ops])

    def _launch_bound(self, length: Column) -> Column:
        """By op: seconds that runs of several kernels waited for launches; what a rival cost them beside is theirs."""
        table = self.table
        several = np.flatnonzero(table.reach[self.op] > 0.0)
        op = self.op[several]
        alone = table.spans.launched[self.span[several]] + table.reach[op] - self.start[several]
        return self._by_op(op, np.clip(np.minimum(alone, length[several]) - table.duration[op], 0.0, None))

    def _by_op(self, op: NDArray[np.int32], seconds: Column) -> Column:
        return np.bincount(op, weights=seconds, minlength=len(self.table.kind)).astype(np.float64)

    def _simple_gaps(self, gaps: Indexes) -> Indexes:
        """Gaps that one thing explains, all at once: a late launch, or an op that was at work all through.

        Launch-bound steps have one before every kernel, exposed collectives one after each. Returns the others.
        """
        table, spans = self.table, self.table.spans
        span, since, until, rank = self.span[gaps], self.before[gaps], self.start[gaps], self.rank[gaps]
        blocker = spans.cause_span[span]
        there = blocker >= 0
        blocker = np.maximum(blocker, 0)
        late, done = spans.cause[span] == CAUSE_LAUNCH, spans.end[blocker]
        launch = late & (~there | (done <= since))
        begins = np.searchsorted(rank[launch], np.arange(len(self.classes) + 1)).tolist()
        length = (until - since)[launch]
        self.seconds[:, table.launch] += [length[begin:end].sum() for begin, end in pairwise(begins)]
        whole = ~late & there & (done == until) & (spans.start[blocker] <= since)
        self._add(rank[whole], table.kind[spans.op[blocker[whole]]], (until - since)[whole])
        rest: Indexes = gaps[~launch & ~whole]
        return rest

    def _explain(self, rank: Indexes, begin: Column, end: Column, span: Indexes) -> None:
        """Fill each gap [begin, end] before ``span`` was ready by walking back through what each op waited for.

        All gaps take a step back at a time until each is filled; what was found is added up gap by gap.
        """
        table, spans = self.table, self.table.spans
        found = [(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))]
        gap = np.flatnonzero(end > begin)
        begin, end, span = begin[gap], end[gap], span[gap]
        while len(gap):
            blocker = spans.cause_span[span]
            done = np.where(blocker >= 0, np.maximum(spans.end[blocker], begin), begin)
            idle = np.where(spans.cause[span] == CAUSE_LAUNCH, table.launch, table.bubble)
            found.append((gap, idle, end - done))
            end = np.minimum(done, end)
            on = np.flatnonzero((blocker >= 0) & (end > begin))
            gap, begin, end, span = gap[on], begin[on], end[on], blocker[on]
            started, ready = np.maximum(spans.start[span], begin), np.maximum(spans.ready[span], begin)
            found.append((gap, table.kind[spans.op[span]], end - started))
            end = np.minimum(started, end)
            found.append((gap, np.full(len(gap), table.bubble), end - ready))  # it waited for its peers
            end = np.minimum(ready, end)
            on = np.flatnonzero(end > begin)
            gap, begin, end, span = gap[on], begin[on], end[on], span[on]
        gaps, kinds, seconds = (np.concatenate([row[i] for row in found]) for i in range(3))
        order = np.argsort(gaps, kind="stable")
        self._add(rank[gaps[order]], kinds[order], seconds[order])

    def _tail(self) -> None:
        """From the last compute op to the end of the step: this rank's last activity, or waiting for other ranks."""
        table, spans = self.table, self.table.spans
        rank = np.array([r for r, mine in enumerate(self.classes) if len(mine)], dtype=np.int64)
        final = np.array([mine[np.argmax(spans.end[mine])] for mine in self.classes if len(mine)], dtype=np.int64)
        waits = self.last[rank] < table.makespan
        rank, final = rank[waits], final[waits]
        last, end = self.last[rank], spans.end[final]
        self._add(rank, table.bubble, table.makespan - np.maximum(end, last))
        started, ready = np.maximum(spans.start[final], last), np.maximum(spans.ready[final], last)
        self._add(rank, table.kind[spans.op[final]], end - started)
        end = np.minimum(started, end)
        self._add(rank, table.bubble, end - ready)
        end = np.minimum(ready, end)
        self._explain(rank, last, end, final)
