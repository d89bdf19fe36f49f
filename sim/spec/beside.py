"""Files beside a scenario that are not YAML: found relative to the file that names them, and read as plain text.

Owns which keys name such a file, and the limits on what is read. The text is data: it is neither parsed nor executed
here; whoever knows its format reads it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from pathlib import Path

from sim.errors import Problem
from sim.spec.tree import Node, Place
from sim.spec.types import ScheduleFile
from sim.spec.wording import shown

SCHEDULE = "layout.schedule_file"
ENDING = ".csv"
MAX_BYTES = 4 << 20


def read_schedule(root: Node, paths: Mapping[str, Path]) -> tuple[ScheduleFile | None, list[Problem]]:
    """Return the file that ``layout.schedule_file`` names, or what is wrong with it; neither where the key is absent.

    ``paths`` are the files that the document was read from, by their names in messages.
    """
    node = root
    for key in SCHEDULE.split("."):
        if not isinstance(node.value, dict) or key not in node.value:
            return None, []
        node = node.value[key]
    name = node.value
    if not isinstance(name, str):
        return None, []  # its type is wrong, or it is null: that is said, if at all, where blocks are validated
    if not name.endswith(ENDING):
        what = f"{shown(name)} does not end in {ENDING}; give the path of a CSV file, a row a pipeline rank"
        return None, [node.place.problem(SCHEDULE, what)]
    inside = node.place.file in paths
    label = posixpath.normpath(posixpath.join(posixpath.dirname(node.place.file) if inside else "", name))
    path = (paths[node.place.file].parent if inside else Path()) / name
    text, why = _read(path)
    if text is None:
        return None, [_said(node.place, label, why)]
    return ScheduleFile(name=label, text=text), []


def _said(place: Place, label: str, why: str) -> Problem:
    return place.problem(SCHEDULE, f"{label}: {why}; the path is relative to the file that says it")


def _read(path: Path) -> tuple[str | None, str]:
    """The text of a file, or why there is none."""
    try:
        if not path.is_file():
            return None, "there is no such file"
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            return None, f"is larger than {MAX_BYTES} bytes, the most that is read"
        return raw.decode("utf-8-sig"), ""
    except UnicodeDecodeError as error:
        return None, f"is not UTF-8 text (byte {error.start})"
    except (OSError, ValueError) as error:
        return None, f"cannot be read: {error.__class__.__name__}"
