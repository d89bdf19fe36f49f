"""The journal of a sweep: one line a finished point, so that a killed sweep goes on where it stopped.

Owns the file: lines are appended whole and flushed to the disk; a torn last line (a kill while it was written) is
dropped. A point counts as done if what it was asked, the resolved scenario and the values of the knobs, is the same.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FORMAT = 1
"""Of a row: a journal of another format is not read."""


def digest(document: Mapping[str, Any], version: str) -> str:
    """A name for everything a point's result depends on but its knobs."""
    text = json.dumps({"format": FORMAT, "version": version, "document": document}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def release() -> str:
    """The version of Stepline that is installed; ``source`` where it only lies there."""
    try:
        return version("stepline")
    except PackageNotFoundError:
        return "source"


class Journal:
    """Rows of finished points by their values, of one sweep of one scenario."""

    def __init__(self, path: Path, of: str) -> None:
        self.path = path
        self.of = of
        self.done: dict[tuple[str, ...], dict[str, Any]] = {}
        self.other = 0  # rows of another scenario or version, which are kept but not used
        for line in self._lines():
            try:
                row = json.loads(line)
                key, asked = tuple(row["asked"]), row["of"]
            except (ValueError, KeyError, TypeError):
                continue  # torn
            if asked == of:
                self.done[key] = row["row"]
            else:
                self.other += 1

    def add(self, asked: tuple[str, ...], row: Mapping[str, Any]) -> None:
        """Write a finished point. Raises OSError where that cannot be."""
        self.done[asked] = dict(row)
        line = json.dumps({"of": self.of, "asked": asked, "row": row}) + "\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _lines(self) -> list[str]:
        if not self.path.exists():
            return []
        text = self.path.read_text("utf-8", errors="replace")
        if text and not text.endswith("\n"):  # the next row must not be glued to a torn one
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n")
        return text.splitlines()
