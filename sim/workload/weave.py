"""Two passes run together: a forward of one microbatch and a backward of another, woven into one block.

What is modelled. A GPU has one compute stream here, as a framework does: kernels of the two passes take turns on it and
none runs beside another, so a forward and a backward together have as much arithmetic as one after the other. What is
gained is communication: each pass is cut where its kernels wait for a message or a collective, and at the ends of
layers that wait for none, and the pieces alternate, so that what one pass waits for travels while the other computes
(DeepSeek-V3 report, section 3.2.1: the communication of one chunk under the computation of the other). Collectives of
one kind share their stream, as they share a communicator. Both passes advance in proportion and so end together, the
forward's last piece before the backward's.

Owns the order of the pieces; knows of what they do only whose exchange they wait for. Limit: the
pieces are as many as waits and layers say, not tuned by their length, and the share of SMs of a communication kernel is
the cluster's.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise

from msgspec.structs import replace

from sim.workload.block import COMPUTE
from sim.workload.ops import Block, Kernel, Op

Piece = tuple[int, int]
"""A run of a pass's ops: (begin, end)."""


def weave(forward: Block, backward: Block) -> Block:
    """One block with the ops of both, each pass in its own order; piece i of n comes at (i + 1) / n of the way."""
    passes = (forward.ops, backward.ops)
    cuts = [_pieces(ops) for ops in passes]
    most = max(map(len, cuts))
    order = sorted(
        ((number + 1) / len(pieces), which, piece)
        for which, ops in enumerate(passes)
        for pieces in [_refined(ops, cuts[which], most)]
        for number, piece in enumerate(pieces)
    )
    places: tuple[dict[int, int], dict[int, int]] = ({}, {})
    woven: list[Op] = []
    for _, which, (begin, end) in order:
        for index in range(begin, end):
            op = passes[which][index]
            places[which][index] = len(woven)
            woven.append(replace(op, deps=tuple(places[which][d] for d in op.deps)) if op.deps else op)
    return Block(name=f"{forward.name} with {backward.name}", ops=tuple(woven))


def _pieces(ops: Sequence[Op]) -> list[Piece]:
    """Where a pass may be cut: before a kernel that waits for another stream, or between two layers where none waits.

    The end of a layer that waits is no cut: what comes before the next layer's exchange had better not wait for the
    other pass, or the network idles. Beside exchanges of experts those of tensor parallelism are too short to be cuts.
    """
    computes = [index for index, op in enumerate(ops) if index and op.stream == COMPUTE]
    short = {COMPUTE, "tp"} if any(op.stream == "ep" for op in ops) else {COMPUTE}
    waiting = {index for index in computes if any(ops[d].stream not in short for d in ops[index].deps)}
    waited, layer = {ops[index].layer for index in waiting}, None
    cuts = [0]
    for index, op in enumerate(ops):
        kernel = op.stream == COMPUTE and isinstance(op.work, Kernel)
        turns = kernel and layer is not None and op.layer != layer and not waited & {op.layer, layer}
        if index in waiting or turns:
            cuts.append(index)
        layer = op.layer if kernel else layer
    return list(pairwise([*cuts, len(ops)]))


def _refined(ops: Sequence[Op], pieces: list[Piece], count: int) -> list[Piece]:
    """As many pieces as ``count``, the ones with most arithmetic cut in two between kernels; fewer if none is left.

    Else the pass of more pieces would run several in a row, and wait between them with nothing beneath.
    """
    heap = [(-_work(ops, piece), piece) for piece in pieces]
    heapify(heap)
    whole: list[Piece] = []
    while heap and len(heap) + len(whole) < count:
        _, piece = heappop(heap)
        middle = _middle(ops, piece)
        if middle is None:
            whole.append(piece)
        else:
            for half in ((piece[0], middle), (middle, piece[1])):
                heappush(heap, (-_work(ops, half), half))
    return sorted([*whole, *(piece for _, piece in heap)])


def _work(ops: Sequence[Op], piece: Piece) -> float:
    return sum(op.work.flops for op in ops[slice(*piece)] if isinstance(op.work, Kernel))


def _middle(ops: Sequence[Op], piece: Piece) -> int | None:
    """The kernel of a piece, not its first, before which nearest to half of its arithmetic is done."""
    total, done, seen, best = _work(ops, piece), 0.0, False, (float("inf"), -1)
    for index in range(*piece):
        work = ops[index].work
        if isinstance(work, Kernel):
            if seen:
                best = min(best, (abs(done - total / 2), index))
            done, seen = done + work.flops, True
    return best[1] if best[1] >= 0 else None
