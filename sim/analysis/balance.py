"""Ranks against each other: who computes most, who makes others wait. Pure: timeline in, numbers out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sim.analysis.breakdown import BUBBLE, HOST_LAUNCH
from sim.analysis.explanation import Balance, RankLoad
from sim.analysis.path import PathPiece
from sim.analysis.split import spans_of_classes
from sim.analysis.transfers import Intervals, overlap, union
from sim.timeline.columns import Timeline

COMPUTING = ("forward", "backward", "recompute", "optimizer")


def balance(timeline: Timeline, parts: Sequence[Mapping[str, float]], pieces: Sequence[PathPiece]) -> Balance:
    """``parts`` is the breakdown of each rank class, ``pieces`` the critical path."""
    on_path = np.zeros(len(timeline.rank_classes))
    for piece in pieces:
        if piece.span >= 0:
            on_path[timeline.ops[int(timeline.spans.op[piece.span])].rank_class] += piece.end - piece.start
    loads = tuple(_load(timeline, number, part, float(on_path[number])) for number, part in enumerate(parts))
    ranks = sum(load.members for load in loads)
    mean = sum(load.computing * load.members for load in loads) / ranks
    waited, late = _late(timeline)
    return Balance(
        ranks=loads,
        imbalance=max(load.computing for load in loads) / mean - 1.0 if mean > 0.0 else 0.0,
        waiting=waited / ranks,
        late=tuple((number, seconds / ranks) for number, seconds in late),
    )


def _load(timeline: Timeline, number: int, part: Mapping[str, float], on_path: float) -> RankLoad:
    row = timeline.rank_classes[number]
    computing = sum(part.get(name, 0.0) for name in COMPUTING)
    launching, idle = part.get(HOST_LAUNCH, 0.0), part.get(BUBBLE, 0.0)
    return RankLoad(
        rank_class=number,
        name=row.name,
        device=row.device,
        stage=row.stage,
        members=row.members,
        computing=computing,
        exposed=max(sum(part.values()) - computing - launching - idle, 0.0),
        launching=launching,
        idle=idle,
        on_path=on_path,
    )


def _late(timeline: Timeline) -> tuple[float, list[tuple[int, float]]]:
    """Seconds that ranks stood idle for the last member of an exchange, in all and by the rank class of that member."""
    spans, classes = timeline.spans, timeline.rank_classes
    rank = np.array([op.rank_class for op in timeline.ops], dtype=np.int64)
    computes = np.array([op.stream == 0 for op in timeline.ops], dtype=bool)
    total, caused = 0.0, np.zeros(len(classes))
    for row, mine in zip(classes, spans_of_classes(timeline), strict=True):
        waiting = mine[(spans.peer[mine] >= 0) & (spans.start[mine] > spans.ready[mine])]
        if not len(waiting):
            continue
        computing = mine[computes[spans.op[mine]]]
        works = spans.start[computing], spans.end[computing]
        last = rank[spans.op[spans.peer[waiting]]]
        total += _idle(timeline, waiting, works) * row.members
        for other in np.unique(last).tolist():
            caused[other] += _idle(timeline, waiting[last == other], works) * row.members
    order = np.argsort(-caused, kind="stable")
    return total, [(int(i), float(caused[i])) for i in order.tolist() if caused[i] > 0.0]


def _idle(timeline: Timeline, which: NDArray[np.int64], works: Intervals) -> float:
    """Seconds between ready and start of these spans in which the rank computed nothing."""
    held = timeline.spans.ready[which], timeline.spans.start[which]
    return max(union(*held) - overlap(held, works), 0.0)
