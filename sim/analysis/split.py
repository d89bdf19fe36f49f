"""Spans by rank class: looked up once where every class is asked for. Pure: timeline in, indexes out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sim.timeline.columns import Timeline


def spans_of_classes(timeline: Timeline) -> list[NDArray[np.int64]]:
    """Of each rank class the indexes of its spans, ascending."""
    rank = np.array([op.rank_class for op in timeline.ops], dtype=np.int64)[timeline.spans.op]
    order = np.argsort(rank, kind="stable")
    begins = np.searchsorted(rank[order], np.arange(len(timeline.rank_classes) + 1))
    return [order[begin:end] for begin, end in pairwise(begins.tolist())]
