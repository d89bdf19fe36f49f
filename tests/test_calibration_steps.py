"""The sustained share calibrated: a known one comes back from steps made with it; an override foretells them."""

import json
import sys
from pathlib import Path

import pytest

from sim.api import run
from sim.calibration.steps import Asked, calibrate
from sim.cli import main
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
    assert (found.device, found.stack, found.groups) == ("a100-sxm-80gb", STACK, "models")
    assert found.share == pytest.approx(TRUE, abs=0.004)
    assert found.low <= found.share <= found.high
    assert found.high - found.low < 0.01
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
    assert alone.share == pytest.approx(TRUE, abs=0.01)
    assert alone.error != alone.error  # of one row there is no standard error


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
