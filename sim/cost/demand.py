"""One table from the kind of an exchange to the function that costs it: the seam for new algorithms."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sim.cluster.types import Cluster
from sim.cost.all_to_all import all_to_all_demand
from sim.cost.choice import chosen, traffics
from sim.cost.exchange import exchange_demand
from sim.cost.traffic import CollectiveCost, Demand, Member, by_node
from sim.workload.ops import Collective

Costing = Callable[[Collective, Sequence[Member], Cluster], CollectiveCost]


def _chosen(work: Collective, members: Sequence[Member], cluster: Cluster) -> CollectiveCost:
    return chosen(work.kind, work.size, members, cluster)


def _exchange(work: Collective, members: Sequence[Member], cluster: Cluster) -> CollectiveCost:
    return exchange_demand(work.kind, work.size, members, cluster)


ALGORITHMS: dict[str, Costing] = {
    "all_reduce": _chosen,  # reduce-scatter, then all-gather
    "all_gather": _chosen,
    "reduce_scatter": _chosen,
    "broadcast": _chosen,  # pipelined along the ring
    "send_recv": _exchange,  # one message
    "ring_step": _exchange,  # every member to the next
    "all_to_all": all_to_all_demand,  # direct, or once a node
}


def demand(work: Collective, members: Sequence[Member], cluster: Cluster) -> CollectiveCost:
    """What an exchange asks of the cluster; ``work.size`` as its kind counts it (see ``Collective``)."""
    return ALGORITHMS[work.kind](work, members, cluster)


def patterns(work: Collective, members: Sequence[Member], cluster: Cluster) -> list[Demand]:
    """What an exchange may ask of which resource, whatever its size: one demand for each algorithm that may be used."""
    if ALGORITHMS[work.kind] is not _chosen or len(members) < 2:
        cost = demand(work, members, cluster)
        return [Demand(ids=cost.ids, amounts=cost.amounts)]
    return [phase for traffic in traffics(work.kind, by_node(members), cluster) for phase in traffic.phases]
