"""Foreign files as bounded text: nothing larger than expected, nothing binary, lines freed of what launchers add.

Owns the limits on what is read and the words of a refusal. Knows no format.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NoReturn

from sim.errors import Problem, ScenarioError

LONGEST_LINE = 20_000
"""Letters of a line above which a file is not a log that somebody reads."""

_TERMINAL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|\r")
_RANK = re.compile(r"\s*(?:\[\d{1,6}(?:,\d{1,6})?\]<std\w{3}>:|\d{1,6}:(?=\s))")
"""What ``mpirun --tag-output`` and ``srun --label`` put before a line."""


def refuse(path: Path, line: int, what: str, key: str = "") -> NoReturn:
    """Say what is wrong with a file, and where.

    Raises:
        ScenarioError: always.
    """
    raise ScenarioError([Problem(str(path), line, int(bool(line)), key, what)])


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a file of at most ``most`` bytes.

    Raises:
        ScenarioError: it is not there, cannot be read, is empty, or is larger.
    """
    try:
        if not path.is_file():
            refuse(path, 0, "there is no such file")
        with path.open("rb") as stream:
            raw = stream.read(most + 1)
    except (OSError, ValueError) as error:
        refuse(path, 0, f"cannot be read: {error.__class__.__name__}")
    if len(raw) > most:
        refuse(path, 0, f"is larger than {most >> 20} MiB, the most that is read; keep the part that matters")
    if not raw.strip():
        refuse(path, 0, "is empty")
    return raw


def read_lines(path: Path, most: int) -> list[str]:
    """The lines of a text file, without colours, and without the rank that launchers write before each.

    Raises:
        ScenarioError: as ``read_bytes``; it is not UTF-8 text; a line is longer than ``LONGEST_LINE``.
    """
    raw = read_bytes(path, most)
    if b"\0" in raw:
        refuse(path, 1 + raw[: raw.index(b"\0")].count(b"\n"), "holds a zero byte: it is no text file")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        refuse(path, 1 + raw[: error.start].count(b"\n"), f"is not UTF-8 text (byte {error.start})")
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if len(line) > LONGEST_LINE:
            refuse(path, number, f"the line has more than {LONGEST_LINE} letters; no such log does")
    return [_RANK.sub("", _TERMINAL.sub("", line), count=1) for line in lines]
