"""What a machine's facts mean in the words of a node file: one NVLink kind, equal switches, equal adapters.

Owns that reading, and the remarks on what a node file cannot hold (it has equal GPUs, evenly spread). Pure; knows no
catalogue and no bandwidth.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import gcd
from typing import Literal

from sim.importing.facts import SWITCH, Machine, Port

UNKNOWN = Port()
"""A PCIe port of which nothing is known."""

MOST_LINKS = 18
"""NVLinks of any GPU so far: more in a row of a matrix means that an NVSwitch shows the same ones to each peer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nvlinks:
    """``kind`` None: the file does not say. ``full``: equal links between every two. ``links`` of each GPU."""

    kind: Literal["none", "switch", "mesh", "full"] | None
    links: tuple[int, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """Adapters that serve GPUs, all equal; ``rate`` None: the file does not say."""

    count: int
    rate: float | None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Uplinks:
    """GPUs of each PCIe switch (None: not said), and the switch's own port."""

    size: int | None
    port: Port = UNKNOWN
    remarks: tuple[str, ...] = ()


def nvlinks(machine: Machine, most: int = MOST_LINKS) -> Nvlinks:
    """How NVLink joins the GPUs; ``most`` links of one GPU."""
    told = [gpu.links for gpu in machine.gpus if gpu.links is not None]
    if not told:
        return Nvlinks(kind=None)
    rows = [dict(gpu.links or {}) for gpu in machine.gpus]
    if any(SWITCH in row for row in rows):
        return Nvlinks(kind="switch", links=tuple(row.get(SWITCH, 0) for row in rows))
    if machine.bonded and any(sum(row.values()) > most for row in rows):
        return Nvlinks(kind="switch", links=tuple(max(row.values(), default=0) for row in rows))
    names = {gpu.name: i for i, gpu in enumerate(machine.gpus)}
    sums = tuple(sum(count for target, count in row.items() if target in names) for row in rows)
    if not any(sums):
        return Nvlinks(kind="none", links=sums)
    groups = _joined(len(rows), [(i, names[t]) for i, row in enumerate(rows) for t in row if t in names])
    if len(groups) == 1:
        pairs = [row.get(name, 0) for i, row in enumerate(rows) for name, j in names.items() if j != i]
        return Nvlinks(kind="full" if len(rows) > 2 and len(set(pairs)) == 1 else "mesh", links=sums)
    said = " ".join("{" + ", ".join(map(str, group)) + "}" for group in groups)
    what = f"NVLink joins only some GPUs, {said}; a node file joins all or none: written without NVLink, over PCIe"
    return Nvlinks(kind="none", links=sums, remarks=(what,))


def _joined(count: int, pairs: list[tuple[int, int]]) -> list[list[int]]:
    root = list(range(count))
    for i, j in pairs:
        a, b = sorted((root[i], root[j]))
        root = [a if r == b else r for r in root]
    return [[i for i in range(count) if root[i] == r] for r in dict.fromkeys(root)]


def uplinks(machine: Machine, sockets: int) -> Uplinks:
    """The GPUs that share each PCIe switch: as many behind every one, none across sockets."""
    if machine.switches is None:
        return Uplinks(size=None)
    gpus, per_socket = len(machine.gpus), max(1, len(machine.gpus) // sockets)
    sizes = Counter(len(group) for group, _ in machine.switches)
    alone = gpus - sum(size * count for size, count in sizes.items())
    sizes[1] += max(0, alone)
    common = max((size for size in sizes if sizes[size]), key=lambda size: (size * sizes[size], size))
    size = gcd(common, per_socket)
    remarks = []
    if len([s for s in sizes if sizes[s]]) > 1 or size != common:
        said = ", ".join(f"{n} of {s}" for s, n in sorted(sizes.items()) if n)
        remarks = [f"PCIe switches of unlike size (switches of GPUs: {said}); a node file has equal ones: {size} each"]
    port = next((port for group, port in machine.switches if len(group) == common), Port())
    return Uplinks(size=size, port=port, remarks=tuple(remarks))


def adapters(machine: Machine) -> Adapters:
    """The adapters that serve GPUs: capable of RDMA where any is, the fastest, those behind a GPU's switch."""
    gpus, remarks = len(machine.gpus), list[str]()
    kept = [nic for nic in machine.nics if nic.rdma] or list(machine.nics)
    rate = max((nic.rate for nic in kept if nic.rate is not None), default=None)
    kept = [nic for nic in kept if nic.rate == rate] if rate is not None else kept
    shares = [sum(1 / len(nic.near) for nic in kept if g in nic.near) for g in range(gpus)]
    count = round(min(shares) * gpus) if shares and min(shares) > 0 else len(kept)
    while count and gpus % count and count % gpus:
        count -= 1
    if count < len(machine.nics):
        what = f"{len(machine.nics)} adapters, {count} of them taken: equal ones, nearest to GPUs, as many for each"
        remarks.append(what)
    return Adapters(count=count, rate=rate, remarks=tuple(remarks))


def spread(machine: Machine, sockets: int) -> tuple[int, tuple[str, ...]]:
    """Sockets over which the GPUs spread evenly, at most ``sockets``, and what of the file that leaves out."""
    gpus, remarks = len(machine.gpus), list[str]()
    even = sockets
    while gpus >= even and gpus % even:
        even -= 1
    if even != sockets:
        remarks.append(f"{gpus} GPUs do not spread evenly over {sockets} sockets: written with {even}")
    seen = [gpu.numa for gpu in machine.gpus if gpu.numa is not None]
    runs = [numa for i, numa in enumerate(seen) if not i or seen[i - 1] != numa]
    if len(set(runs)) < len(runs) or len(set(Counter(seen).values())) > 1:
        said = ", ".join(map(str, seen))
        remarks.append(f"GPUs sit on NUMA nodes {said}; a node file has them evenly and in order")
    return even, tuple(remarks)
