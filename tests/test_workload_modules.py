"""Modules that run again alone: work, bytes and steps against sums made by hand (Megatron-Core's recompute_modules)."""

from dataclasses import replace
from typing import get_args

import pytest
from workload_cases import BF16, FP16, STACK_2022, STACK_2024, TINY_DEEPSEEK, TINY_GPT, TINY_MOE, shape

from sim.api import simulate
from sim.spec.load import load
from sim.spec.types import LayoutSpec, RecomputeModule
from sim.workload import kernels, stash
from sim.workload.kernels_again import MODULES
from sim.workload.ops import Collective, Kernel

TOKENS, H = 2 * 128, 256
WORD = TOKENS * 2
"""Bytes of one 16-bit element a token."""


def sized(model, stack=STACK_2024, **layout):
    return replace(shape(model, stack, precision=FP16), layout=LayoutSpec(**layout))


def again(one, *modules, layer=1):
    return kernels.recompute_items(one, "selective", layer, modules)


def named(items):
    return [item.name if isinstance(item, Kernel) else f"{item.kind} {item.axis}" for item in items]


def freed(one, module, layer=1):
    return sum(stash.module_stash(one, module, layer).values())


def test_every_module_has_its_work_and_its_bytes():
    assert sorted(MODULES) == sorted(get_args(RecomputeModule))
    for module in MODULES:
        assert freed(sized(TINY_DEEPSEEK), module, layer=0 if module == "mlp" else 1) > 0
        assert again(sized(TINY_DEEPSEEK), module, layer=0 if module == "mlp" else 1)


def test_norms_run_again_for_their_outputs():
    """Inputs of the two blocks: h each."""
    one = sized(TINY_DEEPSEEK)
    assert named(again(one, "layernorm")) == ["norm1", "norm2"]
    assert freed(one, "layernorm") == 2 * WORD * H
    split = sized(TINY_DEEPSEEK, tp=2, sequence_parallel=True)
    assert freed(split, "layernorm") == WORD * H, "each rank has half of the tokens"


def test_activations_of_experts_run_again_for_the_input_of_the_second_product():
    """Two rows a token of 512; a dense layer has none."""
    one = sized(TINY_MOE, ep=4)
    assert named(again(one, "moe_act")) == ["mlp.experts.silu"]
    assert freed(one, "moe_act") == WORD * 2 * 512
    assert again(sized(TINY_DEEPSEEK), "moe_act", layer=0) == ()
    assert freed(sized(TINY_DEEPSEEK), "moe_act", layer=0) == 0


def test_up_projections_run_again_for_queries_keys_and_values():
    """8 heads: q and k of 32 + 16, v of 24; of 96 and 64 latents, which sequence-parallel ranks gather again."""
    one = sized(TINY_DEEPSEEK)
    items = again(one, "mla_up_proj")
    assert named(items) == ["attention.q_up", "attention.kv_up", "attention.rope_q", "attention.rope_k"]
    products = 2 * TOKENS * 8 * (96 * (32 + 16) + 64 * (32 + 24))
    assert sum(k.flops for k in items) == products
    assert freed(one, "mla_up_proj") == WORD * 8 * (2 * (32 + 16) + 24)
    split = again(sized(TINY_DEEPSEEK, tp=2, sequence_parallel=True), "mla_up_proj")
    assert named(split)[0] == "all_gather tp"
    assert sum(k.flops for k in split if isinstance(k, Kernel)) == products / 2


def test_the_core_runs_again_for_its_matrices():
    """Unfused: 5 a s^2 b bytes with dropout (Korthikanti et al. 2022), less the mask, which has an owner of its own."""
    one = sized(TINY_GPT, STACK_2022)
    assert freed(one, "core_attn", 0) == 2 * 4 * 128 * 128 * 2 * (2 if TINY_GPT.dropout else 1)
    assert "attention.scores" in named(again(one, "core_attn", layer=0))
    assert freed(sized(TINY_MOE), "core_attn") == TOKENS * 8 * 4, "row sums of one kernel"
    assert named(again(sized(TINY_MOE), "core_attn")) == ["attention.flash"]


@pytest.mark.parametrize(("module", "part"), [("mlp", "mlp."), ("moe", "mlp."), ("shared_experts", "mlp.shared.")])
def test_blocks_run_again_whole(module, part):
    """All that forward does there, exchanges included; only the block's input is kept."""
    layer = 0 if module == "mlp" else 1
    one = sized(TINY_DEEPSEEK, ep=4)
    forward = [i for i in kernels.layer_forward(one, layer) if isinstance(i, Collective) or i.name.startswith(part)]
    if module == "shared_experts":
        forward = [i for i in forward if isinstance(i, Kernel)]
    joined = ("mlp.bias_dropout_add",)
    assert named(again(one, module, layer=layer)) == [n for n in named(forward) if n not in joined]
    kept = stash.layer_stash(one, layer)["activations.mlp"]
    if module != "shared_experts":
        assert kept - freed(one, module, layer) == WORD * H
    else:
        assert freed(one, module) == WORD * 3 * 128


def test_several_run_in_the_order_of_forward():
    one = sized(TINY_DEEPSEEK)
    names = named(again(one, "moe_act", "mla_up_proj", "layernorm"))
    assert names == [*named(again(one, "layernorm")), *named(again(one, "mla_up_proj")), "mlp.experts.silu"]


def test_a_step_trades_memory_for_the_work_of_its_modules():
    """One GPU, where nothing hides: longer by the kernels that run again, lighter by what was not kept."""
    sets = ["model={extends: deepseek-v3, layers: 2, first_dense_layers: 0, experts: 8, vocab: 1024}", "layout.dp=1"]
    scenario = load("quickstart", [*sets, "stack=megatron-core-2025", "cluster=dgx-h100", "batch.micro=1"]).scenario
    scenario = replace(scenario, recompute="none", precision=BF16)
    modules = ("layernorm", "moe_act", "mla_up_proj")
    plain, some = (
        simulate(s).result for s in (scenario, replace(scenario, recompute="selective", recompute_modules=modules))
    )
    assert some.step_time - plain.step_time == pytest.approx(some.breakdown["recompute"], rel=1e-6)
    held = [max(use.peak for use in result.memory if use.where == "gpu") for result in (plain, some)]
    one = kernels.Shape(
        model=scenario.model, micro=1, sequence=scenario.batch.sequence, stack=scenario.stack,
        precision=scenario.precision,
    )  # fmt: skip
    layer = sum(freed(one, module) for module in modules)
    assert layer * 0.95 < held[0] - held[1] < layer * 1.06, "of the layer that is not being worked on, and its reserve"
