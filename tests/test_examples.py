"""Everything that is shipped runs, and the README's commands and claims hold."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from sim.analysis.path import critical_path
from sim.api import check, run, schedule
from sim.spec.catalogue import names

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


TOO_BIG = ("lecture-1t-one-gpu", "lecture-4096-gpipe")
SHORTER = {
    "lecture-4096": 8, "lecture-4096-gpipe": 96, "lecture-4096-interleaved": 64, "megatron-530b-2520": 8,
    "megatron-1t-3072": 8, "gpt3-175b-1024": 16, "llama3-405b-16k": 16, "bloom-176b-384": 16,
    "zero-offload-10b-v100-b512": 8, "deepseek-v3-2048": 16,
}  # fmt: skip
"""Many microbatches: run with so many here; the benchmark runs them whole."""


@pytest.mark.parametrize("name", names("scenarios"))
def test_every_shipped_scenario_runs_fits_and_is_weighed_without_simulating(name):
    """The walk in issue order ignores how long side streams hold buffers: gradients queue for a slow network."""
    sets = ["batch.size=null", f"batch.accumulation={SHORTER[name]}"] if name in SHORTER else []
    step, verdict = run(name, sets), check(name, sets)
    result, path = step.result, critical_path(step.timeline)
    assert result.fits == verdict.fits == (name not in TOO_BIG)
    assert result.step_time > 0
    assert sum(result.breakdown.values()) == pytest.approx(result.step_time, rel=1e-9)
    assert sum(result.bound_by.values()) == pytest.approx(1.0, rel=1e-9)
    assert path[0].start == 0.0
    assert path[-1].end == result.step_time, "the critical path is as long as the step"
    assert all(before.end == after.start for before, after in pairwise(path))
    assert 0 < result.mfu <= result.hfu < 0.9
    for weight in verdict.weights:
        simulated = max(use.peak for use in result.memory if use.where == weight.where)
        assert weight.peak == pytest.approx(simulated, rel=0.10)


def test_the_readme_scenario_is_valid(tmp_path):
    block = re.search(r"```yaml\n(name: mine.*?)```", README, re.DOTALL).group(1)
    (tmp_path / "mine.yaml").write_text(block)
    assert run(str(tmp_path / "mine.yaml")).result.fits


def test_the_readme_grid_is_what_the_command_draws():
    """And its two commands work: export an order, run it as one's own."""
    drawn = re.search(r"```\n(time   \|.*?)```", README, re.DOTALL).group(1)
    sets = ["layout.schedule_file=null", "layout.schedule=dualpipe"]
    assert schedule("own-order", sets).grid == drawn


def test_an_exported_order_runs_as_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = ["batch.size=null", "batch.accumulation=8"]
    Path("mine.csv").write_text(schedule("lecture-64-pp", few).csv)
    own, named = (run("lecture-64-pp", [*few, *more]).result for more in (["layout.schedule_file=mine.csv"], []))
    assert own.step_time == named.step_time


def test_readme_commands_name_things_that_exist():
    for name in re.findall(r"stepline (?:run|check|schedule) ([a-z0-9.-]+)", README):
        assert name in names("scenarios") or name.startswith("mine"), name
    for path in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize(
    ("row", "pick"),
    [
        ("`zero-offload-10b-v100`: step", lambda r: r.step_time),
        ("... forward", lambda r: r.phases["forward"]),
        ("... backward, recompute included", lambda r: r.phases["backward"]),
        ("... optimizer (unscale, CPU Adam, copy back)", lambda r: r.phases["optimizer"]),
    ],
)
def test_readme_figures_are_what_the_simulator_says(row, pick):
    said = float(re.search(re.escape(row) + r" \|[^|]*\| ([\d.]+) s", README).group(1))
    assert pick(run("zero-offload-10b-v100").result) == pytest.approx(said, abs=0.051)
