"""What is fitted to measured steps: keys of a scenario, each between two values, in the words of ``--set``.

Owns how such a key is read, written as text and looked up in a scenario. Simulates nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sim.errors import Problem, ScenarioError
from sim.study.knobs import read as read_knobs

SHARES = (0.6, 0.8, 1.0)
"""Sustained shares that every step is simulated at."""
LEAST, MOST = 0.2, 1.2
"""A share outside of these is no matter of clocks and power."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A key: values that steps are simulated at, between what it is sought, its unit (SI: times ``factor``)."""

    key: str
    points: tuple[float, ...]
    least: float
    most: float
    unit: str = ""
    factor: float = 1.0

    def text(self, value: float, digits: int = 9) -> str:
        """A value as a file says it."""
        return f"{value / self.factor:.{digits}g}{' ' if self.unit else ''}{self.unit}"

    def override(self, value: float) -> str:
        """The value as ``--set`` takes it."""
        return f"{self.key}={self.text(value)}"

    def shipped(self, scenario: object) -> float | None:
        """Its value in a scenario; None where none is given or it is no positive number."""
        found: object = scenario
        for name in self._path(scenario):
            if isinstance(found, Mapping):
                found = found.get(name)
            elif isinstance(found, Sequence) and name.isdigit():
                found = found[int(name)] if int(name) < len(found) else None
            else:
                found = getattr(found, name, None)
        right = isinstance(found, (int, float)) and not isinstance(found, bool) and found > 0
        return float(found) if right and isinstance(found, (int, float)) else None

    def _path(self, scenario: object) -> list[str]:
        """Names on the way; the name of a device may hold dots."""
        head, _, rest = self.key.partition(".sustained.")
        return [head, "sustained", rest] if rest else self.key.split(".")


def sustained(device: str) -> Axis:
    """The share of short-burst speed that long runs of a stack keep on a device."""
    return Axis(key=f"stack.sustained.{device}", points=SHARES, least=LEAST, most=MOST)


def read(texts: Sequence[str]) -> tuple[Axis, ...]:
    """``KEY=LEAST:MOST``, each: three points from one to the other, in equal ratios.

    Raises:
        ScenarioError: what is wrong with any of them, all at once.
    """
    problems, found = [], []
    for text in texts:
        key, _, ends = text.partition("=")
        low, _, high = ends.partition(":")
        try:
            if not low.strip() or not high.strip() or ":" in high:
                raise ScenarioError([Problem("--fit", 0, 0, key, "is not of the form KEY=LEAST:MOST")])
            (knob,) = read_knobs([f"{key}={low}:{high}:3log"])
        except ScenarioError as error:
            problems += [Problem("--fit", 0, 0, key, problem.what) for problem in error.problems]
            continue
        number, _, unit = knob.texts[0].partition(" ")
        least, most, factor = knob.sizes[0], knob.sizes[-1], knob.sizes[0] / float(number)
        found.append(Axis(key=knob.key, points=knob.sizes, least=least, most=most, unit=unit, factor=factor))
    keys = [axis.key for axis in found]
    twice = dict.fromkeys(key for i, key in enumerate(keys) if key in keys[:i])
    problems += [Problem("--fit", 0, 0, key, "is fitted twice; name it once") for key in twice]
    if problems:
        raise ScenarioError(problems)
    return tuple(found)
