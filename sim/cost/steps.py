"""Algorithms that go pair by pair or level by level. Pure functions on a built ``Cluster``, for one byte of buffer.

- direct: every member sends each other one its part, all at once: one step a pass;
- halving and doubling (Thakur, Rabenseifner, Gropp, 2005): partners at distance 1, 2, 4, ... exchange halves, quarters
  and so on: log2 n steps a pass for the same S(n-1)/n bytes, most of them between neighbours;
- PAT (parallel aggregated trees, NCCL 2.23): log2 n steps a pass from node to node, one member a node;
- hierarchical: rings inside nodes, then rings between members at the same place of each node, then inside again. The
  levels follow one another: their times add up.
"""

from __future__ import annotations

from math import log2

from sim.cluster.types import Cluster
from sim.cost.collectives import PASSES, add
from sim.cost.exchange import route
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
    for a in members:
        for b in members:
            if a != b:
                _message(amounts, a, b, part, cluster)
    return _traffic(amounts, kind, nodes, steps=1)


def halving_doubling(kind: str, nodes: Nodes, cluster: Cluster) -> Traffic:
    """Recursive halving, doubling, or one after the other; the number of members is a power of two."""
    members, amounts = members_of(nodes), dict[int, float]()
    n, distance, across = len(members), 1, 0
    while distance < n:
        across += any(members[i][0] != members[i ^ distance][0] for i in range(n))
        for i in range(n):
            _message(amounts, members[i], members[i ^ distance], PASSES[kind] / (2 * distance), cluster)
        distance *= 2
    found = _traffic(amounts, kind, nodes, steps=0)
    inside = int(log2(n)) - across
    return Traffic(phases=found.phases, intra=PASSES[kind] * inside, inter=PASSES[kind] * across)


def parallel_trees(kind: str, nodes: Nodes, cluster: Cluster) -> Traffic:
    """PAT: to the member 1, 2, 4, ... further on, twice as many parts each time."""
    members, amounts = members_of(nodes), dict[int, float]()
    n, distance, steps = len(members), 1, 0
    while distance < n:
        parts = min(distance, n - distance)
        for i in range(n):
            _message(amounts, members[i], members[(i + distance) % n], parts / n / _PAT_EFFICIENCY, cluster)
        distance, steps = 2 * distance, steps + 1
    return _traffic(amounts, kind, nodes, steps=steps, passes=1)


def hierarchical(kind: str, nodes: Nodes, cluster: Cluster) -> Traffic:
    """Rings inside, between, and inside again; every node holds equally many members."""
    per, k = len(next(iter(nodes.values()))), len(nodes)
    inside, between = dict[int, float](), dict[int, float]()
    for node, gpus in nodes.items():
        for local, amount in _around(node, gpus, cluster).items():
            inside[local] = amount * (per - 1) / per
    around = list(nodes)
    for place in range(per):
        for i, node in enumerate(around):
            to = (node, nodes[node][place])
            _message(between, (around[i - 1], nodes[around[i - 1]][place]), to, (k - 1) / k / per, cluster)
    passes = PASSES[kind]
    mid = {resource: passes * amount for resource, amount in between.items()}
    ends = [inside] * passes if per > 1 else []
    levels = [*ends[:1], mid, *ends[1:]] if k > 1 else ends
    if kind == "all_gather":
        levels.reverse()
    return Traffic(phases=tuple(demand_of(level) for level in levels), intra=passes * (per - 1), inter=passes * (k - 1))


def _around(node: int, gpus: tuple[int, ...], cluster: Cluster) -> dict[int, float]:
    """One byte over each hop of a ring inside a node, read and written on the way."""
    loads: dict[int, float] = {}
    for i, gpu in enumerate(gpus):
        for resource in route((node, gpus[i - 1]), (node, gpu), cluster) if len(gpus) > 1 else ():
            add(loads, resource, 1.0)
    return loads


def _message(amounts: dict[int, float], a: Member, b: Member, size: float, cluster: Cluster) -> None:
    for resource in route(a, b, cluster):
        add(amounts, resource, size)


def _traffic(amounts: dict[int, float], kind: str, nodes: Nodes, *, steps: int, passes: int = 0) -> Traffic:
    count = float((passes or PASSES[kind]) * steps)
    several = len(nodes) > 1
    return Traffic(phases=(demand_of(amounts),), intra=0.0 if several else count, inter=count if several else 0.0)
