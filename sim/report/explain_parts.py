"""What ``stepline explain`` prints of one category, and of two runs. Formats; computes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from rich.console import Console

from sim.analysis.explanation import Delta, Detail, RunDifference
from sim.report.explain_text import SHOWN, waits_table, words
from sim.report.text import PLACES, plain_table
from sim.report.theme import label
from sim.units import format as quantity


def show_detail(console: Console, found: Detail) -> None:
    """One category: its ops, its stages, who waits for whom."""
    said = f"{label(found.category)}: {_s(found.seconds)}, {found.share:.1%} of the step"
    console.print(said if found.seconds > 0.0 else f"{said}: none of it is exposed")
    if len(found.by_stage) > 1:
        stages = ", ".join(f"{stage}: {_s(seconds)}" for stage, seconds in found.by_stage.items())
        console.print(f"by pipeline rank: {stages}", soft_wrap=True)
    table = plain_table("op", ("times", "ran", "alone", "waited", "bytes", "on path"), "bound by")
    for row in found.ops[: 2 * SHOWN]:
        table.add_row(
            row.name, f"{row.count:,.1f}", _s(row.seconds), _s(row.alone), _s(row.waited), quantity(row.bytes, "bytes"),
            _s(row.on_path), words(row.bound_by),
        )  # fmt: skip
    console.print(table)
    if len(found.ops) > 2 * SHOWN:
        console.print(f"and {len(found.ops) - 2 * SHOWN} more ops")
    if found.its_waits:
        console.print(waits_table(found.its_waits[:SHOWN], "it waited"))
    if found.waiting_for_it:
        console.print(waits_table(found.waiting_for_it[:SHOWN], "waited for it"))


def show_difference(console: Console, found: RunDifference) -> None:
    """Where the seconds went from one run to the other."""
    change = found.step.change / found.step.a if found.step.a > 0.0 else 0.0
    console.print(
        f"{found.a} -> {found.b}: step {_s(found.step.a)} -> {_s(found.step.b)} ({change:+z.1%})", soft_wrap=True
    )
    _deltas(console, "where the time goes", found.breakdown, label)
    _deltas(console, "critical path", found.path, words)
    _deltas(console, "a rank sends", found.sent, label, "bytes")
    _deltas(console, "memory at its peak", found.memory, lambda name: PLACES[name], "bytes")
    if found.keys:
        table = plain_table("key", (), found.a, found.b)
        for key, one, other in found.keys:
            table.add_row(key, one, other)
        console.print(table)


def _deltas(
    console: Console,
    title: str,
    rows: Sequence[Delta],
    name: Callable[[str], str],
    kind: Literal["seconds", "bytes"] = "seconds",
) -> None:
    table = plain_table(title, ("before", "after", "change"))
    said: dict[str, tuple[float, float]] = {}
    for row in rows:
        a, b = said.get(name(row.name), (0.0, 0.0))
        said[name(row.name)] = a + row.a, b + row.b
    for one, (a, b) in sorted(said.items(), key=lambda item: -abs(item[1][1] - item[1][0])):
        if a or b:
            same = abs(b - a) <= 1e-9 * max(abs(a), abs(b))
            change = "0" if same else f"{'-' if b < a else '+'}{quantity(abs(b - a), kind)}"
            table.add_row(one, quantity(a, kind), quantity(b, kind), change)
    if table.row_count:
        console.print(table)


def _s(seconds: float) -> str:
    return quantity(seconds, "seconds")
