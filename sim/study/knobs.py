"""The knobs of a sweep: ``key=1,2,4``, ``key=100GB/s:800GB/s:9`` or ``...:9log``, as lists of values to set.

Owns the reading of ranges; what a value means is for the scenario's own door to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from sim import units
from sim.errors import Problem, ScenarioError

_RANGE = re.compile(r"^(?P<low>[^:]+):(?P<high>[^:]+):(?P<count>\d+)(?P<log>log)?$")
_NUMBER = re.compile(r"^\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*(.*?)\s*$")
MOST = 10_000
"""Points of a sweep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """A key, the texts it is set to, and their sizes (SI for quantities; positions for words), to draw them by."""

    key: str
    texts: tuple[str, ...]
    sizes: tuple[float, ...]
    log: bool
    words: bool


def read(knobs: Sequence[str]) -> tuple[Knob, ...]:
    """Read every ``--vary``.

    Raises:
        ScenarioError: what is wrong with any of them, all at once.
    """
    problems, found = [], []
    for text in knobs:
        try:
            found.append(_knob(text))
        except ValueError as error:
            problems.append(Problem("--vary", 0, 0, text.split("=", 1)[0], str(error)))
    keys = [knob.key for knob in found]
    twice = [key for i, key in enumerate(keys) if key in keys[:i]]
    problems += [Problem("--vary", 0, 0, key, "is varied twice; give all its values in one --vary") for key in twice]
    count = 1
    for knob in found:
        count *= len(knob.texts)
    if count > MOST:
        problems.append(Problem("--vary", 0, 0, "", f"{count} points are more than {MOST}; take fewer values"))
    if problems:
        raise ScenarioError(problems)
    return tuple(found)


def points(knobs: Sequence[Knob]) -> Iterator[tuple[str, ...]]:
    """Every combination of values, the last knob changing fastest."""
    yield from product(*(knob.texts for knob in knobs))


def _knob(text: str) -> Knob:
    key, equals, values = text.partition("=")
    if not equals or not key.strip() or not values.strip():
        msg = f"'{text}' is not of the form key=VALUE,VALUE,... or key=FROM:TO:COUNT or key=FROM:TO:COUNTlog"
        raise ValueError(msg)
    match = _RANGE.match(values.strip())
    if match:
        texts = _spread(match["low"], match["high"], int(match["count"]), log=bool(match["log"]))
        return _made(key.strip(), texts, log=bool(match["log"]))
    return _made(key.strip(), _listed(values), log=False)


def _made(key: str, texts: tuple[str, ...], *, log: bool) -> Knob:
    if len(set(texts)) < len(texts):
        msg = "has the same value twice; leave one of them out"
        raise ValueError(msg)
    sizes = [_size(text) for text in texts]
    words = any(size is None for size in sizes)
    numbers = tuple(float(i) if words or size is None else size for i, size in enumerate(sizes))
    return Knob(key=key, texts=texts, sizes=numbers, log=log, words=words)


def _size(text: str) -> float | None:
    """A number or a quantity in SI; None for a word."""
    try:
        return float(text)
    except ValueError:
        pass
    for dimension in units.DIMENSIONS:
        try:
            return units.parse(text, dimension)
        except units.UnitError:
            continue
    return None


def _spread(low: str, high: str, count: int, *, log: bool) -> tuple[str, ...]:
    """``count`` values from ``low`` to ``high``, in the unit of ``low``."""
    if count < 2:
        msg = f"{count} values do not make a range; give at least 2"
        raise ValueError(msg)
    first, last = _NUMBER.match(low), _NUMBER.match(high)
    begin, end = _size(low.strip()), _size(high.strip())
    if first is None or last is None or begin is None or end is None or bool(first[2]) != bool(last[2]):
        msg = f"a range needs two numbers or two quantities of one kind, not '{low}' and '{high}'"
        raise ValueError(msg)
    if not (begin > 0 or not log) or begin >= end:
        msg = f"a range runs from a smaller to a larger value{' above zero' if log else ''}, not '{low}' to '{high}'"
        raise ValueError(msg)
    scale = begin / float(first[1]) if float(first[1]) else 1.0
    values = [
        begin * (end / begin) ** (i / (count - 1)) if log else begin + (end - begin) * i / (count - 1)
        for i in range(count)
    ]
    whole = not first[2] and all(float(v).is_integer() for v in values)
    return tuple(f"{round(v)}" if whole else f"{v / scale:.4g}{' ' + first[2] if first[2] else ''}" for v in values)


def _listed(values: str) -> tuple[str, ...]:
    """Split at commas outside brackets and braces."""
    parts, depth, last = [], 0, 0
    for i, letter in enumerate(values):
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            parts.append(values[last:i].strip())
            last = i + 1
    parts.append(values[last:].strip())
    if not all(parts):
        msg = f"'{values}' has an empty value; write values with one comma between two"
        raise ValueError(msg)
    return tuple(parts)
