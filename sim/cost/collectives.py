"""The ring: how many bytes cross which resource. Pure functions on a built ``Cluster``.

Owns the ring algorithm as a demand vector (design §2); must not know when a collective runs, nor which algorithm is
chosen. ``size`` is always the WHOLE buffer: n times the shard.

Theory. A ring of n members moves an all-gather or a reduce-scatter in n-1 steps, each of S/n over every hop, so a
hop carries S(n-1)/n in all; an all-reduce is one after the other; a pipelined broadcast sends S over n-1 hops.
Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations" (2009), for the bytes;
latency as NCCL's tuner reckons it (``src/graph/tuning.cc``):
``base + (steps - inter) * intra_step + inter * inter_step``, where ``inter`` counts the steps between nodes.

Several nodes. NCCL lays rings so that each enters a node once, visits its members and leaves; there are as many
rings (channels) as NICs that serve the members, each with an equal part of the buffer, entering and leaving by a NIC
of its own (NCCL_CROSS_NIC=0). So the bytes between nodes are spread over those NICs, and each channel leaves out one
of the hops inside the node. A node in which one NIC serves the group uses that NIC alone.

Limits. A network hop does not load PCIe, nor NVLink where the GPU at the end of a channel is not the one next to its
NIC.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sim.cluster.types import Cluster, NodeKind
from sim.cost.traffic import (
    SIMPLE,
    CollectiveCost,
    Demand,
    Member,
    Nodes,
    Traffic,
    by_node,
    cost_of,
    need_network,
    pace_of,
    price,
)

# Passes over the members (reduce-scatter, all-gather, or both): each moves S(n-1)/n over every hop in n-1 steps.
PASSES = {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 1, "broadcast": 1}

# HBM bytes per byte a member moves. Each hop: the sender reads; the receiver writes, or, to reduce, reads its own
# part and writes the sum. So 2 for a gather, 3 for a reduction, and their mean for the two passes of an all-reduce.
HBM = {"all_reduce": 2.5, "all_gather": 2.0, "reduce_scatter": 3.0, "broadcast": 2.0}


def ring_demand(kind: str, size: float, members: Sequence[Member], cluster: Cluster) -> CollectiveCost:
    """Cost of a ring collective of ``size`` bytes (the whole buffer) over ``members`` in ring order, Simple protocol.

    Members of one node are brought together in their order (nodes in order of first appearance), as NCCL does.
    A broadcast starts at the first member. One member alone costs nothing.

    Raises:
        InfeasibleError: members sit on several nodes and the cluster has no NICs.
    """
    assert len(set(members)) == len(members), "a GPU is in the ring twice"
    if len(members) < 2:
        return cost_of({}, 0.0, cluster)
    nodes = by_node(members)
    need_network(nodes, cluster)
    return price(ring(kind, nodes, cluster), size, SIMPLE, pace_of(nodes, cluster), cluster)


def ring(kind: str, nodes: Nodes, cluster: Cluster) -> Traffic:
    """Rings through all members, for one byte of the whole buffer."""
    n, k = sum(len(gpus) for gpus in nodes.values()), len(nodes)
    moved = 1.0 if kind == "broadcast" else PASSES[kind] * (n - 1) / n
    loads = _ring_loads(nodes, moved, HBM[kind] * moved, cluster)
    if kind == "broadcast":
        _open_ring(loads, nodes, 1.0, cluster)
    ids, amounts = _flatten(loads, cluster)
    uplinks = _uplinks(nodes, moved, cluster)
    if uplinks:
        more = sorted(uplinks)
        ids = np.concatenate([ids, np.array(more, dtype=np.int64)])
        amounts = np.concatenate([amounts, np.array([uplinks[i] for i in more])])
    demand = Demand(ids=ids, amounts=amounts)
    return Traffic(phases=(demand,), intra=PASSES[kind] * (n - k), inter=PASSES[kind] * (k - 1))


def _uplinks(nodes: Nodes, moved: float, cluster: Cluster) -> dict[int, float]:
    """Bytes on the uplinks of leaves: each channel goes from node to node, by the adapter that it keeps."""
    found: dict[int, float] = {}
    around = [*nodes, next(iter(nodes))] if cluster.leaves and len(nodes) > 1 else []
    for a, b in pairwise(around):
        starts, ends = (channels(nodes[n], cluster.node(n)) for n in (a, b))
        for c, start in enumerate(starts):
            end = ends[c % len(ends)]
            for uplink in cluster.crossing((a, nodes[a][start]), (b, nodes[b][end])):
                add(found, uplink, moved / len(starts))
    return found


_Loads = dict[int, dict[int, float]]  # node -> local resource number -> bytes


def _ring_loads(nodes: Nodes, moved: float, hbm: float, cluster: Cluster) -> _Loads:
    """Bytes on every resource when each hop of the closed ring carries ``moved``.

    Nodes of one kind that hold the same GPUs of the group share one table (read-only): a ring over thousands of nodes
    costs one.
    """
    tables: dict[tuple[int, tuple[int, ...]], dict[int, float]] = {}
    found: _Loads = {}
    for node, gpus in nodes.items():
        key = (int(cluster.kind_of[node]), gpus)
        if key not in tables:
            kind = cluster.node(node)
            tables[key] = _node_loads(gpus, moved, len(nodes) == 1, kind)
            for g in gpus:
                add(tables[key], kind.places[g].hbm, hbm)
        found[node] = tables[key]
    return found


def _node_loads(gpus: tuple[int, ...], moved: float, closed: bool, kind: NodeKind) -> dict[int, float]:
    """Bytes on the links of one node: a closed ring inside it, or the channels that enter and leave by its NICs."""
    loads: dict[int, float] = {}
    starts = [0] if closed else channels(gpus, kind)
    for i, gpu in enumerate(gpus):
        # The hop to member i is left out by the channel that enters the node at i.
        share = 1.0 if closed else sum(start != i for start in starts) / len(starts)
        for local in kind.peer[gpus[i - 1]][gpu] if share > 0 else ():
            add(loads, local, moved * share)
    for start in () if closed else starts:
        add(loads, kind.places[gpus[start]].nic_rx, moved / len(starts))
        add(loads, kind.places[gpus[start]].nic_tx, moved / len(starts))
    return loads


def channels(gpus: tuple[int, ...], kind: NodeKind) -> list[int]:
    """Where each channel enters a node, as positions in ``gpus``: the first member that each NIC serves.

    A channel that enters at position i visits i, i+1, ..., i-1 and leaves through the NIC it came by.
    """
    first: dict[int, int] = {}
    for i, gpu in enumerate(gpus):
        first.setdefault(kind.places[gpu].nic_rx, i)
    return list(first.values())


def _open_ring(loads: _Loads, nodes: Nodes, size: float, cluster: Cluster) -> None:
    """Take the hop into the root out of a closed ring: nothing returns to where a broadcast began.

    The root is the first member, so the first channel of several nodes enters the root's node at the root: it loses
    its last hop between nodes and ends in the last node. Every other channel, and a ring inside one node, ends at the
    root's predecessor in the root's node. The last member of a channel reads nothing, the root writes nothing.
    """
    root_node, last_node = next(iter(nodes)), next(reversed(nodes))
    gpus, last_gpus = nodes[root_node], nodes[last_node]
    root, last = cluster.node(root_node), cluster.node(last_node)
    places = root.places
    for node in (root_node, last_node):
        loads[node] = dict(loads[node])
    several = len(nodes) > 1
    entries = len(channels(gpus, root)) if several else 1
    part = size / entries
    # The same expression as in _node_loads, so that what is put on a link and taken off again leaves exactly nothing.
    returning = size * ((entries - 1) / entries) if several else size
    add(loads[root_node], places[gpus[0]].hbm, -size)
    add(loads[root_node], places[gpus[-1]].hbm, -returning)
    for local in root.peer[gpus[-1]][gpus[0]]:
        add(loads[root_node], local, -returning)
    if several:
        add(loads[root_node], places[gpus[0]].nic_rx, -part)
        exits = channels(last_gpus, last)
        # With as many channels here as at the root it is the first of them; otherwise each loses its share.
        for start in exits[:1] if len(exits) == entries else exits:
            lost = part if len(exits) == entries else part / len(exits)
            add(loads[last_node], last.places[last_gpus[start]].nic_tx, -lost)
            add(loads[last_node], last.places[last_gpus[start - 1]].hbm, -lost)


def add(loads: dict[int, float], local: int, amount: float) -> None:
    """Add to what a resource carries."""
    loads[local] = loads.get(local, 0.0) + amount


def _flatten(loads: _Loads, cluster: Cluster) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ascending resource numbers in the cluster and the positive amounts on them."""
    tables: dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
    ids: list[NDArray[np.int64]] = []
    amounts: list[NDArray[np.float64]] = []
    for node in sorted(loads):
        table = loads[node]
        if id(table) not in tables:  # shared tables are converted once; the key never decides an order
            used = sorted(local for local, amount in table.items() if amount > 0)
            tables[id(table)] = (np.array(used, dtype=np.int64), np.array([table[i] for i in used]))
        ids.append(tables[id(table)][0] + node * cluster.per_node)
        amounts.append(tables[id(table)][1])
    return np.concatenate(ids), np.concatenate(amounts)
