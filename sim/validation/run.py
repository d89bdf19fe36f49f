"""Published rows simulated and scored: several processes, a journal that a killed run goes on from.

Owns the journal. Times nothing, scores nothing and prints nothing.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from sim.api import run
from sim.errors import InfeasibleError, Problem, ScenarioError
from sim.study.journal import Journal, digest
from sim.study.parallel import each
from sim.validation.rows import Row, read
from sim.validation.scenario import RefusedError, document

_BESIDE_ALLOCATED = ("framework", "fragmentation")
"""Owners that a framework's own count of allocated bytes leaves out."""

_BETWEEN = (
    "parameters", "parameters.flat", "gradients", "gradients.shard", "gradients.buckets", "optimizer states",
    "activations.gathered", "workspace",
)  # fmt: skip
"""Owners of what ``max_memory_allocated`` holds in nanotron's tables: its log resets the peak after backward, so it is
that of the optimizer step, when no activation is alive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A row and what came of it: seconds and GiB, or why it was refused."""

    row: Row
    measured: float
    simulated: float = 0.0
    memory: float = 0.0
    memory_simulated: float = 0.0
    fits: bool = True
    refused: str = ""


def validate(
    paths: Sequence[Path], out: Path | None, jobs: int, progress: Callable[[int, int], None] | None = None
) -> list[Scored]:
    """Simulate every row of the files; ``out`` keeps scenarios and a journal, from which a killed run goes on.

    Raises:
        ScenarioError: a file cannot be read, or nothing can be written into ``out``.
        SteplineError: a process died.
    """
    rows = [row for path in paths for row in read(path)]
    with tempfile.TemporaryDirectory() as scratch, _kept_in(out):
        folder = out or Path(scratch)
        (folder / "scenarios").mkdir(parents=True, exist_ok=True)
        journal = Journal(folder / "journal.jsonl", digest({"code": _stamp()}, "validate"))
        left = [row for row in rows if _key(row) not in journal.done]
        one, remedy = partial(_one, folder=folder / "scenarios"), "with --out finished rows are kept; run it again"
        done = len(rows) - len(left)
        for index, found in each(one, left, jobs, called=attrgetter("id"), remedy=remedy):
            journal.add(_key(left[index]), found)
            done += 1
            if progress is not None:
                progress(done, len(rows))
        return [Scored(row=row, **journal.done[_key(row)]) for row in rows]


@contextmanager
def _kept_in(out: Path | None) -> Iterator[None]:
    """What cannot be written is said in words."""
    try:
        yield
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}; choose another directory with --out"
        raise ScenarioError([Problem(str(out or "temporary files"), 0, 0, "", what)]) from error


def _stamp() -> str:
    """When this code and its data were last changed: rows of another version are simulated again."""
    root = Path(__file__).resolve().parents[2]
    files = [
        f for part in ("sim", "topologies") for f in sorted((root / part).rglob("*")) if f.suffix in (".py", ".yaml")
    ]
    return str(max((int(file.stat().st_mtime_ns) for file in files), default=0))


def _key(row: Row) -> tuple[str, ...]:
    return row.file, str(row.line), json.dumps(dict(row.cells), sort_keys=True)


def _one(row: Row, folder: Path) -> dict[str, Any]:
    """Simulate a row; what is refused or fails is said, and is no reason to stop the others."""
    base = {"measured": row.number("step_time_s")}
    try:
        name = "".join(c if c.isalnum() or c in "-._" else "_" for c in row.id)[:120]
        path = folder / f"{name or 'row'}-{row.line}.yaml"
        path.write_text(json.dumps(document(row), indent=1), encoding="utf-8")  # JSON is YAML
        result = run(os.fspath(path)).result
    except (RefusedError, ScenarioError, InfeasibleError) as fault:
        return {**base, "refused": str(fault).splitlines()[0].replace(f"{folder}{os.sep}", "")[:300]}
    except Exception as fault:
        return {**base, "refused": f"internal: {type(fault).__name__}: {fault}"[:300]}
    gpus = [use for use in result.memory if use.where == "gpu"]
    return {
        **base,
        "simulated": float(result.step_time),
        "memory": row.number("memory_gib"),
        "memory_simulated": _held(gpus, row.text("memory_kind")) / 2**30,
        "fits": bool(result.fits),
    }


def _held(gpus: Sequence[Any], kind: str) -> float:
    """Bytes on the fullest of some GPUs (``Result.memory``), of the kind that a table gives."""
    if kind == "max_memory_allocated":
        held = [sum(use.by_owner[owner] for owner in _BETWEEN if owner in use.by_owner) for use in gpus]
        return max(float(np.max(over_time)) for over_time in held)
    peak = max(gpus, key=lambda use: use.peak)
    beside = () if "reserved" in kind else _BESIDE_ALLOCATED
    return float(peak.peak - sum(peak.at_peak.get(owner, 0.0) for owner in beside))
