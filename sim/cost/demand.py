"""One table from the kind of an exchange to the function that costs it: the seam for new algorithms."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sim.cluster.types import Cluster
from sim.cost.collectives import CollectiveCost, Member, ring_demand
from sim.cost.exchange import exchange_demand

Demand = Callable[[str, float, Sequence[Member], Cluster], CollectiveCost]

ALGORITHMS: dict[str, Demand] = {
    "all_reduce": ring_demand,  # ring: reduce-scatter, then all-gather
    "all_gather": ring_demand,
    "reduce_scatter": ring_demand,
    "broadcast": ring_demand,  # pipelined along the ring
    "send_recv": exchange_demand,  # one message
    "ring_step": exchange_demand,  # every member to the next
}


def demand(kind: str, size: float, members: Sequence[Member], cluster: Cluster) -> CollectiveCost:
    """What an exchange of ``kind`` asks of the cluster; ``size`` as the kind counts it (see ``Collective``)."""
    return ALGORITHMS[kind](kind, size, members, cluster)
