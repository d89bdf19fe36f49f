"""Measured steps simulated with keys of their scenarios changed: several processes, refusals said and counted.

Owns one row's simulations. Must not know how a row becomes a scenario, nor what is fitted to what comes out.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from sim.api import run
from sim.calibration.axes import Axis, sustained
from sim.errors import InfeasibleError, ScenarioError
from sim.study.parallel import each
from sim.validation.rows import Row
from sim.validation.scenario import RefusedError, document

T = TypeVar("T")
Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How rows are simulated: ``stack`` instead of what their cells say (empty: as they say), overrides, processes.

    ``axes``: the keys to fit; none: the sustained share of each device and stack.
    """

    stack: str = ""
    overrides: tuple[str, ...] = ()
    axes: tuple[Axis, ...] = ()
    jobs: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A row as shipped and along each axis: seconds by point, all other keys as shipped. Or why not.

    ``shipped``: what its scenario gives each axis now, None where it gives nothing.
    """

    file: str
    id: str
    model: str
    measured: float
    device: str = ""
    stack: str = ""
    seconds: float = 0.0
    axes: tuple[Axis, ...] = ()
    shipped: tuple[float | None, ...] = ()
    along: tuple[tuple[float, ...], ...] = field(default=())
    refused: str = ""


def along_axes(rows: Sequence[Row], asked: Asked, told: Told | None) -> list[Timed]:
    """Every row as shipped, then at each point of each axis."""
    return _each(_along, rows, asked, told)


def at_point(rows: Sequence[Row], asked: Asked, values: Mapping[str, float]) -> list[float]:
    """Seconds of every row with all axes at these values; rows that were simulated before."""
    return _each(partial(_at, values=dict(values)), rows, asked, None)


def _each(one: Callable[..., T], rows: Sequence[Row], asked: Asked, told: Told | None) -> list[T]:
    found: dict[int, T] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = [(row, os.path.join(folder, f"{i}.yaml")) for i, row in enumerate(rows)]
        for index, result in each(partial(one, asked=asked), work, asked.jobs, called=_called):
            found[index] = result
            if told is not None:
                told(len(found), len(work))
    return [found[index] for index in range(len(rows))]


def _called(work: tuple[Row, str]) -> str:
    return work[0].id


def _written(work: tuple[Row, str], asked: Asked) -> tuple[str, str]:
    """The scenario's path, and the stack that it names."""
    row, path = work
    wanted = document(row)
    if asked.stack:
        wanted["stack"] = asked.stack
    Path(path).write_text(json.dumps(wanted), encoding="utf-8")  # JSON is YAML
    return path, str(wanted["stack"])


def _along(work: tuple[Row, str], asked: Asked) -> Timed:
    """What is refused is said, and is no reason to stop the others."""
    row, path = work
    base = Timed(file=row.file, id=row.id, model=_model(row), measured=row.number("step_time_s"))
    try:
        _, stack = _written(work, asked)
        first = run(path, asked.overrides)
        device = first.scenario.cluster.device.name
        axes = asked.axes or (sustained(device),)
        shipped = tuple(axis.shipped(first.scenario) for axis in axes)
        usual = [1.0 if value is None and not asked.axes else value for value in shipped]
        known, along = float(first.result.step_time), []
        for axis, value in zip(axes, usual, strict=True):
            points = [known if p == value else _seconds(path, asked, [axis.override(p)]) for p in axis.points]
            along.append(tuple(points))
    except (RefusedError, ScenarioError, InfeasibleError) as fault:
        return replace(base, refused=str(fault).splitlines()[0].replace(path, row.id)[:300])
    return replace(
        base, device=device, stack=stack, seconds=known, axes=axes, shipped=tuple(usual), along=tuple(along)
    )  # fmt: skip


def _model(row: Row) -> str:
    """Its name, or the sizes that tell it from others; one that is cut to fewer layers is the same."""
    sizes = ", ".join(f"{key} {row.text(key)}" for key in ("hidden", "ffn", "experts") if row.text(key))
    return row.text("model") or sizes


def _at(work: tuple[Row, str], asked: Asked, values: Mapping[str, float]) -> float:
    path, _ = _written(work, asked)
    axes = {axis.key: axis for axis in asked.axes}
    return _seconds(path, asked, [axes[key].override(value) for key, value in values.items()])


def _seconds(path: str, asked: Asked, sets: Sequence[str]) -> float:
    return float(run(path, [*asked.overrides, *sets]).result.step_time)
