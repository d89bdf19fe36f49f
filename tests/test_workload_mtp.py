"""Modules that predict one token more: parameters, FLOPs, copies and bytes against counts made by hand."""

from dataclasses import replace

import pytest
from workload_cases import FP16, STACK_2022, TINY_DEEPSEEK, TINY_LLAMA, shape

from sim.api import simulate
from sim.spec.load import load
from sim.spec.types import LayoutSpec
from sim.workload import stash
from sim.workload.build import build
from sim.workload.kernels_mtp import mtp_backward, mtp_forward
from sim.workload.model import active_params, layer_params, model_flops_per_token, mtp_params, params, tensors
from sim.workload.ops import Collective, Kernel
from sim.workload.units import shape_of, stages

H, TOKENS = 256, 2 * 128


def sized(model, stack=STACK_2022, **layout):
    return replace(shape(model, stack, precision=FP16), layout=LayoutSpec(**layout))


def flops(items):
    return sum(item.flops for item in items if isinstance(item, Kernel))


TWO = [
    "model={extends: deepseek-v3, layers: 4, hidden: 512, experts: 8, vocab: 1024, mtp_layers: 1, top_k_nodes: 0}",
    "layout={pp: 2, dp: 1, ep: 1, zero: 0, stage_layers: [3, 1], expert_dispatch: null}",
    "precision={fp8: none, fp8_dispatch: false}", "recompute=none", "batch={size: 8, micro: 1, sequence: 256}",
    "cluster={extends: hgx-h800, nodes: 1}",
]  # fmt: skip


def two_tokens(*sets):
    return load("deepseek-v3-2048", [*TWO, *sets]).scenario


def test_deepseek_v3_has_a_layer_a_projection_and_three_norms_more():
    """With the two tables that its released files hold a second time: the 685 billion that they are named for."""
    model = load("deepseek-v3-2048").scenario.model
    one, h = replace(model, mtp_layers=0), 7168
    assert params(model) - params(one) == layer_params(model, 60) + 2 * h * h + 3 * h == mtp_params(model)
    assert params(model) + 2 * 129280 * h == pytest.approx(684.5e9, rel=1e-4)
    assert sum(count for *_, count in tensors(model)) == params(model)
    idle = (256 - 8) * 3 * h * 2048
    assert active_params(model) - active_params(one) == mtp_params(model) - idle


@pytest.mark.parametrize("model", [TINY_LLAMA, TINY_DEEPSEEK], ids=["dense", "experts"])
@pytest.mark.parametrize("tp", [1, 2])
def test_kernels_do_the_model_flops(model, tp):
    """Projection 4 h^2, a layer, logits 2 h V; three times that with backward; a rank does its part of it."""
    more = replace(model, mtp_layers=1)
    one = sized(more, tp=tp, sequence_parallel=tp > 1)
    done = flops(mtp_forward(one, model.layers)) + flops(mtp_backward(one, model.layers))
    expected = model_flops_per_token(more, 128) - model_flops_per_token(model, 128)
    assert done * tp == pytest.approx(TOKENS * expected, rel=1e-12)


def test_a_tensor_parallel_projection_is_a_region():
    """In: both norms' outputs gathered; out: scattered. Then the layer's and the head's."""
    own = sized(TINY_LLAMA, tp=2, sequence_parallel=True)
    items = mtp_forward(own, 2)
    begin = next(i for i, item in enumerate(items) if isinstance(item, Kernel) and item.name == "mtp.concat")
    exchanges = [(i.kind, i.size) for i in items[begin:] if isinstance(i, Collective)][:2]
    hidden = TINY_LLAMA.hidden
    assert exchanges == [("all_gather", TOKENS * 2 * hidden * 2), ("reduce_scatter", TOKENS * hidden * 2)]


def test_the_last_stage_has_a_copy_of_the_table_and_exchanges_its_gradient():
    scenario = two_tokens()
    first, last = build(scenario).programs
    without = build(replace(scenario, model=replace(scenario.model, mtp_layers=0))).programs[1]
    more = dict(last.resident_gpu)["parameters"] - dict(without.resident_gpu)["parameters"]
    assert more == 2 * (mtp_params(scenario.model) + 1024 * 512)
    names = [[op.name for op in program.blocks[-1].ops] for program in (first, last)]
    assert all(any("embedding" in name for name in one) for one in names), "both ends"
    alone = replace(scenario, layout=replace(scenario.layout, pp=1, stage_layers=()))
    without = replace(alone, model=replace(alone.model, mtp_layers=0))
    held = [dict(build(one).programs[0].resident_gpu)["parameters"] for one in (alone, without)]
    assert held[0] - held[1] == 2 * mtp_params(scenario.model), "one rank has one table"


@pytest.mark.parametrize("schedule", ["zb-v", "dualpipev"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_pipeline_that_ends_where_it_began_has_one_table(schedule, tied):
    """Down and up again: the first rank holds both ends of the model, and nothing is copied or exchanged."""
    sets = [f"layout.schedule={schedule}", "layout.virtual_stages=2", "layout.stage_layers=null"]
    scenario = two_tokens(*sets, f"model.tied_embeddings={str(tied).lower()}")
    built = build(scenario)
    held = sum(dict(program.resident_gpu)["parameters"] for program in built.programs)
    assert held == 2 * params(scenario.model)
    assert "embedding" not in built.groups


def test_it_keeps_what_a_layer_and_a_head_keep_and_two_norms_and_a_projection():
    (unit,) = [one for stage in stages(two_tokens(), apart=True) for one in stage if one.name == "mtp0"]
    own = shape_of(two_tokens())
    parts = [stash.layer_stash(own, 4), stash.head_stash(own), stash.join_stash(own)]
    assert sum(unit.kept.values()) == sum(size for part in parts for size in part.values())
    assert unit.layer == 4


@pytest.mark.parametrize("recompute", ["none", "full"])
def test_a_step_that_predicts_two_tokens_takes_longer_and_needs_more(recompute):
    long, short = (
        simulate(two_tokens(f"recompute={recompute}", f"model.mtp_layers={count}")).result for count in (1, 0)
    )
    assert long.step_time > short.step_time
    last = [[use.peak for use in one.memory if use.where == "gpu"][-1] for one in (long, short)]
    assert last[0] > last[1]
