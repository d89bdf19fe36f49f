"""Numbers that only whole steps tell, fitted to measured ones: by default the share of short-burst speed that lasts.

Owns that fit, for any keys of a scenario. Steps are rows of the CSV of ``stepline validate``, each simulated at a few
points of each key; what these say stands for simulating (``Surface``) while the least squares of the logarithm of
simulated over measured are sought, errors above 3 % counting as if absolute (Huber). Where it ends is simulated, and
it is fitted again, until the values stay. Cross-validated in five folds of models, so that each model is foretold
by fits to others. Must not know how a row becomes a scenario.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.calibration.axes import Axis
from sim.calibration.least_squares import FOLDS, Fit, Floats, Parameter, fit, folds, without_each
from sim.calibration.override import based_on, percent
from sim.calibration.simulated import Asked, Timed, along_axes, at_point
from sim.calibration.surface import Surface, surface
from sim.validation.rows import Row

__all__ = ["Asked", "Fitted", "Number", "Timed", "calibrate", "documents"]

HUBER = 0.03
"""Logarithmic error above which a row counts as if by its absolute error: what repeated runs differ by, so that more is
wrong for another reason."""
_STAYS = 0.001
_ROUNDS, _REWEIGHTS = 8, 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A fitted key: its value, standard error (a share), least and most of it with one fold left out; what it was."""

    axis: Axis
    value: float
    error: float
    low: float
    high: float
    was: tuple[float | None, ...]

    @property
    def at_limit(self) -> bool:
        """Whether it would have gone on beyond what it may be: then something else is wrong."""
        return not self.axis.least * 1.005 < self.value < self.axis.most / 1.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Rows that share the fitted keys. ``held``: keys that the rows do not decide, which stay as they were.

    ``before``, ``after``, ``unseen`` (rows,): seconds as shipped, with the fitted values, with those of a fit that
    never saw the row's fold. ``groups`` says what folds are of: models, or rows where there is one model.
    """

    rows: tuple[Timed, ...]
    numbers: tuple[Number, ...]
    held: tuple[str, ...]
    groups: str
    before: Floats
    after: Floats
    unseen: Floats

    @property
    def name(self) -> str:
        """Devices and stacks that ran."""
        devices, stacks = (dict.fromkeys(getattr(row, which) for row in self.rows) for which in ("device", "stack"))
        return f"{', '.join(devices)} with {', '.join(stacks)}"

    def mean_error(self, which: str) -> float:
        """Mean absolute error of a column, as a share."""
        return float(np.abs(self._errors(which)).mean())

    def bias(self, which: str) -> float:
        """Mean error of a column, as a share."""
        return float(self._errors(which).mean())

    def _errors(self, which: str) -> Floats:
        found: Floats = getattr(self, which) / np.array([row.measured for row in self.rows]) - 1.0
        return found


def calibrate(
    rows: Sequence[Row], asked: Asked, progress: Callable[[int, int], None] | None = None
) -> tuple[list[Fitted], list[Timed]]:
    """Fit the keys that are asked for to all rows, or the share of each device and stack; return refusals too."""
    timed = along_axes(rows, asked, progress)
    refused = [one for one in timed if one.refused]
    sets = [("", "") if asked.axes else (one.device, one.stack) for one in timed]
    found = []
    for one in dict.fromkeys(which for which, row in zip(sets, timed, strict=True) if not row.refused):
        kept = [i for i, row in enumerate(timed) if not row.refused and sets[i] == one]
        mine = [timed[i] for i in kept]
        found.append(_fitted([rows[i] for i in kept], mine, replace(asked, axes=mine[0].axes)))
    return found, refused


def _fitted(rows: Sequence[Row], timed: Sequence[Timed], asked: Asked) -> Fitted:
    """Fit, simulate at what came out, fit again, until the values stay."""
    measured = np.array([one.measured for one in timed])
    parameters, model = [_parameter(i, timed) for i in range(len(asked.axes))], _surface(timed)
    found, weights = _robust(parameters, model, measured)
    for _ in range(_ROUNDS):
        values = found.values
        free = {key: value for key, value in values.items() if key not in found.held}
        model = model.moved(values, at_point(rows, asked, free))
        found, weights = _robust(parameters, model, measured)
        if all(abs(log(found.values[key] / value)) < _STAYS for key, value in values.items()):
            break
    groups, kind = _groups(timed)
    without = without_each(found, parameters, model, (measured, weights, groups)) if len(timed) > 1 else {}
    before = np.array([one.seconds for one in timed])
    unseen = model(found.values) if without else before.copy()
    for group, values in without.items():
        unseen[groups == group] = model(values)[groups == group]
    return Fitted(
        rows=tuple(timed), numbers=tuple(_numbers(timed, found, list(without.values()))), held=found.held, groups=kind,
        before=before, after=model(found.values), unseen=unseen,
    )  # fmt: skip


def _parameter(number: int, timed: Sequence[Timed]) -> Parameter:
    """An axis: from what is shipped, where that is one value, else from its middle; expected to be off by its half."""
    axis, was = timed[0].axes[number], _was(number, timed)
    start = was[0] if len(was) == 1 and was[0] is not None else axis.points[len(axis.points) // 2]
    near = min(max(start, axis.least), axis.most)
    width = log(axis.most / axis.least) / 2
    return Parameter(name=axis.key, start=near, least=axis.least, most=axis.most, width=width, rest=start)


def _was(number: int, timed: Sequence[Timed]) -> tuple[float | None, ...]:
    return tuple(dict.fromkeys(one.shipped[number] for one in timed))


def _surface(timed: Sequence[Timed]) -> Surface:
    axes = timed[0].axes
    points = {axis.key: axis.points for axis in axes}
    along = {axis.key: [one.along[i] for one in timed] for i, axis in enumerate(axes)}
    shipped = {axis.key: value for axis, value in zip(axes, timed[0].shipped, strict=True) if value is not None}
    alike = len(shipped) == len(axes) and all(one.shipped == timed[0].shipped for one in timed)
    return surface(points, along, (shipped, [one.seconds for one in timed]) if alike else None)


def _robust(parameters: Sequence[Parameter], model: Surface, measured: Floats) -> tuple[Fit, Floats]:
    """Least squares whose large errors count as if absolute, by weights that follow the errors."""
    weights = np.ones(len(measured))
    for _ in range(_REWEIGHTS):
        found = fit(parameters, model, measured, weights)
        before, weights = weights, np.minimum(1.0, HUBER / np.maximum(np.abs(np.log(found.errors + 1)), 1e-12))
        if float(np.abs(weights - before).max()) < 1e-3:
            break
    return found, weights


def _groups(timed: Sequence[Timed]) -> tuple[NDArray[np.int64], str]:
    """Five folds of models, the larger ones dealt out first; of one model, of rows."""
    names = [one.model for one in timed]
    models = sorted(dict.fromkeys(names), key=lambda name: -names.count(name))
    if len(models) == 1:
        return folds(len(timed)), "rows"
    sizes = [0] * min(FOLDS, len(models))
    fold = {}
    for name in models:
        fold[name] = int(np.argmin(sizes))
        sizes[fold[name]] += names.count(name)
    return np.array([fold[name] for name in names], dtype=np.int64), "models"


def _numbers(timed: Sequence[Timed], found: Fit, without: Sequence[Mapping[str, float]]) -> list[Number]:
    return [
        Number(
            axis=axis, value=found.values[axis.key],
            error=found.spread[axis.key] if len(timed) > 1 else float("nan"),
            low=min((values[axis.key] for values in without), default=found.values[axis.key]),
            high=max((values[axis.key] for values in without), default=found.values[axis.key]),
            was=_was(number, timed),
        )
        for number, axis in enumerate(timed[0].axes) if axis.key not in found.held
    ]  # fmt: skip


# -- the override


def documents(found: Sequence[Fitted], files: str, folder: Path) -> dict[str, dict[str, Any]]:
    """One file a stack, by its name: the stack that it extends, and each of its keys that was fitted."""
    written: dict[str, dict[str, Any]] = {}
    for one in found:
        for stack in dict.fromkeys(row.stack for row in one.rows):
            name = Path(stack).stem
            block = written.setdefault(name, {"extends": based_on(stack, folder / name), "name": name})
            for number in one.numbers:
                _set(block, number, f"fit of {len(one.rows)} measured steps ({files}): {said(one, number)}")
    return {name: block for name, block in written.items() if len(block) > 2}


def said(found: Fitted, number: Number) -> str:
    """How sure a number is: its standard error, its values with a fold left out, errors of times."""
    spread = f"{number.axis.text(number.low, 3)} to {number.axis.text(number.high, 3)}"
    after, unseen = percent(found.mean_error("after")), percent(found.mean_error("unseen"))
    return (
        f"standard error {percent(number.error)}, {spread} with a fold of {found.groups} left out; mean error of "
        f"times {after}, cross-validated {unseen}"
    )


def _set(block: dict[str, Any], number: Number, source: str) -> None:
    """A key of the stack, with its source beside it; keys of other files are not a stack's."""
    room, _, key = number.axis.key.partition(".")
    if room != "stack":
        return
    outer, _, inner = key.partition(".")
    value = number.axis.text(number.value, 4)
    place = block.setdefault(outer, {}) if inner else block
    place[inner or outer] = value if number.axis.unit else float(value)
    place.setdefault("sources", {})[inner or outer] = source
