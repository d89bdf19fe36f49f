"""Resources and routes of a built cluster: frozen, numbered, free of networkx.

Resources are numbered ``node * per_node + local``; every node of a cluster is the same, so a node is built once
and a route inside it is a tuple of local numbers. Knows no model and no op.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sim.spec.types import ClusterSpec

ResourceKind = Literal[
    "sm", "hbm", "nvlink.tx", "nvlink.rx", "pcie.h2d", "pcie.d2h", "pcie.duplex", "uplink.in", "uplink.out",
    "dram", "cores", "socket_link", "nic.tx", "nic.rx", "nvme.read", "nvme.write",
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
    is the adapter that serves this GPU (-1: none). ``nvlink_tx``/``nvlink_rx`` are -1 without NVLink.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A built cluster: ``nodes`` copies of the same resources; ``places[g]`` is GPU g of any node.

    ``peer[a][b]`` is the route of a copy from GPU a to GPU b of one node: NVLink ports, or the PCIe path (through
    host memory where GPUs have no peer access).
    """

    spec: ClusterSpec
    nodes: int
    resources: tuple[Resource, ...]
    places: tuple[Place, ...]
    peer: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def per_node(self) -> int:
        """Resources of one node."""
        return len(self.resources)

    def at(self, node: int, local: int) -> int:
        """Number of a node's resource in the whole cluster."""
        return node * len(self.resources) + local
