"""Published figures: read by their kind, shown beside ours, and what the lecture says of its own scenarios."""

import pytest

from sim.analysis.published import Quoted, compare
from sim.api import check, run, simulate
from sim.figures import FIGURES
from sim.spec.load import load

QUICK = ["model.layers=2", "batch.size=null", "batch.accumulation=2"]


def test_every_figure_has_a_value_after_a_run():
    quotes = [
        {"seconds": "1 s", "bytes": "1 GB", "flops_per_s": "1 TFLOP/s", "count": "1", "fraction": "0.5"}[f.kind]
        for f in FIGURES.values()
    ]
    said = ", ".join(f"{{figure: {n}, value: {v}, by: me}}" for n, v in zip(FIGURES, quotes, strict=True))
    found = run("lecture-64-pp", [*QUICK[1:], f"published=[{said}]"]).result.published
    assert [one.figure for one in found] == list(FIGURES)
    assert all(one.ours > 0 for one in found)


def test_a_quotation_is_read_in_si_and_compared_to_the_middle_of_its_range():
    scenario = load("quickstart", ["published=[{figure: step_time, value: 100 ms, to: 300 ms, by: me}]"]).scenario
    (one,) = simulate(scenario).result.published
    assert (one.low, one.high) == (0.1, 0.3)
    assert one.difference == pytest.approx(one.ours / 0.2 - 1)


def test_a_figure_that_is_not_known_yet_is_left_out():
    quoted = (Quoted(figure="mfu", low=0.5, high=0.5, source="me"),)
    assert compare(quoted, {"parameters": 1.0}) == ()


def test_the_lectures_trillion():
    """12 N H^2 = 1.0926e12 for N = 298, H = 17480; 2 L^2 H + 12 L H^2; H L B = 7.3e10 for B = 2048."""
    found = {one.figure: one for one in check("lecture-1t-one-gpu").published}
    assert found["parameters"].low == pytest.approx(12 * 298 * 17480**2, rel=1e-4)
    assert found["multiplications_per_layer"].low == pytest.approx(2 * 2048**2 * 17480 + 12 * 2048 * 17480**2, rel=1e-4)
    assert found["activations_per_layer"].ours == 17480 * 2048 * 2048
    for one in found.values():
        assert one.difference == pytest.approx(0.0, abs=0.005)


def test_the_lectures_4096_gpus():
    """2 TB of 16-bit parameters; the bubble of 64 stages needs no simulation to be written down, but is simulated."""
    found = {one.figure: one for one in check("lecture-4096").published}
    assert found["gpus"].ours == found["gpus"].low == 4096
    assert found["parameter_bytes"].difference == pytest.approx(0.0, abs=0.05)  # the lecture rounds
    small = ["batch.size=null", "batch.accumulation=8"]
    (bubble,) = [one for one in run("lecture-4096", small).result.published if one.figure == "bubble"]
    assert bubble.ours == pytest.approx(63 / (8 + 63), rel=0.1)


def test_an_all_reduce_is_a_reduce_scatter_and_an_all_gather():
    """The lecture's pair: the same bytes from every rank, and the same seconds on the same links."""
    whole, parts = (run(name, QUICK).result for name in ("lecture-64-allreduce", "lecture-64-scatter-gather"))
    sent = [{t.category: t for t in result.transfers} for result in (whole, parts)]
    halves = sent[1]["dp"].bytes + sent[1]["param_gather"].bytes
    assert sent[0]["dp"].bytes == pytest.approx(halves, rel=1e-6)
    assert sent[0]["dp"].busy == pytest.approx(sent[1]["dp"].busy + sent[1]["param_gather"].busy, rel=0.15)


def test_what_four_layouts_move_on_the_same_64_gpus():
    """GPT-2 1.5B, M parameters: DP 2 M g (n-1)/n; ZeRO-3 2 gathers a microbatch; MP 4 all-reduces a layer."""
    names = ("lecture-64-dp", "lecture-64-mp", "lecture-64-pp", "lecture-64-zero3")
    runs = {name: run(name, ["batch.size=null", "batch.accumulation=8"]) for name in names}
    sent = {n: {t.category: t.bytes for t in r.result.transfers} for n, r in runs.items()}
    scenario = runs["lecture-64-dp"].scenario
    model, layers = scenario.model, scenario.model.layers
    m = check("lecture-64-dp").params
    grad = 2 * m * 63 / 64
    assert sent["lecture-64-dp"]["dp"] == pytest.approx(2 * grad, rel=1e-3)
    act = 1024 * model.hidden * 2
    layer = 4 * layers * 2 * act * 7 / 8
    assert sent["lecture-64-mp"]["tp"] == pytest.approx(8 * layer, rel=0.02)  # lookup and loss besides
    tied = model.vocab * model.hidden * 2  # bf16 gradients of first and last stage are added up
    assert sent["lecture-64-pp"]["pp"] == pytest.approx(8 * 2 * act * 7 / 8 + tied * 2 / 8, rel=0.01)
    assert sent["lecture-64-zero3"]["param_gather"] == pytest.approx(8 * 2 * grad, rel=0.06)  # embedding stays gathered
