"""Resources and routes of a built cluster: frozen, numbered, free of networkx.

Resources are numbered ``node * per_node + local``. Nodes of one kind are the same, so each kind is built once and a
route inside it is a tuple of local numbers. Knows no model and no op.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sim.cluster.grid import Grid
from sim.spec.types import ClusterSpec

ResourceKind = Literal[
    "sm", "hbm", "nvlink.tx", "nvlink.rx", "pcie.h2d", "pcie.d2h", "pcie.duplex", "uplink.in", "uplink.out",
    "dram", "cores", "socket_link", "nic.tx", "nic.rx", "nvme.read", "nvme.write", "nvme.busy",
    "leaf.up", "leaf.down", "core.up", "core.down", "nvlink.to", "nvlink.bridge",
    "grid.next", "grid.back", "grid.out", "grid.in", "grid.to",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One thing with a capacity per second, in a node. ``name`` such as ``gpu3.hbm``."""

    name: str
    kind: ResourceKind
    capacity: float
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What one GPU of a node meets: local resource numbers.

    ``h2d`` and ``d2h`` are whole paths between the GPU and the DRAM of its socket, HBM and DRAM included; ``nic``
    is the adapter that serves this GPU (-1: none). ``nvlink_tx``/``nvlink_rx`` are -1 without a port. ``nvme_read`` and
    ``nvme_write`` are paths between the drives and that DRAM, ``nvme`` the time of the drives (none without drives).
    ``worked`` are the (dram, cores) of the sockets that its process works on: its own, or all. ``rail`` is the number
    of its adapter in the node; ``grid`` are its links in ``fabric.dimensions``, one dimension after another.
    """

    sm: int
    hbm: int
    socket: int
    dram: int
    cores: int
    h2d: tuple[int, ...]
    d2h: tuple[int, ...]
    nvlink_tx: int
    nvlink_rx: int
    nic_tx: int
    nic_rx: int
    nvme_read: tuple[int, ...] = ()
    nvme_write: tuple[int, ...] = ()
    nvme: int = -1
    worked: tuple[tuple[int, int], ...] = ()
    rail: int = -1
    grid: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeKind:
    """One way of building a node: what it is made of, ``resources`` by local number; ``places[g]`` is its GPU g.

    A leaf of the fabric is a node without GPUs whose resources are its uplinks: up and down by rail; a pod likewise.

    ``peer[a][b]`` is the route of a copy from GPU a to GPU b: NVLink ports, or the PCIe path (through host memory where
    GPUs have no peer access). ``missing`` are the (part, index) pairs that are not there.
    """

    spec: ClusterSpec
    resources: tuple[Resource, ...]
    places: tuple[Place, ...]
    peer: tuple[tuple[tuple[int, ...], ...], ...]
    missing: tuple[tuple[str, int], ...] = ()

    @property
    def has_network(self) -> bool:
        """Whether any adapter, or link of a grid, is there."""
        return any(place.nic_tx >= 0 or place.grid for place in self.places)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cluster:
    """A built cluster: ``kinds`` of node, and which one each node is, ``kind_of`` (nodes + leaves + pods,).

    Each node has ``per_node`` numbers for its resources; a kind with fewer leaves the last ones out. ``changed``
    overrides the capacity of single resources of the cluster: a slow GPU, a degraded link or adapter. ``leaves`` of the
    fabric, which are numbered after the nodes, and ``pods`` after them are there if their uplinks can bind.
    """

    spec: ClusterSpec
    kinds: tuple[NodeKind, ...]
    kind_of: NDArray[np.int64]
    changed: Mapping[int, float] = field(default_factory=dict)
    leaves: int = 0
    pods: int = 0
    per_node: int = field(init=False)
    grid: Grid | None = field(init=False)
    _table: NDArray[np.float64] = field(init=False, repr=False)
    _changed: tuple[NDArray[np.int64], NDArray[np.float64]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "per_node", max(len(kind.resources) for kind in self.kinds))
        table = np.zeros((len(self.kinds), self.per_node))
        for kind, row in zip(self.kinds, table, strict=True):
            row[: len(kind.resources)] = [resource.capacity for resource in kind.resources]
        object.__setattr__(self, "_table", table)
        ids = np.array(sorted(self.changed), dtype=np.int64)
        object.__setattr__(self, "_changed", (ids, np.array([self.changed[i] for i in ids.tolist()])))
        dimensions = self.spec.fabric.dimensions if self.spec.fabric is not None else ()
        object.__setattr__(self, "grid", Grid(dimensions) if dimensions else None)

    @property
    def nodes(self) -> int:
        """Nodes of all kinds, leaves and pods left out."""
        return len(self.kind_of) - self.leaves - self.pods

    @property
    def size(self) -> int:
        """Numbers that resources may have: each is below it."""
        return len(self.kind_of) * self.per_node

    @property
    def machines(self) -> list[NodeKind]:
        """Kinds of node that hold GPUs."""
        return [kind for kind in self.kinds if kind.places]

    @property
    def gpus_of_node(self) -> list[int]:
        """GPUs of each node."""
        gpus = np.array([len(kind.places) for kind in self.kinds])
        found: list[int] = gpus[self.kind_of[: self.nodes]].tolist()
        return found

    def leaf(self, node: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number, among nodes, of the leaf that each node hangs on (its own number where no leaf can bind)."""
        fabric = self.spec.fabric
        return node if fabric is None or not self.leaves else self.nodes + node // fabric.nodes_per_leaf

    def pod(self, node: NDArray[np.int64]) -> NDArray[np.int64]:
        """As ``leaf``, of the pod that each node is in."""
        fabric = self.spec.fabric
        if fabric is None or not self.pods:
            return node
        return self.nodes + self.leaves + node // (fabric.nodes_per_leaf * fabric.leaves_per_pod)

    def crossing(self, a: tuple[int, int], b: tuple[int, int]) -> tuple[int, ...]:
        """Uplinks between two places (node, GPU), as numbers in the cluster; none where one leaf has both adapters."""
        fabric = self.spec.fabric
        if fabric is None or not (self.leaves or self.pods):
            return ()
        (i, j), per, found = (a[0], b[0]), fabric.nodes_per_leaf, list[int]()
        up, down = (self.node(n).places[gpu].rail if fabric.rails else 0 for n, gpu in (a, b))
        if self.leaves and (i // per != j // per or up != down):
            found += [self.at(self.nodes + i // per, 2 * up), self.at(self.nodes + j // per, 2 * down + 1)]
        per *= fabric.leaves_per_pod
        if self.pods and i // per != j // per:
            first = self.nodes + self.leaves
            found += [self.at(first + i // per, 0), self.at(first + j // per, 1)]
        return tuple(found)

    def between(self, a: tuple[int, int], b: tuple[int, int]) -> list[tuple[int, float]]:
        """(Resource, part of the bytes) of what a message meets from a GPU (node, GPU) to one of another node.

        In a grid it arrives at its sender's place there, and goes on inside the node.
        """
        (i, gpu), (j, to) = a, b
        if self.grid is None:
            ends = self.at(i, self.node(i).places[gpu].nic_tx), self.at(j, self.node(j).places[to].nic_rx)
            return [(number, 1.0) for number in (*ends, *self.crossing(a, b))]
        kind = self.node(j)
        found = [(self.at(h.node, self.node(h.node).places[gpu].grid[h.link]), h.part) for h in self.grid.hops(i, j)]
        return found + [(self.at(j, local), 1.0) for local in (kind.peer[gpu][to] if to != gpu else ())]

    def name_of(self, number: int) -> str:
        """A resource by its name in the cluster: ``n3.gpu0.hbm``, ``leaf1.rail0.up``."""
        node = number // self.per_node
        where = f"n{node}" if node < self.nodes else f"leaf{node - self.nodes}"
        if node >= self.nodes + self.leaves:
            where = f"pod{node - self.nodes - self.leaves}"
        return f"{where}.{self.resource(number).name}"

    def node(self, number: int) -> NodeKind:
        """How a node is built."""
        return self.kinds[int(self.kind_of[number])]

    def at(self, node: int, local: int) -> int:
        """Number of a node's resource in the whole cluster."""
        return node * self.per_node + local

    def resource(self, number: int) -> Resource:
        """A resource by its number in the whole cluster."""
        node, local = divmod(number, self.per_node)
        return self.node(node).resources[local]

    def capacities(self, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Capacity of each resource (numbers in the cluster), variations included."""
        node, local = np.divmod(numbers, self.per_node)
        usual: NDArray[np.float64] = self._table[self.kind_of[node], local]
        if self.changed:
            at = np.searchsorted(self._changed[0], numbers)
            at[at == len(self._changed[0])] = 0
            hit = self._changed[0][at] == numbers
            usual[hit] = self._changed[1][at[hit]]
        return usual
