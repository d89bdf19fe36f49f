"""Which algorithm and protocol an exchange uses: what the cluster's file says, or the fastest that NCCL would consider.

Owns the table of algorithms (the seam for a new one: a function, a line here, a test of its closed form) and the
choice: as NCCL's tuner does, the least time of the candidates alone on their links.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from msgspec.structs import replace

from sim.cluster.types import Cluster
from sim.cost import levels, steps, trees
from sim.cost.collectives import ring
from sim.cost.traffic import (
    PROTOCOLS,
    SIMPLE,
    CollectiveCost,
    Member,
    Nodes,
    Traffic,
    by_copy_engines,
    by_node,
    cost_of,
    need_network,
    pace_of,
    price,
)
from sim.errors import InfeasibleError


@dataclass(frozen=True, slots=True)
class Algorithm:
    """``traffic`` for one byte of buffer; ``needs`` says what is missing (empty: nothing)."""

    traffic: Callable[[str, Nodes, Cluster], Traffic]
    needs: Callable[[Nodes, Cluster], str] = lambda _nodes, _cluster: ""


def _several(nodes: Nodes, cluster: Cluster) -> str:
    if len(nodes) > 1 and cluster.grid is not None:
        return "a network of adapters and switches, not one of fabric.dimensions"
    return "" if len(nodes) > 1 else "members on several nodes"


def _switch(nodes: Nodes, cluster: Cluster) -> str:
    able = all(trees.can_switch(gpus, cluster.node(node)) for node, gpus in nodes.items())
    return "" if able else "two or more members a node behind an NVLink switch that adds (nvlink.in_switch)"


def _one_domain(nodes: Nodes, cluster: Cluster) -> str:
    return "all members in one node" if len(nodes) > 1 else _switch(nodes, cluster)


def _network(nodes: Nodes, cluster: Cluster) -> str:
    fabric = cluster.spec.fabric
    return _several(nodes, cluster) or ("" if fabric and fabric.reduction else "switches that add (fabric.reduction)")


def _power_of_two(nodes: Nodes, _: Cluster) -> str:
    n = sum(len(gpus) for gpus in nodes.values())
    return "" if n & (n - 1) == 0 else f"a power of two of members, not {n}"


def _lone(nodes: Nodes, cluster: Cluster) -> str:
    return _several(nodes, cluster) or ("" if all(len(g) == 1 for g in nodes.values()) else "one member a node")


ALGORITHMS: dict[str, Algorithm] = {
    "ring": Algorithm(ring),
    "tree": Algorithm(lambda _, nodes, cluster: trees.tree(nodes, cluster), _several),
    "nvls": Algorithm(lambda _, nodes, cluster: trees.in_switch(nodes, cluster), _one_domain),
    "nvls_tree": Algorithm(
        lambda _, nodes, cluster: trees.in_switch_tree(nodes, cluster),
        lambda nodes, cluster: _several(nodes, cluster) or _switch(nodes, cluster),
    ),
    "sharp": Algorithm(lambda _, nodes, cluster: trees.in_network(nodes, cluster), _network),
    "pat": Algorithm(steps.parallel_trees, _lone),
    "direct": Algorithm(steps.direct),
    "halving_doubling": Algorithm(steps.halving_doubling, _power_of_two),
    "hierarchical": Algorithm(levels.hierarchical, levels.uneven),
}

CANDIDATES: dict[str, tuple[str, ...]] = {
    "all_reduce": ("ring", "tree", "nvls", "nvls_tree", "sharp"),
    "all_gather": ("ring", "pat"),
    "reduce_scatter": ("ring", "pat"),
    "broadcast": ("ring",),
    "all_to_all": (),  # direct: see ``demand``
}
"""What NCCL chooses from; in a grid exchanges may also go dimension by dimension."""


def chosen(kind: str, size: float, members: Sequence[Member], cluster: Cluster) -> CollectiveCost:
    """Cost of a collective of ``size`` bytes (the whole buffer) over ``members``.

    Raises:
        InfeasibleError: members on several nodes have no network, or the algorithm asked for needs what is not there.
    """
    assert len(set(members)) == len(members), "a GPU is in the group twice"
    if len(members) < 2:
        return cost_of({}, 0.0, cluster)
    return fastest(priced(kind, size, members, cluster))


def fastest(costs: Iterable[CollectiveCost]) -> CollectiveCost:
    """The least time alone."""
    return min(costs, key=lambda cost: cost.latency + cost.duration)


def priced(kind: str, size: float, members: Sequence[Member], cluster: Cluster) -> list[CollectiveCost]:
    """What each algorithm and protocol that may be chosen would cost."""
    return swept(kind, [size], members, cluster)[0]


def swept(kind: str, sizes: Sequence[float], members: Sequence[Member], cluster: Cluster) -> list[list[CollectiveCost]]:
    """What each algorithm and protocol would cost, size by size; who sends what is found once."""
    nodes = by_node(members)
    need_network(nodes, cluster)
    pace, protocol = pace_of(nodes, cluster), cluster.spec.collectives.protocol
    found = moved(kind, tuple(members), cluster)
    ways = [
        (traffic, one)
        for traffic in found
        for name, one in PROTOCOLS[traffic.family].items()
        if protocol in ("auto", name) or len(PROTOCOLS[traffic.family]) == 1
    ]
    if by_copy_engines(kind, nodes, cluster):  # which set no flags: Simple
        ways = [(replace(traffic, sm=0.0), SIMPLE) for traffic in found]
    return [[price(traffic, size, one, pace, cluster) for traffic, one in ways] for size in sizes]


@lru_cache(maxsize=16)  # layers of a step exchange over the same few groups in turn, in many sizes
def moved(kind: str, members: tuple[Member, ...], cluster: Cluster) -> tuple[Traffic, ...]:
    """What each algorithm that may be chosen moves, for one byte of buffer. Raises as ``chosen``."""
    return tuple(traffics(kind, by_node(members), cluster))


def traffics(kind: str, nodes: Nodes, cluster: Cluster) -> Iterator[Traffic]:
    """What each algorithm that may be chosen moves; the choice among them depends on the size."""
    asked = getattr(cluster.spec.collectives, kind, "auto")
    if kind == "all_to_all" and asked == "direct":  # costed apart: it may leave out copies
        return
    missing = "" if asked == "auto" else ALGORITHMS[asked].needs(nodes, cluster)
    if missing and not _elsewhere(asked, nodes):
        msg = f'cluster "{cluster.spec.name}": collectives.{kind}: {asked} needs {missing}; choose auto, or ring'
        raise InfeasibleError(msg)
    names = CANDIDATES[kind]
    if cluster.grid is not None and len(nodes) > 1 and kind != "broadcast":
        names = (*names, "hierarchical")
    able = [name for name in names if not ALGORITHMS[name].needs(nodes, cluster)]
    for name in able if missing or asked == "auto" else [asked]:
        yield ALGORITHMS[name].traffic(kind, nodes, cluster)


def _elsewhere(asked: str, nodes: Nodes) -> bool:
    """Whether an algorithm is for groups of the other sort: across nodes, or inside one. These do as NCCL would."""
    across = asked in ("tree", "nvls_tree", "sharp", "pat")
    return (across and len(nodes) == 1) or (asked == "nvls" and len(nodes) > 1)
