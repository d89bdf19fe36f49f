"""What ``stepline check`` and ``stepline list`` print. Formats what it is given; works without a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from sim.analysis.result import Verdict, Weight
from sim.report.text import show_published
from sim.units import format as quantity

_PLACES = {"gpu": "GPU", "host": "host, per rank", "nvme": "drives, per rank"}


def show_verdict(console: Console, verdict: Verdict) -> None:
    """Sizes, exact beside the lecture's; memory by owner; whether it fits."""
    console.print(f"{verdict.scenario}: the scenario is valid")
    console.print(f"{verdict.params:,} parameters")
    table = Table("a layer", "exact", "lecture", "difference", box=box.SIMPLE, pad_edge=False)
    for name, exact, lecture in (
        ("parameters (12 H²)", verdict.layer_params, verdict.lecture_params),
        ("multiplications (2 L²H + 12 L H²)", verdict.layer_multiplications, verdict.lecture_multiplications),
    ):
        table.add_row(name, f"{exact:,}", f"{lecture:,}", f"{lecture / exact - 1:+.2%}")
    console.print(table)
    for weight in verdict.weights:
        _show_weight(console, weight)
    show_published(console, verdict.published)
    if verdict.assumed:
        console.print(
            "note: the stack has no sustained-speed number for this device; short-burst kernel speeds are used"
        )
    console.print(
        "fits" if verdict.fits else "does not fit: " + ", ".join(_over(w) for w in verdict.weights if not w.fits)
    )


def _show_weight(console: Console, weight: Weight) -> None:
    table = Table(f"memory, {_PLACES[weight.where]}", "at the peak", box=box.SIMPLE, pad_edge=False)
    for owner, size in weight.at_peak.items():
        table.add_row(owner, quantity(size, "bytes"))
    table.add_row("peak, walked in issue order", quantity(weight.peak, "bytes"))
    table.add_row("capacity", quantity(weight.capacity, "bytes"))
    console.print(table)


def _over(weight: Weight) -> str:
    owner = next(iter(weight.at_peak))
    over = quantity(weight.peak - weight.capacity, "bytes")
    return f"{_PLACES[weight.where]} memory is {over} short; most of it is {owner}"


def show_list(console: Console, rows: Sequence[tuple[str, str, str]]) -> None:
    """(name, what it is, facts) rows, one a line."""
    table = Table("name", "what it is", "in short", box=box.SIMPLE, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)
