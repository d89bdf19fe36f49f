"""What exchanging bytes asks of the cluster, and how an algorithm's traffic becomes a cost.

Owns the shapes that every algorithm of this room fills (``Traffic``, ``CollectiveCost``), NCCL's protocols, and the one
formula that prices them. Must not know any algorithm, the engine or the mesh.

Price. ``t = base + sum over steps of their latency + X + 2 sqrt(F X)`` with X the time that the busiest resource needs
for the bytes. The first terms are those of NCCL's tuner (``src/graph/tuning.cc``). The last is what a pipeline costs
whose chunks each take F more than their bytes: m chunks of S/m take X + F m to pass and X / m to fill, least when
m = sqrt(X / F) (Bala, Bruck et al., CCL, 1995, for pipelined broadcasts). It is why measured bandwidth rises with size
far beyond the point where latency alone would let it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from typing import Literal

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from sim.cluster.types import Cluster
from sim.errors import InfeasibleError

Member = tuple[int, int]
"""(node, GPU of that node)."""

Nodes = dict[int, tuple[int, ...]]
"""GPUs of a group in each node, nodes in order of first appearance."""

# NCCL's base latency of a ring with the Simple protocol (src/graph/tuning.cc), for nodes whose spec has no NVLink
# and therefore gives no base latency of its own.
NCCL_RING_BASE_LATENCY = 8.4e-6


class CollectiveCost(msgspec.Struct, frozen=True, kw_only=True, eq=False):
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


class Demand(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Bytes on resources of the cluster: ``ids`` ascending, ``amounts`` beside them."""

    ids: NDArray[np.int64]
    amounts: NDArray[np.float64]


Family = Literal["ring", "tree", "in_switch"]


class Traffic(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """An algorithm's steps for one byte of buffer: what it moves and how often it waits.

    ``phases`` follow one another; what is inside one is pipelined. ``intra`` and ``inter`` steps inside and between
    nodes. ``family`` says whose latencies hold. ``sm``: part of the usual share of SM time that it takes. ``hops``:
    seconds between nodes of a grid, whose dimensions have latencies of their own (no ``inter`` then).
    """

    phases: tuple[Demand, ...]
    intra: float
    inter: float
    hops: float = 0.0
    family: Family = "ring"
    sm: float = 1.0


class Protocol(msgspec.Struct, frozen=True, kw_only=True):
    """How data and flags travel: latencies over those of Simple, and bytes on the wire for each byte of data."""

    base: float
    intra: float
    inter: float
    wire: float


SIMPLE = Protocol(base=1.0, intra=1.0, inter=1.0, wire=1.0)
"""Data in large chunks, a fence and a flag after each."""

# NCCL's tuner table (src/graph/tuning.cc): base and hop latencies in the order LL, LL128, Simple, over those of Simple;
# LL sends four bytes of flag with four of data, LL128 reaches 0.92 of the link; a tree's LL 1/3.8, its LL128 also
# 120/128.
PROTOCOLS: Mapping[str, Mapping[str, Protocol]] = {
    "ring": {
        "simple": SIMPLE,
        "ll128": Protocol(base=14.0 / 8.4, intra=1.9 / 3.4, inter=4.0 / 14.0, wire=1 / 0.92),
        "ll": Protocol(base=6.6 / 8.4, intra=0.6 / 3.4, inter=2.7 / 14.0, wire=2.0),
    },
    "tree": {
        "simple": SIMPLE,
        "ll128": Protocol(base=14.0 / 8.4, intra=1.25 / 4.0, inter=8.5 / 14.0, wire=1 / (0.92 * 120 / 128)),
        "ll": Protocol(base=6.8 / 8.4, intra=0.6 / 4.0, inter=5.0 / 14.0, wire=3.8),
    },
    "in_switch": {"simple": SIMPLE},
}


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """What sets the pace among nodes of several kinds: the slowest start and hops (s), the largest share of SM time."""

    base: float
    intra: float
    inter: float
    tree: float
    fill: float
    in_switch: float
    in_switch_fill: float
    sm_share: float

    def message(self, pairs: Iterable[tuple[int, int]], cluster: Cluster) -> float:
        """Latency of messages between these pairs of nodes that are sent at once: the start, and the farthest hop."""
        first = messages(cluster)
        far = {pair for pair in pairs if pair[0] != pair[1]}
        if not far:
            return self.base * first.base + self.intra * first.intra
        grid = cluster.grid
        hop = self.inter if grid is None else max(grid.latency(a, b) for a, b in far)
        return self.base * first.base + hop * first.inter


_SMALL_AND_LARGE = replace(PROTOCOLS["ring"]["ll"], wire=1.0)


def messages(cluster: Cluster) -> Protocol:
    """Protocol of sends: unless told otherwise LL's latency with the bytes of Simple, whose sends start no later.

    Measured on an H100: 7.6 us, 19 us across nodes. NCCL sends nothing in LL128.
    """
    return {"simple": SIMPLE, "ll": PROTOCOLS["ring"]["ll"]}.get(cluster.spec.collectives.protocol, _SMALL_AND_LARGE)


def by_copy_engines(kind: str, nodes: Nodes, cluster: Cluster) -> bool:
    """Whether copy engines move it: they are asked for, nothing is added up, and everybody is in one node."""
    return cluster.spec.collectives.copy_engines and kind in ("all_gather", "all_to_all") and len(nodes) == 1


def pace_of(nodes: Iterable[int], cluster: Cluster) -> Pace:
    """The pace of an exchange on these nodes: every member runs the same steps, so the slowest kind sets them."""
    kinds = np.unique(cluster.kind_of[list(nodes)]).tolist()
    specs = [cluster.kinds[kind].spec for kind in kinds]
    links = [spec.nvlink for spec in specs if spec.nvlink is not None]
    nics = [spec.nics for spec in specs if spec.nics is not None]
    return Pace(
        base=max(NCCL_RING_BASE_LATENCY if s.nvlink is None else s.nvlink.base_latency for s in specs),
        intra=max(s.host_link.latency if s.nvlink is None else s.nvlink.step_latency for s in specs),
        inter=max((n.step_latency for n in nics), default=0.0),
        tree=max((n.tree_latency or n.step_latency for n in nics), default=0.0),
        fill=max((n.fill for n in nics), default=0.0),
        in_switch=max((link.in_switch_latency for link in links), default=0.0),
        in_switch_fill=max((link.in_switch_fill for link in links), default=0.0),
        sm_share=max(s.sm_share for s in specs),
    )


def price(traffic: Traffic, size: float, protocol: Protocol, pace: Pace, cluster: Cluster) -> CollectiveCost:
    """Cost of ``size`` bytes of buffer that move as ``traffic`` says, in ``protocol``."""
    ids, amounts, duration, worst = _total(traffic, size * protocol.wire, cluster)
    switched = traffic.family == "in_switch"
    hop = pace.inter if traffic.family == "ring" else pace.tree
    latency = protocol.base * pace.base + traffic.intra * pace.intra * protocol.intra
    latency += (traffic.inter * hop + traffic.hops) * protocol.inter + switched * pace.in_switch
    fill = traffic.inter * pace.fill * protocol.inter + switched * pace.in_switch_fill
    return CollectiveCost(
        latency=latency + 2 * sqrt(fill * duration),
        duration=duration,
        ids=ids,
        amounts=amounts,
        sm_load=traffic.sm * pace.sm_share * duration,
        bound_by=worst,
    )


def _total(
    traffic: Traffic, size: float, cluster: Cluster
) -> tuple[NDArray[np.int64], NDArray[np.float64], float, int]:
    """Everything that the phases ask, the sum of their durations, and what binds the longest one."""
    duration, longest, worst = 0.0, 0.0, -1
    for phase in traffic.phases:
        seconds = phase.amounts / cluster.capacities(phase.ids) * size
        at = int(seconds.argmax()) if len(seconds) else -1
        took = float(seconds[at]) if at >= 0 else 0.0
        duration += took
        if took > longest:
            longest, worst = took, int(phase.ids[at])
    if len(traffic.phases) == 1:
        return traffic.phases[0].ids, traffic.phases[0].amounts * size, duration, worst
    found, inverse = np.unique(np.concatenate([phase.ids for phase in traffic.phases]), return_inverse=True)
    summed = np.bincount(inverse, weights=np.concatenate([phase.amounts for phase in traffic.phases]))
    ids, amounts = found.astype(np.int64), summed.astype(np.float64)
    return ids, amounts * size, duration, worst


def demand_of(amounts: Mapping[int, float]) -> Demand:
    """The positive amounts, by ascending number."""
    ids = np.array(sorted(i for i, amount in amounts.items() if amount > 0), dtype=np.int64)
    return Demand(ids=ids, amounts=np.array([amounts[i] for i in ids.tolist()], dtype=np.float64))


def cost_of(amounts: dict[int, float], latency: float, cluster: Cluster) -> CollectiveCost:
    """Cost of an activity that asks ``amounts`` (resource number in the cluster -> amount) and takes no SM time."""
    ids = np.array(sorted(amounts), dtype=np.int64)
    asked = np.array([amounts[i] for i in ids.tolist()], dtype=np.float64)
    seconds = asked / cluster.capacities(ids)
    worst = int(seconds.argmax()) if len(ids) else -1
    return CollectiveCost(
        latency=latency,
        duration=float(seconds[worst]) if len(ids) else 0.0,
        ids=ids,
        amounts=asked,
        sm_load=0.0,
        bound_by=int(ids[worst]) if len(ids) else -1,
    )


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


def by_node(members: Sequence[Member]) -> Nodes:
    """GPUs of the group in each node, nodes in order of first appearance."""
    gathered: dict[int, list[int]] = {}
    for node, gpu in members:
        gathered.setdefault(node, []).append(gpu)
    return {node: tuple(gpus) for node, gpus in gathered.items()}
