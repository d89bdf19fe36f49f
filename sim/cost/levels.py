"""Level by level: exchanges inside nodes, then between the members at one place of each node, and back.

In a grid of nodes each dimension is a level, so that a group on one axis of a torus rings along it and a group on
several axes rings along one after the other. Levels follow one another: their times add up. With k members left on a
level a reduce-scatter leaves each with 1/k, which is what the next level moves; an all-to-all moves (k-1)/k of the
whole buffer on every level, to the member that has the same place as its receiver there.

Rings on a level go both ways round, half and half, where links have directions of their own; where each pair has a link
they go round in every order. Pure functions on a built ``Cluster``, for one byte of buffer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sim.cluster.types import Cluster
from sim.cost.collectives import add, hop
from sim.cost.exchange import route
from sim.cost.traffic import Member, Nodes, Traffic, demand_of

Pair = tuple[Member, Member]


@dataclass(frozen=True, slots=True)
class Waits:
    """What one step waits for: steps inside a node, steps between nodes, or seconds between nodes of a grid."""

    intra: float = 0.0
    inter: float = 0.0
    hops: float = 0.0


@dataclass(frozen=True, slots=True)
class _Level:
    """One pass over a level: bytes by resource, steps, what a step waits for."""

    amounts: dict[int, float]
    steps: int
    waits: Waits


def hierarchical(kind: str, nodes: Nodes, cluster: Cluster) -> Traffic:
    """A reduce-scatter goes up the levels, an all-gather down, an all-reduce up and down, an all-to-all up."""
    up = list(_levels(kind, nodes, cluster))
    passes = {"all_gather": up[::-1], "all_reduce": up + up[::-1]}.get(kind, up)
    return Traffic(
        phases=tuple(demand_of(level.amounts) for level in passes),
        intra=sum(level.steps * level.waits.intra for level in passes),
        inter=sum(level.steps * level.waits.inter for level in passes),
        hops=sum(level.steps * level.waits.hops for level in passes),
    )


def uneven(nodes: Nodes, cluster: Cluster) -> str:
    """What a group lacks that is to go level by level; empty: nothing."""
    if len({len(gpus) for gpus in nodes.values()}) > 1:
        return "equally many members on each node"
    if cluster.grid is None:
        return ""
    at = {tuple(c) for c in cluster.grid.coordinates(list(nodes)).tolist()}
    count = 1
    for line in zip(*at, strict=True):
        count *= len(set(line))
    return "" if count == len(at) else "members wherever the rows and columns that it has nodes in cross"


def waits(pairs: Iterable[Pair], cluster: Cluster) -> Waits:
    """What a step of these messages, sent at once, waits for."""
    grid = cluster.grid
    if grid is None:
        return Waits(inter=1.0) if any(a[0] != b[0] for a, b in pairs) else Waits(intra=1.0)
    across = {(a[0], b[0]) for a, b in pairs if a[0] != b[0]}
    return Waits(hops=max(grid.latency(a, b) for a, b in across)) if across else Waits(intra=1.0)


def _levels(kind: str, nodes: Nodes, cluster: Cluster) -> Iterable[_Level]:
    """Levels with more than one member on a line, from the inside out."""
    part = 1.0
    inside = [[(node, gpu) for gpu in gpus] for node, gpus in nodes.items()]
    for number, lines in enumerate([inside, *_between(nodes, cluster)]):
        n = len(lines[0])
        if n < 2:
            continue
        if kind == "all_to_all":
            yield _exchanged(lines, cluster)
            continue
        amounts: dict[int, float] = {}
        for line in lines:
            _around(amounts, line, part * (n - 1) / n, number, cluster)
        yield _Level(amounts, n - 1, waits(_neighbours(lines[0]), cluster))
        part /= n


def _between(nodes: Nodes, cluster: Cluster) -> list[list[list[Member]]]:
    """Lines of members at one place of each node: of all nodes, or by dimension of a grid."""
    places = range(len(next(iter(nodes.values()))))
    if cluster.grid is None:
        return [[[(node, gpus[place]) for node, gpus in nodes.items()] for place in places]]
    found = []
    at = dict(zip(nodes, cluster.grid.coordinates(list(nodes)).tolist(), strict=True))
    for d in range(len(cluster.grid.dimensions)):
        rows: dict[tuple[int, ...], list[int]] = {}
        for node in sorted(nodes, key=lambda n: at[n][d]):
            rows.setdefault((*at[node][:d], *at[node][d + 1 :]), []).append(node)
        found.append([[(node, nodes[node][place]) for node in row] for row in rows.values() for place in places])
    return found


def _neighbours(line: Sequence[Member]) -> list[Pair]:
    return [(line[i - 1], line[i]) for i in range(len(line))]


def _around(amounts: dict[int, float], line: Sequence[Member], moved: float, level: int, cluster: Cluster) -> None:
    """``moved`` bytes from each member of a line to the next; ``level`` 0 is inside a node."""
    if level == 0:
        node, gpus = line[0][0], tuple(gpu for _, gpu in line)
        loads: dict[int, float] = {}
        for a, b in _neighbours(line):
            hop(loads, gpus, (a[1], b[1]), moved, cluster.node(node))
        for gpu in gpus:
            add(loads, cluster.node(node).places[gpu].hbm, 2 * moved)
        for local, amount in loads.items():
            add(amounts, cluster.at(node, local), amount)
        return
    pairs = _neighbours(line)
    if cluster.grid is not None:  # both ways round, or by every link
        full = cluster.grid.dimensions[level - 1].kind == "full"
        pairs = _all(line) if full else pairs + [(b, a) for a, b in pairs]
    for a, b in pairs:
        message(amounts, a, b, moved * len(line) / len(pairs), cluster)


def _exchanged(lines: Sequence[Sequence[Member]], cluster: Cluster) -> _Level:
    amounts: dict[int, float] = {}
    for line in lines:
        for a, b in _all(line):
            message(amounts, a, b, 1 / len(line), cluster)
    return _Level(amounts, 1, waits(_all(lines[0]), cluster))


def _all(line: Sequence[Member]) -> list[Pair]:
    return [(a, b) for a in line for b in line if a != b]


def message(amounts: dict[int, float], a: Member, b: Member, size: float, cluster: Cluster) -> None:
    """Add ``size`` bytes from one member to another to what resources carry."""
    for resource, part in route(a, b, cluster):
        add(amounts, resource, size * part)
