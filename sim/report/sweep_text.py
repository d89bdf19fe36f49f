"""What ``stepline sweep`` prints and writes: table.csv, table.json. Formats; computes nothing."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from sim.report.text import BOUND
from sim.report.theme import CATEGORIES
from sim.study.sweep import Crossing, Sweep
from sim.units import format as quantity

_SHOWN = 60  # rows that are printed; the files have all


def show(console: Console, sweep: Sweep) -> None:
    """The table, and where what binds changes."""
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for knob in sweep.knobs:
        table.add_column(knob.key.rsplit(".", maxsplit=1)[-1], justify="right", overflow="fold")
    for name in ("step", "tokens/s per GPU", "memory", "bound by"):
        table.add_column(name, justify="left" if name == "bound by" else "right", overflow="fold")
    for row in sweep.rows[:_SHOWN]:
        table.add_row(*row["values"], *_cells(row))
    console.print(table)
    if len(sweep.rows) > _SHOWN:
        console.print(f"... and {len(sweep.rows) - _SHOWN} more rows in table.csv")
    for crossing in sweep.crossings:
        console.print(crossing_sentence(sweep, crossing))


def _cells(row: dict[str, Any]) -> Sequence[str]:
    if "step_time_s" not in row:
        return ("", "", "", f"{row['verdict']}: {row['why'].splitlines()[0]}")
    memory = quantity(row["peak_memory_bytes"], "bytes") + ("" if row["verdict"] == "fits" else " DOES NOT FIT")
    said = BOUND.get(row["binds"], row["binds"])
    share = row["bound_by"].get(row["binds"], 0.0)
    return (
        quantity(row["step_time_s"], "seconds"),
        f"{row['tokens_per_s_per_gpu']:,.1f}",
        memory,
        f"{said} ({share:.0%})",
    )


def crossing_sentence(sweep: Sweep, crossing: Crossing) -> str:
    """Where along a knob something else begins to bind."""
    others = [knob.key for knob in sweep.knobs if knob.key != crossing.knob]
    held = "".join(f", {key} = {value}" for key, value in zip(others, crossing.others, strict=True))
    low, high = crossing.between
    before, after = (BOUND.get(kind, kind) for kind in (crossing.before, crossing.after))
    return f"{crossing.knob} between {low} and {high}{held}: {before} binds before, {after} after"


def to_csv(sweep: Sweep) -> str:
    """One line a point: knobs, verdict, figures, seconds by category."""
    keys = [knob.key for knob in sweep.knobs]
    parts = [c for c in CATEGORIES if any(c in row.get("breakdown", {}) for row in sweep.rows)]
    figures = ["step_time_s", "tokens_per_s_per_gpu", "mfu", "peak_memory_bytes", "binds"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*keys, "verdict", *figures, *(f"{c}_s" for c in parts), "why"])
    for row in sweep.rows:
        seconds = [row.get("breakdown", {}).get(c, "" if "breakdown" not in row else 0.0) for c in parts]
        writer.writerow(
            [*row["values"], row["verdict"], *(row.get(f, "") for f in figures), *seconds, row.get("why", "")]
        )
    return text.getvalue()


def to_json(sweep: Sweep) -> str:
    """Indented JSON: knobs, rows, crossings."""
    data = {
        "scenario": sweep.scenario,
        "knobs": [{"key": knob.key, "values": list(knob.texts)} for knob in sweep.knobs],
        "rows": list(sweep.rows),
        "crossings": [msgspec.to_builtins(one) for one in sweep.crossings],
    }
    return msgspec.json.format(msgspec.json.encode(data), indent=2).decode()
