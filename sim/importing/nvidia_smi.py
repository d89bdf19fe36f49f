"""The matrix of ``nvidia-smi topo -m`` as a ``Machine``; what else the text holds (``nvidia-smi`` itself) is welcome.

Owns the format: a heading of device names, a row each, cells ``X SYS NODE PHB PXB PIX NV#``, affinities behind the
cells of GPUs, legends. Fills in nothing: the matrix gives no bandwidth and no GPU's name.

``NV#`` is what joins two GPUs, by whatever way: behind an NVSwitch all pairs show all links of a GPU. PCIe switches
show between GPUs without NVLink, else through the adapters (``PIX``, ``PXB``) that two GPUs have in common.
"""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

from sim.importing.facts import Gpu, Machine, Nic, Port
from sim.importing.reading import read_lines, refuse

MAX_BYTES = 4 << 20
_MOST_DEVICES = 256
_CELL = re.compile(r"X|SYS|NODE|PHB|PXB|PIX|NV\d{1,3}")
_DEVICE = re.compile(r"(?:GPU|NIC)\d{1,3}|(?:mlx|bnxt|efa|irdma|hns|roce|ib|rdma)\w*")
_RANGES = re.compile(r"\d{1,6}(?:-\d{1,6})?(?:,\d{1,6}(?:-\d{1,6})?)*")
_PRODUCT = re.compile(r"(?:NVIDIA|Tesla|AMD Instinct) (?:(?:GeForce|RTX|Quadro|Tesla) )*[A-Z]{1,3}\d[\w. -]{0,40}")
_BEHIND_ONE_SWITCH = ("PIX", "PXB")


def read(path: Path) -> Machine:
    """The machine that the first matrix of a text describes.

    Raises:
        ScenarioError: there is none, a row or column is missing, or a cell is none of the known words.
    """
    lines = read_lines(path, MAX_BYTES)
    start, names = _heading(path, lines)
    rows = _rows(path, lines, start, names)
    gpus = [name for name in names if name.startswith("GPU")]
    cells = {a: dict(zip(names, rows[a][0], strict=True)) for a in names}
    _mirrored(path, start, cells)
    adapters = [name for name in names if name not in gpus]
    nics = [(n, tuple(i for i, g in enumerate(gpus) if cells[g][n] in _BEHIND_ONE_SWITCH)) for n in adapters]
    affinity = [rows[name][1] for name in gpus]
    numas = [tail[1] if len(tail) > 1 and tail[1].isdigit() else None for tail in affinity]
    known = list(dict.fromkeys(numas))
    return Machine(
        file=path.name,
        gpus=tuple(
            Gpu(name=g, numa=None if numas[i] is None else known.index(numas[i]), links=_links(cells[g], gpus))
            for i, g in enumerate(gpus)
        ),
        nics=tuple(Nic(name=name, near=near) for name, near in nics),
        numas=0 if None in known else len(known),
        cores=_cores(affinity, numas),
        switches=_switches(cells, gpus, nics),
        bonded=True,
        products=_products(lines),
    )


def _heading(path: Path, lines: list[str]) -> tuple[int, list[str]]:
    split = ((number, line.replace("[4m", "").split()) for number, line in enumerate(lines, start=1))
    headings = ((n, w) for n, w in split if w[:1] == ["GPU0"] and (len(w) < 2 or not _CELL.fullmatch(w[1])))
    number, words = next(headings, (0, []))
    if not words:
        refuse(path, 0, "holds no matrix: no line begins with GPU0 GPU1 ...; give the output of nvidia-smi topo -m")
    names = list(takewhile(_DEVICE.fullmatch, words))
    if len(names) > _MOST_DEVICES:
        refuse(path, number, f"{len(names)} devices; a node of more than {_MOST_DEVICES} is not one")
    if len(set(names)) < len(names):
        refuse(path, number, "a device is in the heading twice")
    return number, names


def _rows(path: Path, lines: list[str], start: int, names: list[str]) -> dict[str, tuple[list[str], list[str]]]:
    """Cells and affinities of each device."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for number, line in enumerate(lines[start:], start=start + 1):
        words = line.split()
        if len(found) == len(names):
            break
        if not words or words[0] not in names:
            if found and words:
                break
            continue
        name, cells, tail = words[0], words[1 : 1 + len(names)], words[1 + len(names) :]
        wrong = [cell for cell in cells if not _CELL.fullmatch(cell)]
        if wrong or len(cells) < len(names):
            said = f"{wrong[0][:40]!r} is none of X SYS NODE PHB PXB PIX NV#" if wrong else f"{len(cells)} cells"
            refuse(path, number, f"{said}, in a row of {len(names)} devices; the matrix is cut or glued", name)
        if name in found:
            refuse(path, number, "has a second row", name)
        if (cells[names.index(name)] == "X") != (cells.count("X") == 1):
            refuse(path, number, "X stands for the device itself and for nothing else", name)
        found[name] = cells, tail
    lost = [name for name in names if name not in found]
    if lost:
        refuse(path, start, f"has no row for {', '.join(lost[:8])}; the matrix is cut short")
    return found


def _mirrored(path: Path, start: int, cells: dict[str, dict[str, str]]) -> None:
    for a, row in cells.items():
        for b, cell in row.items():
            if cells[b][a] != cell:
                refuse(path, start, f"{a} to {b} is {cell}, and back {cells[b][a]}; one of the rows is wrong")


def _links(row: dict[str, str], gpus: list[str]) -> dict[str, int]:
    return {gpu: int(row[gpu][2:]) for gpu in gpus if row[gpu].startswith("NV") and int(row[gpu][2:])}


def _switches(
    cells: dict[str, dict[str, str]], gpus: list[str], nics: list[tuple[str, tuple[int, ...]]]
) -> tuple[tuple[tuple[int, ...], Port], ...] | None:
    """GPUs behind one PCIe switch; nothing is known where all pairs show NVLink and no adapter is behind a switch."""
    n = len(gpus)
    direct = [cells[gpus[i]][gpus[j]] for i in range(n) for j in range(i)]
    if any(cell.startswith("NV") for cell in direct) and not any(near for _, near in nics):
        return None
    root = list(range(n))
    pairs = [(i, j) for i in range(n) for j in range(i) if cells[gpus[i]][gpus[j]] in _BEHIND_ONE_SWITCH]
    pairs += [(near[0], other) for _, near in nics for other in near[1:]]
    for i, j in pairs:
        a, b = min(root[i], root[j]), max(root[i], root[j])
        root = [a if r == b else r for r in root]
    groups = [tuple(i for i in range(n) if root[i] == r) for r in dict.fromkeys(root)]
    return tuple((group, Port()) for group in groups if len(group) > 1 or nics)


def _cores(affinity: list[list[str]], numas: list[str | None]) -> tuple[int, ...]:
    """Cores of each NUMA node by ranges of processors; two ranges of one length are threads of the same cores."""
    found = {}
    for tail, numa in zip(affinity, numas, strict=True):
        if tail and numa is not None and _RANGES.fullmatch(tail[0]):
            ends = [
                (int(part.partition("-")[0]), int(part.partition("-")[2] or part))
                for part in (p if "-" in p else f"{p}-{p}" for p in tail[0].split(","))
            ]
            sizes = [b - a + 1 for a, b in ends]
            found[numa] = sizes[0] if len(sizes) == 2 and sizes[0] == sizes[1] else sum(sizes)
    counts = tuple(found.values())
    return counts if all(0 < count <= 4096 for count in counts) else ()


def _products(lines: list[str]) -> tuple[str, ...]:
    """Names of GPUs in the text (and what follows them on the line): a table of nvidia-smi, nvidia-smi -L."""
    found = (_PRODUCT.search(line) for line in lines)
    return tuple(dict.fromkeys(" ".join(match.group(0).split()) for match in found if match))
