"""A pipeline schedule on a terminal: what it is, its grid, and what its letters mean. Computes no metric.

The grid comes cut to the width that was asked for; where that left something out, a line says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sim.analysis.result import Order

if TYPE_CHECKING:
    from rich.console import Console


def show_schedule(console: Console, order: Order) -> None:
    """Print a schedule: a headline, the grid, and notes."""
    for line in (*_headline(order), order.grid.rstrip("\n"), *_notes(order)):
        console.print(line, soft_wrap=True)


def _headline(order: Order) -> tuple[str, ...]:
    sizes = f"{_count(order.ranks, 'pipeline rank')}, {_count(order.stages, 'stage')}"
    both = ", two copies of the parameters in opposite directions" if order.copies == 2 else ""
    said = f"{order.scenario}: schedule {order.name}, {sizes}, {_count(order.microbatches, 'microbatch', 'es')}{both}"
    return said, ""


def _notes(order: Order) -> list[str]:
    drawn = max(len(line) for line in order.grid.split("\n"))
    notes = [""]
    if drawn < order.width:
        cut = f"Cut: {drawn} of {order.width} characters of a line are shown."
        notes.append(f"{cut} --width N shows more, a pipe or a file all of it, --csv OUT keeps the order.")
    notes += [
        "2F0 is the forward of microbatch 0 on stage 2, B a whole backward, I and W its input and weight gradients,",
        "& two passes together; = goes on, . is idle. F, I and W of every stage are drawn as one unit and messages as",
        "free: the order, not the times, which stepline run finds.",
        f"Activations of a stage held at once, at most, by rank: {_few(order.held)}.",
    ]
    if order.dropped:
        notes.append(f"{order.dropped} cells for messages and parameters were left out; the simulator derives them.")
    return notes


def _few(held: Sequence[int]) -> str:
    """The numbers; of more than 16, the first and the last eight."""
    texts = [str(one) for one in held]
    return ", ".join(texts if len(texts) <= 16 else [*texts[:8], "...", *texts[-8:]])


def _count(number: int, what: str, plural: str = "s") -> str:
    return f"{number} {what}{'' if number == 1 else plural}"
