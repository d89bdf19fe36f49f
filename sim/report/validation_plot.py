"""Simulated against published step times, and what is left against the obvious suspects. Draws; computes nothing.

A point is a mapping: ``file``, ``measured`` and ``simulated`` (s), and the suspects of ``SUSPECTS`` where the row says.
Errors beyond ``EDGE`` are drawn at the edge, as triangles, so that few of them do not flatten all others; points at one
place are spread a little, each by the same amount in every panel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

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
EDGE = 0.5
"""Error at which panels of errors end."""
FEWEST = 8
"""Points at one value of a suspect that get a box."""

_GOLDEN = 0.6180339887498949
_SPREAD = 0.45
"""Over how much a table's row, or octaves of a suspect, points are spread."""


def figure_of(points: Sequence[Point]) -> Figure:
    """A page: errors by table on the left, simulated against published times, the error against each suspect."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16.0, 8.6), layout="constrained")
    cells = figure.subplot_mosaic([["tables", "scatter", "hidden", "micro_batch"], ["tables", "gpus", "tp", "pp"]])
    files = list(dict.fromkeys(str(point["file"]) for point in points))
    tables(cells["tables"], points, files)
    scatter(cells["scatter"], points, files)
    for key, label in SUSPECTS.items():
        residuals(cells[key], points, files, key, label)
    said = f"boxes: quartiles, with nine tenths of the points inside the whiskers; triangles: beyond {EDGE:.0%}"
    figure.supxlabel(said, fontsize=9, color="#555555")
    return figure


def tables(ax: Axes, points: Sequence[Point], files: Sequence[str]) -> Axes:
    """Errors of each table in a row of its own, whose colour and mark are those of the other panels."""
    ax.axvspan(-BAND, BAND, color="#DDDDDD", lw=0)
    ax.axvline(0, color="#555555", lw=1)
    for number, name in enumerate(files):
        errors = [_error(point) for point in points if point["file"] == name]
        rows = [number + offset for offset in _offsets(len(errors))]
        _dots(ax, errors, rows, number, name=name, across=True)
        ax.boxplot([_inside(errors)], positions=[number], widths=0.6, orientation="horizontal", **_BOX)
    ax.set_xlim(-EDGE * 1.06, EDGE * 1.06)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:+.0%}")
    ax.set_yticks(range(len(files)), [name.removesuffix(".csv") for name in files])
    ax.set_ylim(len(files) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    for number, text in enumerate(ax.get_yticklabels()):
        text.set_color(_colour(number))
    ax.set_xlabel("error of the step time")
    return ax


def scatter(ax: Axes, points: Sequence[Point], files: Sequence[str]) -> Axes:
    """Simulated against measured seconds, both logarithmic, with the diagonal and a band around it."""
    times = [float(point[key]) for point in points for key in ("measured", "simulated")]
    ends = [min(times, default=0.1) / 1.3, max(times, default=1.0) * 1.3]
    ax.plot(ends, ends, "-", color="#555555", lw=1)
    ax.fill_between(ends, [x * (1 - BAND) for x in ends], [x * (1 + BAND) for x in ends], color="#DDDDDD", lw=0)
    for number, name in enumerate(files):
        mine = [point for point in points if point["file"] == name]
        x, y = ([float(point[key]) for point in mine] for key in ("measured", "simulated"))
        ax.plot(x, y, _mark(number), color=_colour(number), ms=3.5, alpha=0.6, label=name, mew=0)
    ax.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_xlabel("published step time (s)")
    ax.set_ylabel("simulated step time (s)")
    return ax


def residuals(ax: Axes, points: Sequence[Point], files: Sequence[str], key: str, label: str) -> Axes:
    """Errors of the points that have ``key``, against it; a box where many share its value."""
    ax.axhspan(-BAND, BAND, color="#DDDDDD", lw=0)
    ax.axhline(0, color="#555555", lw=1)
    for number, name in enumerate(files):
        mine = [point for point in points if point["file"] == name and key in point]
        spread = _offsets(len(mine))
        x = [float(point[key]) * 2 ** (0.5 * offset) for point, offset in zip(mine, spread, strict=True)]
        _dots(ax, x, [_error(point) for point in mine], number, name=name, across=False)
    ax.set_xscale("log", base=2)
    _boxes(ax, [point for point in points if key in point], key)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_ylim(-EDGE * 1.06, EDGE * 1.06)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:+.0%}")
    ax.set_xlabel(label)
    ax.set_ylabel("error of the step time")
    return ax


_BOX: dict[str, Any] = {
    "showfliers": False, "whis": (5, 95), "manage_ticks": False, "medianprops": {"color": "#000000", "lw": 1.6},
    "boxprops": {"lw": 0.9}, "whiskerprops": {"lw": 0.9}, "capprops": {"lw": 0.9},
}  # fmt: skip


def _boxes(ax: Axes, points: Sequence[Point], key: str) -> None:
    for value in sorted({float(point[key]) for point in points}):
        errors = [_error(point) for point in points if point[key] == value]
        if len(errors) >= FEWEST:
            ax.boxplot([_inside(errors)], positions=[value], widths=value * 0.17, **_BOX)


def _dots(ax: Axes, x: Sequence[float], y: Sequence[float], number: int, *, name: str, across: bool) -> None:
    """Points of a table; those whose error (``x`` if ``across``, else ``y``) is beyond the edge, as triangles at it."""
    for low, high, mark in (
        (-EDGE, EDGE, _mark(number)),
        (EDGE, 1e9, ">" if across else "^"),
        (-1.0, -EDGE, "<" if across else "v"),
    ):
        pairs = [(a, b) for a, b in zip(x, y, strict=True) if low <= (a if across else b) < high]
        edge = [(_clipped(a), b) if across else (a, _clipped(b)) for a, b in pairs]
        if edge:
            ax.plot(
                *zip(*edge, strict=True),
                mark,
                color=_colour(number),
                ms=4 if high == EDGE else 5,
                alpha=0.5,
                mew=0,
                label=name,
            )


def _error(point: Point) -> float:
    return float(point["simulated"]) / float(point["measured"]) - 1.0


def _clipped(error: float) -> float:
    return min(max(error, -EDGE), EDGE)


def _inside(errors: Sequence[float]) -> list[float]:
    return [_clipped(error) for error in errors]


def _offsets(count: int) -> list[float]:
    """Small steps to either side, the same every time; none for one."""
    return [0.0] if count == 1 else [((i * _GOLDEN) % 1.0 - 0.5) * _SPREAD for i in range(count)]


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _mark(number: int) -> str:
    return MARKS[(number + number // len(COLOURS)) % len(MARKS)]
