"""Rules of the cluster: what a node must agree with itself on, what a cluster of several types and its faults may be.

Owns the checks of every type of node, of the room that ranks have, and of what devices must be able to do for the model
and the stack. ``checks`` runs them with the others.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate
from math import prod

from sim.spec.blocks import ClusterFile, DeviceFile
from sim.spec.build import fits_of, leaves_of, pods_of
from sim.spec.network_blocks import VariationFile
from sim.spec.quantities import EVERY
from sim.spec.rule import Check, Finding
from sim.spec.types import DTYPE_BYTES
from sim.spec.validate import Draft
from sim.spec.wording import choices

MAY_BE_MISSING = ("nvlink", "nic")
"""Parts whose traffic finds another way."""

MOST_NODES = 10**6
MOST_GPUS = 1024
"""Of a node; every pair of them has a route of its own."""


def _sockets(d: Draft) -> Iterator[Finding]:
    for key, node, _ in d.machines:
        gpus, sockets = node.gpus_per_host, node.host.sockets
        if gpus >= sockets and gpus % sockets:
            what = f"{gpus} GPUs do not spread evenly over {sockets} sockets"
            yield f"{key}.host.sockets", f"{what}; change one of them"
        boards = node.host.boards
        if sockets % boards:
            what = f"{sockets} sockets do not spread evenly over {boards} boards"
            yield f"{key}.host.boards", f"{what}; change one of them"
        elif sockets > boards and not node.host.socket_link:
            what = f"{sockets // boards} sockets need a link between them; give its rate, one direction"
            yield f"{key}.host.socket_link", what
        if boards > 1 and node.host.binding == "spread":
            yield f"{key}.host.binding", f"no process works on all of {boards} boards; choose local or remote"


def _uplinks(d: Draft) -> Iterator[Finding]:
    for key, node, _ in d.machines:
        gpus, link = node.gpus_per_host, node.host_link
        if link.gpus_per_uplink > 1 and not link.uplink:
            what = f"{link.gpus_per_uplink} GPUs share an uplink of no rate; set uplink, or gpus_per_uplink: 1"
            yield f"{key}.host_link.uplink", what
        if gpus >= link.gpus_per_uplink and gpus % link.gpus_per_uplink:
            what = f"{gpus} GPUs do not spread evenly over uplinks of {link.gpus_per_uplink}; change one of them"
            yield f"{key}.host_link.gpus_per_uplink", what


def _duplex(d: Draft) -> Iterator[Finding]:
    for key, node, _ in d.machines:
        link = node.host_link
        if link.duplex > (link.h2d + link.d2h) * (1 + 1e-9):
            what = "both directions together exceed h2d + d2h; duplex is their sum at most"
            yield f"{key}.host_link.duplex", what
        if link.pageable > max(link.h2d, link.d2h):
            yield f"{key}.host_link.pageable", "exceeds the rate of pinned memory (h2d, d2h); it can only be lower"


def _nics(d: Draft) -> Iterator[Finding]:
    nodes = sum(count for *_, count in d.machines)
    for key, node, _ in d.machines:
        gpus, nics = node.gpus_per_host, node.nics
        if nics is None:
            if nodes > 1 and not (d.cluster.fabric and d.cluster.fabric.dimensions):
                what = f"{nodes} nodes have no network between them; give nics, or set nodes: 1"
                yield f"{key}.nics", what
        elif gpus % nics.count and nics.count % gpus:
            what = f"{nics.count} adapters and {gpus} GPUs do not divide evenly; change one of them"
            yield f"{key}.nics.count", what


def _boards(d: Draft) -> Iterator[Finding]:
    for key, node, _ in d.machines:
        link = node.nvlink
        if link is None or not (link.board or link.bridge):
            continue
        if not (link.board and link.bridge):
            missing, other = ("bridge", "board") if link.board else ("board", "bridge")
            yield f"{key}.nvlink.{other}", f"says that NVLink joins parts of a node; give {missing} as well"
        elif link.kind == "full":
            yield f"{key}.nvlink.board", "with kind: full every pair has a link of its own; use switch or mesh"
        elif node.gpus_per_host % link.board:
            yield f"{key}.nvlink.board", f"{node.gpus_per_host} GPUs do not fill boards of {link.board}; change one"


def _fabric(d: Draft) -> Iterator[Finding]:
    fabric = d.cluster.fabric
    if fabric is not None and not fabric.dimensions and not fabric.nodes_per_leaf:
        yield "cluster.fabric", "has neither leaves nor a grid; give nodes_per_leaf, or dimensions"
    if fabric is not None and fabric.core_oversubscription > 1 and not fabric.leaves_per_pod:
        what = "is of pods, and this fabric has one spine for all leaves"
        yield "cluster.fabric.core_oversubscription", f"{what}; give leaves_per_pod, or leave it out"
    for key, node, _ in d.machines[1:]:
        if node.fabric is not None:
            yield f"{key}.fabric", "is for a cluster, and this is one of its nodes; give cluster.fabric"


def _grid(d: Draft) -> Iterator[Finding]:
    """A grid is the whole network: of equal nodes, each at one crossing."""
    c, fabric = d.cluster, d.cluster.fabric
    if fabric is None or not fabric.dimensions:
        return
    sizes = [dimension.size for dimension in fabric.dimensions]
    if prod(sizes) != c.nodes:
        said = " x ".join(map(str, sizes))
        what = f'{said} = {prod(sizes)} crossings, but cluster "{c.name}" has {c.nodes} nodes'
        yield "cluster.fabric.dimensions", f"{what}; change a size, or cluster.nodes"
    for number, dimension in enumerate(fabric.dimensions):
        if dimension.kind == "full" and dimension.size > MOST_GPUS:
            what = f"a link to each of {dimension.size - 1} others is more than the {MOST_GPUS} that are simulated"
            yield f"cluster.fabric.dimensions.{number}.size", f"{what}; lower it, or choose switch"
    plain = {
        "nodes_per_leaf": 0, "oversubscription": 1.0, "rails": False, "reduction": False, "leaves_per_pod": 0,
        "core_oversubscription": 1.0,
    }  # fmt: skip
    for key in [key for key, usual in plain.items() if getattr(fabric, key) != usual]:
        yield f"cluster.fabric.{key}", "is of leaves and a spine, and a grid has none; leave it out, or dimensions"
    if c.nics is not None:
        what = "adapters have no part in a network of fabric.dimensions, whose links are each GPU's own"
        yield "cluster.nics", f"{what}; set nics: null"
    if len(d.machines) > 1:
        yield "cluster.others", "a grid is made of equal nodes; leave others out, or give fabric leaves"


def _one_fit_each(d: Draft) -> Iterator[Finding]:
    for key, node, _ in d.machines:
        for kernel, fits in node.device.flash:
            seen: dict[tuple[int, bool], int] = {}
            for index, fit in enumerate(fits):
                first = seen.setdefault((fit.head_dim, fit.causal), index)
                if first != index:
                    where = f"{key}.device.flash.{kernel}.{index}"
                    yield where, f"same head_dim and mask as entry {first}; keep one of them"


def _others(d: Draft) -> Iterator[Finding]:
    """What stands for one node cannot be a cluster itself."""
    for key, node, _ in d.machines[1:]:
        if node.nodes != 1:
            yield f"{key}.nodes", f"stands for one node, not {node.nodes}; say with count how many there are"
        for part in ("others", "variations"):
            if getattr(node, part) is not None:
                yield f"{key}.{part}", f"is for a cluster, and this is one of its nodes; give cluster.{part}"


def _variations(d: Draft) -> Iterator[Finding]:
    c = d.cluster
    ends = list(accumulate(count for *_, count in d.machines))
    for number, variation in enumerate(c.variations or ()):
        key, part = f"cluster.variations.{number}", variation.part
        if part in ("uplink", "core"):
            yield from _uplink(key, variation, c, ends[-1])
            continue
        if variation.node >= ends[-1]:
            what = f'cluster "{c.name}" has nodes 0 to {ends[-1] - 1}, not {variation.node}'
            yield f"{key}.node", f"{what}; choose one of them"
        grid = c.fabric is not None and bool(c.fabric.dimensions)
        machines = [node for _, node, _ in d.machines]
        if variation.node != EVERY:
            machines = [machines[bisect(ends[:-1], variation.node)]]
        count = min(_count(node, part, grid=grid) for node in machines)
        if variation.index >= count:
            what = f"a node has {count} of this part ({part}), counted from 0"
            yield f"{key}.index", f"{variation.index} is not there: {what}; choose another"
        if variation.speed == 0 and part not in MAY_BE_MISSING:
            what = f"a node does not run without this part ({part}); {' and '.join(MAY_BE_MISSING)} may be missing"
            yield f"{key}.speed", f"{what}; give a speed above 0, or leave its GPUs out with layout.placement"


def _uplink(key: str, variation: VariationFile, c: ClusterFile, nodes: int) -> Iterator[Finding]:
    """Uplinks are those of a leaf, or of a pod: ``node`` is its number."""
    one, many, asked = "leaf", "leaves", "nodes_per_leaf"
    if variation.part == "core":
        one, many, asked = "pod", "pods", "leaves_per_pod"
    if c.fabric is None or not getattr(c.fabric, asked):
        yield f"{key}.part", f'cluster "{c.name}" has no {many}; give fabric.{asked}, or slow another part'
        return
    there = leaves_of(nodes, c.fabric) if one == "leaf" else pods_of(nodes, c.fabric)
    if variation.node >= there:
        what = f'cluster "{c.name}" has {many} 0 to {there - 1}, not {variation.node}'
        yield f"{key}.node", f"{what}; choose one of them"
    rails = min(c.nics.count, c.gpus_per_host) if one == "leaf" and c.fabric.rails and c.nics else 1
    if variation.index >= rails:
        what = f"a {one} has {rails} of this part ({variation.part}), counted from 0"
        yield f"{key}.index", f"{variation.index} is not there: {what}; choose another"
    if variation.speed == 0:
        yield f"{key}.speed", f"a {one} without uplinks is cut off; give a speed above 0"


def _count(node: ClusterFile, part: str, *, grid: bool) -> int:
    """How many of a part a node has."""
    if part == "links":
        return node.gpus_per_host if grid else 0
    if part in ("dram", "cores"):
        return node.host.sockets
    if part == "nic":
        return min(node.nics.count, node.gpus_per_host) if node.nics else 0
    return 0 if part == "nvlink" and node.nvlink is None else node.gpus_per_host


def _world(d: Draft) -> Iterator[Finding]:
    c, sizes = d.cluster, {axis: getattr(d.layout, axis) for axis in ("tp", "cp", "pp", "dp")}
    world, nodes = prod(sizes.values()), sum(count for *_, count in d.machines)
    used = {axis: size for axis, size in sizes.items() if size > 1 or axis == "dp"}
    said = " * ".join(used) + (f" = {' * '.join(map(str, used.values()))}" if len(used) > 1 else "") + f" = {world}"
    if world > d.gpus:
        terms = " + ".join(f"{count} x {node.gpus_per_host}" for _, node, count in d.machines)
        gpus = f'cluster "{c.name}" has {terms} = {d.gpus} GPUs'
        yield "layout.dp", f"{said} ranks, but {gpus}; lower {choices(used)}, or raise cluster.nodes"
    elif nodes > 1 and d.layout.placement == "packed" and (size := _last_node(d, world)):
        rule = f'ranks fill whole nodes of {size} GPUs when cluster "{c.name}" has {nodes} nodes'
        remedy = "set cluster.nodes: 1, take fewer of each (cluster.gpus_per_host), or say with layout.placement"
        yield "layout.dp", f"{said}: {rule}; use a multiple of {size}, {remedy} where ranks sit"


def _last_node(d: Draft, world: int) -> int:
    """GPUs of the node that ``world`` ranks, packed, fill in part; 0 when they fill every node that they use."""
    for _, node, count in d.machines:
        if world <= node.gpus_per_host * count:
            return node.gpus_per_host if world % node.gpus_per_host else 0
        world -= node.gpus_per_host * count
    return 0


def _size(d: Draft) -> Iterator[Finding]:
    for key, node, _ in d.machines:
        if node.gpus_per_host > MOST_GPUS:
            what = f"{node.gpus_per_host} GPUs in a node are more than the {MOST_GPUS} that are simulated"
            yield f"{key}.gpus_per_host", f"{what}; lower it, and raise nodes"
    nodes = sum(count for *_, count in d.machines)
    if nodes > MOST_NODES:
        yield "cluster.nodes", f"{nodes} nodes are more than the {MOST_NODES} that are simulated; lower it"


def _computes(d: Draft) -> Iterator[Finding]:
    compute = d.precision.compute
    for device in _devices(d):
        known = [dtype for dtype in fits_of(device.gemm) if dtype in DTYPE_BYTES]
        if compute not in known:
            what = f'device "{device.name}" has no fitted GEMM speed in {compute}; use {choices(known)}, or add one'
            yield "precision.compute", what


def _attention(d: Draft) -> Iterator[Finding]:
    kernel, m = d.stack.attention, d.model
    latent = m.attention == "mla"
    if kernel == "math" or (not latent and m.head_dim is None and m.hidden % m.heads):
        return
    head_dim = m.nope_head_dim + m.rope_head_dim if latent else m.head_dim or m.hidden // m.heads
    causal = m.kind == "decoder"
    for device in _devices(d):
        fits = dict(device.flash)[kernel]
        if any(fit.head_dim >= head_dim and fit.causal == causal for fit in fits):  # smaller heads are padded up
            continue
        mask = "causal" if causal else "full"
        known = choices(f"{fit.head_dim} {'causal' if fit.causal else 'full'}" for fit in fits)
        what = f'device "{device.name}" has no {kernel} fit for head_dim {head_dim} or more, {mask} attention'
        remedy = f"set stack.attention: math, or add the fit to device.flash.{kernel}"
        yield "stack.attention", f"{what}; it has: {known}; {remedy}"


def _devices(d: Draft) -> list[DeviceFile]:
    return [node.device for _, node, _ in d.machines]


CHECKS = (
    Check("GPUs spread over sockets", ("cluster",), _sockets),
    Check("GPUs spread over uplinks", ("cluster",), _uplinks),
    Check("link rates agree", ("cluster",), _duplex),
    Check("nodes are connected", ("cluster",), _nics),
    Check("boards of GPUs are joined", ("cluster",), _boards),
    Check("a fabric is something", ("cluster",), _fabric),
    Check("a grid is the network", ("cluster",), _grid),
    Check("one attention fit each", ("cluster",), _one_fit_each),
    Check("other nodes are nodes", ("cluster",), _others),
    Check("variations exist", ("cluster",), _variations),
    Check("ranks fit the cluster", ("layout", "cluster"), _world),
    Check("nodes can be counted", ("cluster",), _size),
    Check("device computes the type", ("precision", "cluster"), _computes),
    Check("attention kernel fits", ("stack", "model", "cluster"), _attention),
)
"""Every rule of the cluster."""
