"""What ``stepline topology show`` prints and draws of a machine. Formats; computes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from sim.cluster.show import NodeView, Shared
from sim.units import format as quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROWS = {"dram": 4.0, "socket": 3.2, "nvme": 3.2, "switch": 2.2, "gpu": 1.0}
"""Kind of place -> its height on the page; memories of GPUs are drawn in them."""
_NARROW = 8  # GPUs of a node beyond which columns close up, to fit eighty letters
_FEW = 8  # lines of one kind
_MOST = 16  # GPUs of a node whose matrix fits eighty letters; of more that are all alike, one line says it
_COLOURS = {
    "dram": "#D55E00", "socket": "#663333", "switch": "#AA4499", "gpu": "#332288", "nvlink": "#117733",
    "network": "#999933", "nvme": "#000000",
}  # fmt: skip


def show(console: Console, views: Sequence[NodeView]) -> None:
    """For each kind of node: the matrix of lone copies, each GPU's other ways, what several GPUs share."""
    for view in views:
        console.print(f"{view.name}: {view.count} node(s) of {len(view.pair)} x {view.device}; GB/s of a lone transfer")
        alike = len(view.pair) > _MOST and _alike(view)
        console.print(alike or _matrix(view), soft_wrap=True)
        for line in _shared(view):
            console.print(line)


def _shared(view: NodeView) -> Iterator[str]:
    """A line each, or one for more than a few of a kind that as many GPUs share."""
    kinds: dict[tuple[str, float, str, int], list[Shared]] = {}
    for one in view.shared:
        kind = re.sub(r"\d+", "*", one.resource)
        kinds.setdefault((kind, one.rate, one.what, len(one.gpus)), []).append(one)
    for (kind, speed, what, gpus), of in kinds.items():
        rate = quantity(speed, "bytes_per_s")
        if len(of) > _FEW:
            yield f"shared: {len(of)} x {kind}, {rate}, by {gpus} GPUs each ({what})"
        else:
            yield from (f"shared: {one.resource}, {rate}, by GPUs {_ranges(one.gpus)} ({what})" for one in of)


def _alike(view: NodeView) -> str:
    """One line for all GPUs of a node, empty where they differ."""
    pairs = [rate for i, row in enumerate(view.pair) for j, rate in enumerate(row) if i != j]
    ways = (pairs, view.to_host, view.to_gpu, view.network)
    if any(len(set(rates)) != 1 for rates in ways):
        return ""
    gpu, there, back, out = (_gb(rates[0]) for rates in ways)
    return f"every GPU: {gpu} to every other, {there} to the host and {back} from it, {out} to the network"


def _matrix(view: NodeView) -> str:
    """Rates as plain columns: sixteen GPUs fit into eighty letters."""
    wide = 4 if len(view.pair) > _NARROW else 7
    names = [str(j) for j in range(len(view.pair))]

    def line(first: str, cells: Sequence[str], last: Sequence[str]) -> str:
        return f"{first:>4}" + "".join(f"{cell:>{wide}}" for cell in cells) + "".join(f"{cell:>6}" for cell in last)

    rows = [line("GPU", names, ("host", "net"))]
    for i, row in enumerate(view.pair):
        rows.append(line(names[i], [_gb(rate) for rate in row], (_gb(view.to_host[i]), _gb(view.network[i]))))
    rows.append(line("host", [_gb(rate) for rate in view.to_gpu], ()))
    return "\n".join(rows)


def _gb(rate: float) -> str:
    return f"{rate / 1e9:.3g}" if rate else "-"


def _ranges(numbers: Sequence[int]) -> str:
    """0, 1, 2, 5 as 0-2, 5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def topology_figure(view: NodeView) -> Figure:
    """One node: sockets and memory above, GPUs below them, links with their rates."""
    from matplotlib.figure import Figure

    wide = 1.15 if len(view.pair) <= _NARROW else 0.8  # inches a GPU
    figure = Figure(figsize=(max(7.0, wide * len(view.pair) + 2.0), 5.6), layout="constrained")
    draw(figure.subplots(), view)
    return figure


def draw(ax: Axes, view: NodeView) -> Axes:
    """Draw a node's places and links. Returns ``ax``."""
    at = _positions(view)
    named: dict[tuple[str, str], None] = {}
    _bars(ax, view)
    for link in view.links:
        pair = (min(link.a, link.b), max(link.a, link.b))
        if link.a not in at or link.b not in at or pair in named:
            continue
        named[pair] = None
        (x1, y1), (x2, y2) = at[link.a], at[link.b]
        if _kind(link.a) == _kind(link.b) == "gpu":
            _arc(ax, (x1, y1), (x2, y2))
            continue
        ax.plot([x1, x2], [y1, y2], color="#BBBBBB", lw=1.2, zorder=1)
        said = f"{_gb(link.rate)}"
        ax.text((x1 + x2) / 2, (y1 + y2) / 2, said, fontsize=7.5, ha="center", va="center", color="#444444",
                bbox={"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none"}, zorder=2)  # fmt: skip
    for place, (x, y) in at.items():
        face = _COLOURS[_kind(place)]
        ax.text(x, y, place, fontsize=8, ha="center", va="center", color="white", zorder=3,
                bbox={"boxstyle": "round,pad=0.35", "fc": face, "ec": "none"})  # fmt: skip
    xs, ys = [x for x, _ in at.values()], [y for _, y in at.values()]
    ax.set_xlim(min(xs) - 0.7, max(xs) + 0.7)
    ax.set_ylim(min(ys) - 2.0, max(ys) + 0.4)
    ax.set_axis_off()
    ax.set_title(f"{view.name}: one node, links in GB/s one way", loc="left", fontsize=10)
    return ax


def _arc(ax: Axes, a: tuple[float, float], b: tuple[float, float]) -> None:
    """A link between two GPUs, below their row; all pairs have the same, whose rate the matrix says."""
    style = {"arrowstyle": "-", "color": _COLOURS["nvlink"], "lw": 0.8, "alpha": 0.7}
    low, high = sorted((a, b))
    ax.annotate("", high, low, arrowprops={**style, "connectionstyle": "arc3,rad=0.35"}, zorder=1)


def _bars(ax: Axes, view: NodeView) -> None:
    """NVLink and the network as bars under the GPUs, for they join them all."""
    ways: dict[str, dict[str, float]] = {"nvlink": {}, "network": {}}
    for link in view.links:
        for bar, rates in ways.items():
            if link.b in (bar, f"{bar}.out") and link.a.startswith("gpu"):
                rates[link.a] = link.rate
    depth = _ROWS["gpu"]
    for bar, rates in ways.items():
        if not rates:
            continue
        depth -= 0.75
        ax.plot(
            [-0.4, len(view.pair) - 0.6], [depth, depth], color=_COLOURS[bar], lw=13, solid_capstyle="butt", zorder=2
        )
        ax.text(-0.35, depth, bar, fontsize=8.5, va="center_baseline", color="white", zorder=3)
        for gpu, rate in rates.items():
            x = float(gpu.removeprefix("gpu")) + (0.12 if bar == "network" else -0.12)
            ax.plot([x, x], [_ROWS["gpu"], depth], color=_COLOURS[bar], lw=1, alpha=0.6, zorder=1)
            ax.text(x, depth + 0.28, _gb(rate), fontsize=7.5, ha="center", va="center", color="#444444",
                    bbox={"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none"}, zorder=2)  # fmt: skip


def _kind(place: str) -> str:
    return place.split(".", maxsplit=1)[0].rstrip("0123456789")


def _positions(view: NodeView) -> dict[str, tuple[float, float]]:
    """GPUs side by side; what hangs above or below stands over the middle of its GPUs."""
    places = list(dict.fromkeys(end for link in view.links for end in (link.a, link.b)))
    at = {f"gpu{g}": (float(g), _ROWS["gpu"]) for g in range(len(view.pair))}
    joined: dict[str, list[str]] = {}
    for link in view.links:
        joined.setdefault(link.a, []).append(link.b)
        joined.setdefault(link.b, []).append(link.a)
    for kind in ("switch", "socket", "dram", "nvme"):
        for place in [p for p in places if _kind(p) == kind]:
            below = [at[p][0] for p in joined[place] if p in at and at[p][1] != _ROWS[kind]]
            x = sum(below) / len(below) if below else 0.0
            at[place] = (x - (1.5 if kind == "nvme" else 0.0), _ROWS[kind])
    return at
