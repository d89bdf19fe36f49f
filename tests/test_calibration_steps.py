"""The sustained share calibrated: a known one comes back from steps made with it; an override foretells them."""

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.api import run
from sim.calibration.axes import read as axes_of
from sim.calibration.steps import Asked, calibrate, documents
from sim.calibration.surface import surface
from sim.cli import main
from sim.errors import ScenarioError
from sim.spec.load import load
from sim.validation.rows import read
from sim.validation.scenario import document

COLUMNS = (
    "id,model,layers,hidden,heads,vocab,seq_len,gated_mlp,gpu,gpus,gpus_per_node,dp,micro_batch,global_batch,precision,"
    "flash_attention,source,step_time_s"
)
CELLS = [
    ("a1", "one", 6, 2048, 16, 32000, 2048, 1, "a100-sxm-80gb", 8, 8, 8, 1, 8, "bf16", 1, "made"),
    ("a2", "one", 6, 2048, 16, 32000, 2048, 1, "a100-sxm-80gb", 8, 8, 8, 4, 32, "bf16", 1, "made"),
    ("b1", "two", 4, 4096, 32, 32000, 2048, 1, "a100-sxm-80gb", 8, 8, 8, 1, 16, "bf16", 1, "made"),
    ("b2", "two", 4, 4096, 32, 32000, 4096, 1, "a100-sxm-80gb", 8, 8, 8, 2, 16, "bf16", 1, "made"),
]
TRUE = 0.66
STACK = "pytorch-fsdp"
ODD = ("c1", "three", 4, 4096, 32, 32000, 4096, 1, "no-such-gpu", 8, 8, 8, 2, 16, "bf16", 1, "made")


def table(path, cells, times):
    rows = [",".join(map(str, (*row, t))) for row, t in zip(cells, times, strict=True)]
    path.write_text("\n".join([COLUMNS, *rows, ""]))
    return path


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Steps as a machine would measure them whose long runs keep ``TRUE`` of short-burst speed."""
    folder = tmp_path_factory.mktemp("steps")
    times, lasting = [], [f"stack={STACK}", f"stack.sustained.a100-sxm-80gb={TRUE}"]
    for row in read(table(folder / "none.csv", CELLS, [1.0] * len(CELLS))):
        (folder / "row.yaml").write_text(json.dumps(document(row)))
        times.append(run(str(folder / "row.yaml"), lasting).result.step_time)
    return table(folder / "mine.csv", [*CELLS, ODD], [*times, 1.0])


def test_a_known_share_comes_back_and_every_model_is_foretold_by_the_others(measured):
    (found,), refused = calibrate(read(measured), Asked(stack=STACK))
    assert (found.name, found.groups) == (f"a100-sxm-80gb with {STACK}", "models")
    (share,) = found.numbers
    assert (share.axis.key, share.was) == ("stack.sustained.a100-sxm-80gb", (1.0,))
    assert share.value == pytest.approx(TRUE, abs=0.004)
    assert share.low - 1e-4 <= share.value <= share.high + 1e-4
    assert share.high - share.low < 0.01
    assert share.error < 0.01
    assert not share.at_limit
    assert found.mean_error("before") > 0.04
    assert found.bias("before") < -0.04  # as shipped it is too fast
    assert found.mean_error("after") < 0.003
    assert found.mean_error("unseen") < 0.004
    assert [one.refused for one in refused] == ["no such GPU is shipped: no-such-gpu"]


def test_one_model_is_cross_validated_over_rows_and_one_row_says_so(measured):
    rows = read(measured)
    (found,), _ = calibrate(rows[:2], Asked(stack=STACK))
    assert (found.groups, len(found.rows)) == ("rows", 2)
    (alone,), _ = calibrate(rows[:1], Asked(stack=STACK))
    (share,) = alone.numbers
    assert share.value == pytest.approx(TRUE, abs=0.01)
    assert share.error != share.error  # of one row there is no standard error
    assert alone.unseen == pytest.approx(alone.before)  # nor anything that foretells it


def test_two_keys_are_fitted_together(measured, tmp_path):
    """Steps made with a share and a slower host: both come back, whatever one of them alone would explain."""
    rows, times = read(measured)[: len(CELLS)], []
    for row in rows:
        (tmp_path / "row.yaml").write_text(json.dumps(document(row)))
        lasting = [f"stack={STACK}", f"stack.sustained.a100-sxm-80gb={TRUE}", "stack.launch_factor=30"]
        times.append(run(str(tmp_path / "row.yaml"), lasting).result.step_time)
    made = read(table(tmp_path / "both.csv", CELLS, times))
    axes = axes_of(["stack.sustained.a100-sxm-80gb=0.5:1.1", "stack.launch_factor=4:60"])
    (found,), _ = calibrate(made, Asked(stack=STACK, axes=axes))
    assert {number.axis.key: number.value for number in found.numbers} == {
        "stack.sustained.a100-sxm-80gb": pytest.approx(TRUE, abs=0.01),
        "stack.launch_factor": pytest.approx(30, rel=0.03),
    }  # fmt: skip
    assert found.mean_error("after") < 0.004
    said = documents([found], "both.csv", tmp_path)[STACK]
    assert said["launch_factor"] == pytest.approx(30, rel=0.03)
    assert "both.csv" in said["sources"]["launch_factor"]
    assert said["sustained"]["a100-sxm-80gb"] == pytest.approx(TRUE, abs=0.01)


def test_what_the_steps_do_not_decide_stays(measured):
    """One node: nothing crosses an adapter."""
    axes = axes_of(["stack.sustained.a100-sxm-80gb=0.5:1.1", "cluster.nics.bandwidth=5 GB/s:50 GB/s"])
    (found,), _ = calibrate(read(measured)[:2], Asked(stack=STACK, axes=axes))
    assert found.held == ("cluster.nics.bandwidth",)
    assert [number.axis.key for number in found.numbers] == ["stack.sustained.a100-sxm-80gb"]


def test_axes_are_read_with_their_units():
    rate, share = axes_of(["cluster.nvlink.bridge=50 GB/s:200GB/s", "stack.launch_factor=5:20"])
    assert (rate.least, rate.most) == (50e9, 200e9)
    assert rate.points == pytest.approx((50e9, 100e9, 200e9))
    assert rate.override(123e9) == "cluster.nvlink.bridge=123 GB/s"
    assert share.override(7.5) == "stack.launch_factor=7.5"
    scenario = load("quickstart").scenario
    assert share.shipped(scenario) == scenario.stack.launch_factor
    assert axes_of(["stack.no.such=1:2"])[0].shipped(scenario) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stack.launch_factor", "not of the form KEY=LEAST:MOST"),
        ("stack.launch_factor=1:2:3", "not of the form KEY=LEAST:MOST"),
        ("stack.launch_factor=0:2", "above zero"),
        ("stack.launch_factor=3:2", "smaller to a larger"),
        ("stack.launch_factor=slow:fast", "two numbers or two quantities"),
        ("stack.launch_factor=1:2 GB/s", "two numbers or two quantities"),
    ],
)
def test_a_key_that_cannot_be_fitted_is_told(text, said):
    with pytest.raises(ScenarioError, match=said):
        axes_of([text])
    with pytest.raises(ScenarioError, match="fitted twice"):
        axes_of(["stack.launch_factor=1:2"] * 2)


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=4),
       st.floats(0.5, 8), st.floats(0.5, 8))  # fmt: skip
def test_powers_of_keys_are_exact_on_a_surface(rows, x, y):
    """c x^a y^b is straight in logarithms, between the points, beyond them, and for both keys at once."""
    points = {"x": (1.0, 2.0, 4.0), "y": (1.0, 3.0, 5.0)}
    along = {
        "x": [[c * p**a * 2.0**b for p in points["x"]] for c, a, b in rows],
        "y": [[c * 2.0**a * p**b for p in points["y"]] for c, a, b in rows],
    }
    shipped = ({"x": 2.0, "y": 2.0}, [c * 2.0**a * 2.0**b for c, a, b in rows])
    expected = [c * x**a * y**b for c, a, b in rows]
    found = surface(points, along, shipped)
    assert found({"x": x, "y": y}) == pytest.approx(expected, rel=1e-9)
    moved = surface(points, along, None).moved(*shipped)
    assert moved({"x": x, "y": y}) == pytest.approx(expected, rel=1e-9)


def test_the_command_writes_an_override_that_a_run_uses(measured, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["stepline", "calibrate", "steps", str(measured), "--stack", STACK, "--out", "mine", "--jobs", "1"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as done:
        main()
    said = " ".join(capsys.readouterr().out.split())
    assert not done.value.code, said
    assert f"--set stack=mine/{STACK}.yaml" in said
    assert "1 refused: no such GPU is shipped" in said
    row = read(measured)[1]
    Path("row.yaml").write_text(json.dumps(document(row)))
    errors = [
        abs(run("./row.yaml", [f"stack={stack}"]).result.step_time / row.number("step_time_s") - 1)
        for stack in (STACK, f"./mine/{STACK}.yaml")
    ]
    assert errors[1] < 0.2 * errors[0]


def test_a_table_of_which_nothing_can_be_simulated_is_refused(tmp_path, monkeypatch, capsys):
    path = table(tmp_path / "odd.csv", [ODD], [1.0])
    monkeypatch.setattr(sys, "argv", ["stepline", "calibrate", "steps", str(path)])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 2
    assert "none of 1 rows can be simulated" in capsys.readouterr().err
