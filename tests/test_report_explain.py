"""What explains a step, as text, JSON and figure; one category; two runs; the command from end to end."""

import json
import math

import pytest
from rich.console import Console

from scenarios import TINY, data_parallel
from sim.analysis.detail import detail
from sim.analysis.difference import difference
from sim.analysis.explain import explain
from sim.api import simulate
from sim.errors import ScenarioError
from sim.report import explain_json, explain_parts, explain_text
from sim.report.tornado_plot import BARS, tornado_figure
from sim.study.explain import category
from sim.study.opened import open_step
from sim.study.why import Suggestion, WhatIf, Why
from tests.test_cli import stepline

WHY = Why(
    what_if=(
        WhatIf(resource="sm", says="GPU arithmetic", path=0.5, base=2.0, step_times=(1.9, 1.5, 1.0)),
        WhatIf(resource="nvlink", says="NVLink", path=0.1, base=2.0, step_times=(2.0, 2.0, 2.1)),
    ),
    suggestions=(
        Suggestion(kind="x", says="better", sets=("a=1", "b=2"), step_time=1.0, gain=0.5, peak=3e9, capacity=4e9),
        Suggestion(kind="x", says="smaller", sets=("c=3",), step_time=3.0, gain=-0.5, peak=1e9, capacity=4e9),
    ),
    refused=(("worse", "does not fit"),),
)


@pytest.fixture(scope="module")
def step():
    return simulate(data_parallel(16, 1, nodes=2, accumulation=2))


def printed(show, *what, width=80):
    console = Console(record=True, width=width, file=open("/dev/null", "w"), markup=False, highlight=False)  # noqa: SIM115
    show(console, *what)
    return console.export_text()


def test_the_text_names_what_binds_and_fits_80_columns(step):
    found = explain(step.timeline, step.result)
    text = printed(explain_text.show, found)
    assert "length, which is the step" in text
    assert max(len(line) for line in text.splitlines() if line.startswith(" ")) <= 80
    first = next(line for line in text.splitlines() if "%" in line)
    top = next(iter(found.path.by_resource))
    assert first.strip().startswith(explain_text.words(top)[:10])
    for row in found.exposure:
        assert explain_text.label(row.category).replace(" communication", "") in text


def test_what_if_and_changes_as_text():
    text = printed(explain_text.show_why, WHY, width=120)
    assert text.index("GPU arithmetic") < text.index("NVLink")
    for part in ("50.00%", "-5.00%", "better", "a=1 b=2", "+50.0%", "smaller", "-50.0%", "1 more were tried"):
        assert part in text
    nothing = printed(explain_text.show_why, Why(what_if=(), suggestions=(), refused=()))
    assert "no change that was tried makes it faster" in nothing


def test_the_json_is_whole_and_reads_back(step, tmp_path):
    found = explain(step.timeline, step.result)
    (tmp_path / "explain.json").write_text(explain_json.dumps(found, WHY))
    document = json.loads((tmp_path / "explain.json").read_text())
    assert sum(document["explanation"]["path"]["by_resource"].values()) == pytest.approx(found.step_time)
    assert len(document["explanation"]["links"][0]["over_time"]) == 240
    assert explain_json.read_why(tmp_path, found.step_time) == WHY
    assert explain_json.read_why(tmp_path, found.step_time * 1.1) is None, "it explains another step"
    (tmp_path / "explain.json").write_text('{"format": 1, "explanation": {}}')
    assert explain_json.read_why(tmp_path, found.step_time) is None
    assert explain_json.read_why(tmp_path / "no", 1.0) is None


def test_the_tornado_has_a_bar_for_each_factor():
    ax = tornado_figure(WHY.what_if, "name with $ and <b>").axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["GPU arithmetic", "NVLink"]
    assert sorted(patch.get_width() for patch in ax.patches) == pytest.approx([-5.0, 0.0, 0.0, 5.0, 25.0, 50.0])
    assert "%" in ax.get_xlabel()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [label for label, _ in BARS]


def test_a_category_adds_up(step):
    path = explain(step.timeline, step.result).path.by_category
    for name, seconds in step.result.breakdown.items():
        found = detail(step.timeline, name)
        assert found.seconds == pytest.approx(seconds)
        assert sum(row.on_path for row in found.ops) == pytest.approx(path.get(name, 0.0), abs=1e-12)
        assert math.fsum(found.by_stage.values()) / len(found.by_stage) == pytest.approx(seconds)
    dp = detail(step.timeline, "dp")
    assert sum(row.bytes for row in dp.ops) == pytest.approx(
        next(row.bytes for row in step.result.transfers if row.category == "dp")
    )
    assert all(row.seconds >= row.alone * (1 - 1e-9) for row in dp.ops)
    assert "bucket" in printed(explain_parts.show_detail, dp, width=120)


def test_an_unknown_category_lists_the_known_ones():
    opened = open_step("quickstart", TINY)
    with pytest.raises(ScenarioError, match="'x' is no category of this step; it has forward, backward"):
        category(opened, "x")


def test_two_runs_add_up_to_their_difference(step):
    other = simulate(data_parallel(16, 2, nodes=2, accumulation=2))
    found = difference(step.result, other.result)
    change = other.result.step_time - step.result.step_time
    assert found.step.change == change
    assert sum(row.change for row in found.breakdown) == pytest.approx(change, rel=1e-9)
    assert sum(row.change for row in found.path) == pytest.approx(change, rel=1e-9)
    assert [abs(row.change) for row in found.breakdown] == sorted(
        (abs(r.change) for r in found.breakdown), reverse=True
    )
    assert "critical path" in printed(explain_parts.show_difference, found)
    same = difference(step.result, step.result)
    assert all(row.change == 0.0 for row in (*same.breakdown, *same.path, *same.sent, *same.memory))


EVIL = """\
name: "../<script>alert(1)</script>"
model: {extends: gpt2-124m, layers: 2, hidden: 256, heads: 4, kv_heads: 4, ffn: 1024, vocab: 2048}
cluster: dgx-a100
layout: {dp: 1}
batch: {micro: 2, accumulation: 1, sequence: 128}
precision: bf16
recompute: none
offload: none
stack: pytorch-fsdp
"""


def test_the_command_explains_a_scenario_then_its_folder_then_both(tmp_path):
    """And a name with markup and slashes is only a name: nothing is written above the folder."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "evil.yaml").write_text(EVIL)
    done = stepline("explain", "evil.yaml", cwd=tmp_path / "a")
    assert done.returncode == 0, done.stderr
    assert "<script>alert(1)</script>" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"a"}
    (folder,) = (tmp_path / "a" / "out").iterdir()
    written = {path.name for path in folder.iterdir()}
    assert {"explain.json", "tornado.png", "tornado.svg", "scenario.yaml", "timeline.npz", "result.json"} <= written
    assert "<script>" not in (folder / "tornado.svg").read_text()
    result = json.loads((folder / "result.json").read_text())
    done = stepline("explain", str(folder), "--json", "--recorded", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert document["explanation"]["step_time"] == result["step_time_s"]
    assert document["why"] is None
    done = stepline("explain", str(folder), "forward", cwd=tmp_path)
    assert "on path" in done.stdout
    done = stepline("explain", str(folder), "--against", "quickstart", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["step"]["b"] == result["step_time_s"]


def test_what_does_not_fit_is_explained_with_exit_code_one(tmp_path):
    sets = ("--set", "model.layers=60")
    done = stepline("explain", "zero-offload-10b-v100", "--recorded", "--json", *sets, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    (gpu, _) = json.loads(done.stdout)["explanation"]["peaks"]
    assert gpu["peak"] > gpu["capacity"]
    assert next(iter(gpu["owners"])) == "parameters"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["{here}"], "holds no run"),
        (["quickstart", "dp", "--against", "quickstart"], "leave one of them out"),
    ],
)
def test_bad_input_is_two_and_words(args, said, tmp_path):
    done = stepline("explain", *(arg.format(here=f"{tmp_path}/") for arg in args), cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
