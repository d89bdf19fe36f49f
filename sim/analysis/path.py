"""The critical path: the chain of recorded causes that ends with the step, and what each link of it was bound by.

Pure: timeline in, numbers out. From the span that ends last, step back to the span that it waited for, and so on to the
beginning; the pieces cover the whole step. A span's time belongs to the resource that set its duration, seconds
below full speed to the resource that was full, its latency to "latency"; time in which nobody worked to the host's
launches.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from sim.timeline.columns import CAUSE_LAUNCH, OpRow, Timeline

LATENCY = "latency"
HOST_LAUNCH = "host launch"
WAITING = "waiting for peers"


class PathPiece(msgspec.Struct, frozen=True, kw_only=True):
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
    # NOTE: memoryviews yield plain numbers, three times as fast as arrays their scalars; a path has 1e4 spans or more.
    start, end, peer = spans.start.data, spans.end.data, spans.peer.data
    cause, cause_span = spans.cause.data, spans.cause_span.data
    span = int(np.argmax(spans.end))
    clock = timeline.makespan
    pieces = []
    while clock > 0.0:
        since = min(start[span], clock)
        pieces.append(PathPiece(span=span, start=since, end=clock, reason=""))
        clock = since
        if peer[span] >= 0:  # the last member to come decided when it began
            span = peer[span]
        blocker = cause_span[span]
        reached = min(end[blocker], clock) if blocker >= 0 else 0.0
        if reached < clock:
            reason = HOST_LAUNCH if cause[span] == CAUSE_LAUNCH else WAITING
            pieces.append(PathPiece(span=-1, start=reached, end=clock, reason=reason))
            clock = reached
        if blocker < 0:
            break
        span = blocker
    return pieces[::-1]


def bound_by(timeline: Timeline, pieces: list[PathPiece]) -> dict[str, float]:
    """Kind of resource (or latency, host launch, waiting) -> its share of the critical path, largest first."""
    seconds_of = bound_seconds(timeline, pieces)
    total = sum(seconds_of.values()) or 1.0
    return {reason: seconds / total for reason, seconds in seconds_of.items()}


def bound_seconds(timeline: Timeline, pieces: list[PathPiece]) -> dict[str, float]:
    """Kind of resource (or latency, host launch, waiting) -> seconds of the critical path, largest first."""
    on_path = {piece.span for piece in pieces}
    slowed: dict[int, list[tuple[int, float]]] = {}
    for span, resource, seconds in timeline.contended:
        if span in on_path:
            slowed.setdefault(span, []).append((resource, seconds))
    seconds_of: dict[str, float] = {}
    op_of = timeline.spans.op.data
    for piece in pieces:
        op = timeline.ops[op_of[piece.span]] if piece.span >= 0 else None
        for reason, seconds in _reasons(timeline, piece, op, slowed.get(piece.span, ())):
            seconds_of[reason] = seconds_of.get(reason, 0.0) + seconds
    return ranked(seconds_of)


def ranked(seconds_of: dict[str, float]) -> dict[str, float]:
    """What takes time at all, largest first; equals by name."""
    rows = sorted(seconds_of.items(), key=lambda item: (-item[1], item[0]))
    return {name: seconds for name, seconds in rows if seconds > 0.0}


def _reasons(
    timeline: Timeline, piece: PathPiece, op: OpRow | None, slowed: Sequence[tuple[int, float]]
) -> list[tuple[str, float]]:
    """What a piece of the path was bound by, and for how many seconds; ``op`` is None where nobody works."""
    left = piece.end - piece.start
    if op is None:
        return [(piece.reason, left)]
    found = []
    if op.latency > 0.0:
        found.append((LATENCY, min(op.latency, left)))
        left -= found[0][1]
    for resource, seconds in slowed:
        taken = min(seconds, left)
        found.append((timeline.resources[resource].kind, taken))
        left -= taken
    left = max(left, 0.0)
    if op.parts:
        found += [(timeline.resources[resource].kind, left * share) for resource, share in op.parts]
    else:
        found.append((timeline.resources[op.bound_by].kind if op.bound_by >= 0 else LATENCY, left))
    return found
