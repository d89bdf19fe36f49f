"""``explain.json``: what explains a step, for programs. The shapes are those of the analyses; SI units throughout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from sim.analysis.explanation import Detail, Explanation, RunDifference
from sim.study.why import Why

FORMAT = 1
NAME = "explain.json"


def dumps(explanation: Explanation, why: Why | None = None) -> str:
    """Indented JSON; ``why`` is null where nothing was simulated again."""
    return _text({"format": FORMAT, "explanation": explanation, "why": why})


def plain(value: Detail | RunDifference) -> str:
    """A category, or two runs."""
    return _text(value)


def read_why(folder: Path, step_time: float) -> Why | None:
    """What ``stepline explain`` left in a run's folder; None where there is nothing, or it is of another step.

    ``step_time`` is the run's: the file says which one it explains.
    """
    try:
        found = msgspec.json.decode((folder / NAME).read_bytes(), type=_File)
    except (OSError, msgspec.MsgspecError):
        return None
    return found.why if found.format == FORMAT and found.explanation.step_time == step_time else None


class _Head(msgspec.Struct):
    step_time: float


class _File(msgspec.Struct):
    format: int
    explanation: _Head
    why: Why | None = None


def _text(value: Any) -> str:  # noqa: ANN401 - whatever shapes the analyses have
    data = msgspec.json.encode(value, enc_hook=_column)
    return msgspec.json.format(data, indent=2).decode() + "\n"


def _column(value: object) -> list[float]:
    if isinstance(value, np.ndarray):
        return [round(float(one), 6) for one in value.tolist()]
    if isinstance(value, np.generic):
        return [float(value)]
    raise NotImplementedError(str(type(value)))
