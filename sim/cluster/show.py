"""A machine as it can be looked at: its places and links, the bandwidth between any two GPUs, and what GPUs share.

Reads built nodes and their graph; measures nothing that a simulation does not use.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sim.cluster.graph import node_graph
from sim.cluster.types import Cluster, NodeKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Two places that are joined, and bytes/s from the first to the second."""

    a: str
    b: str
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """A resource that several ``gpus`` use for the same thing: ``what``, a copy to the GPU, a message out."""

    resource: str
    rate: float
    what: str
    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """One kind of node: ``pair[i][j]`` bytes/s of a lone copy from GPU i to j (0: itself); each GPU's ways out."""

    name: str
    count: int
    device: str
    links: tuple[Link, ...]
    pair: tuple[tuple[float, ...], ...]
    to_gpu: tuple[float, ...]
    to_host: tuple[float, ...]
    network: tuple[float, ...]
    shared: tuple[Shared, ...]


def views(cluster: Cluster) -> tuple[NodeView, ...]:
    """Each kind of node of a built cluster, with how many of it there are."""
    numbers = cluster.kind_of.tolist()
    return tuple(_view(kind, numbers.count(number)) for number, kind in enumerate(cluster.machines))


def _view(kind: NodeKind, count: int) -> NodeView:
    places, gpus = kind.places, range(len(kind.places))
    network: list[tuple[int, ...]] = [(p.nic_tx,) if p.nic_tx >= 0 else p.grid[:1] for p in places]
    return NodeView(
        name=kind.spec.name,
        count=count,
        device=kind.spec.device.name,
        links=tuple(_links(kind)),
        pair=tuple(tuple(_rate(kind, kind.peer[i][j]) if i != j else 0.0 for j in gpus) for i in gpus),
        to_gpu=tuple(_rate(kind, p.h2d) for p in places),
        to_host=tuple(_rate(kind, p.d2h) for p in places),
        network=tuple(_rate(kind, way) if way else 0.0 for way in network),
        shared=(
            *_shared(kind, "copies to the GPU", [p.h2d for p in places]),
            *_shared(kind, "copies to the host", [p.d2h for p in places]),
            *_shared(kind, "messages to other nodes", network),
        ),
    )


def _rate(kind: NodeKind, route: Iterable[int]) -> float:
    """Bytes/s of a route: its narrowest resource; one that is crossed twice carries every byte twice."""
    route = list(route)
    return min((kind.resources[local].capacity / route.count(local) for local in route), default=0.0)


def _shared(kind: NodeKind, what: str, routes: list[tuple[int, ...]]) -> list[Shared]:
    users: dict[int, list[int]] = {}
    for gpu, route in enumerate(routes):
        for local in dict.fromkeys(route):
            users.setdefault(local, []).append(gpu)
    return [
        Shared(resource=kind.resources[local].name, rate=kind.resources[local].capacity, what=what, gpus=tuple(gpus))
        for local, gpus in sorted(users.items())
        if len(gpus) > 1
    ]


def _links(kind: NodeKind) -> list[Link]:
    graph = node_graph(kind.spec, kind.missing)
    return [
        Link(a=a, b=b, rate=min((kind.resources[local].capacity for local in loads), default=0.0))
        for a, b, loads in graph.edges()
    ]
