"""Comparisons: every differing key, nothing else; all errors at once; figures equal to single runs."""

import json

import pytest
from typer.testing import CliRunner

from sim.api import resolved, run
from sim.cli import app
from sim.errors import ScenarioError
from sim.study.compare import compare
from sim.study.differences import differences

FAST = ["batch.size=null", "batch.accumulation=1", "model.layers=8"]


def test_differences_are_all_keys_that_differ_and_no_others():
    a = {"x": 1, "y": {"z": "5 GB", "w": True}, "list": [1, 2], "rows": [{"k": 1}], "source": "me"}
    b = {"x": 1, "y": {"z": "6 GB"}, "list": [1, 3], "rows": [{"k": 2}], "source": "you"}
    found = {row.key: row.values for row in differences([a, b])}
    assert found == {"y.z": ("5 GB", "6 GB"), "y.w": ("true", ""), "list": ("1, 2", "1, 3"), "rows.0.k": ("1", "2")}


def test_a_scenario_does_not_differ_from_itself():
    one = resolved("lecture-64-dp")
    assert differences([one, one]) == ()


def test_every_override_shows_as_a_difference():
    one, other = resolved("lecture-64-dp"), resolved("lecture-64-dp", ["cluster.host.dram=3 TB", "batch.micro=2"])
    assert [row.key for row in differences([one, other])] == ["cluster.host.dram", "batch.micro"]


def test_steps_are_those_of_single_runs():
    found = compare(["lecture-64-dp", "lecture-64-zero3"], FAST)
    for name, step in zip(("lecture-64-dp", "lecture-64-zero3"), found.steps, strict=True):
        assert step.result.step_time == run(name, FAST).result.step_time
    assert {row.key for row in found.differences} == {"layout.zero"}


def test_errors_of_all_scenarios_are_told_at_once():
    with pytest.raises(ScenarioError) as caught:
        compare(["no-such-one", "quickstart", "neither-this"])
    assert len(caught.value.problems) == 2


def test_the_command_prints_writes_and_ends_with_the_verdict(tmp_path):
    sets = [word for s in FAST for word in ("--set", s)]
    done = CliRunner().invoke(app, ["compare", "lecture-64-dp", "lecture-64-pp", *sets, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "layout.pp" in done.output
    data = json.loads((tmp_path / "compare.json").read_text())
    assert data["scenarios"] == ["lecture-64-dp", "lecture-64-pp"]
    assert (tmp_path / "compare.png").stat().st_size > 10_000
    one = CliRunner().invoke(app, ["compare", "quickstart", "lecture-1t-one-gpu", "--json"])
    assert one.exit_code == 1
    assert json.loads(one.stdout)["fits"] is False
