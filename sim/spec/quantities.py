"""Scalar types of the schema: quantities with a unit, counts, fractions; each says what it wants in its own words.

Owns the reading of one value. Knows no key and no other value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from sim import units
from sim.spec.wording import shown

RULE = "rule"
"""Error type of every refusal made here; its message needs no translation."""

UNITS_KEY = "x-units"
"""Key of a quantity's JSON Schema that lists its units."""

_LARGEST_COUNT = 10**12


def _refuse(what: str) -> PydanticCustomError:
    return PydanticCustomError(RULE, "{what}", {"what": what})


@dataclass(frozen=True, slots=True)
class Quantity:
    """Text with a unit of one dimension, read to SI; above zero unless ``zero`` is allowed."""

    dimension: units.Dimension
    zero: bool = False
    bare: str = ""  # unit that a bare integer is taken to have; empty: a bare number is refused

    def read(self, value: object) -> float:
        """Return the SI value, or refuse in words that show what would do."""
        title, example = units.TITLES[self.dimension], units.EXAMPLES[self.dimension]
        if self.bare and isinstance(value, int) and not isinstance(value, bool):
            value = f"{value} {self.bare}"
        if isinstance(value, int | float) and not isinstance(value, bool):
            what = f'must carry its unit: {shown(value)} is a bare number; write {title}, such as "{example}"'
            raise _refuse(what)
        if not isinstance(value, str):
            what = f'must be {title}, such as "{example}", not {_held(value)}'
            raise _refuse(what)
        try:
            number = units.parse(value, self.dimension)
        except units.UnitError as error:
            raise _refuse(str(error)) from error
        if number == 0 and not self.zero:
            what = f'must be above zero, not "{value}"'
            raise _refuse(what)
        return number

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        known = [u for u in units.UNITS[self.dimension] if u.isascii()]
        text: dict[str, Any] = {
            "type": "string",
            "pattern": r"^\s*\+?[0-9.]+([eE][+-]?[0-9]+)? ?(" + "|".join(units.UNITS[self.dimension]) + r")\s*$",
            "examples": [units.EXAMPLES[self.dimension]],
            UNITS_KEY: known,
        }
        return {"anyOf": [text, {"type": "integer"}]} if self.bare else text


@dataclass(frozen=True, slots=True)
class Number:
    """A plain number between two bounds; ``whole`` for a count. ``above`` and ``below`` exclude their value."""

    whole: bool = False
    above: float | None = None
    least: float | None = None
    most: float | None = None
    below: float | None = None

    def read(self, value: object) -> float:
        """Return the number unchanged, or refuse in words that name the bounds."""
        noun = "a whole number" if self.whole else "a number"
        kinds = (int,) if self.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            what = f"must be {noun} {self._range()}, not {_held(value)}"
            raise _refuse(what)
        if not math.isfinite(value) or not self._within(value):
            what = f"must be {noun} {self._range()}, not {shown(value)}"
            raise _refuse(what)
        return value

    def _within(self, value: float) -> bool:
        return (
            (self.above is None or value > self.above)
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def _range(self) -> str:
        low = high = ""
        if self.above is not None or self.least is not None:
            low = f"above {self.above:g}" if self.above is not None else f"of at least {self.least:g}"
        if self.below is not None:
            high = f"below {self.below:g}"
        elif self.most is not None and not (self.whole and self.most == _LARGEST_COUNT):
            high = f"at most {self.most:g}"
        return " and ".join(part for part in (low, high) if part)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        bounds = {
            "exclusiveMinimum": self.above, "minimum": self.least,
            "exclusiveMaximum": self.below, "maximum": self.most,
        }  # fmt: skip
        kept = {key: bound for key, bound in bounds.items() if bound is not None}
        return {"type": "integer" if self.whole else "number", **kept}


EVERY = -1
"""What the word ``all`` is read as where a number is expected."""


@dataclass(frozen=True, slots=True)
class NumberOrAll(Number):
    """A plain number, or the word ``all``, which is read as ``EVERY``."""

    def read(self, value: object) -> float:
        """Return the number unchanged, -1 for all."""
        if value == "all":
            return EVERY
        if isinstance(value, str):
            noun = "a whole number" if self.whole else "a number"
            what = f"must be {noun} {self._range()}, or all, not {shown(value)}"
            raise _refuse(what)
        return Number.read(self, value)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [Number.__get_pydantic_json_schema__(self, schema, handler), {"enum": ["all"]}]}


def _held(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else shown(value)


Bytes = Annotated[float, Quantity("bytes")]
BytesOrZero = Annotated[float, Quantity("bytes", zero=True)]
Alignment = Annotated[float, Quantity("bytes", bare="B")]
BytesPerS = Annotated[float, Quantity("bytes_per_s")]
BytesPerSOrZero = Annotated[float, Quantity("bytes_per_s", zero=True)]
FlopsPerS = Annotated[float, Quantity("flops_per_s")]
FlopsPerSOrZero = Annotated[float, Quantity("flops_per_s", zero=True)]
Seconds = Annotated[float, Quantity("seconds")]
SecondsOrZero = Annotated[float, Quantity("seconds", zero=True)]
Count = Annotated[int, Number(whole=True, least=1, most=_LARGEST_COUNT)]
CountOrAll = Annotated[int, NumberOrAll(whole=True, least=0, most=_LARGEST_COUNT)]
CountOrZero = Annotated[int, Number(whole=True, least=0, most=_LARGEST_COUNT)]
ZeroStage = Annotated[int, Number(whole=True, least=0, most=3)]
Fraction = Annotated[float, Number(above=0, most=1)]
Speed = Annotated[float, Number(least=0, most=1)]
FractionOrZero = Annotated[float, Number(least=0, below=1)]
Sustained = Annotated[float, Number(above=0, most=1.2)]
Factor = Annotated[float, Number(above=0, most=100)]
Oversubscription = Annotated[float, Number(least=1, most=100)]
Elements = Annotated[float, Number(least=0, most=1e6)]
