"""What lies between the nodes of a cluster, as it can be looked at: leaves under a spine, or a grid, and lone messages.

Reads what a simulation uses: routes and capacities of a built cluster; of leaves that cannot bind, what the file says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.cluster.types import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """Neighbouring nodes ``first`` to ``last``; ``below`` bytes/s of their adapters one way, ``up`` of the uplinks."""

    first: int
    last: int
    below: float
    up: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A lone message from node 0, GPU 0: ``where`` to, bytes/s, the resources that it crosses.

    ``together``: bytes/s of one GPU's message when every GPU below the same uplinks sends so (0: nothing is shared).
    """

    where: str
    rate: float
    crosses: tuple[str, ...]
    together: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One dimension of a grid: bytes/s of a link one way."""

    kind: str
    size: int
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkView:
    """``rails`` leaves for each group of nodes (1: one for all adapters); ``reduction``: switches add.

    ``pod`` leaves have a spine of their own, whose way to the core is ``core`` bytes/s one way (0: one spine for all).
    """

    name: str
    nodes: int
    leaves: tuple[Leaf, ...]
    rails: int
    pod: int
    core: float
    reduction: bool
    ways: tuple[Way, ...]
    dimensions: tuple[Dimension, ...]


def network_view(cluster: Cluster) -> NetworkView | None:
    """The network of a built cluster; None for a lone node."""
    if cluster.nodes < 2:
        return None
    spec = cluster.spec
    fabric = spec.fabric
    rails = min(spec.nics.count, spec.gpus_per_host) if spec.nics is not None and fabric and fabric.rails else 1
    grid = () if cluster.grid is None else cluster.grid.dimensions
    return NetworkView(
        name=spec.name,
        nodes=cluster.nodes,
        leaves=_leaves(cluster),
        rails=rails,
        pod=fabric.leaves_per_pod if fabric is not None else 0,
        core=_core(cluster),
        reduction=fabric is not None and fabric.reduction,
        ways=tuple(_ways(cluster)),
        dimensions=tuple(Dimension(kind=d.kind, size=d.size, rate=d.bandwidth) for d in grid),
    )


def _leaves(cluster: Cluster) -> tuple[Leaf, ...]:
    """As built where they can bind, with what is slow in them; as the file says otherwise."""
    fabric = cluster.spec.fabric
    if fabric is None or not fabric.nodes_per_leaf:
        return ()
    per, found = fabric.nodes_per_leaf, []
    for number, first in enumerate(range(0, cluster.nodes, per)):
        last = min(first + per, cluster.nodes) - 1
        below = sum(_adapters(cluster, node) for node in range(first, last + 1))
        up = below / fabric.oversubscription
        if cluster.leaves:
            at = cluster.at(cluster.nodes + number, 0)
            ids = np.arange(at, at + len(cluster.node(cluster.nodes + number).resources), 2, dtype=np.int64)
            up = float(cluster.capacities(ids).sum())
        found.append(Leaf(first=first, last=last, below=below, up=up))
    return tuple(found)


def _core(cluster: Cluster) -> float:
    """Of the first pod; as the file says where it cannot bind."""
    fabric = cluster.spec.fabric
    if fabric is None or not fabric.leaves_per_pod:
        return 0.0
    if cluster.pods:
        return cluster.resource(cluster.at(cluster.nodes + cluster.leaves, 0)).capacity
    return sum(leaf.up for leaf in _leaves(cluster)[: fabric.leaves_per_pod]) / fabric.core_oversubscription


def _adapters(cluster: Cluster, node: int) -> float:
    kind = cluster.node(node)
    used = {place.nic_tx for place in kind.places if place.nic_tx >= 0}
    ids = np.array(sorted(cluster.at(node, local) for local in used), dtype=np.int64)
    return float(cluster.capacities(ids).sum()) if used else 0.0


def _ways(cluster: Cluster) -> list[Way]:
    """Lone messages that differ: to a neighbour, on another rail, on another leaf; in a grid along each dimension."""
    fabric, spec = cluster.spec.fabric, cluster.spec
    other = spec.gpus_per_host - 1
    if cluster.grid is not None:
        sizes, strides = cluster.grid.sizes.tolist(), cluster.grid.strides.tolist()
        far = int(sum(size // 2 * stride for size, stride in zip(sizes, strides, strict=True)))
        steps = {f"the next node of dimension {d}": strides[d] for d in range(len(sizes)) if sizes[d] > 1}
        return [_way(cluster, where, (to, 0)) for where, to in {**steps, "the farthest node": far}.items()]
    if fabric is None or not fabric.nodes_per_leaf:
        return [_way(cluster, "another node", (1, 0))]
    found = [_way(cluster, "a node on the same leaf", (1, 0))] if fabric.nodes_per_leaf > 1 else []
    if fabric.rails and other and fabric.nodes_per_leaf > 1:
        found.append(_way(cluster, "the same nodes, another rail", (1, other)))
    if cluster.nodes > fabric.nodes_per_leaf and fabric.leaves_per_pod != 1:
        found.append(_way(cluster, "a node on another leaf", (fabric.nodes_per_leaf, 0)))
    pod = fabric.nodes_per_leaf * fabric.leaves_per_pod
    if 0 < pod < cluster.nodes:
        found.append(_way(cluster, "a node of another pod", (pod, 0)))
    return found


def _way(cluster: Cluster, where: str, to: tuple[int, int]) -> Way:
    met = cluster.between((0, 0), to)
    ids = np.array([number for number, _ in met], dtype=np.int64)
    rates = cluster.capacities(ids) / np.array([part for _, part in met])
    ups = [
        rate / _senders(cluster, number // cluster.per_node)
        for number, rate in zip(ids.tolist(), rates.tolist(), strict=True)
        if number // cluster.per_node >= cluster.nodes
    ]
    return Way(
        where=where,
        rate=float(rates.min()),
        crosses=tuple(cluster.name_of(number) for number in ids.tolist()),
        together=min(ups, default=0.0),
    )


def _senders(cluster: Cluster, at: int) -> int:
    """GPUs whose messages climb an uplink of the leaf, or pod, that has the number ``at`` among nodes."""
    fabric, spec = cluster.spec.fabric, cluster.spec
    assert fabric is not None
    assert spec.nics is not None
    below = min(fabric.nodes_per_leaf, cluster.nodes) * spec.gpus_per_host
    if at >= cluster.nodes + cluster.leaves:
        return below * fabric.leaves_per_pod
    return below // min(spec.nics.count, spec.gpus_per_host) if fabric.rails else below
