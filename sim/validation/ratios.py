"""Which of two runs is the faster: pairs of rows of one table that differ in one thing, and whether we say the same.

Owns what one thing is. A plan is chosen by such comparisons, so their signs matter more than the error of either row.
Two rows make a pair where the work is the same (model, sequence length, global batch) and all cells but those of one
kind are. Knows no scenario and simulates nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import exp, log
from statistics import median
from typing import Any

from sim.validation.rows import Row

DIFFER = 0.05
"""Measured times nearer than this share are a tie: runs of one configuration differ by as much."""
WORST = 8
"""Pairs with a wrong sign that are named."""
FEW = 3
"""Kinds with so many pairs or fewer have each of them named."""

_SAID = ("id", "group", "model", "step_time_s", "memory_gib", "memory_kind", "derived_from", "notes")
"""Cells that are no condition of a run: names, results, remarks. What remarks decide is in ``Timed.stack``."""
_NETWORK = ("measured_world_allreduce_busbw_GBps", "measured_intra_allreduce_busbw_GBps")
_ALIKE = 1.2
"""Two runs' own measurements of the network that are nearer than this factor are one network."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One thing to differ in: the columns that all do, and those that may go along with it."""

    moved: tuple[str, ...]
    along: tuple[str, ...] = ()


KINDS: Mapping[str, Kind] = {
    "recompute": Kind(("recompute",), ("sequence_parallel",)),  # published together: selective with, full without
    "micro-batch": Kind(("micro_batch",)),
    "interleaving": Kind(("vpp",)),
    "TP against PP": Kind(("tp", "pp"), ("sequence_parallel", "vpp")),
    "TP against DP": Kind(("tp", "dp"), ("sequence_parallel",)),
    "PP against DP": Kind(("pp", "dp"), ("vpp",)),
    "TP against CP": Kind(("tp", "cp"), ("sequence_parallel",)),
    "CP against DP": Kind(("cp", "dp")),
    "expert parallelism": Kind(("ep",)),
    "ZeRO stage": Kind(("zero_stage",)),
    "precision": Kind(("precision",), ("grad_comm_bytes",)),
    "gradient type": Kind(("grad_comm_bytes",)),
    "sequence parallelism": Kind(("sequence_parallel",)),
    "TP overlap": Kind(("tp_overlap",)),
    "compiled": Kind(("compiled",)),
    "GPU": Kind(("gpu",), ("intra", "inter", "nic_gbit_per_gpu", "gpus_per_node", "host")),
}
"""What is compared. A change of GPUs alone, or of the batch, is none: which is faster is no question there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A row with seconds, its stack (with what remarks say of that), and whether its table's target counts it."""

    row: Row
    stack: str
    measured: float
    simulated: float
    counts: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two rows that differ in one thing: slower over faster as measured, and the same ratio simulated."""

    kind: str
    slower: Timed
    faster: Timed
    measured: float
    simulated: float

    @property
    def file(self) -> str:
        """The table of both."""
        return self.slower.row.file

    @property
    def counts(self) -> bool:
        """Whether targets count both."""
        return self.slower.counts and self.faster.counts

    @property
    def over(self) -> bool:
        """Whether the measured times differ by enough to ask."""
        return self.measured > 1 + DIFFER

    @property
    def right(self) -> bool:
        """Whether the slower one is slower in simulation too."""
        return self.simulated > 1

    @property
    def off(self) -> float:
        """Logarithm of simulated over measured ratio."""
        return log(self.simulated / self.measured)


def pairs(timed: Sequence[Timed]) -> list[Pair]:
    """All pairs of rows of one file that differ in one thing, kind by kind."""
    found: list[Pair] = []
    for name, kind in KINDS.items():
        groups: dict[tuple[Any, ...], list[Timed]] = defaultdict(list)
        for one in timed:
            groups[_rest(one, kind)].append(one)
        for alike in groups.values():
            found += [_pair(name, a, b) for a, b in _differing(alike, kind)]
    return found


def _rest(one: Timed, kind: Kind) -> tuple[Any, ...]:
    """Everything that must be equal, as text; a column that is empty everywhere is equal too."""
    beside = {*_SAID, *_NETWORK, *kind.moved, *kind.along}
    cells = sorted((column, text) for column, text in one.row.cells.items() if text and column not in beside)
    return one.row.file, one.stack, tuple(cells)


def _differing(alike: Sequence[Timed], kind: Kind) -> Iterator[tuple[Timed, Timed]]:
    for a, b in combinations(alike, 2):
        if all(a.row.text(column) != b.row.text(column) for column in kind.moved) and _one_network(a.row, b.row):
            yield a, b


def _one_network(a: Row, b: Row) -> bool:
    rates = [(a.number(column), b.number(column)) for column in _NETWORK]
    return all(max(pair) <= _ALIKE * min(pair) for pair in rates if all(pair))


def _pair(kind: str, a: Timed, b: Timed) -> Pair:
    slow, fast = (a, b) if a.measured >= b.measured else (b, a)
    return Pair(
        kind=kind, slower=slow, faster=fast, measured=slow.measured / fast.measured,
        simulated=slow.simulated / fast.simulated,
    )  # fmt: skip


def ratios(timed: Sequence[Timed]) -> dict[str, Any]:
    """Shares of right signs by kind, by file, of all, of those that count; the worst pairs: as ``--json`` has them."""
    found = pairs(timed)
    kinds = [{"kind": name, **_share(p for p in found if p.kind == name)} for name in KINDS]
    names = dict.fromkeys(pair.file for pair in found)
    files = [{"file": name, **_share(p for p in found if p.file == name)} for name in names]
    wrong = sorted((p for p in found if p.over and not p.right), key=lambda p: p.off, reverse=True)
    worst = list({(pair.file, pair.slower.row.line): pair for pair in wrong}.values())[
        ::-1
    ]  # of each slower row the worst
    return {
        **_share(found),
        "counted": _share(pair for pair in found if pair.counts),
        "kinds": [kind for kind in kinds if kind["pairs"]],
        "files": files,
        "few": [_said(pair) for pair in found if sum(p.kind == pair.kind for p in found) <= FEW],
        "worst": [_said(pair) for pair in worst[:WORST]],
    }


def _share(found: Iterable[Pair]) -> dict[str, Any]:
    """Pairs, those that differ, those of them whose sign is right, and by how much the ratio is off in the middle."""
    kept = list(found)
    over = [pair for pair in kept if pair.over]
    right = sum(pair.right for pair in over)
    return {
        "pairs": len(kept),
        "differ": len(over),
        "right": right,
        "share": right / len(over) if over else None,
        "ratio_error": exp(median(abs(pair.off) for pair in over)) - 1 if over else None,
    }


def _said(pair: Pair) -> dict[str, Any]:
    moved = KINDS[pair.kind].moved
    slower, faster = (
        {"id": row.id, "cells": {column: row.text(column) for column in moved}}
        for row in (pair.slower.row, pair.faster.row)
    )
    return {
        "file": pair.file, "kind": pair.kind, "slower": slower, "faster": faster, "measured": pair.measured,
        "simulated": pair.simulated,
    }  # fmt: skip
