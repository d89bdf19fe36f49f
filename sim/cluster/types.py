"""Resources and routes of a built cluster: frozen, numbered, free of networkx.

Resources are numbered ``node * per_node + local``; every node of a cluster is the same, so a node is built once
and a route inside it is a tuple of local numbers. Knows no model and no op.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sim.spec.types import ClusterSpec

ResourceKind = Literal[
    "sm", "hbm", "nvlink.tx", "nvlink.rx", "pcie.h2d", "pcie.d2h", "pcie.duplex", "uplink.in", "uplink.out",
    "dram", "cores", "socket_link", "nic.tx", "nic.rx", "nvme.read", "nvme.write", "nvme.busy",
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
    is the adapter that serves this GPU (-1: none). ``nvlink_tx``/``nvlink_rx`` are -1 without NVLink. ``nvme_read`` and
    ``nvme_write`` are paths between the drives and that DRAM, ``nvme`` the time of the drives (none without drives).
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A built cluster: ``nodes`` copies of the same resources; ``places[g]`` is GPU g of any node.

    ``peer[a][b]`` is the route of a copy from GPU a to GPU b of one node: NVLink ports, or the PCIe path (through
    host memory where GPUs have no peer access). ``changed`` overrides the capacity of single resources of the
    cluster: a slow GPU, a degraded link or adapter.
    """

    spec: ClusterSpec
    nodes: int
    resources: tuple[Resource, ...]
    places: tuple[Place, ...]
    peer: tuple[tuple[tuple[int, ...], ...], ...]
    changed: Mapping[int, float] = field(default_factory=dict)

    @property
    def per_node(self) -> int:
        """Resources of one node."""
        return len(self.resources)

    def at(self, node: int, local: int) -> int:
        """Number of a node's resource in the whole cluster."""
        return node * len(self.resources) + local

    def capacities(self, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Capacity of each resource (numbers in the cluster), variations included."""
        usual = np.array([r.capacity for r in self.resources])[numbers % len(self.resources)]
        for number, capacity in self.changed.items():
            usual[numbers == number] = capacity
        return usual
