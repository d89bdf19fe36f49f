"""NCCL's topology XML (``NCCL_TOPO_DUMP_FILE``, or what clouds supply for ``NCCL_TOPO_FILE``) as a ``Machine``.

Owns the format: ``system > cpu > pci (nested) > gpu > nvlink`` and ``nic > net``. Supplied files leave out ``gpu`` and
``nic``: PCI classes tell what a device is. Fills in nothing.

Hostile files. The parser is the standard library's expat, without a tree library over it: it tells the line of every
mistake, and a document type declaration is refused where it begins, so that no entity can be declared, none expands
and nothing external is opened (what defusedxml would be taken for). Bytes, elements and depth are limited.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from sim.importing.facts import SWITCH, Gpu, Machine, Nic, Port
from sim.importing.reading import read_bytes, refuse

_VERSIONS = ("1", "2")
"""NCCL's, and RCCL's, whose links are ``xgmi``."""
MAX_BYTES = 8 << 20
MAX_ELEMENTS = 50_000
MAX_DEPTH = 64
_MOST_LINKS = 1_000
_FASTEST = 10**8  # Mb/s
_NVSWITCH = "0x0680"
_FABRIC = "fffffff:ff:ff"
_GPU_CLASSES = ("0x0302", "0x0300", "0x0380", "0x1200", "0x1300")
_GPU_VENDORS = ("", "0x10de", "0x1002")
_SPEED = re.compile(r"(2\.5|5|8|16|32|64)(?:\.0)? GT/s(?: PCIe)?")


@dataclass(slots=True)
class _Element:
    tag: str
    has: dict[str, str]
    line: int
    children: list[_Element] = field(default_factory=list)

    def all(self, tag: str) -> Iterator[_Element]:
        return (child for child in self.children if child.tag == tag)


def read(path: Path) -> Machine:
    """The machine that a topology file describes.

    Raises:
        ScenarioError: not such a file, or one that is broken, hostile, or holds numbers that no machine has.
    """
    return _Reader(path).machine()


def _parse(path: Path) -> _Element:
    raw = read_bytes(path, MAX_BYTES)
    parser = expat.ParserCreate()
    top = _Element("", {}, 0)
    open_: list[_Element] = [top]
    count = 0

    def start(tag: str, has: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if count > MAX_ELEMENTS:
            refuse(path, parser.CurrentLineNumber, f"holds more than {MAX_ELEMENTS} elements; no machine does")
        if len(open_) > MAX_DEPTH:
            refuse(path, parser.CurrentLineNumber, f"elements are nested more than {MAX_DEPTH} deep")
        element = _Element(tag, has, parser.CurrentLineNumber)
        open_[-1].children.append(element)
        open_.append(element)

    def doctype(*_: object) -> None:
        what = "has a document type declaration, which could declare entities; NCCL writes none: take it out"
        refuse(path, parser.CurrentLineNumber, what)

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: open_.pop()
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(raw, True)
    except expat.ExpatError as error:
        refuse(path, error.lineno, f"is not well-formed XML: {expat.ErrorString(error.code)}")
    except (ValueError, LookupError) as error:
        refuse(path, 1, f"cannot be decoded: {error}")
    return top.children[0]


class _Reader:
    """Walks the tree once; ``where`` is the element that a message is about."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.gpus: list[tuple[int, Gpu]] = []  # (number that NCCL gave it, GPU)
        self.group: list[int] = []  # switch of each GPU, -1: none
        self.nics: list[tuple[int, Nic]] = []  # (switch, adapter)
        self.ports: list[Port] = []  # of switches
        self.lines: dict[str, int] = {}
        self.remarks: list[str] = []

    def machine(self) -> Machine:
        root = _parse(self.path)
        if root.tag != "system":
            hint = "; this is a search result (NCCL_GRAPH_DUMP_FILE)" if root.tag == "graphs" else ""
            what = f"begins with <{root.tag[:40]}>, not <system>{hint}; give what NCCL_TOPO_DUMP_FILE wrote"
            refuse(self.path, root.line, what)
        if root.has.get("version", "1") not in _VERSIONS:
            known = " and ".join(_VERSIONS)
            refuse(self.path, root.line, f"version {root.has['version'][:20]} of the format is not known; {known} are")
        cpus = list(root.all("cpu"))
        for number, cpu in enumerate(cpus):
            numa = number if self._number(cpu, "numaid", -1, -1, 10_000) >= 0 else None
            for child in cpu.children:
                self._below(child, numa, -1, top=True)
        if not self.gpus:
            refuse(self.path, root.line, "names no GPU: no <gpu>, and no device of PCI class 0x0302 or 0x0300")
        return self._assembled(cpus)

    def _assembled(self, cpus: list[_Element]) -> Machine:
        numbers = [number for number, _ in self.gpus]
        told = min(numbers) >= 0 and len(set(numbers)) == len(numbers)
        order = sorted(range(len(numbers)), key=lambda i: numbers[i]) if told else list(range(len(numbers)))
        place = {old: new for new, old in enumerate(order)}
        groups = [tuple(sorted(place[g] for g, s in enumerate(self.group) if s == n)) for n in range(len(self.ports))]
        hosts = {cpu.has.get("host_hash", "") for cpu in cpus}
        if len(hosts) > 1:
            what = f"{len(hosts)} hosts share one NVLink domain: written as one node, as the catalogue does"
            self.remarks.append(what)
        numas = {gpu.numa for _, gpu in self.gpus}
        return Machine(
            file=self.path.name,
            gpus=tuple(self.gpus[old][1] for old in order),
            nics=tuple(self._near(nic, groups[switch] if switch >= 0 else ()) for switch, nic in self._wanted()),
            numas=0 if None in numas else len(cpus),
            cores=tuple(count for cpu in cpus if (count := self._cores(cpu))),
            cpu=self._cpu(cpus[0]),
            switches=tuple((group, port) for group, port in zip(groups, self.ports, strict=True) if group),
            remarks=tuple(self.remarks),
        )

    def _wanted(self) -> list[tuple[int, Nic]]:
        """Adapters once each: those that NCCL found where it found any, else those that PCI classes tell."""
        once: dict[str, tuple[int, Nic]] = {}
        for switch, nic in self.nics:
            once.setdefault(nic.name, (switch, nic))
        found = [row for row in once.values() if row[1].rdma is not None]
        return found or list(once.values())

    @staticmethod
    def _near(nic: Nic, near: tuple[int, ...]) -> Nic:
        return Nic(name=nic.name, near=near, rate=nic.rate, rdma=nic.rdma)

    def _below(self, element: _Element, numa: int | None, switch: int, *, top: bool = False) -> None:
        """Take in a device, or the devices behind a switch; the uplink is that of the outermost one."""
        if element.tag == "nic":
            self._nic(element, switch)
        if element.tag != "pci":
            return
        gpu, inside = next(element.all("gpu"), None), [c for c in element.children if c.tag == "pci"]
        kind = element.has.get("class", "")
        if gpu is not None or (kind[:6] in _GPU_CLASSES and element.has.get("vendor", "") in _GPU_VENDORS):
            self._gpu(element, gpu, numa, switch)
        elif any(element.all("nic")):
            self._nic(next(element.all("nic")), switch)
        elif kind.startswith("0x02"):
            self.nics.append((switch, Nic(name=element.has.get("busid", f"line {element.line}"))))
        if inside and top:
            self.ports.append(self._port(element))
            switch = len(self.ports) - 1
        for child in inside:
            self._below(child, numa, switch)

    def _gpu(self, pci: _Element, gpu: _Element | None, numa: int | None, switch: int) -> None:
        name = pci.has.get("busid", "")
        if not name or name in self.lines:
            what = f"bus id {name[:40]!r} is that of line {self.lines.get(name, 0)} too" if name else "has no busid"
            refuse(self.path, pci.line, f"a GPU {what}; each has its own")
        self.lines[name] = pci.line
        links = None if gpu is None else self._links(name, gpu)
        sm = self._number(gpu, "sm", -1, -1, 1000) if gpu is not None else -1
        ids = [pci.has.get(key, "").removeprefix("0x").lower() for key in ("vendor", "device")]
        number = self._number(gpu, "dev", -1, -1, 10_000) if gpu is not None else -1
        self.group.append(switch)
        self.gpus.append((
            number,
            Gpu(
                name=name, numa=numa, port=self._port(pci), sm=sm if sm > 0 else None,
                pci=":".join(ids) if all(ids) else None, links=links,
            ),
        ))  # fmt: skip

    def _links(self, name: str, gpu: _Element) -> dict[str, int]:
        links: dict[str, int] = {}
        for link in (*gpu.all("nvlink"), *gpu.all("xgmi")):
            count = self._number(link, "count", None, 1, _MOST_LINKS)
            target = link.has.get("target", "")
            if target == name:
                self.remarks.append(f"line {link.line}: an NVLink from GPU {name} to itself is no link; left out")
                continue
            switched = link.has.get("tclass", "").startswith(_NVSWITCH) or target.startswith(_FABRIC)
            end = SWITCH if switched else target
            links[end] = links.get(end, 0) + count
        return links

    def _nic(self, nic: _Element, switch: int) -> None:
        for net in nic.all("net"):
            name = net.has.get("name") or net.has.get("dev") or f"line {net.line}"
            speed = self._number(net, "speed", -1, -1, _FASTEST)  # -1 and 0: the driver did not say
            rdma = self._number(net, "gdr", 0, 0, 1) == 1
            rate = speed * 1e6 / 8 if speed > 0 else None
            port = net.has.get("port", "")
            self.nics.append((switch, Nic(name=f"{name}:{port}" if port else name, rate=rate, rdma=rdma)))

    def _port(self, pci: _Element) -> Port:
        """Speed and lanes; empty and 0 are what virtual machines say."""
        said, lanes = pci.has.get("link_speed", "").strip(), self._number(pci, "link_width", 0, 0, 32)
        found = _SPEED.fullmatch(said)
        if said and found is None and said.lower() not in ("unknown", "unknown speed"):
            what = f"{said[:40]!r} is no speed of a PCIe link, such as '32.0 GT/s PCIe'"
            refuse(self.path, pci.line, what, "link_speed")
        return Port(transfers=float(found.group(1)) if found else None, lanes=lanes or None)

    def _cpu(self, cpu: _Element) -> str | None:
        said = [cpu.has.get(key, "") for key in ("vendor", "familyid", "modelid")]
        return "/".join(said) if all(said) else cpu.has.get("arch") or None

    def _cores(self, cpu: _Element) -> int:
        """Cores of a NUMA node; two runs of equal length are the two threads of each core."""
        text = cpu.has.get("affinity", "").replace(",", "")
        if not re.fullmatch(r"(0x)?[0-9a-fA-F]{0,4096}", text):
            refuse(self.path, cpu.line, "is no mask of processors in hexadecimal digits", "affinity")
        runs = [len(run) for run in f"{int(text or '0', 16):b}".split("0") if run]
        return runs[0] if len(runs) == 2 and runs[0] == runs[1] else sum(runs)

    def _number(self, element: _Element, key: str, default: int | None, least: int, most: int) -> int:
        text = element.has.get(key, "").strip()
        if not text and default is not None:
            return default
        try:
            value = int(text, 0) if len(text) < 20 else most + 1
        except ValueError:
            value = most + 1
        if not least <= value <= most:
            what = f"{text[:40]!r} is no whole number from {least} to {most}"
            refuse(self.path, element.line, what, f"{element.tag}.{key}")
        return value
