"""The figure of a step: timeline, memory under it on the same axis of time, the breakdown as one bar.

Owns the page. Draws on a ``Figure`` of its own: pyplot, the backend and the user's settings are left as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sim.analysis.result import Result
from sim.report import memory_plot, timeline_plot
from sim.report.result_json import largest
from sim.report.text import headline_parts
from sim.report.theme import CATEGORIES, colour, ink, label
from sim.timeline.columns import Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLACES = 6  # digits of a position, as a fraction of the page


def step_figure(timeline: Timeline, result: Result) -> Figure:
    """A figure for a paper: what ran when, what was in memory meanwhile, and where the time went."""
    from matplotlib.figure import Figure

    gpu, host = largest(result, "gpu"), largest(result, "host")
    rank_class = gpu.rank_class if gpu else 0
    panels = [use for use in (gpu, host) if use is not None]
    lanes = {lane for lane, _ in timeline_plot.lane_bars(timeline, rank_class, (0.0, timeline.makespan))}
    heights = [0.42 * len(lanes) + 0.4] + [1.6] * len(panels) + [0.33]  # inches, if all goes well
    height = max(6.2, sum(heights) + 2.3)  # title, legend and labels; never less than 900 pixels
    figure = Figure(figsize=(12.5, height), layout="constrained")
    axes = figure.subplots(len(heights), 1, gridspec_kw={"height_ratios": heights})
    timeline_plot.draw(axes[0], timeline, rank_class)
    for ax, use in zip(axes[1:-1], panels, strict=True):
        memory_plot.draw(ax, use, timeline.makespan)
        ax.sharex(axes[0])
    for ax in axes[: len(panels)]:
        ax.tick_params(labelbottom=False)
    unit = timeline_plot.label_time(axes[0], (0.0, timeline.makespan))
    axes[0].set_xlabel("" if panels else axes[0].get_xlabel())
    name = timeline.rank_classes[rank_class].name
    axes[len(panels)].set_xlabel(f"time in the step ({unit}), {name}")
    draw_breakdown(axes[-1], result)
    figures, memory, bound = headline_parts(result)
    words = "; ".join(part for part in (figures, memory) if part)
    figure.suptitle(f"{result.scenario}\n{words}\n{bound}", fontsize=10.5, x=0.01, ha="left")
    _freeze(figure)
    return figure


def _freeze(figure: Figure) -> None:
    """Lay the page out now, once for every format, to a thousandth of a pixel.

    The layout's solver lets the last digits of a position depend on addresses in memory, and an SVG names its clipping
    areas by a hash of them: unrounded, one figure in a few has other bytes.
    """
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine("none")
    for ax in figure.axes:
        left, bottom, width, height = (round(float(edge), PLACES) for edge in ax.get_position(original=True).bounds)
        ax.set_position((left, bottom, width, height))


def draw_breakdown(ax: Axes, result: Result) -> Axes:
    """One bar of the breakdown, its parts as long as their seconds. Returns ``ax``."""
    left = 0.0
    order = [*CATEGORIES, *(c for c in result.breakdown if c not in CATEGORIES)]
    for category in order:
        seconds = result.breakdown.get(category, 0.0)
        if seconds <= 0.0:
            continue
        ax.barh(0, seconds, left=left, color=colour(category), height=0.8, label=label(category))
        if seconds > 0.05 * result.step_time:
            share = f"{seconds / result.step_time:.0%}"
            ax.text(left + seconds / 2, 0, share, ha="center", va="center", fontsize=8.5, color=ink(category))
        left += seconds
    ax.set_xlim(0, result.step_time)
    ax.set_yticks([0], ["breakdown"])
    unit = timeline_plot.label_time(ax, (0.0, result.step_time))
    ax.set_xlabel(f"time by what the GPU did or waited for ({unit})")
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return ax


def save(figure: Figure, path: Path, kind: Literal["png", "svg"]) -> None:
    """Write ``figure`` to ``path``; the bytes depend on the figure alone."""
    from matplotlib import rc_context

    metadata = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    with rc_context({"svg.hashsalt": "stepline"}):
        figure.savefig(path, format=kind, dpi=150, metadata=metadata)
    figure.set_layout_engine("none")  # laid out once: another format is the same picture
