"""Simulated against published step times, and what is left against the obvious suspects. Draws; computes nothing.

A point is a mapping: ``file``, ``measured`` and ``simulated`` (s), and the suspects of ``SUSPECTS`` where the row says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sim.report.scaling_plot import COLOURS, MARKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = Mapping[str, str | float]

SUSPECTS = {
    "hidden": "hidden size",
    "micro_batch": "sequences of a microbatch",
    "gpus": "GPUs",
    "tp": "tensor-parallel ranks",
    "pp": "pipeline ranks",
}
"""Key of a point -> what residuals are drawn against."""

BAND = 0.1
"""Error whose band is shaded."""


def figure_of(points: Sequence[Point]) -> Figure:
    """A page: simulated over measured on the left and top, then the error against each suspect."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13.0, 8.0), layout="constrained")
    axes = figure.subplots(2, 3).flat
    files = list(dict.fromkeys(str(point["file"]) for point in points))
    scatter(axes[0], points, files)
    for ax, (key, label) in zip(list(axes)[1:], SUSPECTS.items(), strict=True):
        residuals(ax, points, files, key, label)
    if files:
        figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=8.5)
    return figure


def scatter(ax: Axes, points: Sequence[Point], files: Sequence[str]) -> Axes:
    """Simulated against measured seconds, both logarithmic, with the diagonal and a band around it."""
    times = [float(point[key]) for point in points for key in ("measured", "simulated")]
    ends = [min(times, default=0.1) / 1.3, max(times, default=1.0) * 1.3]
    ax.plot(ends, ends, "-", color="#555555", lw=1)
    ax.fill_between(ends, [x * (1 - BAND) for x in ends], [x * (1 + BAND) for x in ends], color="#DDDDDD", lw=0)
    for number, name in enumerate(files):
        mine = [point for point in points if point["file"] == name]
        x, y = ([float(point[key]) for point in mine] for key in ("measured", "simulated"))
        ax.plot(x, y, _mark(number), color=_colour(number), ms=4, alpha=0.7, label=name, mew=0)
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    ax.set_xlabel("published step time (s)")
    ax.set_ylabel("simulated step time (s)")
    return ax


def residuals(ax: Axes, points: Sequence[Point], files: Sequence[str], key: str, label: str) -> Axes:
    """Errors of the points that have ``key``, against it."""
    ax.axhspan(-BAND, BAND, color="#DDDDDD", lw=0)
    ax.axhline(0, color="#555555", lw=1)
    for number, name in enumerate(files):
        mine = [point for point in points if point["file"] == name and key in point]
        errors = [float(point["simulated"]) / float(point["measured"]) - 1.0 for point in mine]
        x = [float(point[key]) for point in mine]
        ax.plot(x, errors, _mark(number), color=_colour(number), ms=4, alpha=0.7, mew=0)
    ax.set_xscale("log", base=2)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:+.0%}")
    ax.set_xlabel(label)
    ax.set_ylabel("error of the step time")
    return ax


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _mark(number: int) -> str:
    return MARKS[(number + number // len(COLOURS)) % len(MARKS)]
