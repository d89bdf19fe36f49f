"""Sweeps: knobs read, points equal to single runs, resumed after a kill, crossings where they are."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from scenarios import TINY
from sim.api import run
from sim.errors import ScenarioError
from sim.study.knobs import points, read
from sim.study.sweep import JOURNAL, Asked, Crossing, _meeting, sweep

SMALL = (*TINY, "model.layers=2")
BANDWIDTH = "cluster.host.dram_bandwidth=50GB/s:800GB/s:3log"


def asked(tmp_path, *vary, overrides=SMALL, jobs=1):
    return Asked(source="zero-offload-10b-v100", overrides=overrides, knobs=read(vary), out=tmp_path, jobs=jobs)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a.b=1,2,4", ("1", "2", "4")),
        ("a=100GB/s:800GB/s:4log", ("100 GB/s", "200 GB/s", "400 GB/s", "800 GB/s")),
        ("a=1:9:5", ("1", "3", "5", "7", "9")),
        ("a=0:1:5", ("0", "0.25", "0.5", "0.75", "1")),
        ("a=1 GiB:3 GiB:3", ("1 GiB", "2 GiB", "3 GiB")),
        ("a={x: 1, y: 2},{x: 3}", ("{x: 1, y: 2}", "{x: 3}")),
        ("layout.schedule=gpipe,1f1b", ("gpipe", "1f1b")),
    ],
)
def test_knobs_are_lists_and_ranges(text, values):
    (knob,) = read([text])
    assert knob.texts == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "not of the form"), ("a=", "not of the form"), ("=1", "not of the form"), ("a=1:2:1", "at least 2"),
        ("a=2:1:3", "smaller to a larger"), ("a=0:1:3log", "above zero"), ("a=1:2GB:3", "of one kind"),
        ("a=x:y:3", "of one kind"), ("a=1,,2", "empty value"), ("a=1,1", "same value twice"),
    ],
)  # fmt: skip
def test_bad_knobs_are_refused_in_words(text, message):
    with pytest.raises(ScenarioError, match=message) as caught:
        read([text])
    assert caught.value.exit_code == 2


def test_all_bad_knobs_are_told_at_once_and_none_is_varied_twice():
    with pytest.raises(ScenarioError) as caught:
        read(["a=1,2", "a=3,4", "b=2:1:3", "c"])
    assert len(caught.value.problems) == 3


def test_too_many_points_are_refused():
    with pytest.raises(ScenarioError, match="more than"):
        read(["a=1:1000:1000", "b=1:1000:1000"])


def test_every_combination_once_the_last_knob_fastest():
    assert list(points(read(["a=1,2", "b=x,y"]))) == [("1", "x"), ("1", "y"), ("2", "x"), ("2", "y")]


def test_a_point_is_the_single_run_to_the_bit(tmp_path):
    found = sweep(asked(tmp_path, BANDWIDTH, "layout.dp=1,2", overrides=(*SMALL, "layout.zero=2"), jobs=2))
    assert len(found.rows) == 6
    for row in found.rows:
        rate, dp = row["values"]
        sets = [*SMALL, "layout.zero=2", f"cluster.host.dram_bandwidth={rate}", f"layout.dp={dp}"]
        result = run("zero-offload-10b-v100", sets).result
        assert (row["step_time_s"], row["mfu"]) == (result.step_time, result.mfu)
        assert row["breakdown"] == result.breakdown


def test_what_cannot_run_or_does_not_fit_is_a_row(tmp_path):
    found = sweep(
        asked(tmp_path, "layout.dp=1,3,1000", "model.layers=2,600", overrides=(*TINY, "cluster.device.memory=2 GB"))
    )
    verdicts = [row["verdict"] for row in found.rows]
    assert {"fits", "does not fit", "refused"} <= set(verdicts)
    assert all("why" in row for row in found.rows if row["verdict"] == "refused")


def test_a_key_that_nobody_knows_is_bad_input(tmp_path):
    with pytest.raises(ScenarioError, match="did you mean 'dram_bandwidth'"):
        sweep(asked(tmp_path, "cluster.host.dram_bandwith=1GB/s,2GB/s"))


def test_only_what_is_missing_is_run_again(tmp_path):
    first = sweep(asked(tmp_path, BANDWIDTH))
    journal = tmp_path / JOURNAL
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:1]) + lines[1][: len(lines[1]) // 2])  # killed while it wrote the second
    again = sweep(asked(tmp_path, BANDWIDTH))
    assert again.reused == 1
    assert again.rows == first.rows
    assert sweep(asked(tmp_path, BANDWIDTH)).reused == 3


def test_another_scenario_uses_nothing_of_the_journal(tmp_path):
    sweep(asked(tmp_path, BANDWIDTH))
    assert sweep(asked(tmp_path, BANDWIDTH, overrides=(*SMALL, "model.vocab=128"))).reused == 0


def test_a_killed_sweep_goes_on_where_it_stopped(tmp_path):
    command = [sys.executable, "-m", "sim", "sweep", "zero-offload-10b-v100", "--out", str(tmp_path), "--jobs", "1"]
    command += [word for s in (*TINY, "model.layers=12") for word in ("--set", s)]
    command += ["--vary", "cluster.host.dram_bandwidth=50GB/s:800GB/s:40log"]
    root = Path(__file__).parent.parent
    child = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal, until = tmp_path / JOURNAL, time.monotonic() + 30
    while time.monotonic() < until and (not journal.exists() or len(journal.read_text().splitlines()) < 3):
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    kept = len(journal.read_text().splitlines())
    assert 3 <= kept < 40
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{kept} of 40 points were there" in done.stdout or f"{kept - 1} of 40 points were there" in done.stdout
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert len(rows) == 40
    assert all(row["verdict"] == "fits" for row in rows)
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 41
    assert (tmp_path / "sweep.png").stat().st_size > 10_000


def test_shares_that_cross_halfway_meet_halfway():
    low, high = {"a": 0.6, "b": 0.4}, {"a": 0.4, "b": 0.6}
    assert _meeting((1.0, low), (3.0, high), ("a", "b"), False) == pytest.approx(2.0)
    assert _meeting((1.0, low), (4.0, high), ("a", "b"), True) == pytest.approx(2.0)


def test_crossings_are_between_neighbours_that_differ(tmp_path):
    found = sweep(asked(tmp_path, "cluster.host.dram_bandwidth=1GB/s:2TB/s:6log", overrides=("model.layers=4",)))
    binds = [row["binds"] for row in found.rows]
    assert binds[0] == "cores"
    changes = [(a, b) for a, b in pairwise(binds) if a != b]
    assert [(c.before, c.after) for c in found.crossings] == changes
    assert all(isinstance(c, Crossing) for c in found.crossings)
    assert changes
