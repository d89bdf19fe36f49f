"""The figure of a sweep: step time against the knobs, coloured by what binds. Draws; computes nothing."""

from __future__ import annotations

from itertools import pairwise
from math import log, sqrt
from typing import TYPE_CHECKING, Any

from sim.report.text import BOUND
from sim.study.knobs import Knob
from sim.study.sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINDING = {
    "sm": "#332288", "hbm": "#56B4E9", "dram": "#D55E00", "cores": "#663333", "pcie.h2d": "#EE8866",
    "pcie.d2h": "#EE99AA", "pcie.duplex": "#CC6677", "uplink.in": "#AA4499", "uplink.out": "#882255",
    "nvlink.tx": "#117733", "nvlink.rx": "#44AA99", "nic.tx": "#999933", "nic.rx": "#DDCC77", "socket_link": "#F0E442",
    "nvme.read": "#000000", "nvme.write": "#444444", "nvme.busy": "#222222", "host launch": "#777777",
    "latency": "#AAAAAA", "waiting for peers": "#DDDDDD",
}  # fmt: skip
"""What binds -> colour."""
REFUSED = "#FFFFFF"
MOST_KNOBS = 2


def sweep_figure(sweep: Sweep) -> Figure:
    """One knob: a line. Two: a line for each value of the second, beside a map of what binds."""
    from matplotlib.figure import Figure

    wide = len(sweep.knobs) == MOST_KNOBS
    figure = Figure(figsize=(11.5 if wide else 7.5, 4.8), layout="constrained")
    axes = figure.subplots(1, 2 if wide else 1, squeeze=False)[0]
    knob = sweep.knobs[0]
    seconds = sweep.knobs[1].texts if wide else ("",)
    ends = [_line(axes[0], sweep, knob, value) for value in seconds]
    _name(axes[0], [(end, value) for end, value in zip(ends, seconds, strict=True) if end and value])
    _axis(axes[0], knob)
    axes[0].set_ylabel("step time (s)")
    axes[0].set_ylim(bottom=0)
    axes[0].spines[["top", "right"]].set_visible(False)
    if wide:
        _map(axes[1], sweep)
    _legend(figure, sweep)
    figure.suptitle(sweep.scenario, x=0.01, ha="left", fontsize=10.5)
    return figure


def _line(ax: Axes, sweep: Sweep, knob: Knob, value: str) -> tuple[float, float] | None:
    """Step time along the first knob; each part has the colour of what binds there, crossings are marked. Its end."""
    order = sorted(range(len(knob.texts)), key=lambda i: knob.sizes[i])
    rows = [(knob.sizes[i], sweep.at([knob.texts[i], value] if value else [knob.texts[i]])) for i in order]
    there = [(x, row) for x, row in rows if "step_time_s" in row]
    held = (value,) if value else ()
    met = [c.size for c in sweep.crossings if c.knob == knob.key and c.others == held]
    for (x1, a), (x2, b) in pairwise(there):
        here = [size for size in met if x1 <= size <= x2]
        split = here[0] if here else (sqrt(x1 * x2) if knob.log else (x1 + x2) / 2)
        part = log(split / x1) / log(x2 / x1) if knob.log else (split - x1) / (x2 - x1)
        y = a["step_time_s"] + (b["step_time_s"] - a["step_time_s"]) * part
        ax.plot([x1, split], [a["step_time_s"], y], color=colour(a), lw=1.8)
        ax.plot([split, x2], [y, b["step_time_s"]], color=colour(b), lw=1.8)
        ax.plot([split] * len(here), [y] * len(here), marker="x", color="black", ms=7, zorder=3)
    for x, row in there:
        face = "white" if row["verdict"] != "fits" else None
        ax.plot([x], [row["step_time_s"]], "o", color=colour(row), mfc=face, ms=5)
    return (there[-1][0], there[-1][1]["step_time_s"]) if there else None


def _name(ax: Axes, ends: list[tuple[tuple[float, float], str]]) -> None:
    """The value of the second knob at the end of each line, no two names on top of each other."""
    apart, last = 0.035 * ax.get_ylim()[1], float("-inf")
    for (x, y), value in sorted(ends, key=lambda end: end[0][1]):
        at = max(y, last + apart)
        ax.annotate(
            value, (x, y), xytext=(6, _points_up(ax, at - y)), textcoords="offset points", fontsize=7.5, va="center"
        )
        last = at


def _map(ax: Axes, sweep: Sweep) -> None:
    """Cells of the grid by what binds, with the step time in each."""
    from matplotlib.patches import Rectangle

    first, second = sweep.knobs
    small = len(first.texts) * len(second.texts) > 100
    for i, a in enumerate(first.texts):
        for j, b in enumerate(second.texts):
            row = sweep.at([a, b])
            face = colour(row)
            ax.add_patch(Rectangle((i, j), 1, 1, facecolor=face, edgecolor="white"))
            if not small:
                said = f"{row['step_time_s']:.3g}" if "step_time_s" in row else row["verdict"]
                ax.text(i + 0.5, j + 0.5, said, ha="center", va="center", fontsize=7, color=_ink(face))
    ax.set_xlim(0, len(first.texts))
    ax.set_ylim(0, len(second.texts))
    ax.set_xticks([i + 0.5 for i in range(len(first.texts))], first.texts, rotation=45, ha="right", fontsize=7.5)
    ax.set_yticks([j + 0.5 for j in range(len(second.texts))], second.texts, fontsize=7.5)
    ax.set_xlabel(first.key)
    ax.set_ylabel(second.key)
    ax.set_title("what binds; step time in seconds", loc="left", fontsize=9)


def _axis(ax: Axes, knob: Knob) -> None:
    if knob.log:
        ax.set_xscale("log")
    ax.set_xticks(knob.sizes, knob.texts, rotation=45, ha="right", fontsize=7.5)
    ax.minorticks_off()
    ax.set_xlabel(knob.key)


def _legend(figure: Figure, sweep: Sweep) -> None:
    from matplotlib.lines import Line2D

    kinds = dict.fromkeys(row["binds"] for row in sweep.rows if "binds" in row)
    handles = [Line2D([], [], color=BINDING.get(kind, "#BBBBBB"), lw=4, label=BOUND.get(kind, kind)) for kind in kinds]
    if any(c.knob == sweep.knobs[0].key for c in sweep.crossings):
        handles.append(Line2D([], [], color="black", marker="x", ls="", label="something else begins to bind"))
    if any(row["verdict"] == "does not fit" for row in sweep.rows):
        handles.append(Line2D([], [], color="black", marker="o", mfc="white", ls="", label="does not fit in memory"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False)


def colour(row: dict[str, Any]) -> str:
    """Colour of what binds in a row; white where there is no step."""
    return BINDING.get(row["binds"], "#BBBBBB") if "binds" in row else REFUSED


def _ink(face: str) -> str:
    red, green, blue = (int(face[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return "black" if 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 > 0.25 else "white"


def _points_up(ax: Axes, difference: float) -> float:
    """Points on the page of a difference of step times."""
    return difference / ax.get_ylim()[1] * ax.get_position().height * 4.8 * 72
