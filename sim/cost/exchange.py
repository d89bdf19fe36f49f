"""Messages between members: from one to another, or from every one to the next. Pure functions on a built ``Cluster``.

Owns exchanges in which a byte goes once from its owner to whoever needs it. Sizes are those of one rank's message.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from sim.cluster.types import Cluster
from sim.cost.traffic import CollectiveCost, Member, by_node, cost_of, messages, need_network, pace_of


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
        for resource, part in route(source, target, cluster):
            amounts[resource] = amounts.get(resource, 0.0) + size * part * messages(cluster).wire
    pace = pace_of(by_node(members), cluster)
    latency = pace.message([(source[0], target[0]) for source, target in pairs], cluster)
    cost = cost_of(amounts, latency, cluster)
    return replace(cost, sm_load=pace.sm_share * cost.duration)


def _ring_pairs(members: Sequence[Member]) -> list[tuple[Member, Member]]:
    return [(members[i - 1], members[i]) for i in range(len(members))]


def route(source: Member, target: Member, cluster: Cluster) -> list[tuple[int, float]]:
    """(Resource, part of the bytes) from a GPU to another: read from HBM, cross the links, write to HBM."""
    (a, i), (b, j) = source, target
    sender, receiver = cluster.node(a).places[i], cluster.node(b).places[j]
    ends = [(cluster.at(a, sender.hbm), 1.0), (cluster.at(b, receiver.hbm), 1.0)]
    if a == b:
        return [*ends, *((cluster.at(a, local), 1.0) for local in cluster.node(a).peer[i][j])]
    need_network((a, b), cluster)
    return [*ends, *cluster.between(source, target)]
