"""What ``stepline compare`` prints and writes: scenarios side by side, differences first. Formats; computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from sim.analysis.result import Result
from sim.report.result_json import largest, to_dict
from sim.report.text import BOUND
from sim.report.theme import CATEGORIES, label
from sim.study.compare import Comparison
from sim.units import format as quantity

_SHOWN = 40  # differing keys that are printed; JSON has all


def show(console: Console, comparison: Comparison) -> None:
    """Differences, figures, the breakdown by its largest difference, what every rank sends."""
    results = [step.result for step in comparison.steps]
    names = [result.scenario for result in results]
    console.print(_differences(comparison, names))
    more = len(comparison.differences) - _SHOWN
    if more > 0:
        console.print(f"... and {more} more keys differ; --json lists them all")
    console.print(_figures(results, names))
    console.print(_breakdown(results, names))
    if any(result.transfers for result in results):
        console.print(_sent(results, names))


def _differences(comparison: Comparison, names: Sequence[str]) -> Table:
    table = _table("what differs", names)
    for row in comparison.differences[:_SHOWN]:
        table.add_row(row.key, *(value or "-" for value in row.values))
    if not comparison.differences:
        table.add_row("nothing")
    return table


def _figures(results: Sequence[Result], names: Sequence[str]) -> Table:
    table = _table("the step", names)
    first = results[0]
    table.add_row("seconds", *(_beside(r.step_time, first.step_time, "seconds") for r in results))
    rates = [r.tokens_per_s_per_gpu for r in results]
    table.add_row("tokens/s per GPU", *(f"{rate:,.1f}{_change(rate, rates[0])}" for rate in rates))
    table.add_row("MFU", *(f"{r.mfu:.1%}" for r in results))
    peaks = [use.peak if (use := largest(r, "gpu")) else 0.0 for r in results]
    table.add_row("largest GPU memory", *(_beside(peak, peaks[0], "bytes") for peak in peaks))
    table.add_row("fits", *("yes" if r.fits else "NO" for r in results))
    binds = [next(iter(r.bound_by.items()), ("nothing", 0.0)) for r in results]
    table.add_row("bound by", *(f"{BOUND.get(kind, kind)} ({share:.0%})" for kind, share in binds))
    return table


def _breakdown(results: Sequence[Result], names: Sequence[str]) -> Table:
    """Categories by their largest difference between any two."""
    table = _table("where the time goes", names)

    def spread(category: str) -> float:
        seconds = [r.breakdown.get(category, 0.0) for r in results]
        return max(seconds) - min(seconds)

    present = [c for c in CATEGORIES if any(r.breakdown.get(c, 0.0) > 5e-4 * r.step_time for r in results)]
    for category in sorted(present, key=lambda c: -spread(c)):
        first = results[0].breakdown.get(category, 0.0)
        table.add_row(label(category), *(_beside(r.breakdown.get(category, 0.0), first, "seconds") for r in results))
    return table


def _sent(results: Sequence[Result], names: Sequence[str]) -> Table:
    table = _table("a rank sends", names)
    moved = [{use.category: use.bytes for use in r.transfers} for r in results]
    for category in [c for c in CATEGORIES if any(c in one for one in moved)]:
        sizes = [one.get(category, 0.0) for one in moved]
        table.add_row(label(category), *(_beside(size, sizes[0], "bytes") for size in sizes))
    return table


def _beside(value: float, first: float, kind: Any) -> str:  # noqa: ANN401 - a dimension of ``units``
    return (quantity(value, kind) if value else "0") + _change(value, first)


def _change(value: float, first: float) -> str:
    return f" ({value / first - 1:+z.1%})" if first and value and value != first else ""


def _table(title: str, names: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(title, overflow="fold")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    return table


def dumps(comparison: Comparison) -> str:
    """Indented JSON: every differing key, every result."""
    data = {
        "scenarios": [step.result.scenario for step in comparison.steps],
        "differences": [{"key": row.key, "values": list(row.values)} for row in comparison.differences],
        "results": [to_dict(step.result) for step in comparison.steps],
        "fits": comparison.fits,
    }
    return msgspec.json.format(msgspec.json.encode(data), indent=2).decode()
