"""A scenario over a grid of knobs: every point simulated once, in processes, kept in a journal, told as a table.

Owns the running; what a knob is belongs to ``knobs``, what is kept to ``journal``. A point that is refused or does not
fit is a row with its verdict. Where the binding resource changes between two neighbours along a knob, the crossing is
estimated from their shares of the critical path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import exp, log
from pathlib import Path
from typing import Any

from sim.api import resolved, run
from sim.errors import InfeasibleError, Problem, ScenarioError
from sim.study.journal import Journal, digest, release
from sim.study.knobs import Knob, points
from sim.study.parallel import each

Row = dict[str, Any]
JOURNAL = "journal.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """Along ``knob``, with the other knobs at ``others``, the binding resource changes at about ``size``."""

    knob: str
    others: tuple[str, ...]
    size: float
    between: tuple[str, str]
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The finished grid: a row a point in the order of the grid, and where what binds changes."""

    scenario: str
    knobs: tuple[Knob, ...]
    rows: tuple[Row, ...]
    crossings: tuple[Crossing, ...]
    reused: int

    def at(self, values: Sequence[str]) -> Row:
        """The row of a point."""
        return next(row for row in self.rows if row["values"] == list(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to sweep: a scenario, overrides for all points, knobs; where the journal is, how many processes."""

    source: str
    overrides: tuple[str, ...]
    knobs: tuple[Knob, ...]
    out: Path
    jobs: int = 0


def sweep(asked: Asked, told: Callable[[int, int, str], None] | None = None) -> Sweep:
    """Simulate what the journal lacks and return the whole grid. ``told`` is called with (done, of, the point).

    Raises:
        ScenarioError: the scenario itself is bad, no point of the grid can be read, or the journal cannot be written.
        SteplineError: a worker died; finished points are kept.
    """
    journal = _journal(asked)
    grid = list(points(asked.knobs))
    left = [values for values in grid if values not in journal.done]
    reused = len(grid) - len(left)
    for values, row in _simulated(asked, left):
        try:
            journal.add(values, row)
        except OSError as error:
            what = f"cannot be written: {error.strerror or error}; choose another directory with --out"
            raise ScenarioError([Problem(str(journal.path), 0, 0, "", what)]) from error
        if told is not None:
            told(len(journal.done), len(grid), ", ".join(values))
    rows = tuple({"values": list(values), **journal.done[values]} for values in grid)
    if all(row["verdict"] == "refused" for row in rows):
        raise ScenarioError([Problem(**problem) for problem in rows[0]["problems"]])
    crossings = tuple(_crossings(asked.knobs, rows))
    return Sweep(scenario=asked.source, knobs=asked.knobs, rows=rows, crossings=crossings, reused=reused)


def _journal(asked: Asked) -> Journal:
    document = resolved(asked.source, asked.overrides)
    try:
        asked.out.mkdir(parents=True, exist_ok=True)
        return Journal(asked.out / JOURNAL, digest(document, release()))
    except OSError as error:
        what = f"cannot be used: {error.strerror or error}; choose another directory with --out"
        raise ScenarioError([Problem(str(asked.out), 0, 0, "", what)]) from error


def _simulated(asked: Asked, left: Sequence[tuple[str, ...]]) -> Iterator[tuple[tuple[str, ...], Row]]:
    """Each point as it is finished."""
    work = partial(point, asked.source, asked.overrides, [knob.key for knob in asked.knobs])
    kept = "finished points are kept, run it again"
    for index, row in each(work, left, asked.jobs, called=", ".join, remedy=kept):
        yield left[index], row


def point(source: str, overrides: Sequence[str], keys: Sequence[str], values: Sequence[str]) -> Row:
    """One row: the figures of a simulated step, or why there are none."""
    sets = [*overrides, *(f"{key}={value}" for key, value in zip(keys, values, strict=True))]
    try:
        result = run(source, sets).result
    except ScenarioError as error:
        problems = [{k: getattr(p, k) for k in ("file", "line", "column", "key", "what")} for p in error.problems]
        return {"verdict": "refused", "why": str(error), "problems": problems}
    except InfeasibleError as error:
        return {"verdict": "infeasible", "why": str(error)}
    gpu = max((use.peak for use in result.memory if use.where == "gpu"), default=0.0)
    return {
        "verdict": "fits" if result.fits else "does not fit",
        "step_time_s": result.step_time,
        "tokens_per_s_per_gpu": result.tokens_per_s_per_gpu,
        "mfu": result.mfu,
        "peak_memory_bytes": gpu,
        "bound_by": dict(result.bound_by),
        "binds": next(iter(result.bound_by), ""),
        "breakdown": dict(result.breakdown),
    }


def _crossings(knobs: Sequence[Knob], rows: Sequence[Row]) -> Iterator[Crossing]:
    """Neighbours along each knob of numbers between which something else begins to bind."""
    by_values = {tuple(row["values"]): row for row in rows}
    for axis, knob in enumerate(knobs):
        order = sorted(range(len(knob.texts)), key=lambda i: knob.sizes[i]) if not knob.words else []
        for values in by_values:
            if values[axis] != knob.texts[0]:
                continue
            line = [(knob.sizes[i], (*values[:axis], knob.texts[i], *values[axis + 1 :])) for i in order]
            for (low, first), (high, second) in pairwise(line):
                a, b = by_values[first], by_values[second]
                if "binds" in a and "binds" in b and a["binds"] != b["binds"]:
                    yield Crossing(
                        knob=knob.key,
                        others=tuple(v for i, v in enumerate(values) if i != axis),
                        size=_meeting((low, a["bound_by"]), (high, b["bound_by"]), (a["binds"], b["binds"]), knob.log),
                        between=(first[axis], second[axis]),
                        before=a["binds"],
                        after=b["binds"],
                    )


def _meeting(
    low: tuple[float, dict[str, float]], high: tuple[float, dict[str, float]], kinds: tuple[str, str], logarithmic: bool
) -> float:
    """Where the shares of two resources would be equal if they changed evenly between the two points."""
    before, after = ((share.get(kinds[0], 0.0) - share.get(kinds[1], 0.0)) for _, share in (low, high))
    part = before / (before - after) if before != after else 0.5
    if logarithmic and low[0] > 0:
        return exp(log(low[0]) + part * (log(high[0]) - log(low[0])))
    return low[0] + part * (high[0] - low[0])
