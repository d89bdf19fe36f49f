"""The roofline of a device with every kernel of a step on it. Draws; computes nothing.

Kernels with FLOPs stand at their intensity. Passes over memory have none: they stand in a strip at the left, as far
below the memory roof as they are below the memory's bandwidth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.analysis.roofline import KernelPoint, Roofline
from sim.report.theme import CATEGORIES, colour, label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKS = {"gemm": "o", "attention": "D", "optimizer": "s", "embedding": "^"}
"""Kind of kernel -> marker; passes over memory and whatever is new get a triangle downwards."""
REST = "v"
STRIP = (1.4, 7.0)
"""Where passes without FLOPs stand, in units of the left edge: left of every kernel that has some."""
EDGE = 300.0  # the left edge is this much below the knee, or 12 below the least intense kernel
RIGHT = 2.2
MOST_NAMES = 6


def draw(ax: Axes, roofline: Roofline) -> Axes:
    """Draw roofs and kernels; area is the share of kernel time. Returns ``ax``."""
    knee = max(roofline.peaks.values()) / roofline.bandwidth
    busy = [point for point in roofline.kernels if point.flops > 0.0]
    passes = [point for point in roofline.kernels if point.flops == 0.0]
    left = min([point.intensity / 12 for point in busy] + [knee / EDGE])
    most = RIGHT * max([point.intensity for point in busy] + [4 * knee])
    strip = np.geomspace(left * STRIP[0], left * STRIP[1], max(len(passes), 1))
    rates = np.array([p.flops_per_s for p in busy])
    passing = strip[: len(passes)] * np.array([p.bytes_per_s for p in passes])
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(left, most)
    ax.set_ylim(min([left * roofline.bandwidth, *rates, *passing]) / 2, max(roofline.peaks.values()) * 2.4)
    _roofs(ax, roofline, (left, most))
    _kernels(ax, busy, np.array([p.intensity for p in busy]), rates)
    _kernels(ax, passes, strip, passing)
    _name(ax, busy)
    if passes:
        ax.axvspan(left, strip[-1] * 1.4, color="#EEEEEE", zorder=0, lw=0)
        words = "passes over memory, no FLOPs: as far\nbelow the roof as below its bandwidth"
        ax.annotate(words, (strip[-1] * 1.5, 0.03), xycoords=("data", "axes fraction"), fontsize=8, va="bottom")
    ax.set_xlabel("intensity (FLOP a byte of memory traffic)")
    ax.set_ylabel("rate of a kernel alone (FLOP/s)")
    ax.spines[["top", "right"]].set_visible(False)
    _legend(ax, roofline)
    return ax


def _roofs(ax: Axes, roofline: Roofline, ends: tuple[float, float]) -> None:
    """The memory's slope up to the highest peak, and a flat roof for each type of numbers."""
    top = max(roofline.peaks.values())
    knee = top / roofline.bandwidth
    ax.plot([ends[0], knee], [ends[0] * roofline.bandwidth, top], color="black", lw=1.2)
    ax.annotate(
        f"memory: {roofline.bandwidth / 1e12:.3g} TB/s", (knee / 4, top / 4), xytext=(-6, 4),
        textcoords="offset points", ha="right", fontsize=9,
    )  # fmt: skip
    for dtype, peak in roofline.peaks.items():
        ax.plot([peak / roofline.bandwidth, ends[1]], [peak, peak], color="black", lw=1.2)
        ax.annotate(
            f"{dtype}: {peak / 1e12:,.4g} TFLOP/s", (peak / roofline.bandwidth, peak), xytext=(-7, 0),
            textcoords="offset points", ha="right", va="center", fontsize=9,
        )  # fmt: skip


def _kernels(ax: Axes, points: list[KernelPoint], x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    """One collection a marker and category; several kernels that run as one op are hollow."""
    kinds = dict.fromkeys((MARKS.get(p.kind, REST), p.category, p.kernels > 1) for p in points)
    for mark, category, several in kinds:
        mine = [i for i, p in enumerate(points) if (MARKS.get(p.kind, REST), p.category, p.kernels > 1)
                == (mark, category, several)]  # fmt: skip
        ax.scatter(
            x[mine], y[mine], s=[18 + 1500 * points[i].share for i in mine], marker=mark, alpha=0.75, zorder=3,
            facecolors="none" if several else colour(category), edgecolors=colour(category) if several else "white",
            linewidths=1.2 if several else 0.4,
        )  # fmt: skip


def _name(ax: Axes, points: list[KernelPoint]) -> None:
    """Names of the kernels that take most time, each in a place of its own below the roofs."""
    named: dict[str, KernelPoint] = {}
    for point in points:
        named.setdefault(point.name, point)
    largest = sorted(list(named.values())[:MOST_NAMES], key=lambda point: -point.flops_per_s)
    for row, point in enumerate(largest):
        ax.annotate(
            f"{point.name}, {point.share:.0%}", (point.intensity, point.flops_per_s), xycoords="data",
            xytext=(0.72, 0.44 - 0.055 * row), textcoords="axes fraction", ha="right", va="center", fontsize=8,
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "#999999", "shrinkB": 3, "relpos": (1.0, 0.5)},
        )  # fmt: skip


def _legend(ax: Axes, roofline: Roofline) -> None:
    from matplotlib.lines import Line2D

    there = {point.category for point in roofline.kernels}
    handles = [Line2D([], [], color=colour(c), lw=4, label=label(c)) for c in CATEGORIES if c in there]
    marks = dict.fromkeys((MARKS.get(p.kind, REST), p.kind if p.kind in MARKS else "pass") for p in roofline.kernels)
    handles += [Line2D([], [], color="#555555", marker=m, ls="", label=words) for m, words in marks]
    if any(point.kernels > 1 for point in roofline.kernels):
        handles.append(Line2D([], [], color="#555555", marker="o", mfc="none", ls="", label="several as one op"))
    handles.append(Line2D([], [], ls="", label="area: share of kernel time"))
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.005, 1.0), fontsize=8, frameon=False)
