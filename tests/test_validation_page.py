"""``validate --page``: what the part says, and that the rest of the page stays as it was."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sim.cli import app, main
from sim.errors import ScenarioError
from sim.report.files import marked, write_between
from sim.validation.page import page
from sim.validation.rows import Row
from sim.validation.run import Scored
from sim.validation.scores import scores

CELLS = {
    "id": "a", "source": "ultrascale", "layers": "4", "hidden": "512", "heads": "8", "vocab": "50257",
    "seq_len": "1024", "gpu": "h100-sxm-80gb", "gpus": "8", "gpus_per_node": "8", "dp": "8", "micro_batch": "1",
    "global_batch": "16", "precision": "bf16", "step_time_s": "2",
}  # fmt: skip


def scored(measured, simulated, file="made.csv", **more):
    cells = {key: str(value) for key, value in more.items() if key in CELLS or key in ("tp", "notes")}
    rest = {key: value for key, value in more.items() if key not in cells}
    return Scored(row=Row(file, 2, {**CELLS, **cells}), measured=measured, simulated=simulated, **rest)


def lines(found, start):
    return [line for line in page(scores(found), "1.2").splitlines() if line.startswith(start)]


def test_every_table_has_its_errors_and_target():
    found = [
        scored(2.0, 2.3, "ultrascale.csv", id="x", memory=10.0, memory_simulated=9.0),
        scored(2.0, 9.9, "ultrascale.csv", id="y", tp=16, gpus=16, dp=1),
        scored(2.0, 1.9, id="z", fits=False),
    ]
    assert lines(found, "| ultrascale | 2 |") == [  # nine tenths of the way from 0.15 to 3.95
        "| ultrascale | 2 | 0 | 0 | 205.0 % |  | +205.0 % | 205.0 % | 357.0 % | 10.0 % (1 rows) |  | -10.0 % |",
    ]
    assert lines(found, "| ultrascale | y | 2 s | 9.9 s | +395.0 % |")
    assert lines(found, "| ... counted | 1 | 0 | 0 | 15.0 % | 8 %, missed | +15.0 %, missed |")
    assert lines(found, "| made | 1 | 0 | 1 | 5.0 % |  |")
    assert lines(found, "| made | 1 | ran there, exceeds memory here")


def test_bad_cases_are_named():
    found = [scored(2.0, 0.0, id="a", refused="not this | or that"), scored(2.0, 1.0, id="b"), scored(4.0, 1.5, id="c")]
    assert lines(found, "| made | 1 | not this \\| or that |")
    assert lines(found, "| made | c | 4 s | 1.5 s | -62.5 % |")
    assert lines(found, "| made | 2 | 1 | 100.0 % | 25.0 % | 25.0 % |")  # b and c ask the same: 2 s is half of c


def test_pairs_say_what_they_differ_in():
    found = [scored(2.0, 1.0, id="b"), scored(1.0, 1.5, id="c", micro_batch=2)]
    assert lines(found, "| b (micro_batch 1) | c (micro_batch 2) | 2.000 | 0.667 |")
    assert lines(found, "| micro-batch | 1 | 1 | 0 | 0.0 % | 200.0 % |")


def test_pairs_of_rows_that_count_are_told_apart():
    found = [scored(2.0, 1.0, id="b"), scored(1.0, 1.5, id="c", micro_batch=2)]
    assert not lines(found, "| ... counted |")
    broken = {"file": "ultrascale.csv", "tp": 16, "gpus": 16, "dp": 1}
    found += [scored(2.0, 3.0, **broken), scored(1.0, 1.5, **broken, micro_batch=2)]
    assert lines(found, "| **all** | 2 | 2 | 1 | 50.0 % |")
    assert lines(found, "| ... counted | 1 | 1 | 0 | 0.0 % |")


def test_a_cell_of_a_table_breaks_no_page():
    said = page(scores([scored(2.0, 1.0, id="a | b\n<script>")]), "1.2")
    assert "a \\| b &lt;script>" in said
    assert len({line.count("|") for line in said.splitlines() if line.startswith("| made | a ")}) == 1


def test_only_what_is_between_the_marks_is_written(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("# Ours\n\n<!-- begin: x -->\nold\n<!-- end: x -->\n\nReasons.\n")
    write_between(path, "x", "new")
    assert path.read_text() == "# Ours\n\n<!-- begin: x -->\n\nnew\n\n<!-- end: x -->\n\nReasons.\n"
    write_between(path, "x", "newer")
    assert path.read_text().count("new") == 1
    write_between(tmp_path / "none.md", "x", "new")
    assert (tmp_path / "none.md").read_text() == "<!-- begin: x -->\n\nnew\n\n<!-- end: x -->\n"


@pytest.mark.parametrize(
    "text",
    ["# No marks\n", "<!-- end: x -->\n<!-- begin: x -->\n", "<!-- begin: x -->\n" * 2 + "<!-- end: x -->\n", ""],
)
def test_a_page_without_its_marks_is_left_alone(tmp_path, text):
    path = tmp_path / "page.md"
    path.write_text(text)
    with pytest.raises(ScenarioError, match="needs the lines <!-- begin: x --> and <!-- end: x -->"):
        marked(path, "x")
    with pytest.raises(ScenarioError):
        write_between(path, "x", "new")
    assert path.read_text() == text


def test_the_command_writes_its_page(tmp_path):
    table, target = tmp_path / "t.csv", tmp_path / "page.md"
    table.write_text(",".join(CELLS) + "\n" + ",".join(CELLS.values()) + "\n")
    target.write_text("# Right?\n<!-- begin: validate -->\n<!-- end: validate -->\nWhy.")
    found = CliRunner().invoke(app, ["validate", str(table), "--page", str(target), "--json", "--jobs", "1"])
    assert found.exit_code == 0
    assert set(json.loads(found.stdout)) == {"files", "ratios"}
    said = target.read_text()
    assert said.startswith("# Right?\n")
    assert said.endswith("Why.\n")
    assert "| t | 1 | 0 | 0 |" in said


def test_the_page_of_accuracy_has_its_part():
    before, after = marked(Path(__file__).parents[1] / "docs" / "accuracy.md", "validate")
    assert before.startswith("# How right it is")
    assert "## What is not modelled" in after


def test_a_page_that_cannot_be_written_is_told_before_hours_of_simulation(tmp_path, monkeypatch, capsys):
    table, target = tmp_path / "t.csv", tmp_path / "page.md"
    table.write_text(",".join(CELLS) + "\n" + ",".join(CELLS.values()) + "\n")
    target.write_text("# Right?\n")
    monkeypatch.setattr("sim.validation.run.validate", lambda *_: pytest.fail("simulated"))
    monkeypatch.setattr(sys, "argv", ["stepline", "validate", str(table), "--page", str(target)])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 2
    assert "page.md" in capsys.readouterr().err
