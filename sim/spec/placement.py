"""Where ranks sit: the value of ``layout.placement``, read and checked.

Owns its small syntax: two words, or a list of devices (``8``) and ranges (``0-7``, or ``7-0`` backwards). Devices are
counted node by node. Knows how many ranks and devices there are only when it is told.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from sim.spec.quantities import RULE
from sim.spec.wording import choices, shown, suggest

WORDS = ("packed", "scattered")
MOST = 10**6
"""Devices that a list may name: beyond it a range is taken for a mistake."""

_RANGE = re.compile(r"\s*([0-9]{1,7})\s*(?:-\s*([0-9]{1,7})\s*)?")
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class PlacementKey:
    """A word, or a list read to one tuple of devices for each entry, so that messages can point at the entry."""

    def read(self, value: object) -> str | tuple[tuple[int, ...], ...]:
        """Return the word or the devices of each entry, or refuse in words that show what would do."""
        if isinstance(value, str) and value in WORDS:
            return value
        if not isinstance(value, list | tuple):
            rule = "a list of devices and ranges such as [0-3, 8-11], or the path of a file that holds one"
            hint = suggest(value, WORDS) if isinstance(value, str) else ""
            msg = f"{shown(value)} is no placement; {hint}choices: {choices(WORDS)}, {rule}"
            raise _refuse(msg)
        entries = [_devices(entry) for entry in value]
        wrong = [shown(entry) for entry, devices in zip(value, entries, strict=True) if not devices]
        if wrong:
            rule = "an entry is a device such as 8 or a range such as 0-7"
            msg = f"{_some(wrong)}: {rule}, and at most {MOST} devices in all"
            raise _refuse(msg)
        if sum(map(len, entries)) > MOST:
            msg = f"names more than {MOST} devices; shorten its ranges"
            raise _refuse(msg)
        return tuple(entries)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        entry = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+( ?- ?[0-9]+)?$"}]}
        return {"anyOf": [{"type": "string", "examples": list(WORDS)}, {"type": "array", "items": entry}]}


Placement = Annotated[Any, PlacementKey()]


def flat(placement: str | tuple[tuple[int, ...], ...]) -> str | tuple[int, ...]:
    """Return the word, or the device of each rank."""
    if isinstance(placement, str):
        return placement
    return tuple(device for entry in placement for device in entry)


def said(placement: str | tuple[int, ...]) -> str:
    """Return the placement as a file would say it: a word, or devices with runs written as ranges.

    >>> said((0, 1, 2, 5, 4))
    '0-2, 5-4'
    """
    if isinstance(placement, str):
        return placement
    runs: list[list[int]] = []
    for device in placement:
        run = runs[-1] if runs else []
        if run and device - run[-1] in (1, -1) and (len(run) == 1 or device - run[-1] == run[-1] - run[-2]):
            run.append(device)
        else:
            runs.append([device])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def faults(entries: tuple[tuple[int, ...], ...], ranks: int, devices: int) -> Iterator[tuple[str, str]]:
    """Yield (entry's index, what is wrong with it), and what is wrong with the whole list under an empty index."""
    listed = [device for entry in entries for device in entry]
    if len(listed) != ranks:
        yield "", f"lists {len(listed)} devices for {ranks} ranks; give each rank one"
    times = Counter(listed)
    told: set[int] = set()
    for index, entry in enumerate(entries):
        beyond = [str(device) for device in entry if device >= devices]
        again = [str(device) for device in entry if times[device] > 1 and device in told]
        if beyond:
            yield str(index), f"no such device: {_some(beyond)}; devices are 0 to {devices - 1}"
        if again:
            yield str(index), f"has a rank already: {_some(again)}; give each rank a device of its own"
        told.update(entry)


def _devices(entry: object) -> tuple[int, ...]:
    """The devices of one entry, in order; none when it is neither a device nor a range."""
    if isinstance(entry, int) and not isinstance(entry, bool):
        return (entry,) if 0 <= entry <= 10 * MOST else ()
    found = _RANGE.fullmatch(entry) if isinstance(entry, str) else None
    if found is None:
        return ()
    first, last = int(found[1]), int(found[2] or found[1])
    if abs(last - first) >= MOST:
        return ()
    return tuple(range(first, last + 1)) if first <= last else tuple(range(first, last - 1, -1))


def _some(words: list[str]) -> str:
    return ", ".join(words[:_SHOWN]) + (f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else "")


def _refuse(what: str) -> PydanticCustomError:
    return PydanticCustomError(RULE, "{what}", {"what": what})
