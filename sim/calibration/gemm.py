"""A device's matrix products fitted to timings: t0, e, am, an, ak, eb of the design's form, type by type.

Owns that form over whole tables at once (a test holds it to ``sim.cost.kernels``, which has it for one kernel), the
rows that it cannot speak for (a size off the alignment of the tensor cores runs at another rate), and the override.

    t = t0 + max(2mnk (1+am/m)(1+an/n)(1+ak/k) / (peak e), bytes / (hbm_bandwidth eb))

with ``peak`` and ``hbm_bandwidth`` as the device has them, every operand read once and the result written once. What a
device says of products deep in k (``deep``, ``deep_rate``) is kept as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.calibration.least_squares import Floats, Parameter, cross_validated, fit
from sim.calibration.override import based_on, percent
from sim.errors import Problem, ScenarioError
from sim.importing.gemm_table import Product
from sim.spec.types import OPERAND_BYTES, DeviceSpec, GemmFit

FEWEST = 12
"""Rows of a type below which six numbers are not fitted."""
_ZERO = {"am": 60.0, "an": 60.0, "ak": 60.0}
"""Where a number starts (elements) that the device gives as 0."""
_WIDTHS = {"t0": 1.0, "e": 0.3, "eb": 0.3, "am": 1.5, "an": 1.5, "ak": 1.5}
_ENDS = {"t0": (1e-8, 1e-2), "e": (0.01, 1.0), "eb": (0.01, 1.0), "am": (0.1, 1e5), "an": (0.1, 1e5), "ak": (0.1, 1e5)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What a type of the device gave: its products; seconds by the device's file, by the fit, by one that never saw it.

    ``parameters``: before, after, standard error as a share; ``held``: those that the timings do not decide;
    ``unaligned``: rows left out.
    """

    dtype: str
    products: tuple[Product, ...]
    measured: Floats
    before: Floats
    after: Floats
    unseen: Floats
    parameters: Mapping[str, tuple[float, float, float]]
    held: tuple[str, ...]
    unaligned: int


def seconds(device: DeviceSpec, fit_: GemmFit, products: Sequence[Product]) -> Floats:
    """Time of each product by the form above."""
    m, n, k = (np.array([getattr(p, axis) for p in products], dtype=np.float64) for axis in "mnk")
    operand = OPERAND_BYTES[products[0].dtype]
    moved = operand * (m * k + k * n) + max(2.0, operand) * m * n
    shape = (1 + fit_.am / m) * (1 + fit_.an / n) * (1 + fit_.ak / k)
    rate = fit_.peak * fit_.e * np.where((fit_.deep > 0.0) & (k >= fit_.deep), fit_.deep_rate, 1.0)
    found: Floats = fit_.t0 + np.maximum(2.0 * m * n * k * shape / rate, moved / (device.hbm_bandwidth * fit_.eb))
    return found


def calibrate(products: Sequence[Product], device: DeviceSpec, file: str) -> list[Table]:
    """Fit each type that has rows enough.

    Raises:
        ScenarioError: the device does not compute in a type, or a type has too few rows.
    """
    problems, tables = [], []
    for dtype in dict.fromkeys(p.dtype for p in products):
        rows = [p for p in products if p.dtype == dtype]
        aligned = [p for p in rows if _aligned(p, device)]
        if dtype not in device.gemm:
            what = f'device "{device.name}" does not compute in {dtype}; it does in {", ".join(device.gemm)}'
            problems.append(Problem(file, rows[0].line, 0, "dtype", what))
        elif len(aligned) < FEWEST:
            what = f"{len(aligned)} aligned rows of {dtype}; six numbers need {FEWEST} or more, of several shapes"
            problems.append(Problem(file, rows[0].line, 0, "dtype", what))
        else:
            tables.append(_table(dtype, aligned, device, len(rows) - len(aligned)))
    if problems:
        raise ScenarioError(problems)
    return tables


def _aligned(product: Product, device: DeviceSpec) -> bool:
    step = max(1, int(device.gemm_alignment / OPERAND_BYTES[product.dtype]))
    return product.dtype == "fp32" or not (product.m % step or product.n % step or product.k % step)


def _table(dtype: str, products: Sequence[Product], device: DeviceSpec, unaligned: int) -> Table:
    shipped = device.gemm[dtype]
    measured = np.array([p.seconds for p in products])
    weights = np.ones(len(measured))

    def model(values: Mapping[str, float]) -> Floats:
        return seconds(device, _with(shipped, values), products)

    parameters = [_parameter(shipped, key) for key in _WIDTHS]
    found = fit(parameters, model, measured, weights)
    decided = [p for p in parameters if p.name not in found.held]
    unseen = cross_validated(found, parameters, model, (measured, weights, _groups(products)))
    return Table(
        dtype=dtype, products=tuple(products), measured=measured, before=seconds(device, shipped, products),
        after=(found.errors + 1) * measured, unseen=(unseen + 1) * measured,
        parameters={p.name: (p.shipped, found.values[p.name], found.spread[p.name]) for p in decided},
        held=found.held, unaligned=unaligned,
    )  # fmt: skip


def _parameter(shipped: GemmFit, key: str) -> Parameter:
    value, (least, most) = float(getattr(shipped, key)), _ENDS[key]
    start = min(max(value or _ZERO.get(key, least), least), most)
    return Parameter(name=key, start=start, least=least, most=most, width=_WIDTHS[key], rest=value)


def _with(fit_: GemmFit, values: Mapping[str, float]) -> GemmFit:
    return replace(fit_, **values)


def _groups(products: Sequence[Product]) -> NDArray[np.int64]:
    """Fifths of the weights (n and k): what is predicted has weights that the fit never saw, where there are five."""
    weights = {pair: i for i, pair in enumerate(dict.fromkeys((p.n, p.k) for p in products))}
    numbers = [weights[p.n, p.k] for p in products] if len(weights) >= 5 else list(range(len(products)))
    return np.array(numbers, dtype=np.int64) % 5


def mean_error(table: Table, which: str) -> float:
    """Mean absolute error of ``before``, ``after`` or ``unseen``, as a share."""
    predicted: Floats = getattr(table, which)
    return float(np.abs(predicted / table.measured - 1.0).mean())


def worst(table: Table, count: int) -> list[int]:
    """Rows with the largest errors of the fit."""
    order = np.argsort(-np.abs(np.log(table.after / table.measured)), kind="stable")
    found: list[int] = order[:count].tolist()
    return found


def by_size(table: Table) -> dict[str, tuple[int, float, float, float]]:
    """Rows and mean errors (before, after, unseen) by FLOPs of a product, then of all."""
    flops = np.array([2.0 * p.m * p.n * p.k for p in table.products])
    parts = {"below 1 GFLOP": flops < 1e9, "1 to 100 GFLOP": (flops >= 1e9) & (flops < 1e11), "larger": flops >= 1e11}
    found = {}
    for name, rows in {**parts, "all": flops > 0}.items():
        errors = [np.abs(t[rows] / table.measured[rows] - 1) for t in (table.before, table.after, table.unseen)]
        if rows.any():
            before, after, unseen = (float(e.mean()) for e in errors)
            found[name] = (int(rows.sum()), before, after, unseen)
    return found


def document(tables: Sequence[Table], base: str, device: DeviceSpec, file: str, out: Path) -> dict[str, Any]:
    """The override: the device it extends, under the name that stacks know it by, and what was decided."""
    gemm: dict[str, Any] = {}
    for table in tables:
        after, unseen = (percent(mean_error(table, which)) for which in ("after", "unseen"))
        said = f"fit of {file}, {len(table.products)} products: mean error {after}, cross-validated {unseen}"
        block: dict[str, Any] = {}
        for key, (before, value, spread) in table.parameters.items():
            block[key] = written(key, value)
            error = f"standard error {percent(spread)}, was {written(key, before)}"
            block.setdefault("sources", {})[key] = f"{said}; {error}"
        gemm[table.dtype] = block
    return {
        "extends": based_on(base, out),
        "name": device.name,
        "description": f"{device.name} with matrix products calibrated on {file}",
        "gemm": gemm,
    }


def written(key: str, value: float) -> str | float:
    """A value as a file has it."""
    if key == "t0":
        return f"{value * 1e6:.4g} us"
    return round(value, 4) if key in ("e", "eb") else float(f"{value:.4g}")
