"""The inside of one node as a directed graph: places joined by links, each link loading some resources.

Owns which place is wired to which, and how a path becomes a tuple of resource numbers. Vertices are places (a GPU,
its HBM, a PCIe switch, a socket, its DRAM, the NVLink fabric, the two sides of the network); an edge is one
direction of a link and names the resources that every byte on it loads, in order. Must not know what is sent, nor
how often: sharing is the engine's business. Only this module imports networkx, and only when a graph is made (the
import takes longer than any build).

Limits. NICs are reached straight from the GPU (GPUDirect): network traffic loads neither the GPU's PCIe link nor
host memory. Switches between nodes are built elsewhere (``build``): a leaf is a node without GPUs.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise, permutations
from typing import Any

from sim.cluster.grid import links_of
from sim.cluster.types import Resource, ResourceKind
from sim.errors import InfeasibleError
from sim.spec.types import ClusterSpec, NicSpec, NvmeSpec

# Two NVLink hops must be nearer than any other way between two GPUs: a quarter of a hop. Between sockets likewise: a
# copy to a GPU of another socket crosses the socket link. All other links count one.
_NVLINK_DISTANCE = 0.25
_SOCKET_DISTANCE = 0.25


class NodeGraph:
    """Wiring of one node while it is built; ``resources`` in the order of their numbers."""

    __slots__ = ("_graph", "_numbers", "resources", "spec")

    def __init__(self, spec: ClusterSpec) -> None:
        import networkx as nx  # noqa: PLC0415  lazily: slow to import, and needed only to build

        self._graph: Any = nx.DiGraph()
        self._numbers: dict[str, int] = {}
        self.spec = spec
        self.resources: list[Resource] = []

    def resource(self, owner: str, kind: ResourceKind, capacity: float, unit: str = "B") -> str:
        """Add the resource ``owner.kind`` with ``capacity`` units per second and return its name."""
        name = f"{owner}.{kind}"
        self._numbers[name] = len(self.resources)
        self.resources.append(Resource(name=name, kind=kind, capacity=capacity, unit=unit))
        return name

    def number(self, name: str) -> int:
        """Local number of a resource; -1 when the node has none of that name."""
        return self._numbers.get(name, -1)

    def link(self, a: str, b: str, *loads: str, distance: float = 1.0) -> None:
        """Join place ``a`` to ``b``, one direction; every byte on the link loads the resources ``loads``."""
        self._graph.add_edge(a, b, distance=distance, loads=tuple(self._numbers[name] for name in loads))

    def edges(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """Every link, one direction: from, to, the local resource numbers that its bytes load."""
        return [(a, b, loads) for a, b, loads in self._graph.edges(data="loads")]

    def routes(self, a: str) -> dict[str, tuple[int, ...]]:
        """Shortest route from ``a`` (if it is there) to every place it can reach, as local resource numbers in order.

        No GPU passes on what is for another: a route enters one only to reach its memory.
        """
        import networkx as nx  # noqa: PLC0415

        if a not in self._graph:
            return {}

        def distance(here: str, there: str, edge: dict[str, Any]) -> float | None:
            passing = here.startswith("gpu") and here != a and not there.startswith("hbm")
            return None if passing else float(edge["distance"])

        paths: dict[str, list[str]] = nx.single_source_dijkstra_path(self._graph, a, weight=distance)
        return {b: self._loads(path) for b, path in paths.items()}

    def _loads(self, path: list[str]) -> tuple[int, ...]:
        edges = self._graph.edges
        return tuple(n for a, b in pairwise(path) for n in edges[a, b]["loads"])


def node_graph(spec: ClusterSpec, missing: Collection[tuple[str, int]] = ()) -> NodeGraph:
    """Wire one node of ``spec`` without the ``missing`` (part, index) pairs: a GPU's NVLink, an adapter.

    Raises:
        InfeasibleError: a PCIe switch would hang on two sockets.
    """
    graph = NodeGraph(spec)
    _add_sockets(graph, spec)
    _add_switches(graph, spec)
    for gpu in range(spec.gpus_per_host):
        _add_gpu(graph, spec, gpu)
    if spec.nvlink is not None:
        _add_nvlink(graph, spec, missing)
    if spec.nics is not None:
        _add_nics(graph, spec.nics, spec.gpus_per_host, missing)
    if spec.fabric is not None and spec.fabric.dimensions:
        _add_grid(graph, spec)
    if spec.nvme is not None:
        _add_drives(graph, spec, spec.nvme)
    return graph


def drives_of(spec: ClusterSpec, socket: int) -> str:
    """Place of the drives that a socket reaches: its board's, an equal part of the node's."""
    return "nvme" if spec.host.boards == 1 else f"nvme{socket * spec.host.boards // spec.host.sockets}"


def _add_drives(graph: NodeGraph, spec: ClusterSpec, nvme: NvmeSpec) -> None:
    boards = spec.host.boards
    for socket in range(0, spec.host.sockets, spec.host.sockets // boards):
        name = drives_of(spec, socket)
        graph.link(name, f"socket{socket}", graph.resource(name, "nvme.read", nvme.read / boards))
        graph.link(f"socket{socket}", name, graph.resource(name, "nvme.write", nvme.write / boards))
        graph.resource(name, "nvme.busy", 1.0, "s")  # the same drives read and write: r/read + w/write <= 1


def socket_of(spec: ClusterSpec, gpu: int) -> int:
    """Socket of a GPU: GPUs are spread evenly over the sockets, in order."""
    return gpu * spec.host.sockets // spec.gpus_per_host


def process_socket(spec: ClusterSpec, gpu: int) -> int:
    """Socket on which the process of a GPU runs and has its memory: the GPU's own, or the next of its board."""
    each, own = spec.host.sockets // spec.host.boards, socket_of(spec, gpu)
    return own // each * each + (own + (spec.host.binding == "remote")) % each


def _add_sockets(graph: NodeGraph, spec: ClusterSpec) -> None:
    host = spec.host
    for s in range(host.sockets):
        dram = graph.resource(f"socket{s}", "dram", host.dram_bandwidth)
        graph.link(f"socket{s}", f"dram{s}", dram)
        graph.link(f"dram{s}", f"socket{s}", dram)
        graph.resource(f"socket{s}", "cores", float(host.cores_per_socket), "core s")
    each = host.sockets // host.boards
    pairs = [(a, b) for a, b in permutations(range(host.sockets), 2) if a // each == b // each]
    for a, b in pairs if host.socket_link > 0 else []:
        crossing = graph.resource(f"socket{a}-{b}", "socket_link", host.socket_link)
        graph.link(f"socket{a}", f"socket{b}", crossing, distance=_SOCKET_DISTANCE)


def _add_switches(graph: NodeGraph, spec: ClusterSpec) -> None:
    size = spec.host_link.gpus_per_uplink
    if spec.host_link.uplink <= 0:
        return
    for u, first in enumerate(range(0, spec.gpus_per_host, size)):
        last = min(first + size, spec.gpus_per_host) - 1
        socket = socket_of(spec, first)
        if socket_of(spec, last) != socket:
            msg = (
                f'cluster "{spec.name}": GPUs {first} to {last} share a PCIe switch but sit on sockets {socket} and '
                f"{socket_of(spec, last)}; choose gpus_per_uplink so that each switch hangs on one socket"
            )
            raise InfeasibleError(msg)
        up, down = f"switch{u}", f"socket{socket}"
        graph.link(down, up, graph.resource(up, "uplink.in", spec.host_link.uplink))
        graph.link(up, down, graph.resource(up, "uplink.out", spec.host_link.uplink))


def _add_gpu(graph: NodeGraph, spec: ClusterSpec, gpu: int) -> None:
    link, name = spec.host_link, f"gpu{gpu}"
    graph.resource(name, "sm", 1.0, "s")
    hbm = graph.resource(name, "hbm", spec.device.hbm_bandwidth)
    graph.link(name, f"hbm{gpu}", hbm)
    graph.link(f"hbm{gpu}", name, hbm)
    above = f"switch{gpu // link.gpus_per_uplink}" if link.uplink > 0 else f"socket{socket_of(spec, gpu)}"
    down = [graph.resource(name, "pcie.h2d", link.h2d)]
    up = [graph.resource(name, "pcie.d2h", link.d2h)]
    if link.duplex < link.h2d + link.d2h:  # otherwise the two directions do not disturb each other
        duplex = graph.resource(name, "pcie.duplex", link.duplex)
        down.append(duplex)
        up.append(duplex)
    graph.link(above, name, *down)
    graph.link(name, above, *up)


def _add_nvlink(graph: NodeGraph, spec: ClusterSpec, missing: Collection[tuple[str, int]]) -> None:
    # A mesh is modelled by the same ports: NCCL lays several rings so that every link of a GPU is used, and
    # bandwidth x efficiency is what those rings sustain together.
    assert spec.nvlink is not None
    capacity = spec.nvlink.bandwidth * spec.nvlink.efficiency
    there = [g for g in range(spec.gpus_per_host) if ("nvlink", g) not in missing]
    if spec.nvlink.kind == "full":
        for a, b in permutations(there, 2):
            one = graph.resource(f"gpu{a}-{b}", "nvlink.to", capacity / (spec.gpus_per_host - 1))
            graph.link(f"gpu{a}", f"gpu{b}", one, distance=2 * _NVLINK_DISTANCE)
        return
    size = spec.nvlink.board or spec.gpus_per_host
    for gpu in there:
        name, hub = f"gpu{gpu}", f"nvlink{gpu // size}"
        graph.link(name, hub, graph.resource(name, "nvlink.tx", capacity), distance=_NVLINK_DISTANCE)
        graph.link(hub, name, graph.resource(name, "nvlink.rx", capacity), distance=_NVLINK_DISTANCE)
    # Between boards NCCL lays its rings over several GPUs' PCIe links at once: one resource stands for all of them.
    for a, b in permutations(range(-(-spec.gpus_per_host // size)), 2):
        bridge = graph.resource(f"board{a}-{b}", "nvlink.bridge", spec.nvlink.bridge)
        graph.link(f"nvlink{a}", f"nvlink{b}", bridge, distance=_NVLINK_DISTANCE)


def _add_grid(graph: NodeGraph, spec: ClusterSpec) -> None:
    """Links of every GPU in every dimension; which node each leads to is the business of ``grid``."""
    assert spec.fabric is not None
    for gpu in range(spec.gpus_per_host):
        for d, dimension in enumerate(spec.fabric.dimensions):
            for suffix, kind in links_of(dimension):
                graph.resource(f"gpu{gpu}.d{d}{suffix}", kind, dimension.bandwidth)


def grid_links(graph: NodeGraph, gpu: int) -> tuple[int, ...]:
    """Local numbers of a GPU's links in the grid, one dimension after another."""
    dimensions = graph.spec.fabric.dimensions if graph.spec.fabric is not None else ()
    names = [f"gpu{gpu}.d{d}{suffix}.{kind}" for d, one in enumerate(dimensions) for suffix, kind in links_of(one)]
    return tuple(graph.number(name) for name in names)


def _add_nics(graph: NodeGraph, nics: NicSpec, gpus: int, missing: Collection[tuple[str, int]]) -> None:
    # With more NICs than GPUs, all those of one GPU are one resource; its rate is that of count / gpus adapters.
    # The GPUs of a missing adapter use the next one that is there, counting round.
    adapters = min(nics.count, gpus)
    capacity = nics.bandwidth * nics.efficiency * nics.count / adapters if adapters else 0.0
    there = [n for n in range(adapters) if ("nic", n) not in missing]
    serves = {n: next((m for m in there if m >= n), there[0]) for n in range(adapters)} if there else {}
    for n in there:
        tx = graph.resource(f"nic{n}", "nic.tx", capacity)
        rx = graph.resource(f"nic{n}", "nic.rx", capacity)
        for gpu in [g for g in range(gpus) if serves[g * adapters // gpus] == n]:
            # Two network places, not one: no route inside the node may lead out of it and back.
            graph.link(f"gpu{gpu}", "network.out", tx)
            graph.link("network.in", f"gpu{gpu}", rx)
