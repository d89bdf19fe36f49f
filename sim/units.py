"""Quantities as text at the door, plain SI numbers inside.

Owns the units that files may use and how results are printed. ``GB`` is 1e9 bytes and ``GiB`` 2^30; ``Gb/s`` counts
bits. Nothing is guessed: a number without a unit, or a unit of another dimension, is an error that names the units
expected. Knows no file and no scenario.

>>> parse("450 GB/s", "bytes_per_s")
450000000000.0
>>> parse("200 Gb/s", "bytes_per_s")
25000000000.0
>>> format(26.1234, "seconds"), format(20.48e9, "bytes")
('26.1 s', '20.5 GB')
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Literal, get_args

Dimension = Literal["bytes", "bytes_per_s", "flops", "flops_per_s", "seconds"]

_DECIMAL = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
_BYTES = {f"{p}B": Decimal(f) for p, f in {**_DECIMAL, **_BINARY}.items()}
_BITS = {f"{p}b/s": Decimal(f) / 8 for p, f in _DECIMAL.items()}
_FLOPS = {f"{p}FLOP": Decimal(f) for p, f in _DECIMAL.items()}
_MICRO = Decimal("1e-6")
_SECONDS = {
    "ns": Decimal("1e-9"), "us": _MICRO, "\u00b5s": _MICRO, "\u03bcs": _MICRO, "ms": Decimal("1e-3"),
    "s": Decimal(1), "min": Decimal(60), "h": Decimal(3600),
}  # fmt: skip

DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
"""Every dimension."""

UNITS: Mapping[Dimension, Mapping[str, Decimal]] = {
    "bytes": _BYTES,
    "bytes_per_s": {**{f"{u}/s": f for u, f in _BYTES.items()}, **_BITS},
    "flops": _FLOPS,
    "flops_per_s": {f"{u}/s": f for u, f in _FLOPS.items()},
    "seconds": _SECONDS,
}
"""Unit text -> SI factor, for each dimension."""

EXAMPLES: Mapping[Dimension, str] = {
    "bytes": "80 GiB",
    "bytes_per_s": "450 GB/s",
    "flops": "3 TFLOP",
    "flops_per_s": "312 TFLOP/s",
    "seconds": "5.3 us",
}
"""A well-formed quantity of each dimension, for messages and editors."""

TITLES: Mapping[Dimension, str] = {
    "bytes": "a size in bytes",
    "bytes_per_s": "a rate in bytes per second",
    "flops": "a count of FLOP",
    "flops_per_s": "a rate in FLOP per second",
    "seconds": "a time",
}
"""What a dimension is called in a sentence."""

_PRINTED: Mapping[Dimension, tuple[str, ...]] = {
    "bytes": ("B", "kB", "MB", "GB", "TB", "PB", "EB"),
    "bytes_per_s": ("B/s", "kB/s", "MB/s", "GB/s", "TB/s", "PB/s", "EB/s"),
    "flops": ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"),
    "flops_per_s": ("FLOP/s", "kFLOP/s", "MFLOP/s", "GFLOP/s", "TFLOP/s", "PFLOP/s", "EFLOP/s"),
    "seconds": ("ns", "us", "ms", "s"),
}
_QUANTITY = re.compile(r"([+-]?)((?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,3})?) ?(\S*)")
_LONGEST = 64  # characters of a quantity worth reading


class UnitError(ValueError):
    """A text that is not a quantity of the dimension asked for; the message says what would be."""


def parse(text: str, dimension: Dimension) -> float:
    """Read a quantity and return it in SI units (bytes, bytes/s, FLOP, FLOP/s, seconds).

    The value is the double nearest to the decimal that was written: the unit adds no rounding of its own.

    Args:
        text: a number, at most one space, a unit of ``UNITS[dimension]``; for example ``"450 GB/s"``.
        dimension: what the quantity must be.

    Raises:
        UnitError: no number, no unit, a unit of another dimension, a negative or an unrepresentable value.
    """
    found = _QUANTITY.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    if found is None:
        raise UnitError(_not_a_quantity(text, dimension))
    sign, number, unit = found.groups()
    factor = UNITS[dimension].get(unit)
    if factor is None:
        raise UnitError(_wrong_unit(number, unit, dimension))
    value = float(Decimal(number) * factor)
    if sign == "-" and value:
        message = f'"{text}" is negative; {TITLES[dimension]} is not'
        raise UnitError(message)
    if math.isinf(value):
        message = f'"{text}" is too large to be {TITLES[dimension]}'
        raise UnitError(message)
    return value


def is_quantity(text: str) -> bool:
    """Tell whether a text is a number with a unit of any dimension."""
    found = _QUANTITY.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    return found is not None and any(found.group(3) in units for units in UNITS.values())


def format(value: float, dimension: Dimension, digits: int = 3) -> str:
    """Print an SI value with the decimal prefix that leaves 1 to 999 before the point, to ``digits`` digits.

    >>> format(999.6e6, "bytes")
    '1.00 GB'
    """
    units = _PRINTED[dimension]
    if value == 0 or not math.isfinite(value):
        base = "s" if dimension == "seconds" else units[0]
        return f"{value:g} {base}"
    size, index = abs(value), 0
    smallest = UNITS[dimension][units[0]]
    scaled = Decimal(size) / smallest
    while index + 1 < len(units) and float(f"{scaled:.{digits - 1}e}") >= 1000:
        scaled, index = scaled / 1000, index + 1
    sign = "-" if value < 0 else ""
    return f"{sign}{_significant(float(scaled), digits)} {units[index]}"


def _significant(number: float, digits: int) -> str:
    """Write a positive number to so many significant digits, without an exponent where that is readable."""
    if number < 0.01:
        return f"{number:.{digits - 1}e}"
    rounded = float(f"{number:.{digits - 1}e}")
    return f"{rounded:.{max(0, digits - 1 - math.floor(math.log10(rounded)))}f}"


def _not_a_quantity(text: str, dimension: Dimension) -> str:
    shown = text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
    return f'"{shown}" is not a number with a unit; write {TITLES[dimension]}, such as "{EXAMPLES[dimension]}"'


def _wrong_unit(number: str, unit: str, dimension: Dimension) -> str:
    units = UNITS[dimension]
    if not unit:
        return f'"{number}" has no unit; write {TITLES[dimension]}, such as "{EXAMPLES[dimension]}"'
    other = next((d for d in UNITS if unit in UNITS[d]), None)
    if other is not None:
        return f'"{number} {unit}" is {TITLES[other]}; {TITLES[dimension]} is expected, such as "{EXAMPLES[dimension]}"'
    alike = [u for u in units if u.lower() == unit.lower()]
    hint = f"did you mean {' or '.join(alike)}? " if alike else ""
    known = ", ".join(u for u in units if u.isascii())
    return f'"{unit}" is not a unit of what is expected here, {TITLES[dimension]}; {hint}units: {known}'
