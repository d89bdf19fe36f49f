"""What simulated rows are worth: errors by file, which of two is faster, the noise floor; as numbers and as JSON.

Owns the errors: simulated over measured, less one. Simulates nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sim.validation import noise
from sim.validation.ratios import Timed, ratios
from sim.validation.rows import Row
from sim.validation.run import Scored
from sim.validation.scenario import document
from sim.validation.targets import TARGETS, Target

WORST = 5
"""Rows that are named for each file."""
SUSPECTS = ("hidden", "micro_batch", "gpus", "tp", "pp")
"""Cells that residuals are drawn against."""

_NAMES = ("name", "description")
"""Keys of a scenario that change nothing."""


def points(found: Sequence[Scored]) -> list[dict[str, str | float]]:
    """What ``validate`` found, with the cells that may be behind an error; none that were refused."""
    drawn: list[dict[str, str | float]] = []
    for one in found:
        if not one.refused:
            point: dict[str, str | float] = {key: one.row.number(key) for key in SUSPECTS if one.row.number(key) > 0}
            drawn.append(point | {"file": one.row.file, "measured": one.measured, "simulated": one.simulated})
    return drawn


def scores(found: Sequence[Scored]) -> dict[str, Any]:
    """Errors by file and signs of ratios, as fractions, in the shape of ``validate --json``."""
    files = dict.fromkeys(one.row.file for one in found)
    ran = [one for one in found if not one.refused]
    asked = {id(one): document(one.row) for one in ran}
    timed = [
        Timed(
            row=one.row, stack=asked[id(one)]["stack"], measured=one.measured, simulated=one.simulated,
            counts=_counts(one.row),
        )
        for one in ran
    ]  # fmt: skip
    scored = [_file(name, [one for one in found if one.row.file == name]) for name in files]
    for of in scored:
        mine = [(_same(asked[id(one)]), one.measured) for one in ran if one.row.file == of["file"]]
        of["noise"] = noise.floor(mine)
    return {"files": scored, "ratios": ratios(timed)}


def _same(scenario: dict[str, Any]) -> str:
    """A text that is equal for scenarios that ask the same."""
    kept = {key: value for key, value in scenario.items() if key not in _NAMES}
    return json.dumps(kept | {"model": {**scenario["model"], "name": ""}}, sort_keys=True)


def _counts(row: Row) -> bool:
    """Whether its table's target counts a row; those of tables without a target all count."""
    target = TARGETS.get(Path(row.file).stem)
    return target is None or target.counts is None or target.counts(row)


def _file(name: str, found: list[Scored]) -> dict[str, Any]:
    reasons = Counter(_reason(one.refused) for one in found if one.refused)
    target = TARGETS.get(Path(name).stem)
    return {
        "file": name,
        **_both(found),
        "reasons": dict(reasons.most_common()),
        "target": None if target is None else _target(target, found),
    }


def _both(found: Sequence[Scored]) -> dict[str, Any]:
    ran = [one for one in found if not one.refused]
    timed = [(one.row.id, one.measured, one.simulated) for one in ran]
    weighed = [(one.row.id, one.memory, one.memory_simulated) for one in ran if one.memory > 0]
    return {
        **_errors(timed, len(found), len(found) - len(ran)),
        "oom": sum(not one.fits for one in ran),
        "memory": _errors(weighed, len(weighed), 0),
    }


def _target(target: Target, found: Sequence[Scored]) -> dict[str, Any]:
    """The target, and the errors of the rows that it counts where those are not all."""
    said: dict[str, Any] = {"mape": target.time, "memory": target.memory or None}
    if target.counts is not None:
        said |= {"of": target.of, "part": _both([one for one in found if _counts(one.row)])}
    return said


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


def to_json(scored: dict[str, Any]) -> str:
    """The scores as text."""
    return json.dumps(scored, indent=1)
