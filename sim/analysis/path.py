"""The critical path: the chain of recorded causes that ends with the step, and what each link of it was bound by.

Pure: timeline in, numbers out. From the span that ends last, step back to the span that it waited for, and so on to the
beginning; the pieces cover the whole step. A span's time belongs to the resource that set its duration, seconds
below full speed to the resource that was full, its latency to "latency"; time in which nobody worked to the host's
launches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.timeline.columns import CAUSE_LAUNCH, Timeline

LATENCY = "latency"
HOST_LAUNCH = "host launch"
WAITING = "waiting for peers"


@dataclass(frozen=True, slots=True, kw_only=True)
class PathPiece:
    """``span`` works on the path from ``start`` to ``end`` seconds; -1: nobody does, for the ``reason`` given."""

    span: int
    start: float
    end: float
    reason: str


def critical_path(timeline: Timeline) -> list[PathPiece]:
    """Pieces in order of time, without gaps, from 0 to the makespan."""
    spans = timeline.spans
    if not len(spans.end):
        return []
    start, end = spans.start, spans.end
    span = int(np.argmax(end))
    clock = timeline.makespan
    pieces = []
    while clock > 0.0:
        since = min(float(start[span]), clock)
        pieces.append(PathPiece(span=span, start=since, end=clock, reason=""))
        clock = since
        if spans.peer[span] >= 0:  # the last member to come decided when it began
            span = int(spans.peer[span])
        blocker = int(spans.cause_span[span])
        reached = min(float(end[blocker]), clock) if blocker >= 0 else 0.0
        if reached < clock:
            reason = HOST_LAUNCH if int(spans.cause[span]) == CAUSE_LAUNCH else WAITING
            pieces.append(PathPiece(span=-1, start=reached, end=clock, reason=reason))
            clock = reached
        if blocker < 0:
            break
        span = blocker
    return pieces[::-1]


def bound_by(timeline: Timeline, pieces: list[PathPiece]) -> dict[str, float]:
    """Kind of resource (or latency, host launch, waiting) -> its share of the critical path, largest first."""
    slowed: dict[int, list[tuple[int, float]]] = {}
    for span, resource, seconds in timeline.contended:
        slowed.setdefault(span, []).append((resource, seconds))
    seconds_of: dict[str, float] = {}
    for piece in pieces:
        for reason, seconds in _reasons(timeline, piece, slowed):
            seconds_of[reason] = seconds_of.get(reason, 0.0) + seconds
    total = sum(seconds_of.values()) or 1.0
    ranked = sorted(seconds_of.items(), key=lambda item: (-item[1], item[0]))
    return {reason: seconds / total for reason, seconds in ranked if seconds > 0.0}


def _reasons(
    timeline: Timeline, piece: PathPiece, slowed: dict[int, list[tuple[int, float]]]
) -> list[tuple[str, float]]:
    length = piece.end - piece.start
    if piece.span < 0:
        return [(piece.reason, length)]
    op = timeline.ops[int(timeline.spans.op[piece.span])]
    found = [(LATENCY, min(op.latency, length))] if op.latency > 0.0 else []
    left = length - sum(seconds for _, seconds in found)
    for resource, seconds in slowed.get(piece.span, ()):
        taken = min(seconds, left)
        found.append((timeline.resources[resource].kind, taken))
        left -= taken
    own = timeline.resources[op.bound_by].kind if op.bound_by >= 0 else LATENCY
    return [*found, (own, max(left, 0.0))]
