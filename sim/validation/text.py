"""The error table as text. Computes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.validation.ratios import DIFFER

if TYPE_CHECKING:
    from rich.console import Console


def show(console: Console, scored: dict[str, Any]) -> None:
    """Print the table of files, then why rows were refused and which are worst."""
    from rich.table import Table

    table = Table(title="simulated against published step times", title_justify="left")
    for column in ("file", "rows", "refused", "MAPE", "median", "p90", "bias", "no fit", "memory MAPE", "bias"):
        table.add_column(column, justify="left" if column == "file" else "right")
    for row in scored["files"]:
        kept = row["memory"]
        table.add_row(
            row["file"], str(row["rows"]), str(row["refused"]),
            *(percent(row[key]) for key in ("mape", "median", "p90")), percent(row["bias"], sign=True),
            str(row["oom"]), percent(kept["mape"]), percent(kept["bias"], sign=True),
        )  # fmt: skip
    console.print(table)
    for row in scored["files"]:
        for reason, count in row["reasons"].items():
            console.print(f"{row['file']}: {count} refused: {reason}", markup=False, soft_wrap=True)
        for bad in row["worst"][:3]:
            what = f"{bad['simulated']:.4g} s for {bad['measured']:.4g} s"
            console.print(f"{row['file']}: {bad['error']:+z.1%} {bad['id']} ({what})", markup=False, soft_wrap=True)
    _show_ratios(console, scored["ratios"])


def _show_ratios(console: Console, ratios: dict[str, Any]) -> None:
    """Whether the slower of two rows that differ in one thing is the slower here."""
    from rich.table import Table

    if not ratios["pairs"]:
        return
    title = f"pairs of rows that differ in one thing, of those by over {DIFFER:.0%} in time: sign right"
    table = Table(title=title, title_justify="left")
    for column in ("differ in", "pairs", f"over {DIFFER:.0%}", "right", "share"):
        table.add_column(column, justify="left" if column == "differ in" else "right")
    for of in (*ratios["kinds"], {**ratios, "kind": "all"}):
        table.add_row(of["kind"], *(str(of[key]) for key in ("pairs", "differ", "right")), percent(of["share"]))
    console.print(table)
    for bad in ratios["worst"][:3]:
        slower, faster = bad["slower"]["id"], bad["faster"]["id"]
        what = f"{slower} takes {bad['measured']:.2f} times {faster}, here {bad['simulated']:.2f}"
        console.print(f"{bad['file']}: {bad['kind']}: {what}", markup=False, soft_wrap=True)


def percent(value: float | None, *, sign: bool = False) -> str:
    """A share in per cent; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:+z.1%}" if sign else f"{value:.1%}"
