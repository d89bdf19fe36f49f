"""Memory at its peak by owner, a bar a scenario, with the capacity. Draws; computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sim.analysis.result import MemoryUse
from sim.report.theme import owner_colours
from sim.units import format as quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNITS = ((1e13, 1e12, "TB"), (0.0, 1e9, "GB"))  # from so many bytes on, divided by, called
SMALL = 0.015
"""Of the longest bar: an owner that has less in every bar is one of the "other"."""


def parts(uses: Sequence[tuple[str, MemoryUse]]) -> list[tuple[str, list[float]]]:
    """(owner, bytes in each bar) from left to right: large owners first, the small ones together."""
    longest = max(use.peak for _, use in uses)
    owners = dict.fromkeys(owner for _, use in uses for owner in use.at_peak)
    sizes = {owner: [use.at_peak.get(owner, 0.0) for _, use in uses] for owner in owners}
    big = sorted((o for o in owners if max(sizes[o]) >= SMALL * longest), key=lambda o: (-sum(sizes[o]), o))
    rest = [sizes[owner] for owner in owners if owner not in big and owner != "other"]
    if "other" in big:
        big.remove("other")
        rest.append(sizes["other"])
    rows = [(owner, sizes[owner]) for owner in big]
    return [*rows, ("other", [sum(column) for column in zip(*rest, strict=True)])] if rest else rows


def draw(ax: Axes, uses: Sequence[tuple[str, MemoryUse]]) -> Axes:
    """A stacked bar for each (label, memory use); a line marks what there is, unless it is far away. Returns ``ax``."""
    longest = max(use.peak for _, use in uses)
    scale, unit = next((scale, unit) for least, scale, unit in UNITS if longest >= least)
    left, rows = [0.0] * len(uses), parts(uses)
    colours = owner_colours([owner for owner, _ in rows])
    for owner, sizes in rows:
        widths = [size / scale for size in sizes]
        ax.barh(range(len(uses)), widths, left=left, height=0.72, color=colours[owner], edgecolor="white", lw=0.3,
                label=owner)  # fmt: skip
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for row, (_, use) in enumerate(uses):
        said = quantity(use.peak, "bytes") + ("" if use.fits else f": more than {quantity(use.capacity, 'bytes')}")
        ax.annotate(said, (use.peak / scale, row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5)
        if use.capacity < 1.6 * longest:
            at = use.capacity / scale
            ax.plot([at, at], [row - 0.45, row + 0.45], color="black", lw=1.4, ls="--")
    drawn = [use.capacity for _, use in uses if use.capacity < 1.6 * longest]
    if drawn:
        ax.plot([], [], color="black", lw=1.4, ls="--", label="what there is")
    ax.set_xlim(0, max([longest, *drawn]) / scale * 1.02 + 0.24 * longest / scale)
    ax.set_yticks(range(len(uses)), [name for name, _ in uses])
    ax.invert_yaxis()
    ax.set_xlabel(f"{'GPU' if uses[0][1].where == 'gpu' else 'host'} memory at the peak, by owner ({unit})")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False, fontsize=8.5, handlelength=1.2)
    return ax
