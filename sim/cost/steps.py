"""Algorithms that go pair by pair. Pure functions on a built ``Cluster``, for one byte of buffer.

- direct: every member sends each other one its part, all at once: one step a pass;
- halving and doubling (Thakur, Rabenseifner, Gropp, 2005): partners at distance 1, 2, 4, ... exchange halves, quarters
  and so on: log2 n steps a pass for the same S(n-1)/n bytes, most of them between neighbours;
- PAT (parallel aggregated trees, NCCL 2.23): log2 n steps a pass from node to node, one member a node.
"""

from __future__ import annotations

from sim.cluster.types import Cluster
from sim.cost.collectives import PASSES
from sim.cost.levels import Waits, message, waits
from sim.cost.traffic import Member, Nodes, Traffic, demand_of

_PAT_EFFICIENCY = 0.75
"""What PAT keeps of a ring's bandwidth (NCCL's tuner, src/graph/tuning.cc)."""


def members_of(nodes: Nodes) -> list[Member]:
    """Members node by node."""
    return [(node, gpu) for node, gpus in nodes.items() for gpu in gpus]


def direct(kind: str, nodes: Nodes, cluster: Cluster) -> Traffic:
    """Everybody sends each other member its part."""
    members, amounts = members_of(nodes), dict[int, float]()
    part = PASSES[kind] / len(members)
    pairs = [(a, b) for a in members for b in members if a != b]
    for a, b in pairs:
        message(amounts, a, b, part, cluster)
    return _traffic(amounts, [waits(pairs, cluster)], PASSES[kind])


def halving_doubling(kind: str, nodes: Nodes, cluster: Cluster) -> Traffic:
    """Recursive halving, doubling, or one after the other; the number of members is a power of two."""
    members, amounts, steps = members_of(nodes), dict[int, float](), list[Waits]()
    n, distance = len(members), 1
    while distance < n:
        pairs = [(members[i], members[i ^ distance]) for i in range(n)]
        for a, b in pairs:
            message(amounts, a, b, PASSES[kind] / (2 * distance), cluster)
        steps.append(waits(pairs, cluster))
        distance *= 2
    return _traffic(amounts, steps, PASSES[kind])


def parallel_trees(kind: str, nodes: Nodes, cluster: Cluster) -> Traffic:
    """PAT: to the member 1, 2, 4, ... further on, twice as many parts each time."""
    members, amounts, steps = members_of(nodes), dict[int, float](), list[Waits]()
    n, distance = len(members), 1
    while distance < n:
        parts = min(distance, n - distance)
        pairs = [(members[i], members[(i + distance) % n]) for i in range(n)]
        for a, b in pairs:
            message(amounts, a, b, parts / n / _PAT_EFFICIENCY, cluster)
        steps.append(waits(pairs, cluster))
        distance *= 2
    return _traffic(amounts, steps, 1)


def _traffic(amounts: dict[int, float], steps: list[Waits], times: int) -> Traffic:
    return Traffic(
        phases=(demand_of(amounts),),
        intra=times * sum(step.intra for step in steps),
        inter=times * sum(step.inter for step in steps),
        hops=times * sum(step.hops for step in steps),
    )
