"""What the files that calibrations write have in common. Owns how they name the file that they extend."""

from __future__ import annotations

import os
from pathlib import Path


def based_on(name: str, out: Path) -> str:
    """A shipped name as it is; a path as the file ``out`` sees it."""
    if "/" not in name and not name.endswith((".yaml", ".yml")):
        return name
    path = Path(os.path.relpath(name, out.parent)).as_posix()
    return path if "/" in path else f"./{path}"


def percent(share: float | None, *, sign: bool = False) -> str:
    """A share; a dash for none."""
    return "-" if share is None else f"{share:+z.1%}" if sign else f"{share:.1%}"
