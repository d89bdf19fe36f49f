"""Rank classes of a workload on a cluster: the graph that ``fold`` refines, and what comes out of it.

Owns the edges: a rank meets the resources of its device by role, a process group meets its members and the resources
that its ring crosses by amount. With ``fold=False`` every vertex stays alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim import mesh
from sim.cluster.types import Cluster, Place
from sim.cost.collectives import ring_demand
from sim.cost.fold import Ints, Partition, discrete, refine
from sim.workload.ops import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupClass:
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


def classify(workload: Workload, cluster: Cluster, *, fold: bool) -> Classes:
    """Fold the ranks of ``workload`` placed on ``cluster``."""
    graph = _Graph(workload, cluster)
    partition = refine(graph.start, *graph.edges()) if fold else discrete(len(graph.start))
    return graph.classes(partition)


class _Graph:
    """Vertices: ranks, then process groups, then the resources that somebody meets."""

    def __init__(self, workload: Workload, cluster: Cluster) -> None:
        self.cluster = cluster
        self.ranks = len(workload.program_of_rank)
        self.groups = [(axis, group) for axis, groups in workload.groups.items() for group in groups if len(group) > 1]
        self.base = self.ranks + len(self.groups)
        self.sources: list[Ints] = []
        self.targets: list[Ints] = []
        self.labels: list[Ints] = []
        self._rank_edges()
        for number, (axis, group) in enumerate(self.groups):
            self._group_edges(number, list(workload.groups).index(axis), group)
        met = np.unique(np.concatenate(self.targets))
        self.resources = met[met >= self.base] - self.base
        self.start = self._start(workload)

    def _rank_edges(self) -> None:
        """One edge for each role of each device resource; ranks of one position share the pattern."""
        places = self.cluster.places
        for gpu, place in enumerate(places):
            ranks = np.arange(gpu, self.ranks, len(places), dtype=np.int64)
            nodes = ranks // len(places)
            for role, local in _roles(place):
                self._add(ranks, self.base + nodes * self.cluster.per_node + local, np.full(len(ranks), role))

    def _group_edges(self, number: int, axis: int, group: tuple[int, ...]) -> None:
        vertex = self.ranks + number
        members = np.array(group, dtype=np.int64)
        self._add(np.full(len(group), vertex), members, np.full(len(group), 1000 + axis))
        cost = ring_demand("all_gather", 1.0, [self.place(r) for r in group], self.cluster)
        amounts = cost.amounts.astype(np.float32).view(np.int32).astype(np.int64)  # equal shares differ by an ulp
        self._add(np.full(len(amounts), vertex), self.base + cost.ids, 10_000 + amounts)

    def _add(self, source: Ints, target: Ints, label: Ints) -> None:
        self.sources.append(source.astype(np.int64))
        self.targets.append(target.astype(np.int64))
        self.labels.append(label.astype(np.int64))

    def place(self, rank: int) -> tuple[int, int]:
        """(node, GPU) of a rank."""
        return mesh.place(rank, len(self.cluster.places))

    def _start(self, workload: Workload) -> Ints:
        """First colours: program of a rank; axis and size of a group; kind and capacity of a resource."""
        kinds: dict[object, int] = {}
        keys: list[object] = [("rank", p) for p in workload.program_of_rank]
        keys += [("group", axis, len(group)) for axis, group in self.groups]
        local = [("resource", r.kind, r.capacity) for r in self.cluster.resources]
        keys += [local[i] for i in (self.resources % self.cluster.per_node).tolist()]
        return np.array([kinds.setdefault(key, len(kinds)) for key in keys], dtype=np.int64)

    def edges(self) -> tuple[Ints, Ints, Ints]:
        """(source, target, label) with resources renumbered to those that are met."""
        target = np.concatenate(self.targets)
        resource = target >= self.base
        target[resource] = self.base + np.searchsorted(self.resources, target[resource] - self.base)
        return np.concatenate(self.sources), target, np.concatenate(self.labels)

    def classes(self, partition: Partition) -> Classes:
        ranks, groups, resources = np.split(partition.colour, [self.ranks, self.base])
        rank_class, rank_first, members = _local(ranks)
        group_class, group_first, counts = _local(groups)
        resource_class, resource_first, sizes = _local(resources)
        table = np.full(self.cluster.nodes * self.cluster.per_node, -1, dtype=np.int64)
        table[self.resources] = resource_class
        rows = tuple(
            GroupClass(axis=self.groups[f][0], count=int(c), members=self.groups[f][1])
            for f, c in zip(group_first.tolist(), counts.tolist(), strict=True)
        )
        return Classes(
            rank_class=rank_class,
            members=members,
            first=rank_first,
            resource_class=table,
            resource_size=sizes,
            resource_first=self.resources[resource_first],
            groups=rows,
            group_of_class=self._memberships(rank_first, group_class),
        )

    def _memberships(self, rank_first: Ints, group_class: Ints) -> dict[str, tuple[int, ...]]:
        found: dict[str, dict[int, int]] = {}
        for number, (axis, group) in enumerate(self.groups):
            found.setdefault(axis, {}).update(dict.fromkeys(group, int(group_class[number])))
        return {axis: tuple(of.get(r, -1) for r in rank_first.tolist()) for axis, of in found.items()}


def _roles(place: Place) -> list[tuple[int, int]]:
    """(role, local resource) pairs of a device; a route's resources share one role, as often as they occur."""
    single = (place.sm, place.hbm, place.dram, place.cores)
    pairs = list(enumerate(single))
    for role, route in ((10, place.h2d), (11, place.d2h)):
        pairs += [(role, local) for local in route]
    return pairs


def _local(colours: NDArray[np.int64]) -> tuple[Ints, Ints, Ints]:
    """Class numbers from 0 within one kind of vertex, each class's first member, each class's size."""
    _, first, inverse, counts = np.unique(colours, return_index=True, return_inverse=True, return_counts=True)
    return inverse.astype(np.int64), first.astype(np.int64), counts.astype(np.int64)
