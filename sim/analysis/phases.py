"""The phases that a training log would time. Pure: timeline in, numbers out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim.analysis.breakdown import COMPUTE
from sim.analysis.split import Indexes
from sim.timeline.columns import Timeline

_PHASE = {"F": "forward", "B": "backward", "I": "backward", "W": "backward", "R": "backward", "O": "optimizer"}
_NAMES = tuple(dict.fromkeys(_PHASE.values()))


def phases(timeline: Timeline) -> dict[str, float]:
    """Forward, backward and optimizer seconds as a log with synchronising timers shows them; they sum to the makespan.

    An action ends when the last of its ops has ended, copies and collectives included; what passed since the action
    before it ended is its time. A rank that is done early waits for the others in its last action. What touches no
    compute stream at all (an update of another process, under the step) is on no timer. Averaged over ranks.
    """
    spans, classes = timeline.spans, len(timeline.rank_classes)
    phase = np.array([_NAMES.index(_PHASE[op.phase]) for op in timeline.ops], dtype=np.int64)
    rank = np.array([op.rank_class for op in timeline.ops], dtype=np.int64)
    computes = np.array([op.stream == COMPUTE for op in timeline.ops], dtype=bool)
    width = int(spans.action.max(initial=-1)) + 1  # actions of a rank class, at most
    which = rank[spans.op] * width + spans.action
    ends, first = np.zeros(classes * width), np.full(classes * width, -1, dtype=np.int64)
    ends[which] = spans.end  # of an action's spans the last in order of end is written last
    first[which[::-1]] = np.arange(len(which))[::-1]
    timed = np.zeros(classes * width, dtype=bool)
    timed[which[computes[spans.op]]] = True
    ends[~timed] = 0.0
    shape = classes, width
    return dict(zip(_NAMES, _mean(timeline, phase, ends.reshape(shape), first.reshape(shape)).tolist(), strict=True))


def _mean(timeline: Timeline, phase: Indexes, ends: NDArray[np.float64], first: Indexes) -> NDArray[np.float64]:
    """Seconds by phase; ``ends`` and ``first`` span (-1: none) of each action of each rank class (classes, actions)."""
    there = first >= 0
    ends = np.maximum.accumulate(ends, axis=1)
    ranks = sum(row.members for row in timeline.rank_classes)
    total = np.zeros(len(_NAMES))
    for row, mine, end, begin in zip(timeline.rank_classes, there, ends, first, strict=True):
        end[np.flatnonzero(mine)[-1:]] = timeline.makespan
        lengths = np.diff(np.concatenate([[0.0], end]))[mine]
        which = phase[timeline.spans.op[begin[mine]]]
        total += np.bincount(which, weights=lengths, minlength=len(total)) * (row.members / ranks)
    return total
