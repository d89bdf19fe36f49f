"""The fullest moment of each memory: when, where, whose, and what was running. Pure: timeline in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.analysis.explanation import MemoryPeak
from sim.analysis.result import MemoryUse
from sim.timeline.columns import Timeline

PLACES = ("gpu", "host", "nvme")


def peaks(timeline: Timeline, memory: Sequence[MemoryUse]) -> tuple[MemoryPeak, ...]:
    """One row for each place that anything lives in: of the rank class nearest to its capacity, or farthest over it."""
    found = []
    for where in PLACES:
        uses = [use for use in memory if use.where == where]
        if uses:
            use = max(uses, key=lambda one: (one.peak / one.capacity if one.capacity else one.peak, one.peak))
            found.append(_peak(timeline, use))
    return tuple(found)


def _peak(timeline: Timeline, use: MemoryUse) -> MemoryPeak:
    row = timeline.rank_classes[use.rank_class]
    span = _taking(timeline, use)
    op = timeline.ops[int(timeline.spans.op[span])] if span >= 0 else None
    return MemoryPeak(
        where=use.where,
        rank_class=use.rank_class,
        stage=row.stage,
        device=row.device,
        time=use.peak_time,
        peak=use.peak,
        capacity=use.capacity,
        owners=dict(use.at_peak),
        during=op.name if op else "",
        phase=op.phase if op else "",
        microbatch=int(timeline.spans.microbatch[span]) if op else -1,
    )


def _taking(timeline: Timeline, use: MemoryUse) -> int:
    """The span that took most at the moment of the peak; -1: none, it is so from the beginning."""
    spans, most, found = timeline.spans, 0.0, -1
    for number, op in enumerate(timeline.ops):
        if op.rank_class != use.rank_class:
            continue
        for effect in op.memory:
            if effect.where == use.where and effect.size > most:
                when = spans.end if effect.at_end else spans.start
                at = np.flatnonzero((spans.op == number) & (when == use.peak_time))
                if len(at):
                    most, found = effect.size, int(at[0])
    return found
