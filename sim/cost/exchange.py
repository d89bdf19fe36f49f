"""Messages between members: send and receive, a step of a ring, all-to-all. Pure functions on a built ``Cluster``.

Owns direct exchanges, where every byte goes once from its owner to whoever needs it. Sizes: ``send_recv`` is one rank's
message; ``all_to_all`` one rank's whole send buffer, of which each member gets an equal part (its own part stays).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sim.cluster.types import Cluster
from sim.cost.collectives import NCCL_RING_BASE_LATENCY, CollectiveCost, Member, cost_of
from sim.errors import InfeasibleError


def exchange_demand(kind: str, size: float, members: Sequence[Member], cluster: Cluster) -> CollectiveCost:
    """Cost of a direct exchange among ``members``.

    ``send_recv`` with two members sends from the first to the second; with more (context parallelism), every member
    sends to the next one at once. Raises ``InfeasibleError`` where members on several nodes have no NICs.
    """
    if len(members) < 2:
        return cost_of({}, 0.0, cluster)
    if kind == "send_recv":
        pairs = [(members[0], members[1])] if len(members) == 2 else _ring_pairs(members)
        amounts = _pairwise(pairs, size, cluster)
    else:
        amounts = _all_to_all(members, size, cluster)
    nodes = len({node for node, _ in members})
    cost = cost_of(amounts, _latency(nodes, cluster), cluster)
    return replace(cost, sm_load=cluster.spec.sm_share * cost.duration)


def _ring_pairs(members: Sequence[Member]) -> list[tuple[Member, Member]]:
    return [(members[i - 1], members[i]) for i in range(len(members))]


def _pairwise(pairs: Sequence[tuple[Member, Member]], size: float, cluster: Cluster) -> dict[int, float]:
    amounts: dict[int, float] = {}
    for source, target in pairs:
        for resource in _route(source, target, cluster):
            amounts[resource] = amounts.get(resource, 0.0) + size
    return amounts


def _route(source: Member, target: Member, cluster: Cluster) -> list[int]:
    """Resources from a GPU to another: read from HBM, cross the links, write to HBM."""
    (a, i), (b, j) = source, target
    ends = [cluster.at(a, cluster.places[i].hbm), cluster.at(b, cluster.places[j].hbm)]
    if a == b:
        return [*ends, *(cluster.at(a, local) for local in cluster.peer[i][j])]
    _need_nics(cluster)
    return [*ends, cluster.at(a, cluster.places[i].nic_tx), cluster.at(b, cluster.places[j].nic_rx)]


def _need_nics(cluster: Cluster) -> None:
    if cluster.spec.nics is None or cluster.spec.nics.count == 0:
        msg = (
            f'cluster "{cluster.spec.name}" has no NICs: ranks on several nodes cannot communicate; '
            "give nics or keep the group in one node"
        )
        raise InfeasibleError(msg)


def _all_to_all(members: Sequence[Member], size: float, cluster: Cluster) -> dict[int, float]:
    """Every member sends an equal part to every other: inside a node over its links, the rest through its own NIC."""
    part = size / len(members)
    amounts: dict[int, float] = {}
    by_node: dict[int, list[int]] = {}
    for node, gpu in members:
        by_node.setdefault(node, []).append(gpu)
    for node, gpus in by_node.items():
        remote = part * (len(members) - len(gpus))
        for gpu in gpus:
            place = cluster.places[gpu]
            loads = {place.hbm: 2 * part * (len(members) - 1)}
            if remote > 0.0:
                _need_nics(cluster)
                loads[place.nic_tx] = loads.get(place.nic_tx, 0.0) + remote
                loads[place.nic_rx] = loads.get(place.nic_rx, 0.0) + remote
            for other in gpus:
                for local in cluster.peer[gpu][other] if other != gpu else ():
                    loads[local] = loads.get(local, 0.0) + part
            for local, amount in loads.items():
                number = cluster.at(node, local)
                amounts[number] = amounts.get(number, 0.0) + amount
    return amounts


def _latency(nodes: int, cluster: Cluster) -> float:
    """Start of a kernel and one hop: NVLink (or PCIe) inside a node, the network between nodes."""
    spec = cluster.spec
    base = NCCL_RING_BASE_LATENCY if spec.nvlink is None else spec.nvlink.base_latency
    intra = spec.host_link.latency if spec.nvlink is None else spec.nvlink.step_latency
    return base + (spec.nics.step_latency if nodes > 1 and spec.nics is not None else intra)
