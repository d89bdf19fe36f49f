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
of the hops inside the node. A node in which one NIC serves the group uses that NIC alone. A channel
that passes several GPUs leaves from another one than it entered at; ``nics.through`` is the part of the adapters' rate
that this leaves, 1 where the second GPU reaches the adapter as well as the first.

Limits. A network hop does not load PCIe, nor NVLink where the GPU at the end of a channel is not the one next to its
NIC.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sim.cluster.grid import Grid
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
    demand_of,
    need_network,
    pace_of,
    price,
)

# Passes over the members (reduce-scatter, all-gather, or both): each moves S(n-1)/n over every hop in n-1 steps. An
# all-to-all that is handed on from neighbour to neighbour takes n/2 of them: part k goes k hops.
PASSES = {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 1, "broadcast": 1}

# HBM bytes per byte a member moves. Each hop: the sender reads; the receiver writes, or, to reduce, reads its own
# part and writes the sum. So 2 for a gather, 3 for a reduction, and their mean for the two passes of an all-reduce.
HBM = {"all_reduce": 2.5, "all_gather": 2.0, "reduce_scatter": 3.0, "broadcast": 2.0, "all_to_all": 2.0}


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
    passes = n / 2 if kind == "all_to_all" else PASSES[kind]
    moved = 1.0 if kind == "broadcast" else passes * (n - 1) / n
    if cluster.grid is not None and k > 1:
        return _in_grid(cluster.grid, kind, nodes, passes, cluster)
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
    return Traffic(phases=(demand,), intra=passes * (n - k), inter=passes * (k - 1))


def _in_grid(grid: Grid, kind: str, nodes: Nodes, passes: float, cluster: Cluster) -> Traffic:
    """Rings from node to node of a grid, one by the links of each member and half of it the other way round.

    A broadcast leaves the last hop out: nothing returns to the root's node.
    """
    k, n = len(nodes), sum(len(gpus) for gpus in nodes.values())
    moved = 1.0 if kind == "broadcast" else passes * (n - 1) / n
    amounts: dict[int, float] = {}
    for node, gpus in nodes.items():
        around = _node_loads(gpus, moved, False, cluster.node(node), list(range(len(gpus))))
        for gpu in gpus:
            add(around, cluster.node(node).places[gpu].hbm, HBM[kind] * moved)
        for local, amount in around.items():
            add(amounts, cluster.at(node, local), amount)
    order = list(nodes)
    pairs = list(pairwise(order if kind == "broadcast" else [*order, order[0]]))
    for a, b in pairs:
        for one, other in ((a, b), (b, a)):
            for hop in grid.hops(one, other):
                for gpu in nodes[one]:
                    link = cluster.node(hop.node).places[gpu].grid[hop.link]
                    add(amounts, cluster.at(hop.node, link), moved * hop.part / 2 / len(nodes[one]))
    slowest = max(grid.latency(a, b) for a, b in pairs)
    demand = demand_of(amounts)
    return Traffic(phases=(demand,), intra=passes * (n - k), inter=0.0, hops=passes * (k - 1) * slowest)


def _uplinks(nodes: Nodes, moved: float, cluster: Cluster) -> dict[int, float]:
    """Bytes on the uplinks of leaves: each channel goes from node to node, by the adapter that it keeps."""
    found: dict[int, float] = {}
    binds = cluster.leaves or cluster.pods
    around = [*nodes, next(iter(nodes))] if binds and len(nodes) > 1 else []
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
            starts = channels(gpus, kind)
            tables[key] = _node_loads(gpus, moved, len(nodes) == 1, kind, starts)
            for start in starts if len(nodes) > 1 else ():
                add(tables[key], kind.places[gpus[start]].nic_rx, crossed(moved / len(starts), gpus, kind))
                add(tables[key], kind.places[gpus[start]].nic_tx, crossed(moved / len(starts), gpus, kind))
            for g in gpus:
                add(tables[key], kind.places[g].hbm, hbm)
        found[node] = tables[key]
    return found


def _node_loads(
    gpus: tuple[int, ...], moved: float, closed: bool, kind: NodeKind, starts: list[int]
) -> dict[int, float]:
    """Bytes on the links of one node: a closed ring inside it, or the channels that enter it at ``starts``."""
    loads: dict[int, float] = {}
    for i, gpu in enumerate(gpus):
        # The hop to member i is left out by the channel that enters the node at i.
        share = 1.0 if closed else sum(start != i for start in starts) / len(starts)
        if share > 0:
            hop(loads, gpus, (gpus[i - 1], gpu), moved * share, kind)
    return loads


def hop(loads: dict[int, float], gpus: tuple[int, ...], pair: tuple[int, int], moved: float, kind: NodeKind) -> None:
    """Bytes that go from one member to the next.

    Where each pair has a link of its own the rings go round in every order, so that all links from this member to the
    others carry a part: as many rings as it has links.
    """
    a, b = pair
    others = [gpu for gpu in gpus if gpu != a] if _own_links(kind) else [b]
    for other in others:
        for local in kind.peer[a][other]:
            add(loads, local, moved / len(others))


def _own_links(kind: NodeKind) -> bool:
    """Whether each pair of a node's GPUs has a link of its own, and none is missing."""
    return kind.spec.nvlink is not None and kind.spec.nvlink.kind == "full" and not kind.missing


def channels(gpus: tuple[int, ...], kind: NodeKind) -> list[int]:
    """Where each channel enters a node, as positions in ``gpus``: the first member that each NIC serves.

    A channel that enters at position i visits i, i+1, ..., i-1 and leaves through the NIC it came by.
    """
    first: dict[int, int] = {}
    for i, gpu in enumerate(gpus):
        first.setdefault(kind.places[gpu].nic_rx, i)
    return list(first.values())


def crossed(size: float, gpus: tuple[int, ...], kind: NodeKind) -> float:
    """What ``size`` bytes of a channel load an adapter with: more where it passes several GPUs (``nics.through``)."""
    assert kind.spec.nics is not None
    return size / kind.spec.nics.through if len(gpus) > 1 else size


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
    ends = gpus[1:] if _own_links(root) else gpus[-1:]
    for end in ends:
        add(loads[root_node], places[end].hbm, -returning / len(ends))
        for local in root.peer[end][gpus[0]]:
            add(loads[root_node], local, -returning / len(ends))
    if several:
        add(loads[root_node], places[gpus[0]].nic_rx, -crossed(part, gpus, root))
        exits = channels(last_gpus, last)
        # With as many channels here as at the root it is the first of them; otherwise each loses its share.
        for start in exits[:1] if len(exits) == entries else exits:
            lost = part if len(exits) == entries else part / len(exits)
            add(loads[last_node], last.places[last_gpus[start]].nic_tx, -crossed(lost, last_gpus, last))
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
