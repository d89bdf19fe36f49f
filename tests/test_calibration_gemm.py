"""Matrix products calibrated: known parameters come back, the form is the cost model's, hostile tables are refused."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sim.api import device, run
from sim.calibration import gemm
from sim.calibration.gemm import calibrate, mean_error, seconds
from sim.cli import main
from sim.cost.kernels import kernel_cost
from sim.errors import ScenarioError
from sim.importing.gemm_table import Product, read
from sim.spec.types import OPERAND_BYTES, GemmFit
from sim.workload.ops import Kernel

WEIGHTS = [(1024, 4096), (4096, 1024), (8192, 8192), (128, 256), (11008, 4096), (4096, 64)]
SIZES = [(m, n, k) for m in (64, 512, 4096, 16384) for n, k in WEIGHTS]
TRUE = {"t0": 9e-6, "e": 0.61, "am": 40.0, "an": 300.0, "ak": 120.0, "eb": 0.55}


def products(dtype, times):
    rows = zip(SIZES, times, strict=True)
    return [Product(m=m, n=n, k=k, dtype=dtype, seconds=float(t), line=i) for i, ((m, n, k), t) in enumerate(rows, 2)]


def made(dtype="bf16", noise=0.0):
    spec, some = device("h100-sxm-80gb"), products(dtype, [1.0] * len(SIZES))
    true = seconds(spec, GemmFit(peak=spec.gemm[dtype].peak, **TRUE), some)
    return products(dtype, true * (1 + noise * np.random.default_rng(7).standard_normal(len(true))))


@pytest.mark.parametrize("dtype", ["bf16", "fp32", "tf32", "fp8"])
def test_the_form_is_that_of_the_cost_model(dtype):
    spec = device("h100-sxm-80gb")
    some = products(dtype, [1.0] * len(SIZES))
    operand = OPERAND_BYTES[dtype]
    for p, ours in zip(some, seconds(spec, spec.gemm[dtype], some), strict=True):
        read_, wrote = operand * (p.m * p.k + p.k * p.n), max(2.0, operand) * p.m * p.n
        kernel = Kernel(
            name="x", kind="gemm", flops=2.0 * p.m * p.n * p.k, bytes_read=read_, bytes_written=wrote, m=p.m, n=p.n,
            k=p.k, dtype=dtype,
        )  # fmt: skip
        assert ours == pytest.approx(kernel_cost(kernel, spec, "math", 1.0).duration, rel=1e-12)


def test_known_parameters_come_back():
    (table,) = calibrate(made(), device("h100-sxm-80gb"), "f.csv")
    assert set(table.parameters) == set(TRUE)
    for key, (_, value, _) in table.parameters.items():
        assert value == pytest.approx(TRUE[key], rel=0.05), key
    assert mean_error(table, "before") > 0.15
    assert mean_error(table, "after") < 0.003


def test_noise_shows_in_the_cross_validated_error_and_not_much_in_the_numbers():
    (table,) = calibrate(made(noise=0.05), device("h100-sxm-80gb"), "f.csv")
    assert table.parameters["e"][1] == pytest.approx(TRUE["e"], rel=0.1)
    assert 0.02 < mean_error(table, "after") <= mean_error(table, "unseen") < 0.15


def test_what_the_timings_do_not_decide_is_kept():
    """Only large squares: neither t0, nor memory, nor a correction for small sizes shows."""
    spec = device("h100-sxm-80gb")
    some = [Product(m=s, n=s, k=s, dtype="bf16", seconds=1.0, line=2) for s in range(16384, 32768, 1024)]
    times = seconds(spec, replace(spec.gemm["bf16"], e=0.6), some)
    (table,) = calibrate([replace(p, seconds=float(t)) for p, t in zip(some, times, strict=True)], spec, "f.csv")
    assert table.parameters["e"][1] == pytest.approx(0.6, rel=0.03)
    assert {"t0", "eb"} <= set(table.held)


def test_unaligned_rows_are_left_out_and_counted():
    odd = [replace(p, m=p.m + 1) for p in made()[:3]]
    (table,) = calibrate([*made(), *odd], device("h100-sxm-80gb"), "f.csv")
    assert (len(table.products), table.unaligned) == (len(SIZES), 3)


def test_a_type_that_the_device_lacks_and_too_few_rows_are_refused_together():
    rows = [*made("fp8"), *products("bf16", [1e-3] * len(SIZES))[:3]]
    with pytest.raises(ScenarioError) as caught:
        calibrate(rows, device("a100-sxm-80gb"), "f.csv")
    assert "does not compute in fp8" in str(caught.value)
    assert "3 aligned rows of bf16" in str(caught.value)


def csv_of(rows, unit="us"):
    factor = {"us": 1e6, "seconds": 1.0}[unit]
    lines = (f"{p.m},{p.n},{p.k},{p.dtype},{p.seconds * factor!r},x\n" for p in rows)
    return f"m, n,k,dtype,{unit},note\n" + "".join(lines)


def test_the_command_writes_an_override_that_a_run_uses(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine.csv").write_text(csv_of([*made("fp16"), *made("bf16")]))
    words = ["mine.csv", "--device", "h100-sxm-80gb", "--out", "mine.yaml"]
    monkeypatch.setattr(sys, "argv", ["stepline", "calibrate", "gemm", *words])
    with pytest.raises(SystemExit) as done:
        main()
    said = " ".join(capsys.readouterr().out.split())
    assert not done.value.code, said
    assert "--set cluster.device=./mine.yaml" in said
    spec = device("./mine.yaml")
    assert spec.name == "h100-sxm-80gb"
    assert spec.gemm["fp16"].e == pytest.approx(TRUE["e"], rel=0.05)
    assert spec.gemm["tf32"] == device("h100-sxm-80gb").gemm["tf32"]
    on = ["cluster=dgx-h100"]
    shipped, mine = (run("quickstart", [*on, *more]).result for more in ([], ["cluster.device=./mine.yaml"]))
    assert mine.step_time > shipped.step_time


def test_both_units_are_read(tmp_path):
    for unit in ("us", "seconds"):
        (tmp_path / "t.csv").write_text(csv_of(made(), unit))
        assert [p.seconds for p in read(tmp_path / "t.csv")] == pytest.approx([p.seconds for p in made()])


HEAD = "m,n,k,dtype,us\n"
HOSTILE = {
    "empty": ("", "is empty"),
    "columns": ("m,n,dtype\n1,2,bf16\n", "lacks the columns k, seconds (or us)"),
    "rows": (HEAD, "has no row"),
    "short": (HEAD + "1,2\n", "dtype: '' is none of"),
    "nan": (HEAD + "1,2,3,bf16,nan\n", "us: 'nan' is no time above 0"),
    "zero": (HEAD + "1,2,3,bf16,0\n", "us: '0' is no time"),
    "endless": (HEAD + "1,2,3,bf16,1e300\n", "is no time"),
    "negative": (HEAD + "-1,2,3,bf16,5\n", "m: '-1' is no whole number"),
    "real": (HEAD + "1.5,2,3,bf16,5\n", "m: '1.5' is no whole number"),
    "large": (HEAD + "1" * 30 + ",2,3,bf16,5\n", "m: '111"),
    "dtype": (HEAD + "1,2,3,float,5\n", "dtype: 'float' is none of fp32"),
    "binary": (b"m,n\0", "zero byte"),
    "quote": (HEAD + '"1,2,3,bf16,5\n' * 3, "is no"),
    "many": (HEAD + "1,2,3,bf16,5\n" * 200_001, "more than 200000"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tables_are_refused(name, tmp_path):
    text, words = HOSTILE[name]
    (tmp_path / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ScenarioError) as caught:
        read(tmp_path / "t.csv")
    assert words in str(caught.value)


def test_every_number_of_the_form_is_a_parameter():
    kept = {"peak", "deep", "deep_rate"}
    assert set(gemm._WIDTHS) | kept == set(GemmFit.__dataclass_fields__)
