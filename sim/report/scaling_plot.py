"""Scaling curves: tokens a second and GPU against the number of GPUs. Draws; computes nothing.

A rate for each GPU and not for all of them: where a step scales, the curve is flat, and what is lost can be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sim.analysis.result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#332288", "#D55E00", "#117733", "#AA4499", "#56B4E9", "#999933", "#663333", "#000000")
MARKS = ("o", "s", "D", "^", "v", "P", "X", "*")


def draw(ax: Axes, curves: Mapping[str, Sequence[Result]]) -> Axes:
    """One curve a name; a hollow point does not fit in memory. Returns ``ax``."""
    counts: set[int] = set()
    for number, (name, results) in enumerate(curves.items()):
        points = sorted(results, key=lambda result: result.ranks)
        x, y = [r.ranks for r in points], [r.tokens_per_s_per_gpu for r in points]
        shade, mark = COLOURS[number % len(COLOURS)], MARKS[number % len(MARKS)]
        ax.plot(x, y, "-", color=shade, lw=1.5)
        ax.plot(x, [y[0]] * len(x), ":", color=shade, lw=1)
        for result in points:
            face = shade if result.fits else "white"
            ax.plot([result.ranks], [result.tokens_per_s_per_gpu], mark, color=shade, mfc=face, ms=6)
        ax.annotate(
            f"{y[-1] / y[0]:.0%}", (x[-1], y[-1]), xytext=(7, 0), textcoords="offset points", fontsize=8.5, va="center",
            color=shade,
        )  # fmt: skip
        ax.plot([], [], "-", marker=mark, color=shade, label=name)
        counts.update(x)
    ax.plot([], [], ":", color="#555555", lw=1, label="as the fewest GPUs do")
    if any(not result.fits for results in curves.values() for result in results):
        ax.plot([], [], "o", color="#555555", mfc="white", label="does not fit in memory")
    _axes(ax, sorted(counts), max(r.tokens_per_s_per_gpu for results in curves.values() for r in results))
    return ax


def _axes(ax: Axes, counts: list[int], most: float) -> None:
    if len(counts) > 1:
        ax.set_xscale("log", base=2)
    ax.set_xticks(counts, [f"{count:,}" for count in counts])
    ax.minorticks_off()
    ax.margins(x=0.09)
    ax.set_ylim(0, 1.12 * most)
    ax.yaxis.set_major_formatter("{x:,.0f}")
    ax.set_xlabel("GPUs")
    ax.set_ylabel("tokens a second and GPU")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=8.5, frameon=False, loc="lower left")
