"""What a foreign file says of one machine, in no format's words: GPUs, adapters, processors, and who is near whom.

Owns these shapes. What a file does not say is ``None``; nothing is guessed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SWITCH = "switch"
"""Target of a link that ends in an NVSwitch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A PCIe link: its transfers a second and lane (GT/s) and its lanes."""

    transfers: float | None = None
    lanes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU. ``links``: NVLinks by the GPU at their other end, or ``SWITCH``; ``numa``: which of ``Machine.numas``.

    ``pci`` is ``vendor:device``, four hexadecimal digits each; ``sm`` the compute capability, times ten.
    """

    name: str
    numa: int | None = None
    port: Port = Port()
    sm: int | None = None
    pci: str | None = None
    links: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """One network adapter: GPUs (by index) behind the same PCIe switch, its rate (bytes/s, one direction)."""

    name: str
    near: tuple[int, ...] = ()
    rate: float | None = None
    rdma: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One node. ``switches``: GPUs (by index) that share a PCIe switch, and that switch's own port.

    ``numas`` counts the NUMA nodes that are named, ``cores`` those of each. ``cpu`` is ``vendor/family/model``.
    ``bonded``: links were told pair by pair, so that behind an NVSwitch every pair shows all of a GPU's links.
    ``products``: names of GPUs found in the text.
    """

    file: str
    gpus: tuple[Gpu, ...]
    nics: tuple[Nic, ...] = ()
    numas: int = 0
    cores: tuple[int, ...] = ()
    cpu: str | None = None
    switches: tuple[tuple[tuple[int, ...], Port], ...] | None = None
    bonded: bool = False
    products: tuple[str, ...] = ()
    remarks: tuple[str, ...] = field(default=())
