"""Published rows simulated and scored: several processes, a journal that a killed run goes on from.

Owns the errors: simulated over measured, less one. Times nothing and prints nothing.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sim.api import run
from sim.errors import InfeasibleError, ScenarioError
from sim.study.journal import Journal, digest
from sim.validation.rows import Row, read
from sim.validation.scenario import RefusedError, document

WORST = 5
"""Rows that are named for each file."""

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

    file: str
    id: str
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
        ScenarioError: a file cannot be read.
    """
    rows = [row for path in paths for row in read(path)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = out or Path(scratch)
        (folder / "scenarios").mkdir(parents=True, exist_ok=True)
        journal = Journal(folder / "journal.jsonl", digest({"code": _stamp()}, "validate"))
        left = [row for row in rows if _key(row) not in journal.done]
        done = len(rows) - len(left)
        for row, found in zip(left, _simulated(left, folder / "scenarios", jobs), strict=True):
            journal.add(_key(row), found)
            done += 1
            if progress is not None:
                progress(done, len(rows))
        return [Scored(**journal.done[_key(row)]) for row in rows]


def _stamp() -> str:
    """When this code and its data were last changed: rows of another version are simulated again."""
    root = Path(__file__).resolve().parents[2]
    files = [
        f for part in ("sim", "topologies") for f in sorted((root / part).rglob("*")) if f.suffix in (".py", ".yaml")
    ]
    return str(max((int(file.stat().st_mtime_ns) for file in files), default=0))


def _key(row: Row) -> tuple[str, ...]:
    return row.file, str(row.line), json.dumps(dict(row.cells), sort_keys=True)


def _simulated(rows: Sequence[Row], folder: Path, jobs: int) -> Iterable[dict[str, Any]]:
    one = partial(_one, folder=folder)
    if jobs <= 1 or len(rows) < 2:
        yield from map(one, rows)
        return
    with ProcessPoolExecutor(max_workers=jobs) as pool:
        yield from pool.map(one, rows)


def _one(row: Row, folder: Path) -> dict[str, Any]:
    """Simulate a row; what is refused or fails is said, and is no reason to stop the others."""
    base = {"file": row.file, "id": row.id, "measured": row.number("step_time_s")}
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


SUSPECTS = ("hidden", "micro_batch", "gpus", "tp", "pp")
"""Cells that residuals are drawn against."""


def points(paths: Sequence[Path], found: Sequence[Scored]) -> list[dict[str, str | float]]:
    """What ``validate`` found of the same files, with the cells that may be behind an error; none that were refused.

    Raises:
        ScenarioError: a file cannot be read.
    """
    drawn: list[dict[str, str | float]] = []
    for row, one in zip([row for path in paths for row in read(path)], found, strict=True):
        if not one.refused:
            point: dict[str, str | float] = {key: row.number(key) for key in SUSPECTS if row.number(key) > 0}
            drawn.append(point | {"file": one.file, "measured": one.measured, "simulated": one.simulated})
    return drawn


def scores(found: Sequence[Scored]) -> dict[str, Any]:
    """Errors by file, as fractions, in the shape of ``validate --json``."""
    files = {row.file: None for row in found}
    return {"files": [_file(name, [row for row in found if row.file == name]) for name in files]}


def _file(name: str, rows: list[Scored]) -> dict[str, Any]:
    ran = [row for row in rows if not row.refused]
    timed = [(row.id, row.measured, row.simulated) for row in ran]
    weighed = [(row.id, row.memory, row.memory_simulated) for row in ran if row.memory > 0]
    refused = len(rows) - len(ran)
    reasons = Counter(_reason(row.refused) for row in rows if row.refused)
    return {
        "file": name,
        **_errors(timed, len(rows), refused),
        "oom": sum(not row.fits for row in ran),
        "reasons": dict(reasons.most_common()),
        "memory": _errors(weighed, len(weighed), 0),
    }


def _reason(said: str) -> str:
    """A refusal without the place in its own scenario."""
    return said.split(": ", 1)[-1] if ".yaml:" in said else said


def _errors(rows: list[tuple[str, float, float]], count: int, refused: int) -> dict[str, Any]:
    error = np.array([simulated / measured - 1.0 for _, measured, simulated in rows])
    size = np.abs(error)
    some = len(rows) > 0
    worst = [rows[i] for i in np.argsort(-size)[:WORST].tolist()] if some else []
    return {
        "rows": count,
        "refused": refused,
        "mape": float(size.mean()) if some else None,
        "median": float(np.median(size)) if some else None,
        "p90": float(np.quantile(size, 0.9)) if some else None,
        "bias": float(error.mean()) if some else None,
        "worst": [{"id": i, "error": s / m - 1.0, "measured": m, "simulated": s} for i, m, s in worst],
    }


def to_json(found: Sequence[Scored]) -> str:
    """The scores as text."""
    return json.dumps(scores(found), indent=1)
