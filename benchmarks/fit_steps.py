"""Least squares on published steps: numbers of a stack or a device that no kernel benchmark gives.

    python benchmarks/fit_steps.py llm-foundry --gpu a100 stack.sustained.a100-sxm-80gb
    python benchmarks/fit_steps.py llm-foundry --gpu h100 stack.sustained.h100-sxm-80gb \
        cluster.device.flash.flash1.1.p_inf cluster.device.flash.flash1.1.backward_ratio

Names are the keys of ``--set``; each starts at what the shipped files say. Minimises the squared logarithm of simulated
over measured seconds, errors above 10 % counting as if absolute (Huber), by Gauss-Newton with one-sided differences.
Then fits again without each model in turn and prints the error of that model's rows: leave-one-model-out.
Changes no file.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sim.api import run  # noqa: E402
from sim.spec.load import load  # noqa: E402
from sim.validation.rows import Row, read  # noqa: E402
from sim.validation.scenario import document  # noqa: E402

HUBER = 0.1
STEP = 0.03


class Table:
    """Rows as scenario files, and their errors under overrides."""

    def __init__(self, rows: list[Row], folder: Path) -> None:
        self.rows = rows
        self.paths = [folder / f"{number}.yaml" for number in range(len(rows))]
        for path, row in zip(self.paths, rows, strict=True):
            path.write_text(json.dumps(document(row)), encoding="utf-8")
        self.measured = np.array([row.number("step_time_s") for row in rows])

    def errors(self, names: list[str], values: np.ndarray) -> np.ndarray:
        """Logarithm of simulated over measured."""
        said = [
            f"{name}={value:.9g}{' FLOP/s' if name.endswith('p_inf') else ''}"
            for name, value in zip(names, values, strict=True)
        ]
        times = [run(str(path), said).result.step_time for path in self.paths]
        return np.log(np.array(times) / self.measured)


def start(path: Path, name: str) -> float:
    """What the shipped files say."""
    value: object = load(str(path)).scenario
    for key in name.split("."):
        if isinstance(value, (dict, tuple)) or hasattr(value, "keys"):
            value = value[int(key)] if key.isdigit() else dict(value).get(key, 1.0)  # type: ignore[index,call-overload]
        else:
            value = getattr(value, key)
    return float(value)  # type: ignore[arg-type]


def solve(jacobian: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Change of the logarithms of parameters, by iterated Huber weights."""
    change = np.zeros(jacobian.shape[1])
    for _ in range(30):
        left = np.abs(errors + jacobian @ change)
        root = np.sqrt(np.minimum(1.0, HUBER / np.maximum(left, 1e-12)))
        change = np.linalg.lstsq(jacobian * root[:, None], -errors * root, rcond=None)[0]
    return change


def main() -> None:
    """Fit, cross-validate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table")
    parser.add_argument("names", nargs="+")
    parser.add_argument("--gpu", default="")
    parser.add_argument("--every", type=int, default=1)
    asked = parser.parse_args()
    rows = [
        row
        for row in read(ROOT / "benchmarks" / "measured" / f"{asked.table}.csv")
        if row.text("gpu").startswith(asked.gpu)
    ]
    with tempfile.TemporaryDirectory() as folder:
        table = Table(rows[:: asked.every], Path(folder))
        values = np.array([start(table.paths[0], name) for name in asked.names])
        for turn in range(2):
            errors = table.errors(asked.names, values)
            print(f"{turn}: {dict(zip(asked.names, values.tolist(), strict=True))}")
            report("   ", errors)
            columns = []
            for number in range(len(values)):
                moved = values.copy()
                moved[number] *= 1 + STEP
                columns.append((table.errors(asked.names, moved) - errors) / np.log(1 + STEP))
            jacobian = np.stack(columns, axis=1)
            fitted = values * np.exp(solve(jacobian, errors))
            if turn == 0:
                values = fitted
        print(f"fit: {dict(zip(asked.names, fitted.tolist(), strict=True))}")
        crossed(table, jacobian, errors, values, asked.names)


def crossed(table: Table, jacobian: np.ndarray, errors: np.ndarray, values: np.ndarray, names: list[str]) -> None:
    """Leave one model out: its errors with what the others fit, to first order around ``values``."""
    models = np.array([row.text("model") for row in table.rows])
    left = np.zeros(len(errors))
    for model in dict.fromkeys(models.tolist()):
        out = models == model
        change = solve(jacobian[~out], errors[~out])
        left[out] = errors[out] + jacobian[out] @ change
        print(
            f"  without {model:12s} {dict(zip(names, (values * np.exp(change)).round(4).tolist(), strict=True))}",
            end=" ",
        )
        report("its rows:", left[out])
    report("in the sample ", errors + jacobian @ solve(jacobian, errors))
    report("left out      ", left)


def report(what: str, errors: np.ndarray) -> None:
    """Mean absolute error and bias, of simulated over measured less one."""
    off = np.exp(errors) - 1
    print(f"{what} rows {len(off)}, MAPE {100 * np.abs(off).mean():.1f} %, bias {100 * off.mean():+.1f} %")


if __name__ == "__main__":
    main()
