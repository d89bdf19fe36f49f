"""Spans by label, and by rank class: looked up once where every one is asked for. Pure: columns in, indexes out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sim.timeline.columns import Timeline

Indexes = NDArray[np.int64]

BATCH = 1 << 17
"""Spans that are looked at together: many for numpy, few for the memory."""


def spans_of_classes(timeline: Timeline) -> list[Indexes]:
    """Of each rank class the indexes of its spans, ascending."""
    rank = np.array([op.rank_class for op in timeline.ops], dtype=np.int32)[timeline.spans.op]
    order, begins = grouped(rank, len(timeline.rank_classes))
    return [order[begin:end] for begin, end in pairwise(begins.tolist())]


def batches(classes: Sequence[Indexes], most: int = BATCH) -> Iterator[list[Indexes]]:
    """Spans of several rank classes in a row at a time: of as many as have about ``most`` spans."""
    ends = np.cumsum([len(mine) for mine in classes])
    begin = 0
    while begin < len(classes):
        done = int(ends[begin - 1]) if begin else 0
        end = int(np.searchsorted(ends, done + most)) + 1
        yield list(classes[begin:end])
        begin = end


def grouped(labels: NDArray[np.integer], count: int) -> tuple[Indexes, Indexes]:
    """Places by label (0..count-1), each label's in their order, and where each label begins: shape (count + 1,).

    NOTE: numpy sorts 16 bits by radix, ten times as fast as 64; there are millions of spans, of labels far fewer.
    """
    low = labels.astype(np.int16) if count < 2**15 else (labels & 0x7FFF).astype(np.int16)
    order: Indexes = np.argsort(low, kind="stable")
    if count >= 2**15:  # then by the upper bits, which leaves what is equal there in order of the lower ones
        order = order[np.argsort((labels >> 15).astype(np.int16)[order], kind="stable")]
    begins = np.concatenate([[0], np.cumsum(np.bincount(labels, minlength=count))]).astype(np.int64)
    return order, begins
