"""Messages between members: from one to another, or from every one to the next. Pure functions on a built ``Cluster``.

Owns exchanges in which a byte goes once from its owner to whoever needs it. Sizes are those of one rank's message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sim.cluster.types import Cluster
from sim.cost.collectives import NCCL_RING_BASE_LATENCY, CollectiveCost, Member, cost_of, no_network


def exchange_demand(kind: str, size: float, members: Sequence[Member], cluster: Cluster) -> CollectiveCost:
    """Cost of ``send_recv`` (the first member to the second) or ``ring_step`` (every member to the next, at once).

    Raises:
        InfeasibleError: members sit on several nodes and the cluster has no NICs.
    """
    if len(members) < 2:
        return cost_of({}, 0.0, cluster)
    pairs = [(members[0], members[1])] if kind == "send_recv" else _ring_pairs(members)
    amounts: dict[int, float] = {}
    for source, target in pairs:
        for resource in _route(source, target, cluster):
            amounts[resource] = amounts.get(resource, 0.0) + size
    nodes = len({node for node, _ in members})
    cost = cost_of(amounts, _latency(nodes, cluster), cluster)
    return replace(cost, sm_load=cluster.spec.sm_share * cost.duration)


def _ring_pairs(members: Sequence[Member]) -> list[tuple[Member, Member]]:
    return [(members[i - 1], members[i]) for i in range(len(members))]


def _route(source: Member, target: Member, cluster: Cluster) -> list[int]:
    """Resources from a GPU to another: read from HBM, cross the links, write to HBM."""
    (a, i), (b, j) = source, target
    ends = [cluster.at(a, cluster.places[i].hbm), cluster.at(b, cluster.places[j].hbm)]
    if a == b:
        return [*ends, *(cluster.at(a, local) for local in cluster.peer[i][j])]
    if cluster.spec.nics is None or cluster.spec.nics.count == 0:
        raise no_network(cluster)
    return [*ends, cluster.at(a, cluster.places[i].nic_tx), cluster.at(b, cluster.places[j].nic_rx)]


def _latency(nodes: int, cluster: Cluster) -> float:
    """Start of a kernel and one hop: NVLink (or PCIe) inside a node, the network between nodes."""
    spec = cluster.spec
    base = NCCL_RING_BASE_LATENCY if spec.nvlink is None else spec.nvlink.base_latency
    intra = spec.host_link.latency if spec.nvlink is None else spec.nvlink.step_latency
    return base + (spec.nics.step_latency if nodes > 1 and spec.nics is not None else intra)
