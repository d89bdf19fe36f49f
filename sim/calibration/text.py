"""What a calibration found, as text. Computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from sim import units
from sim.calibration import gemm, steps
from sim.calibration.collectives import Calibration, Row, error, written
from sim.calibration.override import percent

if TYPE_CHECKING:
    from rich.console import Console


def show_collectives(console: Console, found: Calibration) -> None:
    """Residuals by collective and size, errors by run, then the parameters."""
    from rich.table import Table

    table = Table(title=f"time of each size: measured, error of {found.cluster}, of the fit", title_justify="left")
    for column in ("collective", "GPUs", "size", "measured", "before", "fitted", "unseen"):
        table.add_column(column, justify="left" if column == "collective" else "right")
    for row in found.rows:
        errors = [percent(getattr(row, which) / row.measured - 1, sign=True) for which in ("before", "after", "unseen")]
        size, seconds = units.format(row.size, "bytes"), units.format(row.measured, "seconds")
        table.add_row(row.kind, str(row.ranks), size, seconds, *errors)
    console.print(table)
    _show_runs(console, found.rows)
    for name, (before, after, spread) in found.parameters.items():
        key = name.partition(".")[2]
        what = f"{name}: {written(key, after)} (standard error {percent(spread)}; was {written(key, before)})"
        console.print(what, soft_wrap=True)
    if found.held:
        console.print(f"not decided by these logs, kept as they were: {', '.join(found.held)}", soft_wrap=True)


def _show_runs(console: Console, rows: Sequence[Row]) -> None:
    """Mean absolute errors; unseen: of sizes that a fit to the others never saw."""
    runs = [(key, list(run)) for key, run in groupby(rows, key=lambda row: (row.file, row.kind, row.ranks))]
    for (file, kind, ranks), run in [*runs, *([(("", "", 0), list(rows))] if len(runs) > 1 else [])]:
        for large in (True, False):
            shares = [error(run, which, large=large) for which in ("before", "after", "unseen")]
            if shares[0] is not None:
                sizes = "from 1 MiB on" if large else "below 1 MiB"
                said = f"{file}: {kind} on {ranks} GPUs" if kind else "all"
                before, after, unseen = map(percent, shares)
                console.print(
                    f"{said}, {sizes}: mean error {before} before, {after} fitted, {unseen} cross-validated",
                    soft_wrap=True,
                )


_MOST = 40
"""Rows that are all shown; of a longer table the worst are."""


def show_gemm(console: Console, table: gemm.Table, device: str) -> None:
    """Residuals of a type's products (the worst ones of many), errors by size, the parameters."""
    from rich.table import Table

    count = len(table.products)
    rows = list(range(count)) if count <= _MOST else sorted(gemm.worst(table, _MOST // 4))
    which = "" if count <= _MOST else f"the {len(rows)} worst of {count} rows, "
    shown = Table(title=f"{table.dtype}: {which}measured, error of {device}, of the fit", title_justify="left")
    for column in ("m", "n", "k", "measured", "before", "fitted", "unseen"):
        shown.add_column(column, justify="right")
    for i in rows:
        p, seconds = table.products[i], float(table.measured[i])
        errors = [float(column[i]) / seconds - 1 for column in (table.before, table.after, table.unseen)]
        said = [percent(share, sign=True) for share in errors]
        shown.add_row(str(p.m), str(p.n), str(p.k), units.format(seconds, "seconds"), *said)
    console.print(shown)
    for name, part in gemm.by_size(table).items():
        before, after, unseen = (percent(share) for share in part[1:])
        what = f"mean error {before} before, {after} fitted, {unseen} cross-validated"
        console.print(f"{table.dtype}, {name}, {part[0]} rows: {what}", soft_wrap=True)
    for key, (was, value, spread) in table.parameters.items():
        sure = f"(standard error {percent(spread)}; was {gemm.written(key, was)})"
        console.print(f"gemm.{table.dtype}.{key}: {gemm.written(key, value)} {sure}", soft_wrap=True)
    if table.held:
        console.print(f"not decided by these timings, kept as they were: {', '.join(table.held)}", soft_wrap=True)
    if table.unaligned:
        what = f"{table.unaligned} rows left out: a size off the alignment runs at unaligned_flops_per_s"
        console.print(what, soft_wrap=True)


def show_steps(console: Console, found: steps.Fitted) -> None:
    """Residuals of the steps (the worst ones of many), their errors, each fitted number and how far it spreads."""
    from rich.table import Table

    columns = list(zip(found.rows, found.before.tolist(), found.after.tolist(), found.unseen.tolist(), strict=True))
    if len(columns) > _MOST:
        columns = sorted(columns, key=lambda row: -abs(row[2] / row[0].measured - 1))[: _MOST // 4]
    which = "" if len(columns) == len(found.rows) else f"the {len(columns)} worst of {len(found.rows)} steps, "
    title = f"{found.name}: {which}measured, error as shipped, of the fit"
    table = Table(title=title, title_justify="left")
    for column in ("step", "measured", "before", "fitted", "unseen"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for row, *seconds in columns:
        errors = [percent(simulated / row.measured - 1, sign=True) for simulated in seconds]
        table.add_row(row.id[:40], units.format(row.measured, "seconds"), *errors)
    console.print(table)
    before, after, unseen = (
        f"{percent(found.mean_error(which))} (bias {percent(found.bias(which), sign=True)})"
        for which in ("before", "after", "unseen")
    )
    where = f"{found.name}, {len(found.rows)} steps"
    console.print(f"{where}: mean error {before} before, {after} fitted, {unseen} cross-validated", soft_wrap=True)
    for number in found.numbers:
        _show_number(console, number, found)
    if found.held:
        console.print(f"not decided by these steps, kept as they were: {', '.join(found.held)}", soft_wrap=True)


def _show_number(console: Console, number: steps.Number, found: steps.Fitted) -> None:
    axis, alone = number.axis, len(found.rows) < 2
    low, high, value = (axis.text(each, 4) for each in (number.low, number.high, number.value))
    was = ", ".join("nothing" if each is None else axis.text(each, 4) for each in number.was)
    sure = "of one step" if alone else f"standard error {percent(number.error)}"
    spread = "" if alone else f"; {low} to {high} with one fold of {found.groups} left out"
    console.print(f"{axis.key}: {value} ({sure}{spread}; was {was})", soft_wrap=True)
    if number.at_limit:
        limit = "what clocks and power explain" if ".sustained." in axis.key else "what was asked for"
        what = f"that is the limit of {limit}: look for what else differs (stack, network, batch)"
        console.print(what, soft_wrap=True)
