"""One table from the kind of an exchange to the function that costs it: the seam for new algorithms."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sim.cluster.types import Cluster
from sim.cost.all_to_all import all_to_all_demand
from sim.cost.choice import chosen, fastest, moved, priced
from sim.cost.exchange import exchange_demand
from sim.cost.traffic import CollectiveCost, Demand, Member
from sim.workload.ops import Collective

Costing = Callable[[Collective, Sequence[Member], Cluster], CollectiveCost]


def _chosen(work: Collective, members: Sequence[Member], cluster: Cluster) -> CollectiveCost:
    return chosen(work.kind, work.size, members, cluster)


def _exchange(work: Collective, members: Sequence[Member], cluster: Cluster) -> CollectiveCost:
    return exchange_demand(work.kind, work.size, members, cluster)


def _all_to_all(work: Collective, members: Sequence[Member], cluster: Cluster) -> CollectiveCost:
    """Direct, or as ``collectives.all_to_all`` says; in a grid whichever is faster."""
    costs = [all_to_all_demand(work, members, cluster)] if _may_be_direct(work, members, cluster) else []
    if not work.copies and len(members) > 1:
        costs += priced(work.kind, work.size, members, cluster)
    return fastest(costs)


def _may_be_direct(work: Collective, members: Sequence[Member], cluster: Cluster) -> bool:
    """Whether everybody may send to everybody; what goes once to a node always does."""
    return work.copies > 0 or len(members) < 2 or cluster.spec.collectives.all_to_all in ("auto", "direct")


ALGORITHMS: dict[str, Costing] = {
    "all_reduce": _chosen,  # reduce-scatter, then all-gather
    "all_gather": _chosen,
    "reduce_scatter": _chosen,
    "broadcast": _chosen,  # pipelined along the ring
    "send_recv": _exchange,  # one message
    "ring_step": _exchange,  # every member to the next
    "all_to_all": _all_to_all,  # direct, once a node, or otherwise
}


def demand(work: Collective, members: Sequence[Member], cluster: Cluster) -> CollectiveCost:
    """What an exchange asks of the cluster; ``work.size`` as its kind counts it (see ``Collective``)."""
    return ALGORITHMS[work.kind](work, members, cluster)


def patterns(work: Collective, members: Sequence[Member], cluster: Cluster) -> list[Demand]:
    """What an exchange may ask of which resource, whatever its size: one demand for each algorithm that may be used."""
    if len(members) < 2 or work.kind in ("send_recv", "ring_step"):
        cost = demand(work, members, cluster)
        return [Demand(ids=cost.ids, amounts=cost.amounts)]
    found: list[Demand] = []
    if work.kind == "all_to_all" and _may_be_direct(work, members, cluster):
        cost = all_to_all_demand(work, members, cluster)
        found.append(Demand(ids=cost.ids, amounts=cost.amounts))
    if work.copies:
        return found
    return found + [phase for traffic in moved(work.kind, tuple(members), cluster) for phase in traffic.phases]
