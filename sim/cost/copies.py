"""What copies between a GPU, its host and the drives, and work of the CPU on host memory, ask of the cluster.

Owns the demand of ``Copy`` and ``HostWork``. Pure functions on a built ``Cluster``; must not know the engine or who
else uses the same DRAM: that several ranks and copies share it is found there.

Limits. A pageable copy is slower because the driver stages it through a pinned buffer; the extra traffic of that
staging on host memory is not counted. CPU work is bound by memory, not by the arithmetic of the cores.
"""

from __future__ import annotations

from typing import Literal

from msgspec.structs import replace

from sim.cluster.types import Cluster, Place
from sim.cost.traffic import CollectiveCost, cost_of
from sim.errors import InfeasibleError

Direction = Literal["h2d", "d2h", "nvme_read", "nvme_write"]

NVME_LATENCY = 100e-6
"""Start of a large asynchronous read or write (seconds). Estimate: flash reads in about 80 us, and the call."""


def copy_cost(
    direction: Direction, size: float, place: Place, cluster: Cluster, node: int, *, pinned: bool
) -> CollectiveCost:
    """Cost of a copy of ``size`` bytes between a GPU (``place`` of ``node``), or the drives, and its socket's DRAM.

    The same bytes load every resource of the path. From pageable memory the copy takes at least
    ``size / host_link.pageable``; it then leaves room on the path for others.

    Raises:
        InfeasibleError: a pageable copy where the cluster gives no pageable rate.
    """
    if direction in ("nvme_read", "nvme_write"):
        return _drive_cost(direction == "nvme_read", size, place, cluster, node)
    link = cluster.node(node).spec.host_link
    path = place.h2d if direction == "h2d" else place.d2h
    cost = cost_of({cluster.at(node, local): size for local in path}, link.latency, cluster)
    if pinned:
        return cost
    if link.pageable <= 0:
        msg = (
            f'cluster "{cluster.spec.name}" gives no rate for pageable copies; '
            "give host_link.pageable or pin the host memory"
        )
        raise InfeasibleError(msg)
    return replace(cost, duration=max(cost.duration, size / link.pageable))


def _drive_cost(read: bool, size: float, place: Place, cluster: Cluster, node: int) -> CollectiveCost:
    """Bytes on the way, and the time of drives that read or write but not both at full rate. DMA: no SM, no cores."""
    drives = cluster.node(node).spec.nvme
    assert drives is not None, "refused at the door"
    path = place.nvme_read if read else place.nvme_write
    amounts = {cluster.at(node, local): size for local in path}
    amounts[cluster.at(node, place.nvme)] = size / (drives.read if read else drives.write)
    return cost_of(amounts, NVME_LATENCY, cluster)


def host_cost(
    size: float,
    place: Place,
    cluster: Cluster,
    node: int,
    *,
    ranks_per_socket: float,
    fraction: float,
    threads: int = 0,
) -> CollectiveCost:
    """Cost of CPU work of a rank that moves ``size`` bytes of DRAM on the socket of ``place`` (a GPU of ``node``).

    ``fraction`` is what such work reaches of STREAM bandwidth when all cores of the socket do it: Adam 0.45-0.75 (28
    bytes a parameter), a single stream of scaling or copying about 0.7. The rank owns an equal part of the cores, so
    alone it takes ``size * ranks_per_socket / (fraction * dram_bandwidth)``: the others' cores stay idle. With so many
    ``threads`` (0: its part of the cores) it is no faster than ``size / (threads * fraction * core_bandwidth)``.

    A process that works on all sockets takes an equal part of each.

    Demand: ``size`` bytes of DRAM and ``size / (fraction * dram_bandwidth) * cores_per_socket`` core seconds; with
    ``threads``, so many for as long as it takes.
    """
    assert 0 < fraction <= 1, "DRAM would be asked for more than it has"
    assert ranks_per_socket > 0
    host = cluster.node(node).spec.host
    core_seconds = size / (fraction * host.dram_bandwidth) * host.cores_per_socket
    alone = core_seconds * ranks_per_socket / host.cores_per_socket
    if threads:
        alone = max(size / (fraction * host.dram_bandwidth), size / (threads * fraction * host.core_bandwidth))
        core_seconds = alone * threads
    parts = len(place.worked)
    amounts = {cluster.at(node, dram): size / parts for dram, _ in place.worked}
    amounts |= {cluster.at(node, cores): core_seconds / parts for _, cores in place.worked}
    cost = cost_of(amounts, 0.0, cluster)
    return replace(cost, duration=alone, bound_by=cluster.at(node, place.cores))
