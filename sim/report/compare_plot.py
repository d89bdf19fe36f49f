"""Timelines of several scenarios on one axis of time. Draws; computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sim.analysis.result import Result
from sim.report import timeline_plot
from sim.report.result_json import largest
from sim.timeline.columns import Timeline
from sim.units import format as quantity

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure


def compare_figure(steps: Sequence[tuple[Timeline, Result]]) -> Figure:
    """One panel a scenario, of the rank that needs most memory, one axis of time, one legend."""
    from matplotlib.figure import Figure

    window = (0.0, max(timeline.makespan for timeline, _ in steps))
    ranks = [use.rank_class if (use := largest(result, "gpu")) else 0 for _, result in steps]
    lanes = [
        len({lane for lane, _ in timeline_plot.lane_bars(timeline, rank, window)})
        for (timeline, _), rank in zip(steps, ranks, strict=True)
    ]
    heights = [0.36 * count + 0.9 for count in lanes]
    figure = Figure(figsize=(12.5, sum(heights) + 1.2), layout="constrained")
    axes = figure.subplots(len(steps), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    seen: dict[str, Artist] = {}
    for ax, (timeline, result), rank in zip(axes, steps, ranks, strict=True):
        timeline_plot.draw(ax, timeline, rank, window)
        ax.set_title(f"{result.scenario}: {quantity(result.step_time, 'seconds')}", loc="left", fontsize=10)
        legend = ax.get_legend()
        if legend is not None:
            texts = [text.get_text() for text in legend.get_texts()]
            seen.update({t: h for t, h in zip(texts, legend.legend_handles, strict=True) if h is not None})
            legend.remove()
        if ax is not axes[-1]:
            ax.set_xlabel("")
    figure.legend(
        list(seen.values()), list(seen), loc="outside lower center", ncols=min(len(seen), 6), fontsize=8, frameon=False
    )  # fmt: skip
    return figure
