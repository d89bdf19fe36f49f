"""The same scenario with one thing faster, everywhere in its cluster: what a better machine would be.

Owns, for each thing that a step may be bound by, which numbers of a cluster's description stand for its speed. Must not
know what a step is bound by. A number is scaled where ``--set`` would change it, so that whatever follows from it
follows here, too: a GEMM on infinite arithmetic still waits for memory, and a kernel keeps its fixed start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sim.spec.types import ClusterSpec, DeviceSpec, HostLinkSpec, HostSpec, NvlinkSpec, NvmeSpec, Scenario

Scale = Callable[[ClusterSpec, float], ClusterSpec]


def _arithmetic(device: DeviceSpec, by: float) -> DeviceSpec:
    """Tensor cores, vector units, fused attention; not the fixed start of a kernel."""
    return replace(
        device,
        unaligned_flops_per_s=device.unaligned_flops_per_s * by,
        unaligned_batched_flops_per_s=device.unaligned_batched_flops_per_s * by,
        gemm={dtype: replace(fit, peak=fit.peak * by) for dtype, fit in device.gemm.items()},
        flash={name: tuple(replace(fit, p_inf=fit.p_inf * by) for fit in fits) for name, fits in device.flash.items()},
    )


def _memory(device: DeviceSpec, by: float) -> DeviceSpec:
    return replace(device, hbm_bandwidth=device.hbm_bandwidth * by)


def _launches(host: HostSpec, by: float) -> HostSpec:
    return replace(host, launch=host.launch / by)


def _cpu(host: HostSpec, by: float) -> HostSpec:
    """CPU work is bound by what the cores draw from memory: both are the host's memory bandwidth."""
    return replace(host, dram_bandwidth=host.dram_bandwidth * by, core_bandwidth=host.core_bandwidth * by)


def _sockets(host: HostSpec, by: float) -> HostSpec:
    return replace(host, socket_link=host.socket_link * by)


def _host_link(link: HostLinkSpec, by: float) -> HostLinkSpec:
    """The GPU's own link and the switch uplink that it shares: a generation of PCIe changes both."""
    return replace(
        link, h2d=link.h2d * by, d2h=link.d2h * by, duplex=link.duplex * by, pageable=link.pageable * by,
        uplink=link.uplink * by,
    )  # fmt: skip


def _nvlink(link: NvlinkSpec, by: float) -> NvlinkSpec:
    return replace(link, bandwidth=link.bandwidth * by)


def _network(machine: ClusterSpec, by: float) -> ClusterSpec:
    """Adapters, with the uplinks that carry what they do over the oversubscription; or the links of a grid."""
    nics, fabric = machine.nics, machine.fabric
    if nics is not None:
        nics = replace(nics, bandwidth=nics.bandwidth * by)
    if fabric is not None:
        grid = tuple(replace(one, bandwidth=one.bandwidth * by) for one in fabric.dimensions)
        fabric = replace(fabric, dimensions=grid)
    return replace(machine, nics=nics, fabric=fabric)


def _drives(nvme: NvmeSpec, by: float) -> NvmeSpec:
    return replace(nvme, read=nvme.read * by, write=nvme.write * by)


def _part(name: str, scale: Callable[[Any, float], Any]) -> Scale:
    """Scale one part of a machine; a machine without it stays as it is."""

    def scaled(machine: ClusterSpec, by: float) -> ClusterSpec:
        part = getattr(machine, name)
        return machine if part is None else replace(machine, **{name: scale(part, by)})

    return scaled


PARTS: Mapping[str, Scale] = {
    "sm": _part("device", _arithmetic),
    "hbm": _part("device", _memory),
    "nvlink": _part("nvlink", _nvlink),
    "network": _network,
    "host_link": _part("host_link", _host_link),
    "cpu": _part("host", _cpu),
    "socket_link": _part("host", _sockets),
    "drives": _part("nvme", _drives),
    "launch": _part("host", _launches),
}


def faster(scenario: Scenario, part: str, by: float) -> Scenario:
    """The scenario on a cluster whose ``part`` (a name of ``PARTS``) is ``by`` times as fast, in every node."""
    scale, cluster = PARTS[part], scenario.cluster
    others = tuple(replace(group, node=scale(group.node, by)) for group in cluster.others)
    return replace(scenario, cluster=replace(scale(cluster, by), others=others))
