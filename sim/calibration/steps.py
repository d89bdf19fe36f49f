"""One number for each device and software stack, fitted to measured steps: the share of short-burst speed that lasts.

Owns that fit. Steps are rows of the CSV of ``stepline validate``, each simulated at several shares: a step's time is
nearly a straight line in one over the share, so lines between simulated shares stand for it while the least squares of
the logarithm of simulated over measured are sought; the share that comes out is simulated, until it stays. Cross-
validated over models: each model is foretold with the share of all others. Must not know how a row becomes a scenario.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sim.api import run, simulate
from sim.calibration.least_squares import Floats
from sim.calibration.override import based_on, percent
from sim.errors import InfeasibleError, ScenarioError
from sim.validation.rows import Row
from sim.validation.scenario import RefusedError, document

SHARES = (0.6, 0.8, 1.0)
"""Shares that every step is simulated at first."""
_LEAST, _MOST = 0.2, 1.2
"""A share outside of these is no matter of clocks and power."""
_GRID = np.arange(_LEAST, _MOST + 1e-9, 0.0005)
_STAYS = 0.002
_ROUNDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How rows are simulated: ``stack`` instead of what their cells say (empty: as they say), overrides, processes."""

    stack: str = ""
    overrides: tuple[str, ...] = ()
    jobs: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A row at several shares: seconds by share. ``shipped``: the share that the stack gives now. Or why not."""

    file: str
    id: str
    model: str
    measured: float
    device: str = ""
    stack: str = ""
    shipped: float = 1.0
    seconds: dict[float, float] | None = None
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sustained:
    """A device with a stack: the fitted share, its standard error, the least and most of it with one group left out.

    ``before``, ``after``, ``unseen`` (rows,): seconds with the stack's share, the fitted one, that of all other groups.
    ``groups`` says what a group is: models, or rows where there is one model.
    """

    device: str
    stack: str
    rows: tuple[Timed, ...]
    share: float
    error: float
    low: float
    high: float
    groups: str
    before: Floats
    after: Floats
    unseen: Floats

    @property
    def at_limit(self) -> bool:
        """Whether the share would have gone on: then something else than clocks and power is wrong."""
        return not _LEAST + 1e-3 < self.share < _MOST - 1e-3

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
) -> tuple[list[Sustained], list[Timed]]:
    """Fit the share of each device and stack among the rows; beside them the rows that are refused."""
    timed = list(_simulated([(row, SHARES) for row in rows], asked, progress))
    refused = [one for one in timed if one.refused]
    pairs = dict.fromkeys((one.device, one.stack) for one in timed if not one.refused)
    found = []
    for pair in pairs:
        kept = [i for i, one in enumerate(timed) if not one.refused and (one.device, one.stack) == pair]
        found.append(_fitted([rows[i] for i in kept], [timed[i] for i in kept], asked))
    return found, refused


def _fitted(rows: Sequence[Row], timed: list[Timed], asked: Asked) -> Sustained:
    """Fit, simulate at what came out, fit again, until the share stays."""
    share = _best(timed)
    for _ in range(_ROUNDS):
        more = list(_simulated([(row, (share,)) for row in rows], asked, None))
        timed = [
            replace(one, seconds={**(one.seconds or {}), **(new.seconds or {})})
            for one, new in zip(timed, more, strict=True)
        ]
        before, share = share, _best(timed)
        if abs(share - before) < _STAYS:
            share = before  # the one that was simulated
            break
    models = list(dict.fromkeys(one.model for one in timed))
    names = [one.model for one in timed] if len(models) > 1 else [str(i) for i in range(len(timed))]
    without = {name: _best([one for one, n in zip(timed, names, strict=True) if n != name]) for name in set(names)}
    if len(timed) == 1:
        without = {names[0]: timed[0].shipped}
    return Sustained(
        device=timed[0].device, stack=timed[0].stack, rows=tuple(timed), share=round(share, 4),
        error=_standard_error(timed, share), low=round(min(without.values()), 4), high=round(max(without.values()), 4),
        groups="models" if len(models) > 1 else "rows",
        before=np.array([_at(one, one.shipped) for one in timed]), after=np.array([_at(one, share) for one in timed]),
        unseen=np.array([_at(one, without[name]) for one, name in zip(timed, names, strict=True)]),
    )  # fmt: skip


def _curve(one: Timed, shares: Floats) -> Floats:
    """Seconds at each share: lines in one over the share, the outermost ones drawn on."""
    known = sorted((1 / share, seconds) for share, seconds in (one.seconds or {}).items())
    x, y = np.array([a for a, _ in known]), np.array([b for _, b in known])
    at = 1 / shares
    found = np.interp(at, x, y)
    for end, (i, j) in ((at < x[0], (0, 1)), (at > x[-1], (-1, -2))):
        found[end] = y[i] + (at[end] - x[i]) * (y[j] - y[i]) / (x[j] - x[i])
    seconds: Floats = np.maximum(found, 1e-9)
    return seconds


def _at(one: Timed, share: float) -> float:
    return float(_curve(one, np.array([share]))[0])


def _best(timed: Sequence[Timed]) -> float:
    """The share with the least sum of squared logarithms."""
    if not timed:
        return 1.0
    loss = sum(np.log(_curve(one, _GRID) / one.measured) ** 2 for one in timed)
    return float(_GRID[int(np.argmin(loss))])


def _standard_error(timed: Sequence[Timed], share: float) -> float:
    """From the rows' errors and how steeply their times depend on the share; of one row: not a number."""
    step = 0.01
    slopes = np.array([np.log(_at(one, share * (1 + step)) / _at(one, share)) / step for one in timed])
    errors = np.array([np.log(_at(one, share) / one.measured) for one in timed])
    if len(timed) < 2 or not slopes.any():
        return float("nan")
    return float(np.sqrt((errors**2).sum() / (len(timed) - 1) / (slopes**2).sum()))


# -- simulation


def _simulated(
    asks: Sequence[tuple[Row, tuple[float, ...]]], asked: Asked, progress: Callable[[int, int], None] | None
) -> Iterable[Timed]:
    one = partial(_one, asked=asked)
    with tempfile.TemporaryDirectory() as folder:
        work = [(row, shares, os.path.join(folder, f"{i}.yaml")) for i, (row, shares) in enumerate(asks)]
        if asked.jobs <= 1 or len(work) < 2:
            yield from _counted(map(one, work), len(work), progress)
            return
        with ProcessPoolExecutor(max_workers=asked.jobs) as pool:
            yield from _counted(pool.map(one, work), len(work), progress)


def _counted(found: Iterable[Timed], total: int, progress: Callable[[int, int], None] | None) -> Iterable[Timed]:
    for done, one in enumerate(found, start=1):
        if progress is not None:
            progress(done, total)
        yield one


def _one(work: tuple[Row, tuple[float, ...], str], asked: Asked) -> Timed:
    """A row at several shares; what is refused is said, and is no reason to stop the others."""
    row, shares, path = work
    model = row.text("model", row.text("group", row.id))
    base = Timed(file=row.file, id=row.id, model=model, measured=row.number("step_time_s"))
    try:
        wanted = document(row)
        if asked.stack:
            wanted["stack"] = asked.stack
        Path(path).write_text(json.dumps(wanted), encoding="utf-8")  # JSON is YAML
        first = run(path, asked.overrides)
    except (RefusedError, ScenarioError, InfeasibleError) as fault:
        return replace(base, refused=str(fault).splitlines()[0].replace(path, row.id)[:300])
    scenario, device = first.scenario, first.scenario.cluster.device.name
    shipped = scenario.stack.sustained.get(device, 1.0)
    seconds = {shipped: float(first.result.step_time)}
    for share in shares:
        if share not in seconds:
            stack = replace(scenario.stack, sustained={**scenario.stack.sustained, device: share})
            seconds[share] = float(simulate(replace(scenario, stack=stack)).result.step_time)
    stack_name = wanted["stack"] if isinstance(wanted["stack"], str) else scenario.stack.name
    return replace(base, device=device, stack=stack_name, shipped=shipped, seconds=seconds)


# -- the override


def documents(found: Sequence[Sustained], files: str, folder: Path) -> dict[str, dict[str, Any]]:
    """One file a stack, by its name: the stack that it extends, and a share for each device that was fitted."""
    written: dict[str, dict[str, Any]] = {}
    for one in found:
        name = Path(one.stack).stem
        empty = {"extends": based_on(one.stack, folder / name), "name": name, "sustained": {"sources": {}}}
        block = written.setdefault(name, empty)
        block["sustained"][one.device] = one.share
        after, unseen = percent(one.mean_error("after")), percent(one.mean_error("unseen"))
        said = f"fit of {len(one.rows)} measured steps ({files}): standard error {percent(one.error)}"
        without = f"{one.low:.3f} to {one.high:.3f} with one of the {one.groups} left out"
        block["sustained"]["sources"][one.device] = (
            f"{said}, {without}; mean error of times {after}, cross-validated {unseen}"
        )
    return written
