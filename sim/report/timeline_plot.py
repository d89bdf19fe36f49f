"""The timeline of one rank class: streams as lanes, work by colour, phases marked above.

Owns how spans become bars. Knows nothing of what a category or a stream means beyond its words; computes no metric:
what can be told apart on the page is drawn where it happened, what cannot is drawn so that areas stay right.
"""

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
    "tp": "tensor parallel",
    "cp": "context parallel",
    "ep": "experts",
    "pp": "pipeline groups",
    "dp": "gradient collectives",
    "gather": "parameter gathers",
    "h2d": "host to GPU",
    "d2h": "GPU to host",
    "cpu": "CPU",
    "nvme": "NVMe",
    "host": "host thread",
}


def lane_label(stream: str) -> str:
    """Words for a stream; messages between pipeline stages are streams of their own, named pp.FROM>TO."""
    if stream.startswith("pp."):
        return f"stage {stream[3:].replace('>', ' to ')}"
    return LANES.get(stream, stream)


_PHASES = {"F": "forward", "B": "backward", "I": "backward", "W": "backward", "R": "backward", "O": "optimizer"}
PIXELS = 3000  # gaps below this fraction of the window cannot be seen and are closed
MOST_BARS = 1000  # more bars in a lane than this would be thinner than a pixel of a usual figure
MOST_PHASES = 12  # more brackets than this would be clutter
Seconds = NDArray[np.float64]
Intervals = tuple[Seconds, Seconds]
Runs = tuple[NDArray[np.int64], Seconds, Seconds]
Window = tuple[float, float]
Phase = tuple[str, float, float]


def draw(ax: Axes, timeline: Timeline, rank_class: int = 0, window: Window | None = None) -> Axes:
    """Draw the streams of a rank class that did anything, within ``window`` seconds. Returns ``ax``."""
    window = window or (0.0, timeline.makespan)
    bars = lane_bars(timeline, rank_class, window)
    lanes = [name for name in timeline.stream_names if any(lane == name for lane, _ in bars)]
    present = list(dict.fromkeys(category for _, category in bars))
    for category in [*(c for c in CATEGORIES if c in present), *(c for c in present if c not in CATEGORIES)]:
        _draw_category(ax, category, [(len(lanes) - 1 - i, bars.get((n, category))) for i, n in enumerate(lanes)])
    ax.set_yticks(range(len(lanes)), [lane_label(name) for name in reversed(lanes)])
    ax.set_ylim(-0.6, len(lanes) + 0.25)
    ax.set_xlim(*window)
    label_time(ax, window)
    _mark_phases(ax, phase_intervals(timeline, rank_class), window, len(lanes) - 0.4)
    _legend(ax, present)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return ax


def _draw_category(ax: Axes, category: str, rows: list[tuple[int, Intervals | None]]) -> None:
    """One collection for all bars of a category. A hairline of its own colour closes the seams between bars."""
    from matplotlib.collections import PolyCollection

    corners = []
    for row, found in rows:
        if found is not None:
            start, end = found
            low, high = np.full(len(start), row - 0.38), np.full(len(start), row + 0.38)
            corners.append(np.stack([start, low, start, high, end, high, end, low], axis=1).reshape(-1, 4, 2))
    shade = colour(category)
    bars = PolyCollection(
        list(np.concatenate(corners)), facecolors=shade, edgecolors=shade, linewidths=0.2, label=label(category)
    )
    ax.add_collection(bars, autolim=False)


def lane_bars(timeline: Timeline, rank_class: int, window: Window) -> dict[tuple[str, str], Intervals]:
    """(stream, category) -> bars: neighbours of one category that are closer than can be seen become one bar.

    Where categories take turns faster than can be drawn, each gets its share of the lane's pixels: bars of one lane
    never hide each other, and a category's bars are together as long as its spans, to within a pixel or so.
    """
    spans = timeline.spans
    rank = np.array([op.rank_class for op in timeline.ops], dtype=np.int64)[spans.op]
    stream = np.array([op.stream for op in timeline.ops], dtype=np.int64)[spans.op]
    names = list(dict.fromkeys(op.category for op in timeline.ops))
    kind = np.array([names.index(op.category) for op in timeline.ops], dtype=np.int64)[spans.op]
    seen = (rank == rank_class) & (spans.end > spans.start) & (spans.end > window[0]) & (spans.start < window[1])
    bars = {}
    for number, lane in enumerate(timeline.stream_names):
        mine = np.flatnonzero(seen & (stream == number))
        mine = mine[np.argsort(spans.start[mine], kind="stable")]
        runs = _merge(kind[mine], (spans.start[mine], spans.end[mine]), (window[1] - window[0]) / PIXELS)
        if len(runs[0]) > MOST_BARS:
            runs = _share_pixels(*runs, window)
        for index in np.unique(runs[0]).tolist():
            of = runs[0] == index
            bars[(lane, names[index])] = (runs[1][of], runs[2][of])
    return bars


def _merge(kind: NDArray[np.int64], when: Intervals, closest: float) -> Runs:
    """Runs of neighbours of one kind with gaps up to ``closest``; ``when`` is ordered and free of overlap."""
    start, end = when
    if not len(start):
        return kind, start, end
    breaks = np.flatnonzero((kind[1:] != kind[:-1]) | (start[1:] - end[:-1] > closest)) + 1
    first = np.concatenate([[0], breaks])
    return kind[first], start[first], end[np.concatenate([breaks - 1, [len(end) - 1]])]


def _share_pixels(kind: NDArray[np.int64], start: Seconds, end: Seconds, window: Window) -> Runs:
    """Give each of ``MOST_BARS`` cells to the kind that is furthest behind its share of time (error diffusion)."""
    edges = np.linspace(window[0], window[1], MOST_BARS + 1)
    kinds = np.unique(kind)
    busy = np.array([_busy(start[kind == k], end[kind == k], edges) for k in kinds])
    busy = np.vstack([busy, np.maximum(np.diff(edges) - busy.sum(axis=0), 0.0)])  # the last row: idle
    owed = np.zeros(len(busy))
    choice = np.full(MOST_BARS, -1, dtype=np.int64)
    for cell in range(MOST_BARS):
        owed += busy[:, cell]
        top = int(np.argmax(np.where(busy[:, cell] > 0.0, owed, -np.inf)))
        owed[top] -= edges[cell + 1] - edges[cell]
        choice[cell] = kinds[top] if top < len(kinds) else -1
    cells = np.flatnonzero(choice >= 0)
    return _merge(choice[cells], (edges[cells], edges[cells + 1]), 0.0)


def _busy(start: Seconds, end: Seconds, edges: Seconds) -> Seconds:
    """Seconds covered in each cell between ``edges`` by intervals that are in order and free of overlap."""
    points = np.stack([start, end], axis=1).ravel()
    lengths = np.stack([np.zeros(len(start)), end - start], axis=1).ravel()
    covered: Seconds = np.diff(np.interp(edges, points, np.cumsum(lengths)))
    return covered


def phase_intervals(timeline: Timeline, rank_class: int) -> list[Phase]:
    """(phase, start, end) of consecutive actions of the same phase."""
    spans = timeline.spans
    rank = np.array([op.rank_class for op in timeline.ops], dtype=np.int64)[spans.op]
    found: list[Phase] = []
    mine = np.flatnonzero(rank == rank_class)
    mine = mine[np.argsort(spans.action[mine], kind="stable")]
    for of in np.split(mine, np.flatnonzero(np.diff(spans.action[mine])) + 1) if len(mine) else []:
        phase = _PHASES[timeline.ops[int(spans.op[of[0]])].phase]
        start, end = float(spans.start[of].min()), float(spans.end[of].max())
        if found and found[-1][0] == phase:
            found[-1] = (phase, found[-1][1], max(end, found[-1][2]))
        else:
            found.append((phase, max(start, found[-1][2]) if found else start, end))
    return found


def brackets(phases: list[Phase]) -> list[Phase]:
    """Phases as they are marked: one by one, or where microbatches are many, what alternates as one."""
    if len(phases) <= MOST_PHASES:
        return phases
    found: list[Phase] = []
    for name, start, end in phases:
        both = name if name == "optimizer" else "forward and backward, in turn"
        if found and found[-1][0] == both:
            found[-1] = (both, found[-1][1], end)
        else:
            found.append((both, start, end))
    return found


def _mark_phases(ax: Axes, phases: list[Phase], window: Window, height: float) -> None:
    length = window[1] - window[0]
    labelled: list[float] = []
    shown = [(n, max(s, window[0]), min(e, window[1])) for n, s, e in brackets(phases)]
    for name, start, end in sorted((row for row in shown if row[2] > row[1]), key=lambda row: row[1] - row[2]):
        inset = min(0.001 * length, 0.25 * (end - start))
        left, right, low = start + inset, end - inset, height - 0.09
        ax.plot([left, left, right, right], [low, height, height, low], color="black", linewidth=0.9)
        middle = (start + end) / 2
        if any(abs(middle - other) < 0.1 * length for other in labelled):
            continue  # no room beside the label of a longer phase
        labelled.append(middle)
        at, side = middle, "center"
        if middle > window[1] - 0.04 * length:  # it would run off the page
            at, side = end, "right"
        elif middle < window[0] + 0.04 * length:
            at, side = start, "left"
        ax.annotate(name, (at, height), xytext=(0, 3), textcoords="offset points", ha=side, fontsize=9)


def label_time(ax: Axes, window: Window) -> str:
    """Label the ticks of an axis in seconds with the unit that suits the window. Returns the unit."""
    from matplotlib.ticker import FuncFormatter

    longest = max(abs(window[0]), abs(window[1]))
    unit, scale = ("s", 1.0) if longest >= 1.0 else ("ms", 1e3) if longest >= 1e-3 else ("µs", 1e6)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{round(seconds * scale, 9):g}"))
    ax.set_xlabel(f"time in the step ({unit})")
    return unit


def _legend(ax: Axes, present: list[str]) -> None:
    handles = list(ax.collections)
    rows = -(-len(present) // 6) or 1
    ax.legend(
        handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=-(-len(present) // rows) or 1,
        frameon=False, fontsize=9, handlelength=1.2, columnspacing=1.4, borderaxespad=0.3,
    )  # fmt: skip
