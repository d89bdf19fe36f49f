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

    Each round hashes a vertex's multiset of (label, colour) as the sum of mixed 64-bit words: order-free, and with k
    vertices two different multisets collide with probability below k^2 / 2^64.
    """
    at = np.concatenate([source, target])
    other = np.concatenate([target, source])
    words = np.concatenate([label, label])
    order = np.argsort(at, kind="stable")
    at, other, words = at[order], other[order], words[order]
    vertices, begins = np.unique(at, return_index=True)
    colour = _number(start)
    while True:
        mixed = _mix(_mix(words.astype(np.uint64)) + colour[other].astype(np.uint64))
        sums = np.zeros(len(start), dtype=np.uint64)
        if len(at):
            sums[vertices] = np.add.reduceat(mixed, begins)
        finer = _number(_mix(sums + _mix(colour.astype(np.uint64))).view(np.int64))
        if finer.max(initial=-1) == colour.max(initial=-1):
            break
        colour = finer
    _, first, size = np.unique(colour, return_index=True, return_counts=True)
    return Partition(colour=colour, size=size.astype(np.int64), first=first.astype(np.int64))


def discrete(vertices: int) -> Partition:
    """Every vertex a class of its own: no folding."""
    numbers = np.arange(vertices, dtype=np.int64)
    return Partition(colour=numbers, size=np.ones(vertices, dtype=np.int64), first=numbers)


def _number(keys: Ints) -> Ints:
    """Dense class numbers, in order of first appearance."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    return rank[inverse]


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser (Steele, Lea, Flood, 2014): every input bit reaches every output bit."""
    with np.errstate(over="ignore"):
        words = words + np.uint64(0x9E3779B97F4A7C15)
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return words ^ (words >> np.uint64(31))
