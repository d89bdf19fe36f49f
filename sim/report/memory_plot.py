"""Memory over time: owners stacked, the capacity as a line, the peak marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.analysis.result import MemoryUse
from sim.report.theme import OWNERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GB = 1e9


def draw(ax: Axes, use: MemoryUse, end: float) -> Axes:
    """Stack the owners of ``use`` up to ``end`` seconds, largest at the peak first. Returns ``ax``."""
    times = np.append(use.times, end)
    rows = stack(use)
    base = np.zeros(len(times))
    for (owner, values), shade in zip(rows, OWNERS, strict=False):
        top = base + np.append(values, values[-1]) / GB
        ax.fill_between(times, base, top, step="post", color=shade, linewidth=0, label=owner)
        base = top
    ax.axhline(use.capacity / GB, color="black", linewidth=1.0, linestyle="--")
    room = max(use.capacity, use.peak) / GB
    if use.peak < 0.35 * use.capacity:  # the line would flatten everything: say it instead
        room = use.peak / GB * 1.15
        ax.annotate(
            f"capacity {use.capacity / GB:,.0f} GB", (0.995, 0.96), xycoords="axes fraction", ha="right", va="top"
        )
    ax.set_ylim(0, room * 1.12)
    ax.set_xlim(0, end)
    ax.plot(use.peak_time, use.peak / GB, marker="v", color="black", markersize=5)
    side = "right" if use.peak_time > 0.7 * end else "left"
    ax.annotate(
        f" peak {use.peak / GB:,.1f} GB ", (use.peak_time, use.peak / GB), xytext=(0, 5), textcoords="offset points",
        ha=side, fontsize=9,
    )  # fmt: skip
    ax.set_ylabel("GPU memory (GB)" if use.where == "gpu" else "host memory,\nper rank (GB)")
    ax.legend(loc="center left", bbox_to_anchor=(1.005, 0.5), frameon=False, fontsize=8, reverse=True)
    for name in ("top", "right"):
        ax.spines[name].set_visible(False)
    return ax


def stack(use: MemoryUse) -> list[tuple[str, NDArray[np.float64]]]:
    """(owner, bytes over time) from the bottom up: what stays all through the step, then what comes and goes.

    Each by its largest size; what does not get a colour of its own is "other".
    """
    largest = {owner: float(values.max()) for owner, values in use.by_owner.items()}
    stays = {owner: bool(values.min() == values.max()) for owner, values in use.by_owner.items()}
    order = sorted((o for o in largest if largest[o] > 0.0), key=lambda o: (not stays[o], -largest[o], o))
    big = sorted(order, key=lambda o: (-largest[o], o))[: len(OWNERS) - 1]
    rows = [(owner, use.by_owner[owner]) for owner in order if owner in big]
    rest = [use.by_owner[owner] for owner in order if owner not in big]
    return [*rows, ("other", np.sum(rest, axis=0))] if rest else rows
