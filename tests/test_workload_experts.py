"""Experts in a whole step: who reduces their gradients, what a rank holds and sends, against closed forms."""

from collections import Counter
from dataclasses import replace

import pytest

from scenarios import TINY
from sim.analysis.transfers import sent_bytes
from sim.api import simulate
from sim.spec.load import load
from sim.workload.build import build
from sim.workload.model import params
from sim.workload.ops import Collective

MOE = [
    *TINY, "model.layers=4", "model.mlp_bias=false", "model.experts=8", "model.top_k=2", "model.moe_ffn=64",
    "model.first_dense_layers=1", "model.shared_experts=1",
]  # fmt: skip


def made(*more):
    return load("quickstart", [*MOE, *more]).scenario


def one_expert(scenario):
    """Parameters of an expert: two matrices, or three with a gate."""
    model = scenario.model
    return (3 if model.gated_mlp else 2) * model.hidden * model.moe_ffn


def sent(scenario, axis):
    """Bytes that a rank of class 0 sends on a stream of one axis in a step, by kind of collective."""
    timeline = simulate(scenario).timeline
    found = Counter()
    for number in timeline.spans.op.tolist():
        op = timeline.ops[number]
        if op.rank_class == 0 and op.category == axis and op.size > 8:
            found[op.kind] += sent_bytes(op)
    return found


@pytest.mark.parametrize("ep", [2, 4, 8])
def test_a_rank_holds_its_share_of_experts_and_all_the_rest(ep):
    scenario = made("layout.dp=8", f"layout.ep={ep}")
    held = dict(build(scenario).programs[0].resident_gpu)["parameters"] / scenario.precision.param_bytes
    experts = 3 * 8 * one_expert(scenario)
    assert held == params(scenario.model) - experts + experts / ep


@pytest.mark.parametrize("ep", [1, 2, 4, 8])
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_gradients_are_summed_over_those_who_hold_the_same(ep, zero):
    """Dense ones over 8 ranks, experts over 8/ep: each by its own closed form, S(n-1)/n or twice that."""
    scenario = made("layout.dp=8", f"layout.ep={ep}", f"layout.zero={zero}")
    experts = 3 * 8 * one_expert(scenario) / ep
    dense = params(scenario.model) - 3 * 8 * one_expert(scenario)
    width = {"fp32": 4, "bf16": 2}[scenario.precision.grad_comm]
    once = (dense * 7 / 8 + experts * (1 - ep / 8)) * width
    passes = 1 if zero else 2
    times = scenario.batch.accumulation if zero >= 2 else 1
    assert sum(sent(scenario, "dp").values()) == pytest.approx(passes * times * once, rel=1e-6)


@pytest.mark.parametrize("zero", [1, 2])
def test_parameters_are_gathered_from_those_who_hold_the_same(zero):
    scenario = made("layout.dp=8", "layout.ep=4", f"layout.zero={zero}")
    experts = 3 * 8 * one_expert(scenario) / 4
    dense = params(scenario.model) - 3 * 8 * one_expert(scenario)
    bytes_ = (dense * 7 / 8 + experts / 2) * scenario.precision.param_bytes
    assert sent(scenario, "param_gather")["all_gather"] == pytest.approx(bytes_, rel=1e-6)


def test_tokens_travel_to_their_experts_and_back_both_ways():
    """Four exchanges a layer and microbatch, each of tokens x top_k x hidden x 2 bytes, of which 1/ep stays."""
    scenario = made("layout.dp=8", "layout.ep=4")
    batch, model = scenario.batch, scenario.model
    rows = batch.micro * batch.sequence * model.top_k * model.hidden * 2
    expected = 4 * 3 * batch.accumulation * rows * 3 / 4
    assert sent(scenario, "ep")["all_to_all"] == pytest.approx(expected)


def test_sharded_states_of_experts_are_divided_by_their_own_copies():
    """ZeRO-1: 12 bytes a parameter over 8 ranks for the dense ones, over 2 for a quarter of the experts."""
    scenario = made("layout.dp=8", "layout.ep=4", "layout.zero=1")
    states = dict(build(scenario).programs[0].resident_gpu)["optimizer states"]
    experts = 3 * 8 * one_expert(scenario)
    assert states == pytest.approx(12 * ((params(scenario.model) - experts) / 8 + experts / 4 / 2), abs=24)


def test_experts_on_every_rank_are_one_with_the_rest():
    """With ep 1 and tp 1 the copies of experts are the data-parallel ranks: one policy, one bucket."""
    work = build(made("layout.dp=8"))
    axes = {op.work.axis for p in work.programs for b in p.blocks for op in b.ops if isinstance(op.work, Collective)}
    assert axes == {"dp"}


def test_the_busiest_rank_paces_the_exchange():
    even, busy = (
        simulate(made("layout.dp=8", "layout.ep=8", f"layout.expert_imbalance={i}")).timeline for i in (1.0, 1.5)
    )
    longest = [max(op.duration for op in t.ops if op.kind == "all_to_all") for t in (even, busy)]
    assert longest[1] == pytest.approx(1.5 * longest[0], rel=0.01)


def test_narrow_dispatch_halves_what_goes_to_experts_not_what_comes_back():
    scenario = made("layout.dp=8", "layout.ep=8")
    narrow = replace(scenario, precision=replace(scenario.precision, fp8="tensorwise", fp8_dispatch=True))
    wide, thin = ([
        op.work.size for p in build(s).programs for b in p.blocks for op in b.ops
        if isinstance(op.work, Collective) and op.work.kind == "all_to_all"
    ] for s in (scenario, narrow))  # fmt: skip
    assert sorted(thin) == sorted([size / 2 for size in wide[::2]] + wide[1::2])


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("mixtral-8x7b", 46_702_792_704, 12.88e9),
        ("qwen3-30b-a3b", 30_532_122_624, 3.35e9),
        ("deepseek-v3", 671_026_419_200, 37.55e9),
        ("deepseek-v2", 235_741_434_880, 21.4e9),
        ("gpt-oss-120b", 116_829_156_672, 5.13e9 + 2880 * 201088),
        ("gpt-oss-20b", 20_914_757_184, 3.61e9 + 2880 * 201088),
    ],
)
def test_shipped_models_have_the_published_parameters(name, total, active):
    """Counts of the released checkpoints (safetensors indexes; DeepSeek's without MTP layers, with router biases;
    GPT-OSS counts no embedding as active)."""
    model = _model(name)
    assert params(model) == total
    dense = (
        total
        - (model.layers - model.first_dense_layers) * (model.experts - model.top_k) * 3 * model.hidden * model.moe_ffn
    )
    assert dense == pytest.approx(active, rel=0.01)


def _model(name):
    return load(
        "llama3-8b-8xh100-zero3", [f"model={name}", "stack=megatron-core-2025", "batch.sequence=4096"]
    ).scenario.model


def test_exchanges_under_another_pass_leave_the_work_and_take_less_time():
    """The same kernels and bytes; no less than the network needs; one more microbatch is held."""
    machine = ["cluster={extends: dgx-h100, nodes: 2}", "batch={micro: 4, accumulation: 6}"]
    sets = ["layout.dp=16", "layout.ep=16", "model.experts=16", "model.moe_ffn=1024", *machine]
    plain, both = (simulate(made(*sets, f"layout.expert_overlap={on}")) for on in ("false", "true"))
    for which in ("flops", "size"):
        totals = [_total(one.timeline, which) for one in (plain, both)]
        assert totals[0] == pytest.approx(totals[1])
    assert both.result.step_time < plain.result.step_time
    assert both.result.step_time > _busy(both.timeline, "ep")
    peaks = [max(u.peak for u in one.result.memory if u.where == "gpu") for one in (plain, both)]
    assert peaks[1] > peaks[0]


def _total(timeline, which):
    return sum(getattr(timeline.ops[op], which) for op in timeline.spans.op.tolist())


def _busy(timeline, category):
    spans = timeline.spans
    rows = zip(spans.op.tolist(), (spans.end - spans.start).tolist(), strict=True)
    return sum(took for op, took in rows if timeline.ops[op].category == category and not timeline.ops[op].rank_class)
