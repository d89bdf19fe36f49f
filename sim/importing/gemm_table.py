"""Timings of matrix products from a CSV file: columns m, n, k, dtype and seconds (or us), others are left alone.

Owns the format. Fits nothing and knows no device.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from sim.errors import Problem, ScenarioError
from sim.importing.reading import read_lines, refuse
from sim.spec.types import OPERAND_BYTES

MAX_BYTES = 32 << 20
MAX_ROWS = 200_000
_MOST_PROBLEMS = 20
_LARGEST = 10**9
_LONGEST = 3600.0
_UNITS = {"seconds": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One product of (m x k)(k x n), and the seconds that it took."""

    m: int
    n: int
    k: int
    dtype: str
    seconds: float
    line: int


def read(path: Path) -> list[Product]:
    """Rows of a table.

    Raises:
        ScenarioError: it cannot be read, lacks a column, has no row, or cells hold what no product has: each of them.
    """
    reader = csv.reader(read_lines(path, MAX_BYTES))
    try:
        heading = [name.strip().lower() for name in next(reader)]
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
    except csv.Error as error:
        refuse(path, reader.line_num, f"is no CSV: {error}")
    timed = next((unit for unit in _UNITS if unit in heading), "")
    missing = [name for name in ("m", "n", "k", "dtype") if name not in heading]
    if missing or not timed:
        missing += [] if timed else ["seconds (or us)"]
        refuse(path, 1, f"lacks the columns {', '.join(missing)}; the first line names them: m,n,k,dtype,seconds")
    if not 0 < len(rows) <= MAX_ROWS:
        refuse(path, 1, f"has more than {MAX_ROWS} rows" if rows else "has no row below its heading")
    problems: list[Problem] = []
    found = [_row(path, line, dict(zip(heading, cells, strict=False)), timed, problems) for line, cells in rows]
    if problems:
        raise ScenarioError(problems[:_MOST_PROBLEMS])
    return [product for product in found if product is not None]


def _row(path: Path, line: int, cells: dict[str, str], timed: str, problems: list[Problem]) -> Product | None:
    before = len(problems)

    def wrong(key: str, rule: str) -> None:
        problems.append(Problem(str(path), line, 0, key, f"{cells.get(key, '')[:40]!r} is {rule}"))

    sizes = [int(cells.get(key, "")) if _is_size(cells.get(key, "")) else 0 for key in ("m", "n", "k")]
    for key, size in zip(("m", "n", "k"), sizes, strict=True):
        if not size:
            wrong(key, f"no whole number from 1 to {_LARGEST}")
    if cells.get("dtype") not in OPERAND_BYTES:
        wrong("dtype", f"none of {', '.join(OPERAND_BYTES)}")
    try:
        seconds = float(cells.get(timed, "")) * _UNITS[timed]
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _LONGEST:
        wrong(timed, "no time above 0")
    if len(problems) > before:
        return None
    m, n, k = sizes
    return Product(m=m, n=n, k=k, dtype=cells["dtype"], seconds=seconds, line=line)


def _is_size(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and 0 < int(text) <= _LARGEST
