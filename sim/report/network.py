"""What ``stepline topology show`` prints and draws of what lies between nodes. Formats; computes no rate."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING

from rich.console import Console

from sim.cluster.show_network import NetworkView
from sim.units import format as quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SPINE, _LEAF, _NODE = "#663333", "#AA4499", "#332288"
_LINE = "#BBBBBB"
_LEAVES, _NODES = 8, 4  # at most so many are drawn
_SIDE = 8  # coordinates of a dimension that are drawn


def show(console: Console, view: NetworkView) -> None:
    """How nodes are joined, and lone messages with what they cross."""
    console.print(f"between its {view.nodes:,} nodes: {_said(view)}")
    for way in view.ways:
        said = f"  to {way.where}: {_rate(way.rate)} alone"
        if way.together:
            said += f", {_rate(way.together)} when all below those uplinks send"
        console.print(f"{said}; crosses {', '.join(way.crosses)}", soft_wrap=True)


def _rate(rate: float) -> str:
    return quantity(rate, "bytes_per_s")


def _said(view: NetworkView) -> str:
    if view.dimensions:
        kinds = " x ".join(f"{d.kind} of {d.size} ({_rate(d.rate)})" for d in view.dimensions)
        return f"a grid, {kinds} a link one way, each GPU's own"
    if not view.leaves:
        return "switches that do not block"
    one = view.leaves[0]
    rails = f", each of {view.rails} rails with switches of its own" if view.rails > 1 else ""
    sums = "; switches add" if view.reduction else ""
    ratio = f"{one.below / one.up:.3g}:1" if one.up else "none"
    core = f"; pods of {view.pod} leaves, each {_rate(view.core)} to the core" if view.pod else ""
    return (
        f"{len(view.leaves)} leaves of {one.last - one.first + 1}{rails}; below each {_rate(one.below)}, "
        f"uplinks {_rate(one.up)} ({ratio}){core}{sums}"
    )


def network_figure(view: NetworkView) -> Figure | None:
    """Leaves under a spine, or a grid; None where switches do not block: there is nothing to see."""
    if not view.leaves and not view.dimensions:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 6.4 if view.dimensions else 4.2), layout="constrained")
    ax = figure.subplots()
    (draw_grid if view.dimensions else draw_leaves)(ax, view)
    ax.set_axis_off()
    ax.set_title(f"{view.name}: {view.nodes:,} nodes, {_said(view)}", loc="left", fontsize=9, wrap=True)
    return figure


def draw_leaves(ax: Axes, view: NetworkView) -> Axes:
    """A spine, leaves with the rate of their uplinks, the first nodes of each. Returns ``ax``."""
    leaves = view.leaves[:_LEAVES]
    middle = (len(leaves) - 1) / 2
    for x, leaf in enumerate(leaves):
        ax.plot([middle, x], [3.0, 2.0], color=_LINE, lw=1.5, zorder=1)
        ax.text((middle + x) / 2, 2.5, _rate(leaf.up), fontsize=6.5, ha="center", va="center", zorder=2,
                bbox={"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none"})  # fmt: skip
        _box(ax, float(x), 2.0, f"leaf {x}" + (f" x {view.rails} rails" if view.rails > 1 else ""), _LEAF)
        _nodes(ax, float(x), 2.0, leaf.first, leaf.last)
    _box(ax, middle, 3.0, "core and spines of pods" if view.pod else "spine", _SPINE)
    if len(view.leaves) > _LEAVES:
        ax.text(_LEAVES - 0.35, 2.0, f"+ {len(view.leaves) - _LEAVES}", fontsize=9, va="center")
    ax.set_xlim(-0.7, len(leaves) - 0.1)
    ax.set_ylim(0.6, 3.2)
    return ax


def _nodes(ax: Axes, x: float, above: float, first: int, last: int) -> None:
    count = min(last - first + 1, _NODES)
    for i in range(count):
        at = x + (i - (count - 1) / 2) * 0.22
        ax.plot([x, at], [above, 1.2], color=_LINE, lw=1, zorder=1)
        ax.text(at, 1.2, f"n{first + i}", fontsize=6, ha="center", va="center", color="white", zorder=3, rotation=90,
                bbox={"boxstyle": "round,pad=0.25", "fc": _NODE, "ec": "none"})  # fmt: skip
    if last - first + 1 > count:
        ax.text(x, 0.75, f"... n{last}", fontsize=6.5, ha="center", va="center")


def _box(ax: Axes, x: float, y: float, text: str, colour: str) -> None:
    ax.text(x, y, text, fontsize=8, ha="center", va="center", color="white", zorder=3,
            bbox={"boxstyle": "round,pad=0.35", "fc": colour, "ec": "none"})  # fmt: skip


def draw_grid(ax: Axes, view: NetworkView) -> Axes:
    """Nodes of the first three dimensions at their crossings, the third one aslant; rings close by dashed arcs.

    Returns ``ax``.
    """
    sizes = [min(d.size, _SIDE) for d in view.dimensions[:3]]
    strides = [prod(d.size for d in view.dimensions[:i]) for i in range(len(sizes))]
    at = {place: _oblique(place) for place in product(*(range(size) for size in sizes))}
    for place, (x, y) in at.items():
        for d, size in enumerate(sizes):
            after = (*place[:d], (place[d] + 1) % size, *place[d + 1 :])
            wraps = place[d] + 1 == size
            if wraps and (size < 3 or view.dimensions[d].kind != "ring" or view.dimensions[d].size > size):
                continue
            to = at[after]
            bend = f"arc3,rad={0.18 if wraps else 0}"
            style = {"arrowstyle": "-", "color": _LINE, "lw": 0.9, "connectionstyle": bend}
            ax.annotate("", to, (x, y), arrowprops={**style, "ls": "--" if wraps else "-"}, zorder=1)
        number = sum(c * stride for c, stride in zip(place, strides, strict=True))
        ax.text(x, y, str(number), fontsize=6, ha="center", va="center", color="white", zorder=3,
                bbox={"boxstyle": "circle,pad=0.2", "fc": _NODE, "ec": "none"})  # fmt: skip
    xs, ys = [x for x, _ in at.values()], [y for _, y in at.values()]
    ax.set_xlim(min(xs) - 0.9, max(xs) + 0.9)
    ax.set_ylim(min(ys) - 0.9, max(ys) + 0.9)
    return ax


def _oblique(place: tuple[int, ...]) -> tuple[float, float]:
    x, y, z = (*place, 0, 0)[:3]
    return x + 0.38 * z, y + 0.3 * z
