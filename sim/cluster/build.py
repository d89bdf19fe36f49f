"""From a ``ClusterSpec`` to numbered resources and routes: WHERE things can happen.

Owns the freezing of a node's graph into tuples, once for each kind of node: the cost of a build does not depend on how
many nodes there are of a kind. Must not know a model, an op or a collective.

Capacities are those that a lone transfer sustains: PCIe as measured with pinned memory, host DRAM as STREAM measures
it, NVLink and NICs as bandwidth x efficiency (what collectives sustain of the link rate).
"""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase as fnmatch

import numpy as np

from sim.cluster.graph import NodeGraph, drives_of, grid_links, node_graph, process_socket, socket_of
from sim.cluster.types import Cluster, NodeKind, Place, Resource, ResourceKind
from sim.errors import InfeasibleError
from sim.spec.types import ClusterSpec

_Routes = list[dict[str, tuple[int, ...]]]  # one table a starting place: where to -> local resource numbers


def build(spec: ClusterSpec) -> Cluster:
    """Build the cluster that ``spec`` describes: each kind of node once, and which one each node is.

    A node that misses a part is a kind of its own.

    Raises:
        InfeasibleError: two GPUs of a node cannot reach each other, or a PCIe switch would hang on two sockets.
    """
    missing = _missing(spec)
    kinds: dict[tuple[int, tuple[tuple[str, int], ...]], int] = {}
    built: list[NodeKind] = []
    kind_of = []
    for node, machine in enumerate(spec.machine_of_node):
        key = (machine, missing.get(node, ()))
        if key not in kinds:
            kinds[key] = len(built)
            built.append(_kind(spec.machines[machine], *key[1]))
        kind_of.append(kinds[key])
    leaves, pods = _leaves(spec), _pods(spec)
    for count, made in ((leaves, _leaf), (pods, _pod)):
        if count:
            kind_of += [len(built)] * count
            built.append(made(spec))
    found = Cluster(
        spec=spec, kinds=tuple(built), kind_of=np.array(kind_of, dtype=np.int64), leaves=leaves, pods=pods
    )
    return replace(found, changed=_changed(spec, found))


def _leaves(spec: ClusterSpec) -> int:
    """Leaves whose uplinks can bind: none where they carry what is below, nor where one leaf holds every node."""
    if spec.fabric is None or spec.nics is None or not spec.fabric.nodes_per_leaf:
        return 0
    if spec.fabric.oversubscription <= 1.0 and all(v.part != "uplink" for v in spec.variations):
        return 0
    leaves = -(-len(spec.machine_of_node) // spec.fabric.nodes_per_leaf)
    return leaves if leaves > 1 or spec.fabric.rails else 0


def _pods(spec: ClusterSpec) -> int:
    """Pods whose way to the core can bind."""
    fabric = spec.fabric
    if fabric is None or spec.nics is None or not fabric.leaves_per_pod:
        return 0
    if fabric.core_oversubscription <= 1.0 and all(v.part != "core" for v in spec.variations):
        return 0
    pods = -(-len(spec.machine_of_node) // (fabric.nodes_per_leaf * fabric.leaves_per_pod))
    return pods if pods > 1 else 0


def _pod(spec: ClusterSpec) -> NodeKind:
    """A pod: its way to the core carries what its leaves' uplinks do, over the core's oversubscription."""
    assert spec.fabric is not None
    ups = [resource.capacity for resource in _leaf(spec).resources if resource.kind == "leaf.up"]
    rate = sum(ups) * spec.fabric.leaves_per_pod / spec.fabric.core_oversubscription
    ways: tuple[tuple[str, ResourceKind], ...] = (("up", "core.up"), ("down", "core.down"))
    resources = tuple(Resource(name=way, kind=kind, capacity=rate, unit="B") for way, kind in ways)
    return NodeKind(spec=spec, resources=resources, places=(), peer=())


def _leaf(spec: ClusterSpec) -> NodeKind:
    """A leaf, or one for each rail: uplinks that carry what the adapters below do, over the oversubscription."""
    assert spec.fabric is not None
    assert spec.nics is not None
    nics, fabric = spec.nics, spec.fabric
    below = fabric.nodes_per_leaf * nics.count * nics.bandwidth * nics.efficiency
    rails = min(nics.count, spec.gpus_per_host) if fabric.rails else 1
    rate = below / fabric.oversubscription / rails
    ways: tuple[tuple[str, ResourceKind], ...] = (("up", "leaf.up"), ("down", "leaf.down"))
    resources = [
        Resource(name=f"rail{rail}.{way}", kind=kind, capacity=rate, unit="B")
        for rail in range(rails)
        for way, kind in ways
    ]
    return NodeKind(spec=spec, resources=tuple(resources), places=(), peer=())


def _kind(spec: ClusterSpec, *missing: tuple[str, int]) -> NodeKind:
    graph = node_graph(spec, missing)
    gpus = range(spec.gpus_per_host)
    from_gpu = [graph.routes(f"gpu{g}") for g in gpus]
    from_dram = [graph.routes(f"dram{s}") for s in range(spec.host.sockets)]
    from_network = graph.routes("network.in")
    spread = spec.host.binding == "spread"
    return NodeKind(
        spec=spec,
        resources=tuple(graph.resources),
        places=tuple(
            _place(graph, process_socket(spec, g), g, (from_gpu, from_dram, [from_network]), spread=spread)
            for g in gpus
        ),
        peer=tuple(tuple(_peer(graph, spec, (a, b), (from_gpu, from_dram)) for b in gpus) for a in gpus),
        missing=missing,
    )


def _missing(spec: ClusterSpec) -> dict[int, tuple[tuple[str, int], ...]]:
    """Parts that are not there, by node: those that run at speed 0."""
    found: dict[int, dict[tuple[str, int], None]] = {}
    for variation in spec.variations:
        if variation.speed == 0.0:
            found.setdefault(variation.node, {})[variation.part, variation.index] = None
    return {node: tuple(sorted(parts)) for node, parts in found.items()}


_PARTS = {
    "gpu": ("gpu{}.sm",),
    "hbm": ("gpu{}.hbm",),
    "nvlink": ("gpu{0}.nvlink.tx", "gpu{0}.nvlink.rx", "gpu{0}-*", "gpu*-{0}.nvlink.to"),
    "pcie": ("gpu{}.pcie.h2d", "gpu{}.pcie.d2h", "gpu{}.pcie.duplex"),
    "nic": ("nic{}.nic.tx", "nic{}.nic.rx"),
    "dram": ("socket{}.dram",),
    "cores": ("socket{}.cores",),
    "links": ("gpu{}.d*",),
    "uplink": ("rail{}.up", "rail{}.down"),
    "core": ("up", "down"),
}
"""Part of a variation -> the resources that it slows, by the names (patterns) that they have in a node."""


def _changed(spec: ClusterSpec, cluster: Cluster) -> dict[int, float]:
    """Capacities of the single resources that a variation slows. Two variations of one part multiply."""
    changed: dict[int, float] = {}
    for variation in spec.variations:
        before = {"uplink": cluster.nodes, "core": cluster.nodes + cluster.leaves}
        node = variation.node + before.get(variation.part, 0)
        kind = cluster.node(node) if node < len(cluster.kind_of) else cluster.kinds[0]
        if (variation.part, variation.index) in kind.missing:
            continue
        names = [name.format(variation.index) for name in _PARTS[variation.part]]
        present = [n for n, resource in enumerate(kind.resources) if any(fnmatch(resource.name, p) for p in names)]
        if not present:
            owner = {"uplink": "leaf", "core": "pod"}.get(variation.part, "node")
            where = f"{variation.part} {variation.index} of {owner}"
            msg = f'cluster "{spec.name}" has no {where} {variation.node}; see cluster.variations'
            raise InfeasibleError(msg)
        for local in present:
            at = cluster.at(node, local)
            changed[at] = changed.get(at, kind.resources[local].capacity) * variation.speed
    return changed


def _place(graph: NodeGraph, socket: int, gpu: int, routes: tuple[_Routes, _Routes, _Routes], *, spread: bool) -> Place:
    from_gpu, from_dram, (from_network,) = routes
    sockets = range(len(from_dram)) if spread else ()
    name = f"gpu{gpu}"
    nvme = drives_of(graph.spec, socket)
    drives = graph.number(f"{nvme}.nvme.busy") >= 0
    hbm = graph.number(f"{name}.hbm")
    return Place(
        sm=graph.number(f"{name}.sm"),
        hbm=hbm,
        socket=socket,
        dram=graph.number(f"socket{socket}.dram"),
        cores=graph.number(f"socket{socket}.cores"),
        h2d=from_dram[socket][f"hbm{gpu}"],
        d2h=(hbm, *from_gpu[gpu][f"dram{socket}"]),
        nvlink_tx=graph.number(f"{name}.nvlink.tx"),
        nvlink_rx=graph.number(f"{name}.nvlink.rx"),
        nic_tx=from_gpu[gpu].get("network.out", (-1,))[0],
        nic_rx=from_network.get(name, (-1,))[0],
        nvme_read=graph.routes(nvme)[f"dram{socket}"] if drives else (),
        nvme_write=from_dram[socket][nvme] if drives else (),
        nvme=graph.number(f"{nvme}.nvme.busy"),
        rail=_rail(graph, from_gpu[gpu].get("network.out", (-1,))[0]),
        grid=grid_links(graph, gpu),
        worked=tuple(
            (graph.number(f"socket{s}.dram"), graph.number(f"socket{s}.cores")) for s in (sockets or (socket,))
        ),
    )


def _rail(graph: NodeGraph, adapter: int) -> int:
    """Number of an adapter in its node, of its resource's name (``nic3.nic.tx``); -1: no adapter."""
    return int(graph.resources[adapter].name.partition(".")[0].removeprefix("nic")) if adapter >= 0 else -1


def _peer(
    graph: NodeGraph, spec: ClusterSpec, pair: tuple[int, int], routes: tuple[_Routes, _Routes]
) -> tuple[int, ...]:
    """Route from one GPU to another: straight, or through the receiver's DRAM (there twice: written, then read)."""
    (a, b), (from_gpu, from_dram) = pair, routes
    if a == b:
        return ()
    ports = all(graph.number(f"gpu{g}.nvlink.tx") >= 0 for g in pair)
    straight = spec.p2p or ports or graph.number(f"gpu{a}-{b}.nvlink.to") >= 0
    socket = socket_of(spec, b)
    there = from_gpu[a].get(f"gpu{b}" if straight else f"dram{socket}")
    if there is None:
        msg = (
            f'cluster "{spec.name}": GPU {a} has no route to GPU {b} of its node; '
            f"give nvlink, or a socket_link above 0 between the sockets of {spec.host.name}"
        )
        raise InfeasibleError(msg)
    return there if straight else there + from_dram[socket][f"gpu{b}"]
