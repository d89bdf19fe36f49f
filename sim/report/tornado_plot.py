"""The tornado: how much of a step each faster thing would save. Draws ``WhatIf`` rows; computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sim.study.why import WhatIf

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BARS = (("never binding", "#BBBBBB"), ("twice as fast", "#56B4E9"), ("10 % faster", "#332288"))
"""What each bar stands for, longest first: they lie on one another. Colours of Okabe and Ito (2008) and Paul Tol."""


def tornado(ax: Axes, rows: Sequence[WhatIf]) -> Axes:
    """A row for each thing, the one that saves most on top; bars in percent of the step."""
    for number, row in enumerate(rows):
        tenth, twice, never = (100.0 * gain / row.base for gain in row.gains)
        for gain, (label, colour) in zip((never, twice, tenth), BARS, strict=True):
            ax.barh(number, gain, color=colour, height=0.7, label=label if number == 0 else None)
        ax.annotate(
            f"{never:.1f}", (max(never, 0.0), number), (4, 0), textcoords="offset points", va="center", fontsize=8
        )
    ax.set_yticks(range(len(rows)), [row.says for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlabel("step time saved (%)")
    ax.axvline(0.0, color="black", linewidth=0.8)
    if rows:
        ax.legend(loc="lower right", frameon=False)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


def tornado_figure(rows: Sequence[WhatIf], title: str) -> Figure:
    """The tornado as a figure of its own."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 1.4 + 0.42 * max(len(rows), 1)), layout="constrained")
    figure.suptitle(title, fontsize=10, parse_math=False)
    tornado(figure.add_subplot(), rows)
    return figure
