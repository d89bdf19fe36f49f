"""Every number that was fitted to published steps: which keys, on which rows; fitted anew by one command.

    python benchmarks/fit.py                    # all of them, about an hour on two cores; a finished fit is kept
    python benchmarks/fit.py nanotron jean-zay  # these
    python benchmarks/fit.py --page             # only writes what is kept into docs/accuracy.md

The fit is that of ``stepline calibrate steps`` (its module says how): least squares with large errors as if absolute,
cross-validated in folds of models. What comes out is kept in ``benchmarks/fits.json`` and drawn up in docs/accuracy.md;
the numbers in ``topologies/`` are those, rounded to two digits (a test compares them). Changes no file there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sim.calibration.axes import read as axes_of  # noqa: E402
from sim.calibration.override import percent  # noqa: E402
from sim.calibration.steps import Asked, Fitted, calibrate  # noqa: E402
from sim.report.files import write_between  # noqa: E402
from sim.validation.rows import Row, read  # noqa: E402
from sim.validation.scenario import document  # noqa: E402
from sim.validation.targets import TARGETS  # noqa: E402

LOG = ROOT / "benchmarks" / "fits.json"
PAGE = ROOT / "docs" / "accuracy.md"
PART = "fits"
_ERRORS = ("before", "after", "unseen")
MOST = 1.3
"""Largest error of models that a fit never saw, over its error on those it saw: what the project set itself."""


def _every(_: Row) -> bool:
    return True


def _on(*gpus: str) -> Callable[[Row], bool]:
    return lambda row: row.text("gpu") in gpus


def _nanotron(stack: str) -> Callable[[Row], bool]:
    """Rows of the sweep that count and ran so."""
    counts = TARGETS["ultrascale"].counts or _every
    return lambda row: counts(row) and document(row)["stack"] == stack


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A fit: tables, which of their rows, every how manyth of those, keys (none: the sustained share by device)."""

    tables: tuple[str, ...]
    rows: Callable[[Row], bool] = _every
    every: int = 1
    keys: tuple[str, ...] = ()


TASKS: dict[str, Task] = {
    "llm-foundry on A100": Task(tables=("llm-foundry",), rows=_on("a100-sxm-80gb", "a100-sxm-40gb"), every=2),
    "llm-foundry on H100": Task(
        tables=("llm-foundry",), rows=_on("h100-sxm-80gb"),
        keys=("stack.sustained.h100-sxm-80gb=0.5:1.1", "cluster.device.flash.flash1.1.p_inf=150 TFLOP/s:450 TFLOP/s"),
    ),
    "torchtitan": Task(tables=("torchtitan",)),
    "nanotron": Task(
        tables=("ultrascale",), rows=_nanotron("nanotron"), every=3,
        keys=("stack.sustained.h100-sxm-80gb=0.6:1.1", "stack.launch_factor=8:32"),
    ),
    "nanotron, checked": Task(
        tables=("ultrascale",), rows=_nanotron("nanotron-checked"), keys=("stack.collective_check=80 us:500 us",),
        every=3,
    ),
    "jean-zay": Task(
        tables=("bigscience",), every=3,
        keys=("cluster.nvlink.bridge=60 GB/s:200 GB/s", "cluster.nics.efficiency=0.2:0.9"),
    ),
    "megatron-lm on A100": Task(
        tables=("narayanan", "korthikanti"), keys=("stack.sustained.a100-sxm-80gb=0.9:1.1",)
    ),
    "vtrain-multi": Task(
        tables=("vtrain-multi",), keys=("cluster.nics.through=0.08:1.0", "stack.sustained.a100-sxm-80gb=0.9:1.1")
    ),
    "vtrain-single": Task(
        tables=("vtrain-single",), keys=("stack.launch_factor=5:15", "stack.handover=40 us:400 us"), every=6,
    ),
    "simumax-b200": Task(
        tables=("simumax-b200",), keys=("stack.sustained.b200-sxm-180gb=0.7:1.1", "stack.handover=5 us:150 us"),
    ),
    "dgxc": Task(tables=("dgxc",), every=4),
    "nemo-24.07": Task(tables=("nemo-24.07",)),
    **{
        f"megatron-bridge on {name}": Task(
            tables=("megatron-bridge",), rows=_on(gpu), keys=(f"stack.sustained.{device}=0.6:1.2",)
        )
        for name, gpu, device in (
            ("H100", "h100-sxm-80gb", "h100-sxm-80gb"),
            ("B200", "b200-sxm", "b200-sxm-180gb"),
            ("B300", "b300-sxm", "b300-sxm-270gb"),
            ("GB200", "gb200", "gb200-186gb"),
            ("GB300", "gb300", "gb300-288gb"),
        )
    },
}  # fmt: skip


def rows_of(task: Task) -> list[Row]:
    """The rows that a fit is made to."""
    rows = [row for name in task.tables for row in read(ROOT / "benchmarks" / "measured" / f"{name}.csv")]
    return [row for row in rows if task.rows(row)][:: task.every]


def fitted(name: str, jobs: int) -> list[dict[str, Any]]:
    """Run a fit and say what came out, as it is kept."""
    task = TASKS[name]
    found, refused = calibrate(rows_of(task), Asked(axes=axes_of(task.keys), jobs=jobs))
    if not found:
        sys.exit(f"{name}: no row could be simulated: {'; '.join(dict.fromkeys(one.refused for one in refused))}")
    return [kept(one, task, len(refused)) for one in found]


def kept(one: Fitted, task: Task, refused: int) -> dict[str, Any]:
    """A fit as the log has it: no dates, few digits."""
    return {
        "of": one.name,
        "tables": list(task.tables),
        "rows": len(one.rows),
        "refused": refused,
        "folds": one.groups if len(one.rows) > 1 else "",
        "groups": len({row.model for row in one.rows}) if one.groups == "models" else len(one.rows),
        "numbers": {
            number.axis.key: {
                "value": number.axis.text(number.value, 4),
                "was": [None if was is None else number.axis.text(was, 4) for was in number.was],
                "error": None if number.error != number.error else round(number.error, 4),
                "least": number.axis.text(number.low, 4),
                "most": number.axis.text(number.high, 4),
            }
            for number in one.numbers
        },
        "held": list(one.held),
        **{which: round(one.mean_error(which), 4) for which in ("before", "after", "unseen")},
    }


def page(log: dict[str, list[dict[str, Any]]]) -> str:
    """The fits as a part of docs/accuracy.md."""
    head = "| fit | rows | number | value | standard error | a fold left out | error: as shipped | fitted | unseen |  |"
    lines = [head, "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|"]
    for name in TASKS:
        for one in log.get(name, ()):
            lines += _lines(name, one)
    lines += _together(log)
    said = (
        "Written by `python benchmarks/fit.py`, which says what is fitted to which rows (log: benchmarks/fits.json). "
        "Least squares, errors above 3 % as if absolute. Unseen: the mean error of each model when the fit never "
        f"saw it (five folds of models); last, that over the error of the fit: {MOST} at most is the target."
    )
    return "\n\n".join([said, "\n".join(lines)])


def _together(log: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Tables that have a fit a device or two: errors over all their rows."""
    of: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for name in TASKS:
        for one in log.get(name, ()):
            of.setdefault(tuple(one["tables"]), []).append(one)
    lines = []
    for tables, fits in of.items():
        rows = sum(one["rows"] for one in fits)
        if len(fits) > 1:
            mean = {which: sum(one[which] * one["rows"] for one in fits) / rows for which in _ERRORS}
            whole = {"of": "all of these fits", "rows": rows, "numbers": {}, "said": ""}
            lines += _lines(", ".join(tables), whole | mean)
    return lines


def _lines(name: str, one: dict[str, Any]) -> list[str]:
    lone = one["rows"] == 1
    ratio = "" if lone else f"{one['unseen'] / max(one['after'], 1e-4):.2f}"
    errors = [_percent(one["before"]), _percent(one["after"]), "" if lone else _percent(one["unseen"]), ratio]
    first = [f"{name}: {one['of']}", str(one["rows"])]
    numbers = [
        [f"`{key}`", said["value"], _percent(said["error"]), "" if lone else f"{said['least']} to {said['most']}"]
        for key, said in one["numbers"].items()
    ] or [[one.get("said", "none decided"), "", "", ""]]
    rows = [[*first, *numbers[0], *errors], *(["", "", *number, "", "", "", ""] for number in numbers[1:])]
    return ["| " + " | ".join(row) + " |" for row in rows]


def _percent(share: float | None) -> str:
    return "" if share is None else percent(share).replace("%", " %")


def main(words: Sequence[str]) -> int:
    """Fit, keep, draw up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=", ".join(TASKS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--page", action="store_true")
    asked = parser.parse_args(words)
    unknown = [name for name in asked.names if name not in TASKS]
    if unknown:
        parser.error(f"no such fit: {', '.join(unknown)}; there are {', '.join(TASKS)}")
    log = json.loads(LOG.read_text("utf-8")) if LOG.exists() else {}
    for name in [] if asked.page else asked.names or TASKS:
        log[name] = fitted(name, asked.jobs)
        print(f"{name}: {json.dumps(log[name])}", flush=True)
        LOG.write_text(json.dumps({key: log[key] for key in TASKS if key in log}, indent=1) + "\n", "utf-8")
    write_between(PAGE, PART, page(log))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
