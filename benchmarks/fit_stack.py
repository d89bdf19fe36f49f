"""Fit the numbers of a software stack to published steps, and say how they do on models that they were not fitted to.

    python benchmarks/fit_stack.py TABLE.csv --key sustained.h100-sxm-80gb=0.86,0.9,0.94 --key launch_factor=15,17,19
        [--where tp=1,2,4,8] [--every 3] [--local] [--out log.json]

Every combination of the keys is simulated on the rows (``--every`` n-th of those that ``--where`` leaves; ``--local``:
of those on one node or above 120 GB/s across nodes). The best one has the least mean absolute log error. Then each
model in turn is left out, the keys are chosen on the others, and the error on the one left out is printed: a fit that
generalises has an error there that is near the one of the fit.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sim.api import run
from sim.validation.rows import Row, read
from sim.validation.scenario import document

Point = tuple[str, ...]


def simulate(row: Row, keys: Sequence[str], point: Point) -> float:
    """Seconds of a row's step with the stack's keys set so."""
    scenario = document(row)
    stack: dict[str, Any] = {"extends": scenario["stack"]}
    for key, value in zip(keys, point, strict=True):
        head, _, tail = key.partition(".")
        number: Any = float(value) if value.replace(".", "", 1).isdigit() else value
        stack[head] = {tail: number} if tail else number
        stack.setdefault("sources", {})[head] = "under fit"
    scenario["stack"] = stack
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "row.yaml"
        path.write_text(json.dumps(scenario), encoding="utf-8")
        return float(run(str(path)).result.step_time)


def chosen(rows: Sequence[Row], args: argparse.Namespace) -> list[Row]:
    """The rows to fit to."""
    wanted = dict(part.split("=", 1) for part in args.where)
    kept = [r for r in rows if all(r.text(c) in values.split(",") for c, values in wanted.items())]
    if args.local:
        kept = [r for r in kept if r.whole("gpus") <= 8 or r.number("measured_world_allreduce_busbw_GBps") > 120]
    return kept[:: args.every]


def loss(errors: Sequence[float]) -> float:
    """Mean absolute error."""
    return sum(map(abs, errors)) / len(errors)


def main() -> None:
    """Fit, print, cross-validate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--key", action="append", required=True)
    parser.add_argument("--where", action="append", default=[])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--local", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    keys = [key.partition("=")[0] for key in args.key]
    points = list(itertools.product(*(key.partition("=")[2].split(",") for key in args.key)))
    rows = chosen(read(args.table), args)
    logs = {p: [math.log(simulate(r, keys, p) / r.number("step_time_s")) for r in rows] for p in points}
    for point in points:
        bias = sum(logs[point]) / len(rows)
        said = " ".join(f"{k}={v}" for k, v in zip(keys, point, strict=True))
        print(f"{said}: error {loss(logs[point]):.2%}, bias {bias:+.2%}")
    models = [r.text("model") for r in rows]
    outside: list[float] = []
    for model in dict.fromkeys(models):
        inside = [i for i, m in enumerate(models) if m != model]
        if not inside:
            continue
        best = min(points, key=lambda p: loss([logs[p][i] for i in inside]))
        left = [logs[best][i] for i, m in enumerate(models) if m == model]
        outside += left
        print(f"without {model}: {dict(zip(keys, best, strict=True))}, error on it {loss(left):.2%}")
    best = min(points, key=lambda p: loss(logs[p]))
    print(f"fit {dict(zip(keys, best, strict=True))}: {loss(logs[best]):.2%} on {len(rows)} rows", end="")
    print(f", left out {loss(outside):.2%}" if outside else "")
    if args.out:
        named = [{"keys": dict(zip(keys, p, strict=True)), "log_errors": logs[p]} for p in points]
        args.out.write_text(json.dumps({"rows": [r.id for r in rows], "points": named}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
