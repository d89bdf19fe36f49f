"""What a rank sends in a step, by axis of the mesh: a dot for each, on an axis of powers. Draws; computes nothing.

Dots and not stacked bars: what axes send differs by factors of a thousand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sim.analysis.result import Result, TransferUse
from sim.report.theme import CATEGORIES, colour, label
from sim.units import format as quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def rows(steps: Sequence[tuple[str, Result]]) -> list[tuple[str, TransferUse]]:
    """(scenario, transfer) from top to bottom, transfers of a scenario in the order of the table of categories."""
    order = list(CATEGORIES)
    return [
        (name, use)
        for name, result in steps
        for use in sorted(
            (use for use in result.transfers if use.bytes > 0.0),
            key=lambda use: order.index(use.category) if use.category in order else len(order),
        )
    ]


def draw(ax: Axes, steps: Sequence[tuple[str, Result]]) -> Axes:
    """Bytes that a rank sends in a step (mean over ranks), and how often, for each kind of transfer. Returns ``ax``."""
    from matplotlib.ticker import FuncFormatter

    table, at, height = rows(steps), [], 0.0
    for i, (name, _) in enumerate(table):
        height += 0.0 if i == 0 else 1.7 if name != table[i - 1][0] else 1.0
        at.append(height)
    most = max((use.bytes for _, use in table), default=1.0)
    least = min((use.bytes for _, use in table), default=1.0)
    ax.set_xscale("log")
    ax.set_xlim(least / 4, most * 12)
    for y, (_, use) in zip(at, table, strict=True):
        shade = colour(use.category)
        ax.plot([least / 4, use.bytes], [y, y], color=shade, lw=2.2, solid_capstyle="butt")
        ax.plot([use.bytes], [y], "o", color=shade, ms=7, mec="#555555", mew=0.4)
        times = f"{use.count:,.0f} x" if use.count >= 1.5 else "once"
        ax.annotate(
            f"{quantity(use.bytes, 'bytes')}, {times}", (use.bytes, y), xytext=(8, 0), textcoords="offset points",
            va="center", fontsize=8.5,
        )  # fmt: skip
    if not table:
        ax.annotate("nothing is sent", (0.5, 0.5), xycoords="axes fraction", ha="center", va="center")
    _names(ax, table, at)
    ax.set_ylim(height + 0.8, -1.1)
    ax.set_xlabel("bytes that a rank sends in a step (mean over ranks), in so many exchanges")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda size, _: quantity(size, "bytes", 1)))
    ax.minorticks_off()
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _names(ax: Axes, table: list[tuple[str, TransferUse]], at: list[float]) -> None:
    """What is sent at each row; the scenario once, in bold, at its first row."""
    ax.set_yticks(at, [label(use.category) for _, use in table], fontsize=8.5)
    ax.tick_params(axis="y", length=0)
    for i, (name, _) in enumerate(table):
        if i == 0 or name != table[i - 1][0]:
            ax.annotate(
                name, (0.0, at[i] - 0.62), xycoords=("axes fraction", "data"), xytext=(4, 0),
                textcoords="offset points", fontsize=8.5, weight="bold", va="center",
            )  # fmt: skip
