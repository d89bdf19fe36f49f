"""What the scripts of this folder share: where figures go, and how much of each is drawn.

``STEPLINE_PLOTS`` names another folder for the figures; with ``STEPLINE_QUICK`` set only the ends of each axis are
simulated, which is how the tests run every script.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from matplotlib.figure import Figure

from sim.report.figure import save

FOLDER = Path(os.environ.get("STEPLINE_PLOTS", Path(__file__).parent))
QUICK = bool(os.environ.get("STEPLINE_QUICK"))
T = TypeVar("T")


def some(values: Sequence[T]) -> Sequence[T]:
    """The values of an axis; in a quick run its ends alone."""
    return (values[0], values[-1]) if QUICK else values


def keep(figure: Figure, name: str) -> None:
    """Write ``name``.png into the folder of figures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    save(figure, FOLDER / f"{name}.png", "png")
