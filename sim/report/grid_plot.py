"""The pipeline grid: a row a rank class, a box an action of its schedule, as it really ran. Draws; computes nothing.

Empty space is a stage that waits: the bubble and whatever messages add to it. 64 rows stay legible: names are thinned,
numbers of microbatches appear where they fit, and many boxes are pixels also in an SVG.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.report.theme import colour
from sim.report.timeline_plot import Window, label_time
from sim.timeline.columns import Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = {
    "F": ("#8F86D6", "#B7B1E6", "forward"),
    "B": ("#117733", "#3E9A60", "backward"),
    "I": ("#117733", "#3E9A60", "input gradient"),
    "W": ("#E0A050", "#EDC48E", "weight gradient"),
    "FB": ("#2F6F9F", "#5A93BD", "forward and backward woven"),
    "O": ("#AA4499", "#AA4499", "optimizer"),
}
"""Kind of action -> colour of even and of odd microbatches, words. Recompute belongs to its backward.

Hues are lighter than those of the categories, and light stands beside dark: boxes of a pixel must be told apart.
"""
LIGHT = ("F", "W")  # what black can be read on
MOST_NAMES = 16
MANY = 4000  # boxes beyond which they are drawn as pixels
IDLE = 0.004  # of the step: a longer wait inside an action (for the norm of all gradients) is left empty
WIDE = 0.011  # of the window: a box that holds the number of its microbatch
PARITY = 0.004  # of the window: narrower boxes all have one colour


@dataclass(frozen=True, slots=True)
class Boxes:
    """Actions of one rank class in order: kind, microbatch, seconds in which the GPU worked on it."""

    kind: tuple[str, ...]
    microbatch: NDArray[np.int64]
    start: NDArray[np.float64]
    end: NDArray[np.float64]


def boxes(timeline: Timeline, rank_class: int) -> Boxes:
    """What the compute stream of a rank class did, action by action."""
    spans, ops = timeline.spans, timeline.ops
    rank = np.array([op.rank_class for op in ops], dtype=np.int64)
    stream = np.array([op.stream for op in ops], dtype=np.int64)
    works = np.array([op.kind != "none" for op in ops])
    mine = np.flatnonzero(((rank == rank_class) & (stream == 0) & works)[spans.op])
    mine = mine[np.lexsort((spans.start[mine], spans.action[mine]))]
    phase = np.array([op.phase for op in ops])
    kind, start, end, microbatch = [], [], [], []
    for a, b in pairwise(_edges(timeline, mine).tolist()):
        of = mine[a:b]
        kind.append(_kind(set(phase[spans.op[of]].tolist())))
        start.append(float(spans.start[of].min()))
        end.append(float(spans.end[of].max()))
        microbatch.append(int(spans.microbatch[of[0]]))
    return Boxes(tuple(kind), np.array(microbatch, dtype=np.int64), np.array(start), np.array(end))


def _edges(timeline: Timeline, mine: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where a box begins among spans in order of action: with each action, and after a long wait inside one."""
    spans = timeline.spans
    if not len(mine):
        return np.zeros(0, dtype=np.int64)
    waits = spans.start[mine[1:]] - spans.end[mine[:-1]] > IDLE * timeline.makespan
    breaks = np.flatnonzero((np.diff(spans.action[mine]) != 0) | waits) + 1
    return np.concatenate([[0], breaks, [len(mine)]])


def _kind(phases: set[str]) -> str:
    """Kind of an action from the phases of its ops."""
    phases = phases - {"R"} or {"B"}
    if "F" in phases and len(phases) > 1:
        return "FB"
    return phases.pop() if len(phases) == 1 else "B"


def draw(ax: Axes, timeline: Timeline, window: Window | None = None, *, legend: bool = True) -> Axes:
    """Draw every rank class as a row, within ``window`` seconds. Returns ``ax``."""
    window = window or (0.0, timeline.makespan)
    rows = [boxes(timeline, number) for number in range(len(timeline.rank_classes))]
    for kind in KINDS:
        for odd in (0, 1):
            _draw_kind(ax, rows, (kind, odd), window)
    if len(rows) <= MOST_NAMES:
        _number(ax, rows, window)
    ax.set_xlim(*window)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    every = -(-len(rows) // MOST_NAMES)
    ticks = range(0, len(rows), every)
    ax.set_yticks(list(ticks), [timeline.rank_classes[row].name for row in ticks], fontsize=8)
    ax.tick_params(axis="y", length=2)
    label_time(ax, window)
    ax.spines[["top", "right"]].set_visible(False)
    if legend:
        _legend(ax, rows)
    return ax


def _number(ax: Axes, rows: list[Boxes], window: Window) -> None:
    """Numbers of microbatches, in boxes that are wide enough."""
    for row, one in enumerate(rows):
        wide = (one.end - one.start > WIDE * (window[1] - window[0])) & (one.start >= window[0])
        for i in np.flatnonzero(wide & (one.end <= window[1])).tolist():
            if one.kind[i] != "O":
                ink = "black" if one.kind[i] in LIGHT else "white"
                middle = (one.start[i] + one.end[i]) / 2
                ax.text(middle, row, str(one.microbatch[i]), fontsize=7, ha="center", va="center", color=ink)


def _draw_kind(ax: Axes, rows: list[Boxes], which: tuple[str, int], window: Window) -> None:
    """One collection for all boxes of a kind and parity of microbatch."""
    from matplotlib.collections import PolyCollection

    corners, length = [], window[1] - window[0]
    for row, one in enumerate(rows):
        mine = np.array([kind == which[0] for kind in one.kind], dtype=bool) & (one.microbatch % 2 == which[1])
        mine &= (one.end > window[0]) & (one.start < window[1])
        start, end = one.start[mine], one.end[mine]
        low, high = np.full(len(start), row - 0.42), np.full(len(start), row + 0.42)
        corners.append(np.stack([start, low, start, high, end, high, end, low], axis=1).reshape(-1, 4, 2))
    found = np.concatenate(corners)
    if not len(found):
        return
    typical = float(np.median(found[:, 2, 0] - found[:, 0, 0]))
    shade = KINDS[which[0]][which[1] if typical > PARITY * length else 0]
    drawn = PolyCollection(list(found), facecolors=shade, edgecolors=shade, linewidths=0.1)
    drawn.set_rasterized(len(found) > MANY)
    ax.add_collection(drawn, autolim=False)


def _legend(ax: Axes, rows: list[Boxes]) -> None:
    from matplotlib.patches import Patch

    there = {kind for one in rows for kind in one.kind}
    handles = [Patch(color=shade, label=words) for kind, (shade, _, words) in KINDS.items() if kind in there]
    handles.append(Patch(facecolor="white", edgecolor=colour("bubble"), label="waiting"))
    ax.legend(
        handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(handles), frameon=False, fontsize=8.5,
        handlelength=1.2,
    )  # fmt: skip


def beginning(timeline: Timeline, columns: float = 24.0) -> float:
    """End of a window that holds some two dozen forward boxes beyond the moment at which every row has begun."""
    rows = [boxes(timeline, number) for number in range(len(timeline.rank_classes))]
    begun = max((float(one.start[0]) for one in rows if len(one.start)), default=0.0)
    forward = [one.end - one.start for one in rows]
    typical = float(np.median(np.concatenate(forward))) if forward else 0.0
    return min(timeline.makespan, begun + columns * typical)
