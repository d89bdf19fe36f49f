"""What ``validate`` found, as a part of a Markdown page: every table, the bad cases included. Computes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sim.validation.ratios import DIFFER, FEW
from sim.validation.targets import SIGNS
from sim.validation.text import percent as _percent

NAMED = 3
"""Worst rows of each table that the page names."""


def page(scored: Mapping[str, Any], release: str) -> str:
    """The part: figures of every table, signs of ratios, refusals and what does not fit, worst rows, noise.

    ``scored`` is what ``scores`` gives; ``release`` the version that simulated.
    """
    files = scored["files"]
    parts = [
        f"Written by `stepline validate --page` of Stepline {release}: {sum(f['rows'] for f in files)} published steps "
        f"in {len(files)} tables.",
        *_errors(files),
        *_ratios(scored["ratios"]),
        *_refused(files),
        *_worst(files),
        *_noise(files),
    ]
    return "\n\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are figures."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Text that may come from a file, where a bar, a line end or a tag would break the table."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def _errors(files: Sequence[Mapping[str, Any]]) -> list[str]:
    head = ["table", "rows", "refused", "do not fit", "mean error", "target", "bias", "median", "90 %"]
    head += ["memory: mean error", "target", "bias"]
    rows = []
    for of in files:
        parted = bool(of["target"]) and "part" in of["target"]
        rows.append(_row(_name(of), of, {} if parted else of["target"] or {}))
        if parted:
            rows.append(_row("... counted", of["target"]["part"], of["target"]))
    parts = [of for of in files if of["target"] and "part" in of["target"]]
    counted = [f"Counted of {_name(of)}: {of['target']['of']}." for of in parts]
    said = (
        "Error: simulated over published, less one. Mean error, median and 90 % (nine of ten rows are below) are of "
        "its size; bias is its mean, of which targets allow half as much. Parameters belong to a device, a link or a "
        "software stack, never to a table or a row."
    )
    return ["### Every table", _table(head, rows), " ".join([said, *counted])]


def _row(name: str, of: Mapping[str, Any], target: Mapping[str, Any]) -> list[str]:
    kept = of["memory"]
    weighed = f"{percent(kept['mape'])} ({kept['rows']} rows)" if kept["rows"] else ""
    return [
        name, str(of["rows"]), str(of["refused"]), str(of["oom"]), percent(of["mape"]),
        _goal(target.get("mape"), of["mape"]), _bias(of["bias"], target.get("mape")), percent(of["median"]),
        percent(of["p90"]), weighed, _goal(target.get("memory"), kept["mape"]),
        _bias(kept["bias"], target.get("memory")) if kept["rows"] else "",
    ]  # fmt: skip


def percent(share: float | None, *, sign: bool = False) -> str:
    """A share with the space that prose has before the sign."""
    return _percent(share, sign=sign).replace("%", " %")


def _bias(bias: float | None, target: float | None) -> str:
    """A bias, and whether it is above half of the mean error's target."""
    missed = bias is not None and target and abs(bias) > target / 2
    return f"{percent(bias, sign=True)}{', missed' if missed else ''}"


def _goal(target: float | None, reached: float | None) -> str:
    missed = reached is not None and target is not None and reached > target
    return f"{100 * target:g} %{', missed' if missed else ''}" if target else ""


def _name(of: Mapping[str, Any]) -> str:
    return str(of["file"]).removesuffix(".csv")


def _ratios(ratios: Mapping[str, Any]) -> list[str]:
    title = "### Which of two is faster"
    if not ratios["pairs"]:
        return [title, "No two rows of one table differ in one thing alone."]
    head = [
        "rows that differ in",
        "pairs",
        f"by over {100 * DIFFER:g} %",
        "sign right",
        "share",
        "ratio off by (median)",
    ]
    rows = [_shares(kind["kind"], kind) for kind in ratios["kinds"]]
    rows.append(_shares("**all**", ratios))
    if ratios["counted"]["pairs"] < ratios["pairs"]:
        rows.append(_shares("... counted", ratios["counted"]))
    rows += [_shares(_name(of), of) for of in ratios["files"]]
    said = (
        "Two rows of one table that do the same work (model, sequence, global batch) and differ in one thing: does the "
        f"slower one take longer here too? Asked where published times differ by over {100 * DIFFER:g} %; target: "
        f"{100 * SIGNS:g} % of such pairs. Below all: the same by table."
    )
    return [title, said, _table(head, rows), *_pairs(ratios)]


def _shares(name: str, of: Mapping[str, Any]) -> list[str]:
    counts = [str(of[key]) for key in ("pairs", "differ", "right")]
    return [name, *counts, percent(of["share"]), percent(of["ratio_error"])]


def _pairs(ratios: Mapping[str, Any]) -> list[str]:
    head = ["published as slower", "than", "ratio published", "simulated"]
    found = []
    for key, title in (
        ("few", f"Kinds with {FEW} pairs or fewer, each:"),
        ("worst", "The worst of the wrong ones:"),
    ):
        rows = [
            [_one(one["slower"]), _one(one["faster"]), f"{one['measured']:.3f}", f"{one['simulated']:.3f}"]
            for one in ratios[key]
        ]
        found += [title, _table(head, rows)] if rows else []
    return found


def _one(of: Mapping[str, Any]) -> str:
    """A row of a pair, with what it differs in."""
    return f"{of['id']} ({', '.join(f'{column} {text or 0}' for column, text in of['cells'].items())})"


def _refused(files: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows that could not be simulated, and those that ran on the machine and do not fit into its memory here."""
    rows = [[_name(of), str(count), reason] for of in files for reason, count in of["reasons"].items()]
    rows += [
        [_name(of), str(of["oom"]), "ran there, exceeds memory here; timed all the same"] for of in files if of["oom"]
    ]
    title = "### Refused, and what does not fit"
    if not rows:
        return [title, "No row is refused, and every run that ran fits."]
    return [title, _table(["table", "rows", "why"], rows).replace("--: | --:", "--: | ---", 1)]


def _worst(files: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        [_name(of), one["id"], f"{one['measured']:.4g} s", f"{one['simulated']:.4g} s",
         percent(one["error"], sign=True)]
        for of in files for one in of["worst"][:NAMED]
    ]  # fmt: skip
    return ["### The worst rows", _table(["table", "row", "published", "simulated", "error"], rows)] if rows else []


def _noise(files: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        [_name(of), str(of["noise"]["rows"]), str(of["noise"]["scenarios"]), *map(percent, (of["noise"][key] for key in
         ("spread", "mape", "all")))]
        for of in files if of["noise"]["rows"]
    ]  # fmt: skip
    title = "### Noise floor"
    said = (
        "Rows of one table that ask for the same scenario were not equally fast: another day, another release, another "
        "machine. Whoever foretells them by what the table says gives one number for all of them, and is off by this "
        "much at least."
    )
    head = ["table", "such rows", "scenarios", "largest spread", "least mean error", "... of all rows"]
    return [title, said, _table(head, rows)] if rows else [title, "No table has a scenario twice."]
