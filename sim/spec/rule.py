"""What a check is: shared by the tables of checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sim.spec.validate import Draft

Finding = tuple[str, str]
"""Key path, and what is wrong with the rule and the remedy."""


@dataclass(frozen=True, slots=True)
class Check:
    """A rule: its name, the blocks it reads, and the function that yields what breaks it."""

    name: str
    blocks: tuple[str, ...]
    find: Callable[[Draft], Iterator[Finding]]
