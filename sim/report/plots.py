"""Figures by name: one function each that lays a page out around functions that take and return ``ax``.

Owns the table that ``stepline plot`` offers. A new figure is a file with ``draw(ax, ...)``, a page here and a line in
``PLOTS``. Draws; computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sim.analysis.result import Result
from sim.report import (
    breakdown_plot,
    grid_plot,
    memory_plot,
    peak_plot,
    roofline_plot,
    scaling_plot,
    timeline_plot,
    volume_plot,
)
from sim.report.result_json import largest
from sim.study.several import Shown
from sim.units import format as quantity

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A figure: what it shows, how it is made, whether it shows several steps or one."""

    says: str
    make: Callable[[Sequence[Shown]], Figure]
    several: bool


def _page(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _title(figure: Figure, shown: Shown) -> None:
    """The scenario and its step time."""
    said = f"{shown.label}: {quantity(shown.step.result.step_time, 'seconds')}"
    figure.suptitle(said, x=0.01, ha="left", fontsize=10.5)


def timeline(steps: Sequence[Shown]) -> Figure:
    """Streams of the rank that needs most memory, as lanes."""
    step = steps[0].step
    use = largest(step.result, "gpu")
    rank = use.rank_class if use else 0
    lanes = {lane for lane, _ in timeline_plot.lane_bars(step.timeline, rank, (0.0, step.timeline.makespan))}
    figure = _page(11, 0.42 * len(lanes) + 1.7)
    timeline_plot.draw(figure.subplots(), step.timeline, rank)
    _title(figure, steps[0])
    return figure


def pipeline(steps: Sequence[Shown]) -> Figure:
    """A row a rank class: the whole step, and where its boxes are many also its beginning, to see single ones."""
    step = steps[0].step
    rows, end = len(step.timeline.rank_classes), grid_plot.beginning(step.timeline)
    many = end < 0.5 * step.timeline.makespan
    figure = _page(13, min(0.24 * rows, 4.6) + 1.4)
    axes = figure.subplots(1, 2 if many else 1, sharey=True, squeeze=False, width_ratios=(1.25, 1) if many else None)[0]
    grid_plot.draw(axes[0], step.timeline)
    if many:
        grid_plot.draw(axes[1], step.timeline, (0.0, end), legend=False)
        axes[1].set_title("its beginning", loc="left", fontsize=9)
    _title(figure, steps[0])
    return figure


def breakdown(steps: Sequence[Shown]) -> Figure:
    """A bar a step: where its seconds went."""
    figure = _page(11, 0.42 * len(steps) + 1.6)
    breakdown_plot.draw(figure.subplots(), _results(steps))
    return figure


def memory(steps: Sequence[Shown]) -> Figure:
    """Memory over time by owner: of the GPU that needs most, of the host where anything lives there."""
    step = steps[0].step
    uses = [use for where in ("gpu", "host") if (use := largest(step.result, where))]
    figure = _page(11, 2.7 * len(uses) + 0.8)
    axes = figure.subplots(len(uses), 1, sharex=True, squeeze=False)[:, 0]
    for ax, use in zip(axes, uses, strict=True):
        memory_plot.draw(ax, use, step.timeline.makespan)
    timeline_plot.label_time(axes[-1], (0.0, step.timeline.makespan))
    _title(figure, steps[0])
    return figure


def peak(steps: Sequence[Shown]) -> Figure:
    """GPU memory at its peak, by owner, a bar a step: of the rank class that needs most."""
    figure = _page(11, 0.42 * len(steps) + 1.9)
    uses = [(shown.label, largest(shown.step.result, "gpu")) for shown in steps]
    peak_plot.draw(figure.subplots(), [(label, use) for label, use in uses if use])
    return figure


def roofline(steps: Sequence[Shown]) -> Figure:
    """Every kernel of a rank under the roofs of its GPU."""
    figure = _page(10, 5.4)
    found = steps[0].step.roofline()
    roofline_plot.draw(figure.subplots(), found)
    figure.suptitle(f"{steps[0].label}: kernels of {found.rank} on {found.device}", x=0.01, ha="left", fontsize=10.5)
    return figure


def volume(steps: Sequence[Shown]) -> Figure:
    """What a rank sends in a step, by axis of the mesh and by link to the host."""
    named = _results(steps)
    figure = _page(9.5, 0.26 * len(volume_plot.rows(named)) + 0.24 * len(steps) + 1.1)
    volume_plot.draw(figure.subplots(), named)
    return figure


def scaling(steps: Sequence[Shown]) -> Figure:
    """Tokens a second and GPU against GPUs: one curve a scenario."""
    curves: dict[str, list[Result]] = {}
    for shown in steps:
        curves.setdefault(shown.source, []).append(shown.step.result)
    figure = _page(7.5, 4.6)
    scaling_plot.draw(figure.subplots(), curves)
    return figure


def _results(steps: Sequence[Shown]) -> list[tuple[str, Result]]:
    return [(shown.label, shown.step.result) for shown in steps]


PLOTS: dict[str, Plot] = {
    "timeline": Plot(says="streams of a GPU and its host as lanes", make=timeline, several=False),
    "pipeline": Plot(says="the pipeline grid: a row a stage, as it really ran", make=pipeline, several=False),
    "breakdown": Plot(says="where the seconds went, a bar a scenario", make=breakdown, several=True),
    "memory": Plot(says="memory over time by owner, with the capacity", make=memory, several=False),
    "peak": Plot(says="memory at its peak by owner, a bar a scenario", make=peak, several=True),
    "roofline": Plot(says="every kernel under the roofs of its GPU", make=roofline, several=False),
    "volume": Plot(says="what a rank sends, by axis of the mesh", make=volume, several=True),
    "scaling": Plot(says="tokens a second and GPU against GPUs, a curve a scenario", make=scaling, several=True),
}
