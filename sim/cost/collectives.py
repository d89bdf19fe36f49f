"""Ring collectives: how many bytes cross which resource, and how long that takes when nobody else is about.

Owns the ring algorithm as a demand vector (design §2). Pure functions on a built ``Cluster``; must not know the
engine, the mesh or when a collective runs. ``size`` is always the WHOLE buffer: n times the shard.

Theory. A ring of n members moves an all-gather or a reduce-scatter in n-1 steps, each of S/n over every hop, so a
hop carries S(n-1)/n in all; an all-reduce is one after the other; a pipelined broadcast sends S over n-1 hops.
Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations" (2009), for the bytes;
latency as NCCL's tuner reckons it (``src/graph/tuning.cc``):
``base + (steps - inter) * intra_step + inter * inter_step``, where ``inter`` counts the steps between nodes.

Several nodes. NCCL lays rings so that each enters a node once, visits its members and leaves; there are as many
rings (channels) as NICs that serve the members, each with an equal part of the buffer, entering and leaving by a NIC
of its own (NCCL_CROSS_NIC=0). So the bytes between nodes are spread over those NICs, and each channel leaves out one
of the hops inside the node. A node in which one NIC serves the group uses that NIC alone.

Limits. Ring only: NCCL prefers trees for an all-reduce over few nodes or of a small buffer (on two nodes a tree sends
S out of a node where the ring sends 2S(n-1)/n) and NVLS inside NVSwitch nodes. A network hop does not load PCIe,
nor NVLink where the GPU at the end of a channel is not the one next to its NIC.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.cluster.types import Cluster, NodeKind
from sim.errors import InfeasibleError

Member = tuple[int, int]
"""(node, GPU of that node)."""

# NCCL's base latency of a ring with the Simple protocol (src/graph/tuning.cc), for nodes whose spec has no NVLink
# and therefore gives no base latency of its own.
NCCL_RING_BASE_LATENCY = 8.4e-6

# Passes over the members (reduce-scatter, all-gather, or both): each moves S(n-1)/n over every hop in n-1 steps.
_PASSES = {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 1, "broadcast": 1}

# HBM bytes per byte a member moves. Each hop: the sender reads; the receiver writes, or, to reduce, reads its own
# part and writes the sum. So 2 for a gather, 3 for a reduction, and their mean for the two passes of an all-reduce.
_HBM = {"all_reduce": 2.5, "all_gather": 2.0, "reduce_scatter": 3.0, "broadcast": 2.0}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CollectiveCost:
    """What moving bytes asks of the cluster, for the whole group; copies and host work use the same shape.

    ``latency`` and ``duration`` in seconds; alone, the activity takes their sum. ``ids`` (resources,) ascending numbers
    in the whole cluster and ``amounts`` (resources,) what is asked of each, in its unit (bytes; core seconds for
    cores). SM time is kept apart: ``sm_load`` seconds of the SMs of every member, which never sets the duration.
    ``bound_by`` is the resource that sets ``duration`` (the lowest number among equals; -1: none is used).
    """

    latency: float
    duration: float
    ids: NDArray[np.int64]
    amounts: NDArray[np.float64]
    sm_load: float
    bound_by: int


def ring_demand(kind: str, size: float, members: Sequence[Member], cluster: Cluster) -> CollectiveCost:
    """Cost of a ring collective of ``size`` bytes (the whole buffer) over ``members`` in ring order.

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
    n = len(members)
    moved = size if kind == "broadcast" else _PASSES[kind] * size * (n - 1) / n
    loads = _ring_loads(nodes, moved, _HBM[kind] * moved, cluster)
    if kind == "broadcast":
        _open_ring(loads, nodes, size, cluster)
    pace = pace_of(nodes, cluster)
    latency = _latency(_PASSES[kind], n, len(nodes), pace)
    return _cost(*_flatten(loads, cluster), latency, cluster, pace.sm_share)


def need_network(nodes: Iterable[int], cluster: Cluster) -> None:
    """Refuse a group that sits on several nodes of which one has no adapter (left)."""
    nodes = list(nodes)
    lone = [node for node in nodes if not cluster.node(node).has_network] if len(nodes) > 1 else []
    if not lone:
        return
    if any(part == "nic" for part, _ in cluster.node(lone[0]).missing):
        what = f"has no NIC left in node {lone[0]}, whose ranks cannot reach other nodes"
        remedy = "leave it one in cluster.variations, or place no rank there with layout.placement"
    else:
        what = "has no NICs: ranks on several nodes cannot communicate"
        remedy = "give nics or keep the group in one node"
    msg = f'cluster "{cluster.spec.name}" {what}; {remedy}'
    raise InfeasibleError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What sets the pace among nodes of several kinds: the slowest start and hops (s), the largest share of SM time."""

    base: float
    intra: float
    inter: float
    sm_share: float


def pace_of(nodes: Iterable[int], cluster: Cluster) -> Pace:
    """The pace of an exchange on these nodes: every member runs the same steps, so the slowest kind sets them."""
    kinds = np.unique(cluster.kind_of[list(nodes)]).tolist()
    specs = [cluster.kinds[kind].spec for kind in kinds]
    return Pace(
        base=max(NCCL_RING_BASE_LATENCY if s.nvlink is None else s.nvlink.base_latency for s in specs),
        intra=max(s.host_link.latency if s.nvlink is None else s.nvlink.step_latency for s in specs),
        inter=max(0.0 if s.nics is None else s.nics.step_latency for s in specs),
        sm_share=max(s.sm_share for s in specs),
    )


def cost_of(amounts: dict[int, float], latency: float, cluster: Cluster) -> CollectiveCost:
    """Cost of an activity that asks ``amounts`` (resource number in the cluster -> amount) and takes no SM time."""
    ids = np.array(sorted(amounts), dtype=np.int64)
    return _cost(ids, np.array([amounts[i] for i in ids.tolist()], dtype=np.float64), latency, cluster, 0.0)


def _cost(
    ids: NDArray[np.int64], amounts: NDArray[np.float64], latency: float, cluster: Cluster, sm_share: float
) -> CollectiveCost:
    seconds = amounts / cluster.capacities(ids)
    worst = int(seconds.argmax()) if len(ids) else -1
    duration = float(seconds[worst]) if len(ids) else 0.0
    return CollectiveCost(
        latency=latency,
        duration=duration,
        ids=ids,
        amounts=amounts,
        sm_load=sm_share * duration,
        bound_by=int(ids[worst]) if len(ids) else -1,
    )


def _latency(passes: int, n: int, nodes: int, pace: Pace) -> float:
    """``base + (steps - inter) * intra + inter * inter_step``; steps = passes(n-1), inter = passes(nodes-1)."""
    return pace.base + passes * ((n - nodes) * pace.intra + (nodes - 1) * pace.inter)


def by_node(members: Sequence[Member]) -> dict[int, tuple[int, ...]]:
    """GPUs of the group in each node, nodes in order of first appearance."""
    gathered: dict[int, list[int]] = {}
    for node, gpu in members:
        gathered.setdefault(node, []).append(gpu)
    return {node: tuple(gpus) for node, gpus in gathered.items()}


_Loads = dict[int, dict[int, float]]  # node -> local resource number -> bytes


def _ring_loads(nodes: dict[int, tuple[int, ...]], moved: float, hbm: float, cluster: Cluster) -> _Loads:
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
                _add(tables[key], kind.places[g].hbm, hbm)
        found[node] = tables[key]
    return found


def _node_loads(gpus: tuple[int, ...], moved: float, closed: bool, kind: NodeKind) -> dict[int, float]:
    """Bytes on the links of one node: a closed ring inside it, or the channels that enter and leave by its NICs."""
    loads: dict[int, float] = {}
    channels = [0] if closed else _channels(gpus, kind)
    for i, gpu in enumerate(gpus):
        # The hop to member i is left out by the channel that enters the node at i.
        share = 1.0 if closed else sum(start != i for start in channels) / len(channels)
        for local in kind.peer[gpus[i - 1]][gpu] if share > 0 else ():
            _add(loads, local, moved * share)
    for start in () if closed else channels:
        _add(loads, kind.places[gpus[start]].nic_rx, moved / len(channels))
        _add(loads, kind.places[gpus[start]].nic_tx, moved / len(channels))
    return loads


def _channels(gpus: tuple[int, ...], kind: NodeKind) -> list[int]:
    """Where each channel enters a node, as positions in ``gpus``: the first member that each NIC serves.

    A channel that enters at position i visits i, i+1, ..., i-1 and leaves through the NIC it came by.
    """
    first: dict[int, int] = {}
    for i, gpu in enumerate(gpus):
        first.setdefault(kind.places[gpu].nic_rx, i)
    return list(first.values())


def _open_ring(loads: _Loads, nodes: dict[int, tuple[int, ...]], size: float, cluster: Cluster) -> None:
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
    channels = len(_channels(gpus, root)) if several else 1
    part = size / channels
    # The same expression as in _node_loads, so that what is put on a link and taken off again leaves exactly nothing.
    returning = size * ((channels - 1) / channels) if several else size
    _add(loads[root_node], places[gpus[0]].hbm, -size)
    _add(loads[root_node], places[gpus[-1]].hbm, -returning)
    for local in root.peer[gpus[-1]][gpus[0]]:
        _add(loads[root_node], local, -returning)
    if several:
        _add(loads[root_node], places[gpus[0]].nic_rx, -part)
        exits = _channels(last_gpus, last)
        # With as many channels here as at the root it is the first of them; otherwise each loses its share.
        for start in exits[:1] if len(exits) == channels else exits:
            lost = part if len(exits) == channels else part / len(exits)
            _add(loads[last_node], last.places[last_gpus[start]].nic_tx, -lost)
            _add(loads[last_node], last.places[last_gpus[start - 1]].hbm, -lost)


def _add(loads: dict[int, float], local: int, amount: float) -> None:
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
