"""The mesh: rank <-> (pp, dp, cp, tp), process groups by axis, and where a rank sits.

Owns the numbering of ranks. Axes have a stated order, innermost first: ranks that differ only in the innermost axis
are neighbours. Unless told otherwise ranks fill a node before the next one begins, as launchers number them
(``torchrun``: global rank = node rank x processes per node + local rank).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ranks = NDArray[np.int64]
AXES = ("tp", "cp", "dp", "pp")
"""The axes that number ranks."""


def places(world: int, placement: str | Sequence[int], gpus: Sequence[int]) -> tuple[Ranks, Ranks]:
    """Node and GPU of that node of each rank: two arrays (ranks,). ``gpus`` is how many each node has.

    ``packed``: ranks fill one node after another. ``scattered``: one rank a node in turn, over and over, nodes that are
    full left out (Slurm's ``--distribution=cyclic``). A sequence gives the device of each rank; devices are numbered
    node by node.

    >>> [a.tolist() for a in places(4, "packed", [2, 2])]
    [[0, 0, 1, 1], [0, 1, 0, 1]]
    >>> [a.tolist() for a in places(4, "scattered", [2, 2])]
    [[0, 1, 0, 1], [0, 0, 1, 1]]
    """
    counts = np.asarray(gpus, dtype=np.int64)
    begins = np.cumsum(counts) - counts
    total = int(counts.sum())
    assert world <= total, "more ranks than devices"
    devices = np.arange(total, dtype=np.int64) if isinstance(placement, str) else np.asarray(placement, dtype=np.int64)
    node = np.searchsorted(begins, devices, side="right") - 1
    gpu = devices - begins[node]
    if placement == "scattered":
        order = np.lexsort((node, gpu))
        node, gpu = node[order], gpu[order]
    return node[:world], gpu[:world]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """``sizes`` of tp, cp, dp, pp; ``order`` innermost first; ``replicate`` parts of dp x cp hold copies (HSDP).

    ``experts`` is the size of ep, which numbers no rank: the ranks of one pipeline stage (dp x cp x tp) in the mesh's
    order, cut into runs of ``experts`` ranks that hold all experts between them (Megatron-LM's expert groups with
    expert tensor parallelism 1; DeepSpeed's, torchtitan's).

    >>> mesh = Mesh(sizes={"tp": 2, "cp": 1, "dp": 2, "pp": 2}, order=("tp", "cp", "dp", "pp"))
    >>> mesh.groups("tp").tolist()
    [[0, 1], [2, 3], [4, 5], [6, 7]]
    >>> mesh.groups("pp").tolist()
    [[0, 4], [1, 5], [2, 6], [3, 7]]
    """

    sizes: Mapping[str, int]
    order: tuple[str, ...] = AXES
    replicate: int = 1
    experts: int = 1

    @property
    def world(self) -> int:
        """Number of ranks."""
        return int(np.prod([self.sizes[axis] for axis in self.order]))

    def grid(self) -> Ranks:
        """Ranks as an array (tp, cp, dp, pp)."""
        outer_first = [self.sizes[axis] for axis in reversed(self.order)]
        grid = np.arange(self.world, dtype=np.int64).reshape(outer_first)
        return grid.transpose([len(self.order) - 1 - self.order.index(axis) for axis in AXES])

    def groups(self, axis: str) -> Ranks:
        """Process groups of an axis, one a row (groups, members), each in the order of the axis, by first member.

        Beside tp, cp, dp, pp: ``dp_cp`` (whoever holds the same parameters), HSDP's two parts of it, ``shard`` and
        ``replicate``; ``ep`` (whoever shares out the experts) and ``edp`` (whoever holds the same experts).
        """
        grid = self.grid()
        if axis in AXES:
            rows = np.moveaxis(grid, AXES.index(axis), -1).reshape(-1, self.sizes[axis])
        elif axis == "dp_cp":  # cp within dp, as Megatron orders them
            rows = grid.transpose(0, 3, 2, 1).reshape(-1, self.sizes["dp"] * self.sizes["cp"])
        elif axis in ("ep", "edp"):
            rows = self._expert_groups(axis)
        else:
            whole = grid.transpose(0, 3, 2, 1).reshape(-1, self.replicate, self._shard)
            shards = whole.reshape(-1, self._shard)
            rows = shards if axis == "shard" else whole.transpose(0, 2, 1).reshape(-1, self.replicate)
        return rows[np.argsort(rows[:, 0], kind="stable")]

    def _expert_groups(self, axis: str) -> Ranks:
        """Ranks of a stage, pp outermost, the others in the mesh's order: runs of ep, or every ep-th rank."""
        order = [AXES.index(axis) for axis in reversed(self.order) if axis != "pp"]
        runs = self.grid().transpose([AXES.index("pp"), *order]).reshape(self.sizes["pp"], -1, self.experts)
        rows = runs if axis == "ep" else runs.transpose(0, 2, 1)
        return rows.reshape(-1, rows.shape[-1])

    @property
    def _shard(self) -> int:
        return self.sizes["dp"] * self.sizes["cp"] // self.replicate

    def coordinate(self, axis: str) -> Ranks:
        """Each rank's coordinate on one of tp, cp, dp, pp: shape (ranks,)."""
        grid = self.grid()
        found = np.empty(self.world, dtype=np.int64)
        shape = [1] * len(AXES)
        shape[AXES.index(axis)] = self.sizes[axis]
        found[grid.reshape(-1)] = np.broadcast_to(np.arange(self.sizes[axis]).reshape(shape), grid.shape).reshape(-1)
        return found
