"""All-reduce by trees and inside switches. Pure functions on a built ``Cluster``, for one byte of buffer.

Double binary tree (Sanders, Speck, Träff, 2009; NCCL): two trees over the nodes, each with half the buffer, so that a
node inside one is a leaf of the other; a chain inside each node. A node sends up to 3 halves as an inner node and one
as a leaf: 2S in all from four nodes on, 1.5 S of three, S of two, where a ring sends 2S(n-1)/n.

In the switch (NVLS). Each member asks the switch for the sum of its part, for which everybody sends S, and has the
switch store the sum everywhere: S + S/n each way over a member's link, where a ring takes 2S(n-1)/n. Between nodes the
parts travel by a tree (NVLS tree), one adapter a member.

In the network (SHARP). Switches between nodes add what passes: a node sends S and receives S.

Limits. Every node is charged what the busiest one of the tree carries, so that equal nodes stay equal; a tree's
branches stay under one leaf of the fabric as far as they can, so a leaf's uplinks carry what one node does.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log2

import numpy as np

from sim.cluster.types import Cluster, NodeKind
from sim.cost.collectives import add, channels, crossed, hop
from sim.cost.traffic import Demand, Nodes, Traffic, demand_of

# HBM bytes per byte of buffer: a member of a tree reads its part, receives and adds twice, passes on and writes;
# in a switch each byte is read once and written once.
_TREE_HBM = 5.0
_SWITCH_HBM = 2.0

_IN_SWITCH_SM = 0.5
"""Part of a ring's SM share: NVLS kernels run about half the channels of a ring (NCCL, src/graph/connect.cc)."""


_Inside = Callable[[tuple[int, ...], NodeKind], dict[int, float]]


def tree(nodes: Nodes, cluster: Cluster) -> Traffic:
    """Double binary tree over several nodes, a chain inside each."""
    widest = max(len(gpus) for gpus in nodes.values())
    demand = _per_node(nodes, cluster, _chain, _sent_by_node(len(nodes)))
    return Traffic(phases=(demand,), intra=2.0 * (widest - 1), inter=2 * log2(len(nodes)), family="tree")


def in_switch(nodes: Nodes, cluster: Cluster) -> Traffic:
    """One NVLink domain whose switch adds (NVLS)."""
    demand = _per_node(nodes, cluster, _switched, 0.0)
    return Traffic(phases=(demand,), intra=0.0, inter=0.0, family="in_switch", sm=_IN_SWITCH_SM)


def in_switch_tree(nodes: Nodes, cluster: Cluster) -> Traffic:
    """NVLS inside each node, a tree between nodes for each member's part."""
    demand = _per_node(nodes, cluster, _switched, _sent_by_node(len(nodes)))
    inter = 2 * log2(len(nodes))
    return Traffic(phases=(demand,), intra=0.0, inter=inter, family="in_switch", sm=_IN_SWITCH_SM)


def in_network(nodes: Nodes, cluster: Cluster) -> Traffic:
    """Switches of the fabric add (SHARP): once up, once down; NVLS inside a node where there is, else a chain."""
    switched = all(can_switch(gpus, cluster.node(node)) for node, gpus in nodes.items())
    demand = _per_node(nodes, cluster, _switched if switched else _chain, 1.0)
    if switched:
        return Traffic(phases=(demand,), intra=0.0, inter=2.0, family="in_switch", sm=_IN_SWITCH_SM)
    widest = max(len(gpus) for gpus in nodes.values())
    return Traffic(phases=(demand,), intra=2.0 * (widest - 1), inter=2.0, family="tree", sm=_IN_SWITCH_SM)


def can_switch(gpus: tuple[int, ...], kind: NodeKind) -> bool:
    """Whether the members of a node share an NVLink switch that adds."""
    link = kind.spec.nvlink
    adds = link is not None and link.in_switch > 0
    return adds and len(gpus) > 1 and all(kind.places[gpu].nvlink_tx >= 0 for gpu in gpus)


def _sent_by_node(nodes: int) -> float:
    """Bytes that the busiest node of a double binary tree sends, for one byte of buffer."""
    return {1: 0.0, 2: 1.0, 3: 1.5}.get(nodes, 2.0)


def _per_node(nodes: Nodes, cluster: Cluster, inside: _Inside, sent: float) -> Demand:
    """What the algorithm asks ``inside`` each node, and ``sent`` bytes each way over the adapters of its members."""
    tables: dict[tuple[int, tuple[int, ...]], dict[int, float]] = {}
    amounts: dict[int, float] = {}
    for node, gpus in nodes.items():
        kind = cluster.node(node)
        key = (int(cluster.kind_of[node]), gpus)
        if key not in tables:
            tables[key] = inside(gpus, kind)
            _adapters(tables[key], gpus, kind, sent, passes=inside is _chain)
        amounts.update((cluster.at(node, local), amount) for local, amount in tables[key].items())
    _uplinks(amounts, nodes, cluster, sent)
    return demand_of(amounts)


def _adapters(loads: dict[int, float], gpus: tuple[int, ...], kind: NodeKind, sent: float, *, passes: bool) -> None:
    """``passes``: a channel goes on to the node's other members, and leaves from another than it entered at."""
    used = channels(gpus, kind) if sent else []
    for start in used:
        size = crossed(sent / len(used), gpus, kind) if passes else sent / len(used)
        add(loads, kind.places[gpus[start]].nic_tx, size)
        add(loads, kind.places[gpus[start]].nic_rx, size)


def _uplinks(amounts: dict[int, float], nodes: Nodes, cluster: Cluster, sent: float) -> None:
    """A leaf or pod that holds some of the nodes sends the others what one node sends, over the rails that it uses."""
    fabric = cluster.spec.fabric
    if fabric is None or not sent:
        return
    if cluster.pods:
        pods = cluster.pod(np.array(list(nodes), dtype=np.int64))
        for pod in np.unique(pods).tolist() if (pods != pods[0]).any() else ():
            add(amounts, cluster.at(pod, 0), sent)
            add(amounts, cluster.at(pod, 1), sent)
    if not cluster.leaves:
        return
    first = {node // fabric.nodes_per_leaf: node for node in nodes}
    for leaf, node in first.items() if len(first) > 1 else ():
        kind, gpus = cluster.node(node), nodes[node]
        rails = [kind.places[gpus[start]].rail if fabric.rails else 0 for start in channels(gpus, kind)]
        for rail in rails:
            for way in (0, 1):
                add(amounts, cluster.at(cluster.nodes + leaf, 2 * rail + way), sent / len(rails))


def _chain(gpus: tuple[int, ...], kind: NodeKind) -> dict[int, float]:
    """A chain up and back down; channels start at different members, so every hop carries its share both ways."""
    loads: dict[int, float] = {}
    share = (len(gpus) - 1) / len(gpus)
    for i, gpu in enumerate(gpus):
        add(loads, kind.places[gpu].hbm, _TREE_HBM)
        for pair in ((gpus[i - 1], gpu), (gpu, gpus[i - 1])):
            hop(loads, gpus, pair, share, kind)
    return loads


def _switched(gpus: tuple[int, ...], kind: NodeKind) -> dict[int, float]:
    """S + S/n each way over every member's port, at the rate that the switch's adders keep."""
    assert kind.spec.nvlink is not None
    loads: dict[int, float] = {}
    moved = (1 + 1 / len(gpus)) / kind.spec.nvlink.in_switch
    for gpu in gpus:
        place = kind.places[gpu]
        add(loads, place.hbm, _SWITCH_HBM)
        add(loads, place.nvlink_tx, moved)
        add(loads, place.nvlink_rx, moved)
    return loads
