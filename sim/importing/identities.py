"""What foreign files call the parts of the catalogue (``topologies/identities.yaml``), and nodes as they are written.

Owns the look-up of a GPU by its PCI id or product name, of a processor by its family and model, of the measured host
link of a PCIe generation; and a shipped node's numbers with what vouches for each. Knows no foreign format.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from sim import units
from sim.spec import catalogue
from sim.spec.resolve import resolve_cluster
from sim.spec.tree import Node, read_file

FILE = "topologies/identities.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuIdentity:
    """A shipped device as others know it: ``links`` NVLinks of ``link`` bytes/s one way, ``pcie`` generation."""

    device: str
    sm: int
    pci: str
    product: str
    links: int
    link: float
    pcie: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuIdentity:
    """A kind of processor, and the shipped nodes that have it."""

    name: str
    ids: tuple[str, ...]
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PcieIdentity:
    """A generation: GT/s of a lane, bytes/s of a lane one way, the shipped node that was measured with it."""

    generation: int
    transfers: float
    lane: float
    node: str


@cache
def _document() -> dict[str, Any]:
    found: Any = read_file(catalogue.root() / FILE, FILE).plain()
    return dict(found)


@cache
def gpus() -> dict[str, GpuIdentity]:
    """Every device that foreign files may mean, by its shipped name."""
    return {
        name: GpuIdentity(device=name, **{**row, "link": units.parse(row["link"], "bytes_per_s")})
        for name, row in _document()["gpus"].items()
        if name != "source"
    }


@cache
def cpus() -> tuple[CpuIdentity, ...]:
    """Every kind of processor that a shipped host has."""
    return tuple(
        CpuIdentity(name=row["name"], ids=tuple(row["ids"]), nodes=tuple(row["nodes"])) for row in _document()["cpus"]
    )


@cache
def pcie() -> dict[int, PcieIdentity]:
    """Every PCIe generation."""
    return {
        int(generation): PcieIdentity(
            generation=int(generation),
            transfers=float(row["transfers"]),
            lane=units.parse(row["lane"], "bytes_per_s"),
            node=row["node"],
        )
        for generation, row in _document()["pcie"].items()
        if generation != "source"
    }


def by_product(said: str) -> GpuIdentity | None:
    """The device of a product's name as drivers print it; the longest name that the text holds."""
    words = " ".join(said.split())
    known = [
        gpu
        for gpu in gpus().values()
        if re.search(rf"(?<![\w-]){re.escape(gpu.product)}(?![\w-])", words, re.IGNORECASE)
    ]
    return max(known, key=lambda gpu: len(gpu.product), default=None)


def cpu_of(said: str | None) -> CpuIdentity | None:
    """The kind of a processor by ``vendor/family/model``."""
    return next((cpu for cpu in cpus() if said in cpu.ids), None)


class Shelf:
    """A shipped node as it is written: values by dotted key, and what vouches for them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tree = resolve_cluster(name)

    def _at(self, key: str) -> Node | None:
        node: Node | None = self.tree
        for part in key.split("."):
            node = node.value.get(part) if node is not None and isinstance(node.value, dict) else None
        return node

    def value(self, key: str) -> Any:  # noqa: ANN401 - whatever YAML holds
        """What the file says; None where it says nothing."""
        node = self._at(key)
        return None if node is None else node.plain()

    def number(self, key: str) -> float:
        """A quantity in SI units; 0 where the file says nothing."""
        said = self.value(key)
        if isinstance(said, str):
            for dimension in ("bytes_per_s", "bytes", "seconds"):
                if said.rpartition(" ")[2] in units.UNITS[dimension]:
                    return units.parse(said, dimension)
        return float(said) if isinstance(said, int | float) else 0.0

    def source(self, key: str) -> str:
        """What vouches for a value."""
        node = self._at(key)
        return "" if node is None else node.source

    @cached_property
    def device(self) -> str:
        """Name of its GPU."""
        return str(self.value("device.name"))

    @cached_property
    def derived(self) -> int:
        """How many shipped files it extends: 0 for one that stands alone."""
        count, name = 0, self.name
        while (base := read_file(catalogue.path_of("nodes", name), name).plain()) and "extends" in base:  # type: ignore[operator]
            count, name = count + 1, base["extends"]  # type: ignore[index]
        return count


@cache
def shelf(name: str) -> Shelf:
    """A shipped node, read once."""
    return Shelf(name)


def shelves() -> list[Shelf]:
    """Every shipped node, by name."""
    return [shelf(name) for name in catalogue.names("nodes")]
