"""Suggestions: each is simulated, fits, does the same work, and is what one gets by making it."""

from dataclasses import replace

import pytest

from scenarios import TINY
from sim.api import run, scenario_of
from sim.study import rules
from sim.study.suggest import RULES, suggest

PIPE = [
    "batch.size=null",
    "batch.accumulation=6",
    "model.layers=16",
    "model.vocab=150000",
    "layout.pp=4",
    "layout.dp=2",
    "cluster.nodes=1",
]
"""Four ranks of four layers; the last one also has the head, which is as much work as several layers."""


@pytest.fixture(scope="module")
def pipeline():
    step = run("lecture-64-pp", PIPE)
    return step, suggest(step, "lecture-64-pp", PIPE, jobs=1)


def test_every_suggestion_is_what_its_overrides_give(pipeline):
    _, (found, _) = pipeline
    assert len(found) > 8
    for one in (found[0], found[-1]):
        again = run("lecture-64-pp", [*PIPE, *one.sets]).result
        assert again.fits
        assert again.step_time == pytest.approx(one.step_time, rel=2e-4)
        assert max(use.peak for use in again.memory) == pytest.approx(one.peak, rel=0.1)


def test_they_are_sorted_by_gain_and_fit_and_do_the_same_work(pipeline):
    step, (found, _) = pipeline
    assert [one.gain for one in found] == sorted((one.gain for one in found), reverse=True)
    for one in found:
        assert one.gain == pytest.approx(1.0 - one.step_time / step.result.step_time, abs=1e-3)
        assert one.peak <= one.capacity
        assert one.kind in {*RULES, "together"}
        batch = scenario_of("lecture-64-pp", [*PIPE, *one.sets]).batch
        assert (batch.size, batch.sequence) == (step.scenario.batch.size, step.scenario.batch.sequence)


def test_changes_of_several_kinds_are_tried_together(pipeline):
    """And are better than each of them: else they are not told."""
    _, (found, _) = pipeline
    both = found[0]
    assert both.kind == "together"
    parts = [one for one in found[1:] if one.says in both.says.split("; ")]
    assert len(parts) == len(both.says.split("; ")) >= 2
    assert len({one.kind for one in parts}) == len(parts)
    assert both.step_time < min(one.step_time for one in parts)
    assert len({text.partition("=")[0] for text in both.sets}) == len(both.sets)


def test_a_busy_last_stage_gets_fewer_layers_and_that_helps(pipeline):
    _, (found, _) = pipeline
    (one,) = [one for one in found if one.kind == "balance"]
    layers = [int(n) for n in one.says.split(": ")[1].split(", ")]
    assert sum(layers) == 16
    assert layers[-1] == min(layers) < 4
    assert one.gain > 0.05
    assert list(rules.balance(run("lecture-64-pp", [*PIPE, *one.sets]))) == [], "what is balanced stays"


def test_what_is_refused_says_why(pipeline):
    _, (_, refused) = pipeline
    reasons = dict(refused)
    assert "set zero: 1, 2 or 3" in reasons["optimizer on the CPU"]


def test_what_does_not_fit_is_not_suggested():
    step = run("zero-offload-10b-v100", ["model.layers=14"])
    found, refused = suggest(step, "zero-offload-10b-v100", ["model.layers=14"], jobs=1)
    reasons = dict(refused)
    assert reasons["no offload"].startswith("does not fit: ")
    assert "recompute nothing" in reasons
    delayed = next(one for one in found if one.sets == ("offload.update=delayed",))
    hidden = step.result.breakdown["cpu_adam"] + step.result.breakdown["h2d"]
    assert 0.3 * hidden < step.result.step_time - delayed.step_time <= 1.01 * hidden, "it hides the update"


def test_what_changes_nothing_is_not_suggested():
    """With fused attention there is no core to recompute."""
    step = run("quickstart", TINY)
    found, refused = suggest(step, "quickstart", TINY, jobs=1)
    assert ("recompute only the core of attention", "changes nothing") in refused
    assert all(abs(one.gain) > 1e-9 or one.peak != found[0].capacity for one in found)


def test_faults_are_worth_mending():
    sets = ["cluster.variations=[{node: 0, part: gpu, index: 1, speed: 0.5}]", "layout.dp=8", "model.layers=2"]
    step = run("quickstart", sets)
    found, _ = suggest(step, "quickstart", sets, jobs=1)
    (mended,) = [one for one in found if one.sets == ("cluster.variations=null",)]
    assert mended.gain > 0.1
    assert mended.step_time == run("quickstart", sets[1:]).result.step_time


def test_rules_keep_what_a_file_orders():
    """An order from a file is for its stages and microbatches: no rule proposes other ones."""
    step = run("own-order", ["model.layers=4"])
    for rule in (rules.pipeline, rules.layout, rules.micro_batch):
        assert not list(rule(step))


def test_no_rule_proposes_what_is_already_so():
    step = run("lecture-64-pp", PIPE)

    def laid_out(**layout):
        return replace(step, scenario=replace(step.scenario, layout=replace(step.scenario.layout, **layout)))

    assert all("layout.zero=1" not in one.sets for one in rules.zero_stage(laid_out(zero=1)))
    order = laid_out(order=("tp", "cp", "pp", "dp"))
    assert all("layout.order=[tp, cp, pp, dp]" not in one.sets for one in rules.mesh_order(order))
    assert all("layout.schedule=zb-h1" not in one.sets for one in rules.pipeline(laid_out(schedule="zb-h1")))
