"""The error table as text. Computes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
            *(_percent(row[key]) for key in ("mape", "median", "p90")), _percent(row["bias"], sign=True),
            str(row["oom"]), _percent(kept["mape"]), _percent(kept["bias"], sign=True),
        )  # fmt: skip
    console.print(table)
    for row in scored["files"]:
        for reason, count in row["reasons"].items():
            console.print(f"{row['file']}: {count} refused: {reason}", markup=False, soft_wrap=True)
        for bad in row["worst"][:3]:
            what = f"{bad['simulated']:.4g} s for {bad['measured']:.4g} s"
            console.print(f"{row['file']}: {bad['error']:+.1%} {bad['id']} ({what})", markup=False, soft_wrap=True)


def _percent(value: float | None, *, sign: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:+.1%}" if sign else f"{value:.1%}"
