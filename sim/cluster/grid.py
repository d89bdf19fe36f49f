"""Grids of nodes: which links a message takes from one coordinate to another. A torus is a grid of rings.

Owns the numbering of nodes in a grid (the first dimension varies fastest), the links that each GPU has in each
dimension, and routes. Dimension after dimension, in their order; round a ring the shorter way, half each way where
both are as long. Every GPU's links join it to the GPUs at its place of other nodes: who is elsewhere in a node is
reached by that node's own links. Must not know what is sent.

Limits. Links do not load PCIe; a message does not turn aside from a link that is slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.spec.types import DimensionSpec

if TYPE_CHECKING:
    from sim.cluster.types import ResourceKind

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Hop:
    """A link that a message takes: its node, its number among the links of one GPU, its part of the bytes."""

    node: int
    link: int
    part: float


def links_of(dimension: DimensionSpec) -> list[tuple[str, ResourceKind]]:
    """(Suffix, kind) of each link that one GPU has in a dimension: next and back, out and in, or to every other one."""
    if dimension.kind == "ring":
        return [("", "grid.next"), ("", "grid.back")]
    if dimension.kind == "switch":
        return [("", "grid.out"), ("", "grid.in")]
    return [(f"+{far}", "grid.to") for far in range(1, dimension.size)]


@dataclass(frozen=True)
class Grid:
    """Nodes by coordinates. ``begins[d]`` is the first link of dimension d among those of a GPU."""

    dimensions: tuple[DimensionSpec, ...]

    @cached_property
    def sizes(self) -> Ints:
        """Coordinates of each dimension."""
        return np.array([dimension.size for dimension in self.dimensions], dtype=np.int64)

    @cached_property
    def strides(self) -> Ints:
        """Node numbers between neighbours of each dimension."""
        return np.concatenate([[1], np.cumprod(self.sizes)[:-1]]).astype(np.int64)

    @cached_property
    def begins(self) -> list[int]:
        """First link of each dimension, and how many links a GPU has."""
        counts = [len(links_of(dimension)) for dimension in self.dimensions]
        return [sum(counts[:d]) for d in range(len(counts) + 1)]

    def coordinates(self, nodes: Ints | Sequence[int]) -> Ints:
        """Coordinates (..., dimensions) of nodes (...)."""
        return np.asarray(nodes, dtype=np.int64)[..., None] // self.strides % self.sizes

    def moved(self, nodes: Ints, origin: Ints, to: Ints) -> Ints:
        """Nodes that lie from ``to`` as ``nodes`` lie from ``origin``, round every dimension (arrays broadcast)."""
        shift = self.coordinates(to) - self.coordinates(origin)
        found: Ints = ((self.coordinates(nodes) + shift) % self.sizes) @ self.strides
        return found

    def hops(self, a: int, b: int) -> list[Hop]:
        """Links from node ``a`` to ``b``."""
        found: list[Hop] = []
        here = a
        for d, dimension in enumerate(self.dimensions):
            stride, size = int(self.strides[d]), dimension.size
            at, to = here // stride % size, b // stride % size
            if at != to:
                line = here - at * stride
                found += [Hop(line + c * stride, link, part) for c, link, part in self._line(d, at, to)]
                here = line + to * stride
        return found

    def _line(self, d: int, at: int, to: int) -> list[tuple[int, int, float]]:
        """(Coordinate, link, part) of each link of one dimension."""
        first, size = self.begins[d], self.dimensions[d].size
        far = (to - at) % size
        if self.dimensions[d].kind == "full":
            return [(at, first + far - 1, 1.0)]
        if self.dimensions[d].kind == "switch":
            return [(at, first, 1.0), (to, first + 1, 1.0)]
        ahead = 1.0 if 2 * far < size else 0.5 if 2 * far == size else 0.0
        up = [((at + i) % size, first, ahead) for i in range(far)] if ahead else []
        down = [((at - i) % size, first + 1, 1.0 - ahead) for i in range(size - far)] if ahead < 1 else []
        return up + down

    def latency(self, a: int, b: int) -> float:
        """Seconds that hops from ``a`` to ``b`` take (Simple protocol)."""
        far = (self.coordinates([b]) - self.coordinates([a]))[0] % self.sizes
        hops = [
            (min(f, dim.size - f) if dim.kind == "ring" else min(f, 1)) * dim.latency
            for f, dim in zip(far.tolist(), self.dimensions, strict=True)
        ]
        return float(sum(hops))
