"""Which ranks live the same life: exact folding by colour refinement (design §3).

Owns the coarsest equitable partition of a graph whose vertices are ranks, process groups and resources. Ranks start
with the colour of their program, groups of their axis and size, resources of their kind and capacity; a vertex is
then told apart by the multiset of (edge label, neighbour's colour), until nothing changes. General: a slow device, a
missing link or an uneven stage splits its classes by itself. Knows nothing of what the labels mean.

Theory: fluid max-min sharing respects an equitable partition (every member of a class meets equally many members of
every other class, so equal states stay equal). Refinement: Weisfeiler and Leman; Paige and Tarjan, 1987.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Partition:
    """``colour`` (vertices,) in order of first member; ``size`` and ``first`` member of each class (classes,)."""

    colour: Ints
    size: Ints
    first: Ints


def refine(start: Ints, source: Ints, target: Ints, label: Ints) -> Partition:
    """Coarsest equitable partition finer than ``start`` (vertices,), for undirected labelled edges.

    Each round hashes a vertex's multiset of (label, colour) as a sum of 64-bit words, one an edge: the neighbour's
    mixed colour times an odd number of the label. Order-free, and with k vertices two different multisets collide with
    probability below k^2 / 2^64. Colours stay such words until the end, so that a round never sorts: it costs some
    passes over the edges and one over the vertices.
    """
    factor = _mix(label.astype(np.uint64)) | np.uint64(1)
    colour = start.astype(np.uint64)
    found = -1
    while len(distinct := np.unique(colour)) > found:
        found = len(distinct)
        mixed = _mix(colour)
        sums = mixed.copy()
        np.add.at(sums, source, mixed[target] * factor)
        np.add.at(sums, target, mixed[source] * factor)
        colour = _mix(sums)
    return partition(colour)


def row_keys(rows: Ints) -> NDArray[np.uint64]:
    """One word a row (rows, columns): equal rows have equal words, different ones collide as seldom as multisets."""
    factor = _mix(np.arange(rows.shape[1], dtype=np.uint64)) | np.uint64(1)
    return _mix(rows.astype(np.uint64) @ factor)


def discrete(vertices: int) -> Partition:
    """Every vertex a class of its own: no folding."""
    numbers = np.arange(vertices, dtype=np.int64)
    return Partition(colour=numbers, size=np.ones(vertices, dtype=np.int64), first=numbers)


def partition(keys: NDArray[np.uint64]) -> Partition:
    """What has the same key (vertices,) is a class."""
    distinct = np.unique(keys)
    sorted_class = np.searchsorted(distinct, keys)
    first = np.full(len(distinct), len(keys), dtype=np.int64)
    np.minimum.at(first, sorted_class, np.arange(len(keys), dtype=np.int64))
    order = np.argsort(first)
    number = np.empty(len(first), dtype=np.int64)
    number[order] = np.arange(len(first), dtype=np.int64)
    size = np.bincount(sorted_class, minlength=len(first))[order]
    return Partition(colour=number[sorted_class], size=size.astype(np.int64), first=first[order])


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser (Steele, Lea, Flood, 2014): every input bit reaches every output bit."""
    with np.errstate(over="ignore"):
        words = words + np.uint64(0x9E3779B97F4A7C15)
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return words ^ (words >> np.uint64(31))
