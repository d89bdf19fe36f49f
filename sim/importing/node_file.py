"""A node file from a machine's facts: what the foreign file says, the rest filled from the catalogue and marked so.

Owns which shipped node each part is filled from (the host from one with that processor, the host link from one with
that PCIe generation, NVLink and adapters from the most alike) and the words in ``sources``. Must not know a foreign
format, nor simulate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sim.importing.facts import Machine, Port
from sim.importing.identities import PcieIdentity, Shelf, gpus, pcie, shelf
from sim.importing.likeness import Likeness, likeness
from sim.importing.wiring import adapters, nvlinks, spread, uplinks

_IN_SWITCH = "in_switch"
"""Keys that begin so are of switches that add."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFile:
    """The document, in the order in which it is written; what to know about it; how many numbers came from where."""

    document: Mapping[str, Any]
    notes: tuple[str, ...]
    told: int
    filled: int


@dataclass(slots=True)
class _Part:
    """One mapping of the file while it is written."""

    keys: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def say(self, key: str, value: object, source: str) -> None:
        self.keys[key], self.sources[key] = value, source

    def fill(self, key: str, donor: Shelf, path: str) -> None:
        """Take a number of a shipped node over, with what vouches for it there."""
        if donor.value(path) is not None:
            self.say(key, donor.value(path), _from(donor, path))

    def fill_rest(self, donor: Shelf, part: str, *leave: str) -> None:
        """Take over what else a part of a shipped node says."""
        for key in donor.value(part):
            if key not in self.keys and key not in ("source", "sources", *leave):
                self.fill(key, donor, f"{part}.{key}")

    def written(self) -> dict[str, Any]:
        return {**self.keys, "sources": self.sources}


def _from(donor: Shelf, path: str) -> str:
    said = donor.source(path)
    return f"filled from the catalogue, {donor.name}{': ' if said else ''}{said}"


def node_file(machine: Machine, file: Path, name: str, gpu: str = "", like: str = "") -> NodeFile:
    """The node file of a machine; ``gpu`` and ``like`` name a shipped device, a shipped node to fill from.

    Raises:
        ScenarioError: the GPU cannot be told, or a name is unknown.
    """
    alike = likeness(machine, file, gpu, like)
    return _Writer(machine, alike, donor=like).written(name)


class _Writer:
    """Writes part by part; notes are what a reader of the file should know."""

    def __init__(self, machine: Machine, alike: Likeness, donor: str) -> None:
        self.machine, self.alike, self.asked = machine, alike, donor
        self.notes = list(machine.remarks)
        self.base = alike.nodes[0]
        self.variations: list[dict[str, Any]] = []

    def written(self, name: str) -> NodeFile:
        alike, file = self.alike, self.machine.file
        top, count = _Part(), len(self.machine.gpus)
        if alike.others:
            fits = ", ".join(alike.others)
            self.notes.insert(0, f"GPU taken to be {alike.device}: {alike.said}; also fits: {fits} (--gpu)")
        top.say("name", name, "")
        top.say("description", f"{count} x {alike.device}, imported from {file}", "")
        top.say("nodes", 1, "one machine")
        top.say("gpus_per_host", count, file)
        top.say("device", alike.device, alike.said)
        parts = {
            "host": self._host(), "host_link": self._host_link(), "nvlink": self._nvlink(), "nics": self._nics(),
        }  # fmt: skip
        self.notes.append("drives are not in such a file: nvme is null; give it for offload to NVMe")
        last = _Part()
        last.fill("p2p", self.base, "p2p")
        last.fill("sm_share", self.base, "sm_share")
        if self.variations:
            last.say("variations", self.variations, f"{file}: parts with fewer links or lanes than the others")
        sources = {k: v for k, v in {**top.sources, **last.sources}.items() if v}
        body = {key: part.written() if part else None for key, part in parts.items()}
        document = {**top.keys, **body, "nvme": None, **last.keys, "sources": sources}
        every = [*sources.values(), *(s for part in parts.values() if part for s in part.sources.values())]
        filled = sum(said.startswith("filled") for said in every)
        return NodeFile(document=document, notes=tuple(self.notes), told=len(every) - filled, filled=filled)

    def _host(self) -> _Part:
        machine, file, cpu = self.machine, self.machine.file, self.alike.cpu
        donor = shelf(cpu.nodes[0]) if cpu and not self.asked and not self._same_host() else self.base
        usual = int(donor.value("host.sockets"))
        sockets = usual
        if machine.numas:
            split = usual > 1 and machine.numas > usual and machine.numas % usual == 0
            sockets = usual if split else machine.numas
        sockets, remarks = spread(machine, sockets)
        self.notes += remarks
        part = _Part()
        part.say("name", f"{sockets} x {cpu.name}" if cpu else donor.value("host.name"), "")
        said = f"{file}: {machine.numas} NUMA nodes" if machine.numas else _from(donor, "host.sockets")
        part.say("sockets", sockets, said)
        if machine.cores and machine.numas:
            part.say("cores_per_socket", max(machine.cores) * max(1, machine.numas // sockets), f"{file}: affinities")
        else:
            part.fill("cores_per_socket", donor, "host.cores_per_socket")
        part.fill("dram", donor, "host.dram")
        if sockets != usual:
            of = f"{donor.value('host.dram')} of {usual} sockets"
            dram = donor.number("host.dram") * sockets / usual
            part.say("dram", _bytes(dram), f"filled from the catalogue, {donor.name}: {of}, in proportion")
        part.fill_rest(donor, "host", *(("boards",) if sockets != usual else ()))
        if sockets > 1 and not donor.number("host.socket_link"):
            other = next(s for s in self.alike.nodes if s.number("host.socket_link"))
            part.fill("socket_link", other, "host.socket_link")
        if machine.cpu and not cpu:
            self.notes.append(f"no shipped host has the processor {machine.cpu}: host as in {donor.name}")
        del part.sources["name"]
        self.sockets = sockets
        return part

    def _same_host(self) -> bool:
        """Whether the node that is most alike has a host of the file's kind."""
        cpu = self.alike.cpu
        hosts = [shelf(node).value("host.name") for node in cpu.nodes] if cpu else []
        return self.base.value("host.name") in hosts

    def _host_link(self) -> _Part:
        base, part = self.base, _Part()
        ups = uplinks(self.machine, self.sockets)
        self.notes += ups.remarks
        if base.value("host_link.kind") == "c2c":
            for key in ("kind", "h2d", "d2h", "duplex", "pageable", "latency"):
                part.fill(key, base, f"host_link.{key}")
            return part
        used, lanes, port = self._used_port()
        known = gpus().get(base.device)
        donor = base if known and known.pcie == used.generation else shelf(used.node)
        donor_lane = pcie()[gpus()[donor.device].pcie].lane
        scale = used.lane * lanes / (donor_lane * 16)
        part.say("kind", "pcie", self.machine.file if port.transfers else _from(donor, "host_link.kind"))
        for key in ("h2d", "d2h", "duplex", "pageable"):
            self._scaled(part, key, donor, scale, f"{used.transfers:g} GT/s x{lanes}")
        part.fill("latency", donor, "host_link.latency")
        self._uplink(part, ups.size, ups.port, donor, donor_lane)
        return part

    def _used_port(self) -> tuple[PcieIdentity, int, Port]:
        """The PCIe generation and lanes that most GPUs use; those with less become variations."""
        gpu = gpus().get(self.alike.device)
        own = pcie()[gpu.pcie] if gpu else pcie()[5]
        by_rate = {one.transfers: one for one in pcie().values()}
        told = [(by_rate.get(g.port.transfers or own.transfers, own), g.port.lanes or 16) for g in self.machine.gpus]
        capped = [(min(one, own, key=lambda p: p.transfers), lanes) for one, lanes in told]
        port = self.machine.gpus[0].port
        if capped != told:
            what = f"the file gives {told[0][0].transfers:g} GT/s; a {self.alike.device} reaches {own.transfers:g}"
            self.notes.append(f"{what}: written with that")
        best = max(capped, key=lambda pair: pair[0].lane * pair[1])
        for index, (one, lanes) in enumerate(capped):
            speed = one.lane * lanes / (best[0].lane * best[1])
            if speed < 0.99:
                self.variations.append({"node": 0, "part": "pcie", "index": index, "speed": round(speed, 4)})
        if best[0].transfers < own.transfers:
            what = f"PCIe runs at {best[0].transfers:g} GT/s, a {self.alike.device} could at {own.transfers:g}"
            self.notes.append(f"{what}; virtual machines often misreport it")
        return best[0], best[1], port

    def _scaled(self, part: _Part, key: str, donor: Shelf, scale: float, said: str) -> None:
        path = f"host_link.{key}"
        if abs(scale - 1) < 0.02:
            part.fill(key, donor, path)
            return
        rate = _bytes_per_s(donor.number(path) * scale)
        part.say(key, rate, f"{_from(donor, path)}; in proportion to {said} ({self.machine.file})")

    def _uplink(self, part: _Part, size: int | None, port: Port, donor: Shelf, donor_lane: float) -> None:
        """The switch's port: nothing behind a switch of its own, else the part of its lanes that a GPU's port keeps."""
        base, file, gpus_here = self.base, self.machine.file, len(self.machine.gpus)
        if size is None:
            usual = int(base.value("host_link.gpus_per_uplink") or 1)
            size = usual if gpus_here // self.sockets % usual == 0 else 1
            said = _from(base, "host_link.gpus_per_uplink") if size == usual else "estimate: the file does not say"
        else:
            said = f"{file}: {'GPUs' if size > 1 else 'no two GPUs'} behind one PCIe switch"
        part.say("gpus_per_uplink", size, said)
        if size == 1:
            part.say("uplink", "0 B/s", "no switch that GPUs share")
            return
        by_rate = {one.transfers: one for one in pcie().values()}
        lane = by_rate[port.transfers].lane if port.transfers else 0.0
        kept = donor.number("host_link.h2d") / (donor_lane * 16)
        if lane and port.lanes:
            said = f"{file}: {port.transfers:g} GT/s x{port.lanes}; estimate: as much of it as a GPU's port keeps"
            part.say("uplink", _bytes_per_s(kept * lane * port.lanes), said)
        else:
            part.say("uplink", part.keys["h2d"], "estimate, a port like that of a GPU")

    def _nvlink(self) -> _Part | None:
        known = gpus().get(self.alike.device)
        found = nvlinks(self.machine, known.links if known and known.links else 18)
        self.notes += found.remarks
        file, part = self.machine.file, _Part()
        donors = [s for s in self.alike.nodes if s.value("nvlink.kind") and self._same_kind(s, found.kind)]
        if found.kind == "none" or (found.kind is None and self.base.value("nvlink.kind") is None):
            return None
        donor = donors[0] if donors else next(s for s in self.alike.nodes if s.value("nvlink.kind"))
        if found.kind is None or known is None or not known.links:
            part.fill_rest(donor, "nvlink")
            return part
        links = max(found.links)
        part.say("kind", found.kind, file)
        rate = _bytes_per_s(links * known.link)
        part.say("bandwidth", rate, f"{file}: {links} NVLinks; filled: {known.link / 1e9:g} GB/s each way of one")
        adds = found.kind == donor.value("nvlink.kind") == "switch"
        part.fill_rest(donor, "nvlink", *(k for k in donor.value("nvlink") if k.startswith(_IN_SWITCH) and not adds))
        if links > known.links:
            self.notes.append(f"{links} NVLinks a GPU, but a {self.alike.device} has {known.links}: is it another GPU?")
        for index, count in enumerate(found.links):
            if count < links:
                self.variations.append({"node": 0, "part": "nvlink", "index": index, "speed": round(count / links, 4)})
        return part

    @staticmethod
    def _same_kind(node: Shelf, kind: str | None) -> bool:
        return kind is None or node.value("nvlink.kind") == kind

    def _nics(self) -> _Part | None:
        found, file, part = adapters(self.machine), self.machine.file, _Part()
        self.notes += found.remarks
        if not found.count:
            self.notes.append("names no network adapter: nics is null; a cluster of such nodes needs them")
            return None
        with_nics = [s for s in self.alike.nodes if s.value("nics.count")]
        donor = next((s for s in with_nics if s.number("nics.bandwidth") == found.rate), with_nics[0])
        if found.rate is None or self.asked:
            donor = with_nics[0]
        part.say("count", found.count, file)
        if found.rate is None:
            part.fill("bandwidth", donor, "nics.bandwidth")
        else:
            part.say("bandwidth", f"{found.rate * 8 / 1e9:g} Gb/s", file)
        part.fill_rest(donor, "nics")
        return part


def _bytes(value: float) -> str:
    return f"{value / 1e9:.6g} GB"


def _bytes_per_s(value: float) -> str:
    return f"{value / 1e9:.6g} GB/s"


def comment(found: NodeFile, command: str) -> Sequence[str]:
    """The lines above a written node file."""
    told = f"{found.told} values are the file's; {found.filled} are filled from the catalogue and say so in sources."
    return [f"Written by {command}.", told, *(f"Note: {note}." for note in found.notes)]
