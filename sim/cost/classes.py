"""Rank classes of a workload on a cluster: the graph that ``fold`` refines, and what comes out of it.

Owns the edges: a rank meets the resources of its device by role, a process group meets its members and the resources
that its ring crosses by amount. With ``fold=False`` every vertex stays alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
import numpy as np
from msgspec.structs import replace

from sim.cluster.types import Cluster, Place
from sim.cost.demand import patterns
from sim.cost.fold import Ints, Partition, discrete, partition, refine, row_keys
from sim.cost.placing import Placing, placing
from sim.cost.traffic import Member
from sim.workload.ops import Collective, Copy, HostWork, Work, Workload


class GroupClass(msgspec.Struct, frozen=True, kw_only=True):
    """``count`` equal process groups of one axis; ``members`` are the representative's ranks, in ring order."""

    axis: str
    count: int
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Classes:
    """The partition in the words of the cost room.

    ``rank_class`` (ranks,); ``members`` and ``first`` a rank class's size and representative. ``resource_class`` maps a
    resource of the cluster (-1: met by nobody) to its class, ``resource_size`` and ``resource_first`` describe those.
    ``group_of_class[axis][c]`` is the group class that the representative of rank class c belongs to.
    """

    rank_class: Ints
    members: Ints
    first: Ints
    resource_class: Ints
    resource_size: Ints
    resource_first: Ints
    groups: tuple[GroupClass, ...]
    group_of_class: dict[str, tuple[int, ...]]


def classify(workload: Workload, cluster: Cluster, placed: Placing | None = None, *, fold: bool) -> Classes:
    """Fold the ranks of ``workload``, placed on ``cluster`` as ``placed`` says (None: node after node)."""
    graph = _Graph(workload, cluster, placed or placing(len(workload.program_of_rank), "packed", cluster))
    return graph.classes(refine(graph.start, *graph.edges()) if fold else discrete(len(graph.start)))


class _Graph:
    """Vertices: ranks, then process groups axis by axis, then the resources that somebody meets."""

    def __init__(self, workload: Workload, cluster: Cluster, placed: Placing) -> None:
        self.cluster = cluster
        self.placed = placed
        self.ranks = len(workload.program_of_rank)
        self.axes = {axis: groups for axis, groups in workload.groups.items() if groups.shape[1] > 1}
        counts = [len(groups) for groups in self.axes.values()]
        self.offsets = dict(zip(self.axes, self.ranks + np.cumsum([0, *counts])[:-1], strict=True))
        self.base = self.ranks + sum(counts)
        self.sources: list[Ints] = []
        self.targets: list[Ints] = []
        self.labels: list[Ints] = []
        works = [op.work for program in workload.programs for block in program.blocks for op in block.ops]
        self.copies = any(isinstance(work, Copy) for work in works)
        self.host = any(isinstance(work, HostWork) for work in works)
        exchanges = _exchanges(works)
        self.probes = {axis: tuple(exchanges.get(axis, ())) for axis in self.axes}
        self._rank_edges()
        for axes in self._alike():
            self._axes_edges(axes)
        self.resources, self.vertex_of = self._met()
        self.start = self._start(workload)

    def _rank_edges(self) -> None:
        """One edge for each role of each device resource; ranks in one place of one kind of node share it."""
        seats = [(k, gpu, place) for k, kind in enumerate(self.cluster.kinds) for gpu, place in enumerate(kind.places)]
        for k, gpu, place in seats:
            ranks = np.flatnonzero((self.placed.gpu == gpu) & (self.placed.kind == k))
            nodes = self.placed.node[ranks]
            for role, local in self._roles(place) if len(ranks) else ():
                self._add(ranks, self.base + nodes * self.cluster.per_node + local, np.full(len(ranks), role))

    def _roles(self, place: Place) -> list[tuple[int, int]]:
        """(Role, local resource) pairs that the programs use; a route's resources share one role."""
        pairs = [(0, place.sm), (1, place.hbm)]
        if self.host:
            pairs += [pair for dram, cores in place.worked for pair in ((2, dram), (3, cores))]
        if self.copies:
            pairs += [(10, local) for local in place.h2d] + [(11, local) for local in place.d2h]
            pairs += [(12, local) for local in place.nvme_read] + [(13, local) for local in place.nvme_write]
            pairs += [(14, place.nvme)] if place.nvme >= 0 else []
        return pairs

    def _alike(self) -> list[list[str]]:
        """Axes whose groups do the same in the same way: the edges of those are made at once.

        NOTE: a deep pipeline has an axis of messages for each pair of neighbours, and all of them are alike.
        """
        found: dict[object, list[str]] = {}
        for axis, groups in self.axes.items():
            work = tuple(replace(probe, axis="") for probe in self.probes[axis])
            found.setdefault((groups.shape[1], axis.startswith("p2p"), work), []).append(axis)
        return list(found.values())

    def _axes_edges(self, axes: list[str]) -> None:
        """Edges from each group of axes that are alike to its members and to the resources that its exchanges cross.

        Groups with the same GPUs at the same distances between nodes share one pattern of resources.
        """
        numbers = {axis: number for number, axis in enumerate(self.axes)}
        groups = np.concatenate([self.axes[axis] for axis in axes])
        counts = [len(self.axes[axis]) for axis in axes]
        vertices = np.concatenate([self.offsets[axis] + np.arange(len(self.axes[axis])) for axis in axes])
        members = groups.shape[1]
        pair = axes[0].startswith("p2p")  # sender and receiver are told apart, members of other groups are not
        role = np.repeat([1000 + 10 * numbers[axis] for axis in axes], counts)[:, None] + pair * np.arange(members)
        self._add(np.repeat(vertices, members), groups.reshape(-1), role.reshape(-1))
        nodes, gpus = self.placed.node[groups], self.placed.gpu[groups]
        leaves, pods = self.cluster.leaf(nodes), self.cluster.pod(nodes)
        shapes = partition(row_keys(self._seats(groups, vertices)))
        by_shape = np.split(np.argsort(shapes.colour, kind="stable"), np.cumsum(shapes.size)[:-1])
        for rows, mine in zip(shapes.first.tolist(), by_shape, strict=True):
            where = list(zip(nodes[rows].tolist(), gpus[rows].tolist(), strict=True))
            ids, label = self._pattern(axes[0], where)
            begins = [level[:, :1] for level in (nodes, leaves, pods)]
            at = self._moved(ids, [level[rows] for level in begins], [level[mine] for level in begins])
            touched = np.repeat(vertices[mine], len(ids))
            self._add(touched, self.base + at.reshape(-1), np.tile(label, len(mine)))

    def _seats(self, groups: Ints, vertices: Ints) -> Ints:
        """Where the members of each group sit as its first sees it (groups, numbers): equal rows, like resources."""
        nodes, gpus = self.placed.node[groups], self.placed.gpu[groups]
        width, kinds = max(len(kind.places) for kind in self.cluster.kinds), len(self.cluster.kinds)
        grid = self.cluster.grid
        apart = nodes - nodes[:, :1] if grid is None else grid.moved(nodes, nodes[:, :1], np.zeros_like(nodes))
        seats = (apart * width + gpus) * kinds + self.placed.kind[groups]
        if grid is not None and kinds > 1:  # a message meets nodes of any kind: every group on its own
            seats = np.concatenate([seats, vertices[:, None]], axis=1)
        levels = ((self.cluster.leaves, self.cluster.leaf), (self.cluster.pods, self.cluster.pod))
        for above in [level(nodes) for there, level in levels if there]:  # and how far apart their leaves and pods are
            seats = np.concatenate([seats, above - above[:, :1]], axis=1)
        return seats

    def _moved(self, ids: Ints, origin: list[Ints], to: list[Ints]) -> Ints:
        """Resources (groups, ids) that lie from each group's node, leaf, pod ``to`` as ``ids`` do from ``origin``."""
        per = self.cluster.per_node
        if self.cluster.grid is not None:
            node, local = np.divmod(ids, per)
            return self.cluster.grid.moved(node[None, :], origin[0], to[0]) * per + local[None, :]
        first = [self.cluster.nodes, self.cluster.nodes + self.cluster.leaves]
        level = np.searchsorted(first, ids // per, side="right")
        shifts = [there - here for here, there in zip(origin, to, strict=True)]  # (groups, 1) each
        found: Ints = ids[None, :] + np.concatenate(shifts, axis=1)[:, level] * per
        return found

    def _pattern(self, axis: str, where: list[Member]) -> tuple[Ints, Ints]:
        """Resources that a group's exchanges cross, and a label for each: its part of every one of them."""
        met = [demand for probe in self.probes[axis] for demand in patterns(probe, where, self.cluster)]
        ids = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *(demand.ids for demand in met)]))
        parts = np.zeros((len(ids), len(met)), dtype=np.float32)  # shares differ by an ulp
        for column, demand in enumerate(met):
            parts[np.searchsorted(ids, demand.ids), column] = demand.amounts
        return ids, row_keys(parts.view(np.int32).astype(np.int64)).view(np.int64)

    def _add(self, source: Ints, target: Ints, label: Ints) -> None:
        self.sources.append(source)
        self.targets.append(target)
        self.labels.append(label)

    def _met(self) -> tuple[Ints, Ints]:
        """Resources that somebody meets, ascending, and the vertex of each resource of the cluster (-1: none)."""
        met = np.zeros(self.base + self.cluster.size, dtype=bool)
        for target in self.targets:
            met[target] = True
        resources = np.flatnonzero(met[self.base :])
        vertex_of = np.full(len(met) - self.base, -1, dtype=np.int64)
        vertex_of[resources] = self.base + np.arange(len(resources), dtype=np.int64)
        return resources, vertex_of

    def _start(self, workload: Workload) -> Ints:
        """First colours: a rank's program, CPU share, kind of node; a group's axis; a resource's kind and capacity."""
        share = self.placed.sharing if self.host else np.zeros_like(self.placed.sharing)
        lives = _numbered(np.stack([workload.program_of_rank, share.view(np.int64), self.placed.kind], axis=1))
        groups = [np.full(len(rows), axis) for axis, rows in enumerate(self.axes.values())]
        node, local = np.divmod(self.resources, self.cluster.per_node)
        capacity = self.cluster.capacities(self.resources).view(np.int64)
        resources = _numbered(np.stack([self._kinds()[self.cluster.kind_of[node], local], capacity], axis=1))
        ranks, axes = int(lives.max(initial=-1)) + 1, len(self.axes)
        return np.concatenate([lives, *(group + ranks for group in groups), resources + ranks + axes]).astype(np.int64)

    def _kinds(self) -> Ints:
        """What sort of thing each resource of each kind of node is (kinds of node, per_node), as numbers."""
        names: dict[str, int] = {}
        table = np.full((len(self.cluster.kinds), self.cluster.per_node), -1, dtype=np.int64)
        for row, kind in zip(table, self.cluster.kinds, strict=True):
            row[: len(kind.resources)] = [names.setdefault(r.kind, len(names)) for r in kind.resources]
        return table

    def edges(self) -> tuple[Ints, Ints, Ints]:
        """(source, target, label) with resources renumbered to those that are met."""
        target = np.concatenate(self.targets)
        resource = target >= self.base
        target[resource] = self.vertex_of[target[resource] - self.base]
        return np.concatenate(self.sources), target, np.concatenate(self.labels)

    def classes(self, found: Partition) -> Classes:
        rank_class, rank_first, members = _part(found, 0, self.ranks)
        group_class, group_first, counts = _part(found, self.ranks, self.base)
        resource_class, resource_first, sizes = _part(found, self.base, len(found.colour))
        table = np.full(self.cluster.size, -1, dtype=np.int64)
        table[self.resources] = resource_class
        rows = []
        for first, count in zip((group_first + self.ranks).tolist(), counts.tolist(), strict=True):
            axis = next(a for a in reversed(self.axes) if self.offsets[a] <= first)
            rows.append(
                GroupClass(axis=axis, count=count, members=tuple(self.axes[axis][first - self.offsets[axis]].tolist()))
            )
        return Classes(
            rank_class=rank_class,
            members=members,
            first=rank_first,
            resource_class=table,
            resource_size=sizes,
            resource_first=self.resources[resource_first],
            groups=tuple(rows),
            group_of_class=self._memberships(rank_first, group_class),
        )

    def _memberships(self, rank_first: Ints, group_class: Ints) -> dict[str, tuple[int, ...]]:
        found = {}
        for axis, groups in self.axes.items():
            of_rank = np.full(self.ranks, -1, dtype=np.int64)
            begin = self.offsets[axis] - self.ranks
            of_rank[groups.reshape(-1)] = np.repeat(group_class[begin : begin + len(groups)], groups.shape[1])
            found[axis] = tuple(of_rank[rank_first].tolist())
        return found


def _part(found: Partition, begin: int, end: int) -> tuple[Ints, Ints, Ints]:
    """Class numbers from 0 within one kind of vertex, each class's first member, each class's size.

    The kinds lie one after the other and share no class, so the classes of a kind are numbered without a gap.
    """
    low, high = np.searchsorted(found.first, [begin, end])
    return found.colour[begin:end] - low, found.first[low:high] - begin, found.size[low:high]


def _numbered(rows: Ints) -> Ints:
    """A number for each row, equal for equal rows."""
    _, found = np.unique(row_keys(rows), return_inverse=True)
    return found.reshape(-1).astype(np.int64)


def _exchanges(works: Iterable[Work | None]) -> dict[str, dict[Collective, None]]:
    """By axis, the different exchanges whatever their size: programs share the collectives of their layers."""
    found: dict[str, dict[Collective, None]] = {}
    for work in {id(work): work for work in works}.values():
        if isinstance(work, Collective):
            found.setdefault(work.axis, {})[replace(work, size=1.0, overlap="none")] = None
    return found
