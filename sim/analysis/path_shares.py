"""The critical path by resource, category, op, stream and stage. Pure: pieces of the path in, shares out."""

from __future__ import annotations

from sim.analysis.explanation import PathShares
from sim.analysis.path import PathPiece, bound_seconds, ranked
from sim.timeline.columns import Timeline


def path_shares(timeline: Timeline, pieces: list[PathPiece]) -> PathShares:
    """The critical path by resource, category, op, stream and stage."""
    found: dict[str, dict[str, float]] = {"category": {}, "op": {}, "stream": {}, "stage": {}}
    moves, before = 0, -1
    for piece in pieces:
        names = dict.fromkeys(found, piece.reason)
        if piece.span >= 0:
            op = timeline.ops[int(timeline.spans.op[piece.span])]
            stage = str(timeline.rank_classes[op.rank_class].stage)
            names = {
                "category": op.category, "op": op.name, "stream": timeline.stream_names[op.stream], "stage": stage,
            }  # fmt: skip
            moves += before not in (-1, op.rank_class)
            before = op.rank_class
        for by, name in names.items():
            found[by][name] = found[by].get(name, 0.0) + piece.end - piece.start
    return PathShares(
        length=sum(piece.end - piece.start for piece in pieces),
        by_resource=bound_seconds(timeline, pieces),
        by_category=ranked(found["category"]),
        by_op=ranked(found["op"]),
        by_stream=ranked(found["stream"]),
        by_stage=ranked(found["stage"]),
        pieces=len(pieces),
        moves=moves,
    )
