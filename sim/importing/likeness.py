"""Which shipped device a machine has, and which shipped nodes are most like it.

Owns the order of evidence: what the user says, PCI ids, product names, then the shipped node that agrees with all that
the file does say. A guess is told as one, with what else fits. Knows no foreign format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sim.errors import Problem, ScenarioError
from sim.importing.facts import Machine
from sim.importing.identities import CpuIdentity, Shelf, by_product, cpu_of, gpus, shelf, shelves
from sim.importing.wiring import Adapters, Nvlinks, adapters, nvlinks
from sim.spec import catalogue
from sim.spec.wording import choices, suggest


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """The device, why it is that one, what else would fit; the shipped nodes from the most alike on."""

    device: str
    said: str
    others: tuple[str, ...]
    nodes: tuple[Shelf, ...]
    cpu: CpuIdentity | None


def likeness(machine: Machine, file: Path, gpu: str = "", like: str = "") -> Likeness:
    """Find the device and the nodes to fill from; ``gpu`` and ``like`` are the user's words, empty: not said.

    Raises:
        ScenarioError: an unknown name, GPUs of several kinds, or nothing in the file that tells the GPU.
    """
    if gpu:
        _known(gpu, catalogue.names("devices"), "--gpu")
    if like:
        _known(like, catalogue.names("nodes"), "--like")
    cpu, links, nics = cpu_of(machine.cpu), nvlinks(machine), adapters(machine)
    device, said, others = gpu, "--gpu", tuple[str, ...]()
    if not device:
        device, said = _named(machine, file)
    if not device and like:
        device, said = shelf(like).device, f"--like {like}"
    if not device:
        _refuse_unknown(machine, file)
        fitting = [s for s in _ranked("", machine, links, nics, cpu) if _agrees(s, machine, links, cpu)]
        fitting = [s for s in fitting if s.value("gpus_per_host") == len(machine.gpus)] or fitting
        _need_evidence(machine, file, links, cpu, fitting)
        device = fitting[0].device
        others = tuple(dict.fromkeys(s.device for s in fitting if s.device != device))
        said = f"not said by {machine.file}; the shipped node that agrees best, {fitting[0].name}, has this one"
    ranked = _ranked(device, machine, links, nics, cpu)
    nodes = [shelf(like), *(s for s in ranked if s.name != like)] if like else ranked
    return Likeness(device=device, said=said, others=others, nodes=tuple(nodes), cpu=cpu)


def node_with(product: str) -> str:
    """The shipped node that has a GPU of this product name and stands nearest to the root; empty where none has."""
    known = by_product(product)
    having = [node for node in shelves() if known is not None and node.device == known.device]
    return min(having, key=lambda node: (node.derived, node.name)).name if having else ""


def _known(name: str, names: Sequence[str], option: str) -> None:
    if name not in names:
        what = f"unknown name {name!r}; {suggest(name, names)}choices: {choices(names, name)}"
        raise ScenarioError([Problem(option, 0, 0, "", what)])


def _named(machine: Machine, file: Path) -> tuple[str, str]:
    """The device that ids or product names tell, and which did; empty where none does."""
    by_id = {known.pci: known.device for known in gpus().values()}
    ids = {gpu.pci for gpu in machine.gpus if gpu.pci}
    found = {by_id[one] for one in ids if one in by_id}
    by_name = {known.device for product in machine.products if (known := by_product(product))}
    if len(found) > 1 or (not found and len(by_name) > 1):
        names = choices(sorted(found or by_name))
        what = f"has GPUs of several kinds ({names}); a node has one: say with --gpu which to write"
        raise ScenarioError([Problem(str(file), 0, 0, "", what)])
    if found:
        return found.pop(), f"{machine.file}, PCI id {', '.join(sorted(ids))}"
    return (by_name.pop(), f"{machine.file}, by name") if by_name else ("", "")


def _refuse_unknown(machine: Machine, file: Path) -> None:
    """A GPU that the file does name, but that no shipped device is: it is not taken for another one."""
    ids = sorted({gpu.pci for gpu in machine.gpus if gpu.pci})
    named = [f"PCI id {one}" for one in ids] or [product[:40] for product in machine.products[:3]]
    if named:
        known = choices(catalogue.names("devices"))
        what = f"its GPU ({', '.join(named)}) is none that is shipped; say with --gpu NAME which to take: {known}"
        raise ScenarioError([Problem(str(file), 0, 0, "", what)])


def _need_evidence(
    machine: Machine, file: Path, links: Nvlinks, cpu: CpuIdentity | None, fitting: Sequence[Shelf]
) -> None:
    told = any(gpu.sm for gpu in machine.gpus) or links.kind not in ("none", None) or cpu is not None
    if not told or not fitting:
        why = "no shipped node agrees with what it does say" if told else "nothing in it does"
        known = choices(catalogue.names("devices"))
        what = f"does not tell which GPU this is, and {why}; say it with --gpu NAME: {known}"
        raise ScenarioError([Problem(str(file), 0, 0, "", what)])


def _agrees(node: Shelf, machine: Machine, links: Nvlinks, cpu: CpuIdentity | None) -> bool:
    """Whether a shipped node contradicts nothing that the file says."""
    known = gpus().get(node.device)
    if known is None:
        return False
    sms = {gpu.sm for gpu in machine.gpus if gpu.sm}
    has = node.value("nvlink.kind")
    return (
        (not sms or sms == {known.sm})
        and (links.kind in ("none", None) or (has is not None and max(links.links) <= known.links))
        and (links.kind != "switch" or max(links.links) == known.links)
        and (links.kind != "none" or has is None)
        and (cpu is None or _host(node) in _hosts(cpu))
    )


def _host(node: Shelf) -> str:
    return str(node.value("host.name"))


def _hosts(cpu: CpuIdentity) -> set[str]:
    return {_host(shelf(name)) for name in cpu.nodes}


def _ranked(device: str, machine: Machine, links: Nvlinks, nics: Adapters, cpu: CpuIdentity | None) -> list[Shelf]:
    """Shipped nodes, those most alike first; among equals one that stands alone before one that extends it."""
    sm = gpus()[device].sm if device in gpus() else None

    def unlike(node: Shelf) -> tuple[bool | int | str, ...]:
        known, has = gpus().get(node.device), node.value("nvlink.kind") or "none"
        return (
            bool(device) and node.device != device,
            sm is not None and (known is None or known.sm != sm),
            links.kind is not None and has != links.kind,
            cpu is not None and _host(node) not in _hosts(cpu),
            node.value("gpus_per_host") != len(machine.gpus),
            (node.value("nics.count") or 0) != nics.count,
            nics.rate is not None and node.number("nics.bandwidth") != nics.rate,
            node.derived,
            node.name,
        )

    return sorted(shelves(), key=unlike)
