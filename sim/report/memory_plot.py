"""Memory over time: owners stacked, the capacity as a line, the peak marked.

Owns how memory is drawn. Knows a ``MemoryUse`` and nothing of what its owners are; peak and capacity are read from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.analysis.result import MemoryUse
from sim.report.theme import owner_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GB = 1e9
MOST_OWNERS = 8
SMALL = 0.02  # of the peak: an owner that never has more is one of the "other"


def draw(ax: Axes, use: MemoryUse, end: float | None = None) -> Axes:
    """Stack the owners of ``use`` up to ``end`` seconds (without it: to its last change). Returns ``ax``."""
    end = float(use.times[-1]) if end is None else end
    times = np.append(use.times, end)
    rows = stack(use)
    colours = owner_colours([owner for owner, _ in rows])
    base = np.zeros(len(times))
    for owner, values in rows:
        top = base + np.append(values, values[-1]) / GB
        ax.fill_between(times, base, top, step="post", color=colours[owner], linewidth=0, label=owner)
        base = top
    ax.set_xlim(0, end)
    _mark(ax, use, end)
    ax.set_ylabel("GPU memory (GB)" if use.where == "gpu" else "host memory,\nper rank (GB)")
    ax.legend(loc="center left", bbox_to_anchor=(1.005, 0.5), frameon=False, fontsize=8, reverse=True, labelspacing=0.3)
    for name in ("top", "right"):
        ax.spines[name].set_visible(False)
    return ax


def _mark(ax: Axes, use: MemoryUse, end: float) -> None:
    """Capacity and peak, each with its number, out of each other's way."""
    peak, capacity = use.peak / GB, use.capacity / GB
    far = use.peak < 0.35 * use.capacity  # the line would flatten everything: say it instead
    room = peak if far else max(peak, capacity)
    ax.set_ylim(0, room * 1.28 or 1.0)
    late = use.peak_time > 0.6 * end
    words = f"capacity {capacity:,.1f} GB"
    at = (0.005, "left") if late else (0.995, "right")
    if far:
        ax.annotate(words, (at[0], 0.97), xycoords="axes fraction", ha=at[1], va="top", fontsize=9)
    else:
        ax.axhline(capacity, color="black", linewidth=1.0, linestyle="--")
        ax.annotate(
            words, (at[0], capacity), xycoords=("axes fraction", "data"), xytext=(0, 3), textcoords="offset points",
            ha=at[1], fontsize=9,
        )  # fmt: skip
    ax.plot(use.peak_time, peak, marker="v", color="black", markersize=5, clip_on=False)
    between = not far and 0.0 <= capacity - peak < 0.25 * room
    ax.annotate(
        f" peak {peak:,.1f} GB ", (use.peak_time, capacity if between else peak), xytext=(0, 4),
        textcoords="offset points", ha="right" if late else "left", fontsize=9,
    )  # fmt: skip


def stack(use: MemoryUse) -> list[tuple[str, NDArray[np.float64]]]:
    """(owner, bytes over time) from the bottom up; the small ones together as "other".

    First what never changes, then what comes and goes (on top of which nothing else could be read), each by size at the
    peak.
    """
    largest = {owner: float(values.max()) for owner, values in use.by_owner.items()}
    moves = {owner: bool(values.min() < values.max()) for owner, values in use.by_owner.items()}
    order = sorted(
        (owner for owner in largest if largest[owner] > 0.0),
        key=lambda owner: (moves[owner], -use.at_peak.get(owner, 0.0), -largest[owner], owner),
    )
    big = [owner for owner in order if largest[owner] >= SMALL * use.peak]
    big = sorted(big, key=lambda owner: (-largest[owner], owner))[: MOST_OWNERS - 1]
    rows = [(owner, use.by_owner[owner]) for owner in order if owner in big]
    rest = [use.by_owner[owner] for owner in order if owner not in big]
    return [*rows, ("other", np.sum(rest, axis=0))] if rest else rows
