"""One table from the kind of an exchange to the function that costs it: the seam for new algorithms."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sim.cluster.types import Cluster
from sim.cost.all_to_all import all_to_all_demand
from sim.cost.collectives import CollectiveCost, Member, ring_demand
from sim.cost.exchange import exchange_demand
from sim.workload.ops import Collective

Demand = Callable[[Collective, Sequence[Member], Cluster], CollectiveCost]


def _ring(work: Collective, members: Sequence[Member], cluster: Cluster) -> CollectiveCost:
    return ring_demand(work.kind, work.size, members, cluster)


def _exchange(work: Collective, members: Sequence[Member], cluster: Cluster) -> CollectiveCost:
    return exchange_demand(work.kind, work.size, members, cluster)


ALGORITHMS: dict[str, Demand] = {
    "all_reduce": _ring,  # reduce-scatter, then all-gather
    "all_gather": _ring,
    "reduce_scatter": _ring,
    "broadcast": _ring,  # pipelined along the ring
    "send_recv": _exchange,  # one message
    "ring_step": _exchange,  # every member to the next
    "all_to_all": all_to_all_demand,  # direct, or once a node
}


def demand(work: Collective, members: Sequence[Member], cluster: Cluster) -> CollectiveCost:
    """What an exchange asks of the cluster; ``work.size`` as its kind counts it (see ``Collective``)."""
    return ALGORITHMS[work.kind](work, members, cluster)
