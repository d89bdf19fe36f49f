"""The timeline of one rank class: streams as lanes, work by colour, phases marked above."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.report.theme import CATEGORIES, colour, label
from sim.timeline.columns import Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LANES = {
    "compute": "GPU compute",
    "dp": "gradient collectives",
    "gather": "parameter gathers",
    "h2d": "host to GPU",
    "d2h": "GPU to host",
    "cpu": "CPU",
}
_PHASES = {"F": "forward", "B": "backward", "I": "backward", "W": "backward", "R": "backward", "O": "optimizer"}
PIXELS = 3000  # gaps below this fraction of the window cannot be seen and are closed
Intervals = tuple[NDArray[np.float64], NDArray[np.float64]]


def draw(ax: Axes, timeline: Timeline, rank_class: int = 0, window: tuple[float, float] | None = None) -> Axes:
    """Draw the streams of a rank class that did anything, within ``window`` seconds. Returns ``ax``."""
    window = window or (0.0, timeline.makespan)
    bars = lane_bars(timeline, rank_class, window)
    lanes = [name for name in timeline.stream_names if any(lane == name for lane, _ in bars)]
    for (lane, category), (start, end) in bars.items():
        row = len(lanes) - 1 - lanes.index(lane)
        ax.broken_barh(
            list(zip(start, end - start, strict=True)), (row - 0.38, 0.76), facecolors=colour(category), linewidth=0
        )
    ax.set_yticks(range(len(lanes)), [LANES.get(name, name) for name in reversed(lanes)])
    ax.set_ylim(-0.6, len(lanes) - 0.4 + 0.55)
    ax.set_xlim(*window)
    _mark_phases(ax, timeline, rank_class, window, len(lanes) - 0.35)
    _legend(ax, {category for _, category in bars})
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return ax


def lane_bars(timeline: Timeline, rank_class: int, window: tuple[float, float]) -> dict[tuple[str, str], Intervals]:
    """(stream, category) -> merged intervals; spans closer than can be seen become one bar."""
    spans = timeline.spans
    rank = np.array([op.rank_class for op in timeline.ops])[spans.op]
    stream = np.array([op.stream for op in timeline.ops])[spans.op]
    names = list(dict.fromkeys(op.category for op in timeline.ops))
    kind = np.array([names.index(op.category) for op in timeline.ops])[spans.op]
    seen = (rank == rank_class) & (spans.end > spans.start) & (spans.end > window[0]) & (spans.start < window[1])
    closest = (window[1] - window[0]) / PIXELS
    bars = {}
    for number, lane in enumerate(timeline.stream_names):
        for index, category in enumerate(names):
            mine = seen & (stream == number) & (kind == index)
            if mine.any():
                bars[(lane, category)] = _merge(spans.start[mine], spans.end[mine], closest)
    return bars


def _merge(start: NDArray[np.float64], end: NDArray[np.float64], closest: float) -> Intervals:
    order = np.argsort(start, kind="stable")
    start, end = start[order], np.maximum.accumulate(end[order])
    breaks = np.flatnonzero(start[1:] - end[:-1] > closest) + 1
    return start[np.concatenate([[0], breaks])], end[np.concatenate([breaks - 1, [len(end) - 1]])]


def phase_intervals(timeline: Timeline, rank_class: int) -> list[tuple[str, float, float]]:
    """(phase, start, end) of consecutive actions of the same phase."""
    spans = timeline.spans
    rank = np.array([op.rank_class for op in timeline.ops])[spans.op]
    found: list[tuple[str, float, float]] = []
    mine = np.flatnonzero(rank == rank_class)
    for action in np.unique(spans.action[mine]).tolist():
        of = mine[spans.action[mine] == action]
        phase = _PHASES[timeline.ops[int(spans.op[of[0]])].phase]
        start, end = float(spans.start[of].min()), float(spans.end[of].max())
        if found and found[-1][0] == phase:
            found[-1] = (phase, found[-1][1], max(end, found[-1][2]))
        else:
            found.append((phase, max(start, found[-1][2]) if found else start, end))
    return found


def _mark_phases(ax: Axes, timeline: Timeline, rank_class: int, window: tuple[float, float], height: float) -> None:
    phases = phase_intervals(timeline, rank_class)
    if len(phases) > 12:  # many microbatches: brackets would only be clutter
        return
    for phase, start, end in phases:
        ax.plot([start, end], [height, height], color="black", linewidth=1.2, solid_capstyle="butt")
        if end - start > 0.06 * (window[1] - window[0]):
            ax.annotate(
                phase, ((start + end) / 2, height), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=9
            )


def _legend(ax: Axes, present: set[str]) -> None:
    from matplotlib.patches import Patch

    order = [category for category in CATEGORIES if category in present]
    handles = [Patch(facecolor=colour(category), label=label(category)) for category in order]
    ax.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, 1.22), ncols=min(len(handles), 6), frameon=False,
        fontsize=9, handlelength=1.2, columnspacing=1.4,
    )  # fmt: skip
