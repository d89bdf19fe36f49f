"""Breakdowns of several steps as bars, one below the other. Draws; computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sim.analysis.result import Result
from sim.report.theme import CATEGORIES, colour, ink, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ENOUGH = 0.045
"""Of the longest bar: a part that is narrower has no number in it."""


def draw(ax: Axes, steps: Sequence[tuple[str, Result]], *, shares: bool = False) -> Axes:
    """A stacked bar for each (label, result), in seconds or as ``shares`` of the step. Returns ``ax``."""
    longest = 1.0 if shares else max(result.step_time for _, result in steps)
    seen: dict[str, None] = {}
    for row, (_, result) in enumerate(steps):
        left, whole = 0.0, result.step_time if shares else 1.0
        for category in [*CATEGORIES, *(c for c in result.breakdown if c not in CATEGORIES)]:
            part = result.breakdown.get(category, 0.0) / whole
            if part <= 0.0:
                continue
            words = "_" if category in seen else label(category)  # "_": not in the legend again
            seen[category] = None
            ax.barh(row, part, left=left, height=0.72, color=colour(category), edgecolor="white", lw=0.3, label=words)
            if part > ENOUGH * longest:
                said = f"{result.breakdown[category] / result.step_time:.0%}"
                ax.text(left + part / 2, row, said, ha="center", va="center", fontsize=8, color=ink(category))
            left += part
        if not shares:
            ax.annotate(
                f"{result.step_time:.3g} s", (left, row), xytext=(4, 0), textcoords="offset points", va="center",
                fontsize=8.5,
            )  # fmt: skip
    ax.set_yticks(range(len(steps)), [name for name, _ in steps])
    ax.invert_yaxis()
    ax.set_xlim(0, longest * (1.0 if shares else 1.09))
    ax.set_xlabel("share of the step" if shares else "step time by what the GPU did or waited for (s)")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    _legend(ax, len(seen))
    return ax


def _legend(ax: Axes, parts: int) -> None:
    """In the order of the table of categories, whatever bar had them first."""
    handles, words = ax.get_legend_handles_labels()
    order = [label(category) for category in CATEGORIES]
    pairs = sorted(zip(words, handles, strict=True), key=lambda p: order.index(p[0]) if p[0] in order else len(order))
    rows = -(-parts // 6) or 1
    ax.legend(
        [handle for _, handle in pairs], [word for word, _ in pairs], loc="lower center", bbox_to_anchor=(0.5, 1.0),
        ncols=-(-parts // rows), frameon=False, fontsize=8.5, handlelength=1.2, columnspacing=1.4,
    )  # fmt: skip
