"""Words for messages: near misses and lists of choices. Knows nothing of what the words stand for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_READ = 12  # names that are read one by one
_NEAR = 6
_SHOWN = 40  # choices that a message lists before it stops being read


def choices(names: Iterable[str], like: str = "") -> str:
    """List names in their order, cut short when there are too many to read.

    ``like`` what somebody wrote: of more than a dozen names the nearest few are listed.
    """
    names = list(names)
    if like and len(names) > _READ:
        near = difflib.get_close_matches(like[:80], names, n=_NEAR, cutoff=0.0)
        return ", ".join(near) + f", ... ({len(names) - len(near)} more)"
    more = f", ... ({len(names) - _SHOWN} more)" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "none"


def suggest(word: str, names: Iterable[str]) -> str:
    """Return ``did you mean 'x'? `` for the nearest name, or nothing when none is near."""
    lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(word.lower()[:80], list(lower), n=1, cutoff=0.6)
    return f"did you mean '{lower[near[0]]}'? " if near else ""


def shown(value: object, limit: int = 60) -> str:
    """Quote a value of a file, cut short when long."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    text = text if len(text) <= limit else text[: limit - 3] + "..."
    return f"'{text}'" if isinstance(value, str) else text
