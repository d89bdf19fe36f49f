"""The user's own pipeline order, from a CSV beside the scenario: found, read, checked, simulated."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_workload_parallel import parallel

from sim.api import check, run, schedule, simulate
from sim.errors import ScenarioError
from sim.spec.types import ScheduleFile
from sim.workload.build import schedule_of
from sim.workload.schedules.csv_text import to_csv
from sim.workload.schedules.table import SCHEDULES

FIXTURES = Path(__file__).parent / "fixtures"
STAGES = {"interleaved": 2, "zb-v": 2, "dualpipev": 2}
SOUND = "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n"


def written(name):
    """A scenario by name, and the same with the schedule written out as the user's own."""
    scenario = parallel(pp=2, dp=2, accumulation=4, schedule=name, virtual_stages=STAGES.get(name, 1))
    file = ScheduleFile(name="mine.csv", text=to_csv(schedule_of(scenario)))
    return scenario, replace(scenario, layout=replace(scenario.layout, schedule="1f1b", schedule_file=file))


@pytest.mark.parametrize("name", SCHEDULES)
def test_exported_and_read_back_is_the_same_timeline_to_the_bit(name):
    made, read = (simulate(scenario).timeline for scenario in written(name))
    assert made.ops == read.ops
    assert made.rank_classes == read.rank_classes
    assert made.makespan == read.makespan
    for column in ("op", "action", "microbatch", "launched", "ready", "start", "end", "cause", "cause_span"):
        assert np.array_equal(getattr(made.spans, column), getattr(read.spans, column)), column


def test_an_order_decides_what_is_held():
    """The shipped example, eager 1F1B: 2(p - r - 1) + 1 activations of a stage instead of p - r."""
    own = schedule("own-order")
    assert own.held == (7, 5, 3, 1)
    plain = ["layout.schedule_file=null", "layout.schedule=1f1b"]
    assert schedule("own-order", plain).held == (4, 3, 2, 1)
    eager, usual = (max(use.peak for use in run("own-order", sets).result.memory) for sets in ([], plain))
    assert eager > 1.2 * usual


@given(p=st.integers(2, 3), m=st.integers(1, 4), v=st.integers(1, 2), split=st.booleans(), seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_whatever_is_found_sound_comes_to_its_end(p, m, v, split, seed):
    """Orders drawn at random: forwards and backwards of a stage in the order of microbatches, all else by lot."""
    text = _drawn(p, m, v, random.Random(seed), split=split)
    scenario = parallel(pp=p, accumulation=m, virtual_stages=v, stage_layers=(1,) * (p * v))
    scenario = replace(scenario, model=replace(scenario.model, layers=p * v))
    file = ScheduleFile(name="drawn.csv", text=text)
    result = simulate(replace(scenario, layout=replace(scenario.layout, schedule_file=file))).result
    assert sum(result.breakdown.values()) == pytest.approx(result.step_time)


def _drawn(p, m, v, lot, *, split):
    """Any action that may come next, on any rank, until all are done; some weight gradients apart."""
    last, rows = p * v - 1, [[] for _ in range(p)]
    forwards, backwards, owed = [0] * (last + 1), [0] * (last + 1), []
    while owed or min(backwards) < m:
        may = [("F", s, forwards[s]) for s in range(last + 1) if forwards[s] < (m if s == 0 else forwards[s - 1])]
        ready = [min(forwards[s], m if s == last else backwards[s + 1]) for s in range(last + 1)]
        may += [("B", s, backwards[s]) for s in range(last + 1) if backwards[s] < ready[s]] + owed
        kind, s, k = lot.choice(may)
        if kind == "F":
            forwards[s] += 1
        elif kind == "W":
            owed.remove((kind, s, k))
        else:
            backwards[s] += 1
            if split and lot.random() < 0.5:
                kind = "I"
                owed.append(("W", s, k))
        rows[s % p].append(f"{s}{kind}{k}")
    return "\n".join(map(",".join, rows))


# -- found beside the file that says it


@pytest.fixture
def scenario(tmp_path):
    """A scenario in a folder of its own, with its order beside it."""
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "order.csv").write_text(SOUND)
    (folder / "mine.yaml").write_text(
        f"extends: {FIXTURES}/base.yaml\nlayout: {{pp: 2, dp: 4, schedule_file: order.csv}}\n"
    )
    return folder / "mine.yaml"


def test_the_path_is_relative_to_the_file_that_says_it(scenario, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert schedule("there/mine.yaml").csv == SOUND
    assert schedule("there/mine.yaml").name == "there/order.csv"
    (tmp_path / "child.yaml").write_text("extends: ./there/mine.yaml\nrecompute: full\n")
    assert schedule("child.yaml").csv == SOUND, "the base says it"
    other = "0F0,0F1,0B1,0B0\n1F0,1F1,1B1,1B0\n"
    Path("other.csv").write_text(other)
    assert schedule("there/mine.yaml", ["layout.schedule_file=other.csv"]).csv == other, "--set: from here"


def said(scenario, *overrides):
    """What ``check`` says to a scenario in its folder."""
    with pytest.raises(ScenarioError) as error:
        check(str(scenario), overrides)
    assert error.value.exit_code == 2
    return str(error.value).replace(f"{scenario.parent}/", "").replace(str(scenario.parent).lstrip("/") + "/", "")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "there is no such file"),
        (b"0F0,\xe9\n", "is not UTF-8 text (byte 4)"),
        (b"," * (4 * 2**20 + 1), "is larger than 4194304 bytes, the most that is read"),
    ],
)
def test_files_that_cannot_be_read(scenario, content, why):
    order = scenario.parent / "order.csv"
    order.unlink()
    if content is not None:
        order.write_bytes(content)
    rule = "the path is relative to the file that says it"
    assert said(scenario) == f"mine.yaml:2:24: layout.schedule_file: order.csv: {why}; {rule}"


def test_a_folder_is_no_file(scenario):
    order = scenario.parent / "order.csv"
    order.unlink()
    order.mkdir()
    assert "order.csv: there is no such file" in said(scenario)


# -- read and checked, with all that is wrong at once


def test_faults_of_the_file_and_of_the_scenario_are_told_together(scenario):
    (scenario.parent / "order.csv").write_text("0F0,0X1,0B0\n1F0,nothing\n")
    found = said(scenario, "layout.zero=7", "batch.micros=1").splitlines()
    assert [line.split(": ")[0] for line in found] == ["--set", "--set", "order.csv:1:5", "order.csv:2:5"]
    assert "'0X1' is not an action" in found[2]


def test_an_order_that_cannot_end_is_drawn(scenario):
    (scenario.parent / "order.csv").write_text("0F0,0B0,0F1,0B1\n1F0,1F1,1B1,1B0\n")
    found = said(scenario)
    assert found.startswith("order.csv:1:5: rank 0, action 1: 0B0 waits for the input gradients of microbatch 0")
    assert "<-- here" in found


def test_an_order_for_another_layout_or_batch(scenario):
    rows = "".join(f"{s}F0,{s}F1,{s}F2,{s}B0,{s}B1,{s}B2\n" for s in range(3))
    (scenario.parent / "order.csv").write_text(rows)
    assert said(scenario).splitlines() == [
        "order.csv: batch.accumulation: 3 microbatches, and batch.accumulation is 2; set accumulation to 3, or "
        "schedule as many",
        "order.csv: layout.pp: 3 rows, a row a pipeline rank, and layout.pp is 2; set pp to 3, or give 2 rows",
    ]
    (scenario.parent / "order.csv").write_text("0F0,0F1,2F0,2F1,2B0,2B1,0B0,0B1\n1F0,1F1,3F0,3F1,3B0,3B1,1B0,1B1\n")
    assert said(scenario) == (
        "order.csv: layout.virtual_stages: 4 stages (numbered from 0), and layout.pp * layout.virtual_stages is 2; set "
        "virtual_stages to 2"
    )
    assert schedule(str(scenario), ["layout.virtual_stages=2", "layout.stage_layers=[1, 1, 1, 1]"]).stages == 4


def test_nothing_in_the_file_is_executed(scenario):
    """Formulas, paths and code are cells like any other: none is an action."""
    cells = ['=cmd|"/c calc"!A1', "__import__('os')", "../../etc/passwd", "${HOME}"]
    (scenario.parent / "order.csv").write_text(",".join(cells) + "\n")
    assert said(scenario).count("is not an action") == len(cells)
