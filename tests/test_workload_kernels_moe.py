"""Experts: FLOPs, rows and exchanged bytes against closed forms written out from the layer's definition."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workload_cases import FP16, STACK_2022, STACK_2024, STACK_EAGER, TINY_DEEPSEEK, TINY_MOE, moe, shape

from sim.spec.types import LayoutSpec
from sim.workload import kernels, shares, stash
from sim.workload.model import layer_params, model_flops_per_token
from sim.workload.ops import Collective, Kernel

TOKENS, H = 2 * 128, 256


def sized(model, stack=STACK_2024, precision=FP16, **layout):
    return replace(shape(model, stack, precision=precision), layout=LayoutSpec(**layout))


def flops(items):
    return sum(i.flops for i in items if isinstance(i, Kernel))


def exchanges(items, axis):
    return [(i.kind, i.size) for i in items if isinstance(i, Collective) and i.axis == axis]


def named(items, name):
    (found,) = [i for i in items if isinstance(i, Kernel) and i.name == name]
    return found


@given(experts=st.sampled_from([4, 8, 64]), top_k=st.integers(1, 4), f=st.sampled_from([64, 512]))
def test_flops_of_a_layer_are_those_of_visited_experts(experts, top_k, f):
    """Forward: QKV and output 2 (h q + 2 h kv + q h), causal scores and context 2 s q, router 2 h E, k times 6 h f."""
    one = sized(moe(1, H, 8, 2, experts, top_k, f, 1000))
    per_token = 2 * (H * 256 + 2 * H * 64 + 256 * H) + 2 * 128 * 256 + 2 * H * experts + top_k * 6 * H * f
    assert flops(kernels.layer_forward(one)) == TOKENS * per_token
    flash = 2.5 * 2 * 128 * 256
    assert flops(kernels.layer_backward(one)) == TOKENS * (2 * (per_token - 2 * 128 * 256) + flash)


@pytest.mark.parametrize("model", [TINY_MOE, TINY_DEEPSEEK], ids=["mixtral", "deepseek"])
@pytest.mark.parametrize("ep", [1, 4])
def test_kernels_of_a_step_do_the_model_flops(model, ep):
    one = sized(model, STACK_2022, ep=ep)
    parts = (kernels.layer_forward, kernels.layer_backward)
    done = sum(flops(part(one, layer)) for layer in range(model.layers) for part in parts)
    done += flops(kernels.head_forward(one)) + flops(kernels.head_backward(one))
    assert done == pytest.approx(TOKENS * model_flops_per_token(model, 128), rel=1e-12)


@pytest.mark.parametrize("layout", [{"tp": 4}, {"tp": 2, "cp": 2}, {"cp": 4}, {"tp": 4, "ep": 8}], ids=str)
@pytest.mark.parametrize("model", [moe(2, H, 8, 4, 8, 2, 512, 1000), TINY_DEEPSEEK], ids=["mixtral", "deepseek"])
def test_work_is_split(model, layout):
    """FLOPs of a rank times tp x cp are those of one rank alone: tokens are split where weights are not."""
    ranks = layout.get("tp", 1) * layout.get("cp", 1)
    whole, part = sized(model), sized(model, **layout, sequence_parallel="tp" in layout)
    for of in (kernels.layer_forward, kernels.layer_backward):
        for layer in (0, 1):
            assert flops(of(part, layer)) * ranks == pytest.approx(flops(of(whole, layer)), rel=1e-12)


def test_the_layer_launches_its_steps_in_order():
    names = [i.name if isinstance(i, Kernel) else i.kind for i in kernels.layer_forward(sized(TINY_DEEPSEEK, ep=4), 1)]
    assert names[names.index("norm2") :] == [
        "norm2", "mlp.router", "mlp.scores", "mlp.top_k", "mlp.permute", "all_to_all", "mlp.sort", "mlp.experts.up",
        "mlp.experts.silu", "mlp.experts.down", "mlp.unsort", "all_to_all", "mlp.unpermute", "mlp.shared.up",
        "mlp.shared.silu", "mlp.shared.down", "mlp.shared_sum", "mlp.bias_dropout_add",
    ]  # fmt: skip
    back = [i.name if isinstance(i, Kernel) else i.kind for i in kernels.layer_backward(sized(TINY_DEEPSEEK, ep=4), 1)]
    experts = back.index("mlp.experts.down.input_grad")
    assert back[experts - 3 : experts] == ["mlp.unpermute_grad", "all_to_all", "mlp.unsort_grad"]
    after = back.index("mlp.experts.up.weight_grad") + 1
    assert back[after : back.index("norm2.input_grad")] == [
        "mlp.sort_grad", "all_to_all", "mlp.permute_grad", "mlp.top_k_grad", "mlp.scores_grad",
        "mlp.router.input_grad", "mlp.router.weight_grad", "mlp.router_sum", "mlp.shared_grad_sum",
    ]  # fmt: skip
    one_each = [i.name for i in kernels.layer_forward(sized(TINY_DEEPSEEK, ep=16), 1) if isinstance(i, Kernel)]
    assert "mlp.sort" not in one_each, "rows of one expert need no order"
    first = [i.name for i in kernels.layer_forward(sized(TINY_DEEPSEEK), 0)]
    assert first[first.index("norm2") :] == ["norm2", "mlp.up", "mlp.silu", "mlp.down", "mlp.bias_dropout_add"]


@pytest.mark.parametrize("ep", [2, 4, 8])
def test_all_to_all_carries_each_token_to_its_experts_and_back(ep):
    """Dispatch and combine, forward and backward: top_k copies of every token, 2 bytes."""
    one = sized(TINY_MOE, ep=ep)
    expected = [("all_to_all", TOKENS * 2 * H * 2)] * 2
    assert exchanges(kernels.layer_forward(one), "ep") == expected
    assert exchanges(kernels.layer_backward(one), "ep") == expected
    assert exchanges(kernels.layer_forward(sized(TINY_MOE)), "ep") == []


def test_sequence_parallel_ranks_send_their_own_tokens():
    """tp = 4: a quarter of the tokens each, at full width; shared experts gather and scatter as an MLP does."""
    one = sized(TINY_DEEPSEEK, tp=4, ep=8, sequence_parallel=True)
    forward = kernels.layer_forward(one, 1)
    assert exchanges(forward, "ep") == [("all_to_all", TOKENS / 4 * 4 * H * 2)] * 2
    assert Counter(kind for kind, _ in exchanges(forward, "tp")) == {"all_gather": 2, "reduce_scatter": 2}
    assert exchanges(kernels.layer_forward(sized(TINY_MOE, tp=4, sequence_parallel=True)), "tp") == [
        ("all_gather", TOKENS * H * 2), ("reduce_scatter", TOKENS * H * 2),
    ]  # fmt: skip


def test_the_busiest_rank_sets_the_pace():
    """1.5 times the mean: 1.5 times the exchanged bytes and the expert FLOPs, and the router's stay."""
    mean, busy = (kernels.layer_forward(sized(TINY_MOE, ep=4, expert_imbalance=i)) for i in (1.0, 1.5))
    assert exchanges(busy, "ep")[0][1] == 1.5 * exchanges(mean, "ep")[0][1]
    ratios = {"mlp.experts.up": 1.5, "mlp.experts.down": 1.5, "mlp.router": 1.0, "attention.out": 1.0}
    for name, ratio in ratios.items():
        assert named(busy, name).flops == ratio * named(mean, name).flops
    alone = kernels.layer_forward(sized(TINY_MOE, expert_imbalance=1.5))
    assert flops(alone) == flops(kernels.layer_forward(sized(TINY_MOE))), "one rank has all experts"


@pytest.mark.parametrize(("factor", "capacity"), [(1.0, 64), (1.25, 80), (0.999, 64)])
def test_capacity_pads_or_drops_to_equal_rows(factor, capacity):
    """256 tokens x 2 experts over 8: 64 rows an expert times the factor, rounded up (GShard, section 2.2)."""
    one = sized(TINY_MOE, ep=4, capacity_factor=factor)
    up = named(kernels.layer_forward(one), "mlp.experts.up")
    assert up.flops == 2 * 8 * capacity * H * 1024
    assert (up.m, up.batch) == (4 * 2 * capacity // 2, 2)
    assert exchanges(kernels.layer_forward(one), "ep")[0][1] == 8 * capacity * H * 2


def test_experts_are_one_grouped_product():
    """Two of eight experts on a rank of four, a quarter of everyone's rows each; both gradients likewise."""
    one = sized(TINY_MOE, ep=4)
    up = named(kernels.layer_forward(one), "mlp.experts.up")
    assert (up.grouped, up.batch, up.m, up.n, up.k) == (True, 2, 256, 1024, H)
    assert up.bytes_read == (TOKENS * 2 * H + 2 * H * 1024) * 2
    assert up.bytes_written == TOKENS * 2 * 1024 * 2
    backward = kernels.layer_backward(one)
    weight = named(backward, "mlp.experts.up.weight_grad")
    assert (weight.grouped, weight.batch, weight.m, weight.n, weight.k) == (True, 2, 1024, H, 256)
    assert weight.bytes_written == 2 * H * 1024 * 2
    assert weight.flops == named(backward, "mlp.experts.up.input_grad").flops == up.flops
    assert not named(kernels.layer_forward(one), "mlp.router").grouped


def test_traffic_of_routing_by_hand():
    """16 bit, 2 experts of 8: logits 2 x 8 read, fp32 scores 4 x 8, chosen 2 x (4 + 8); rows are two copies of h."""
    items = kernels.layer_forward(sized(TINY_MOE, ep=4))
    read = {k.name: (k.bytes_read / TOKENS, k.bytes_written / TOKENS) for k in items if isinstance(k, Kernel)}
    assert read["mlp.scores"] == (16, 32)
    assert read["mlp.top_k"] == (32, 24)
    assert read["mlp.permute"] == (2 * H * 2 + 24, 2 * H * 2)
    assert read["mlp.sort"] == read["mlp.unsort"] == (2 * H * 2, 2 * H * 2)
    assert read["mlp.unpermute"] == (2 * H * 2 + 24, H * 2)
    back = {k.name: k for k in kernels.layer_backward(sized(TINY_MOE, ep=4)) if isinstance(k, Kernel)}
    grad = back["mlp.unpermute_grad"]
    assert (grad.bytes_read / TOKENS, grad.bytes_written / TOKENS) == (3 * H * 2 + 24, 2 * H * 2 + 24)
    permute = back["mlp.permute_grad"]
    assert (permute.bytes_read / TOKENS, permute.bytes_written / TOKENS) == (2 * H * 2 + 24, H * 2)
    top_k, scores = back["mlp.top_k_grad"], back["mlp.scores_grad"]
    assert (top_k.bytes_read / TOKENS, top_k.bytes_written / TOKENS) == (24, 32)
    assert (scores.bytes_read / TOKENS, scores.bytes_written / TOKENS) == (2 * 32, 16)


def test_bytes_kept_of_experts_by_hand():
    """A token: router input h, fp32 scores 8, two rows of: input h, gate and up 2f, product f, and back h."""
    kept = stash.layer_stash(sized(TINY_MOE, ep=4))["activations.mlp"]
    f = 512
    assert kept == TOKENS * (2 * H + 4 * 8 + 2 * 2 * (H + 3 * f + H))
    shared = stash.layer_stash(sized(TINY_DEEPSEEK), 1)["activations.mlp"]
    f = 128
    assert shared == TOKENS * (2 * H + 4 * 16 + 4 * 2 * (2 * H + 3 * f) + 2 * 3 * f)
    assert stash.layer_stash(sized(TINY_DEEPSEEK), 0)["activations.mlp"] == TOKENS * 2 * (H + 3 * 704)


def test_forward_wrote_what_is_kept():
    for stack in (STACK_2022, STACK_2024, STACK_EAGER):
        for layer in (0, 1):
            one = sized(TINY_DEEPSEEK, stack, ep=4)
            written = sum(k.bytes_written for k in kernels.layer_forward(one, layer) if isinstance(k, Kernel))
            kept = sum(stash.layer_stash(one, layer).values())
            assert stash.layer_input(one) < kept <= written + stash.layer_input(one)


def test_workspace_is_the_larger_of_activation_and_rows():
    residual, rows = TOKENS * H * 2, TOKENS * 2 * 2
    wide, narrow = (stash.layer_workspace(sized(moe(1, H, 8, 2, 8, 2, f, 1000)), 0) for f in (2048, 64))
    assert wide == residual + rows * 3 * 2048
    assert narrow == residual + TOKENS * (2 * 2 * (256 + 64 + 64) + 4 * 256), "flash attention holds more than rows"
    many = stash.layer_workspace(sized(moe(1, H, 8, 2, 8, 4, 64, 1000)), 0)
    assert many == residual + 2 * rows * 2 * H


def test_experts_are_shared_out_whole():
    """ep = 4: a quarter of the experts; the router and all else on every rank, or split over tp as before."""
    total, experts = layer_params(TINY_MOE), 8 * 3 * H * 512
    share = shares.layer_share(sized(TINY_MOE, ep=4))
    assert (share.params, share.experts) == (total - experts + experts // 4, experts // 4)
    assert shares.layer_share(sized(TINY_MOE)).params == total
    both = shares.layer_share(sized(TINY_MOE, ep=4, tp=2, sequence_parallel=True))
    qkv_and_out = H * (256 + 128) + 256 * H
    assert both.params == total - experts + experts // 4 - qkv_and_out // 2
    deep = shares.layer_share(sized(TINY_DEEPSEEK, tp=2, ep=16, sequence_parallel=True), 1)
    split = 96 * 8 * 48 + 64 * 8 * (32 + 24) + 8 * 24 * H + 3 * H * 128
    whole = layer_params(TINY_DEEPSEEK, 1) - 16 * 3 * H * 128
    assert deep.params == whole - split // 2 + 3 * H * 128


def test_full_recompute_exchanges_again():
    one = sized(TINY_MOE, ep=4)
    assert kernels.recompute_items(one, "full", 1) == kernels.layer_forward(one, 1)
    assert exchanges(kernels.recompute_items(one, "full"), "ep")


OSS = replace(TINY_MOE, activation_clamp=True)


def test_limits_of_an_activation_are_passes_of_their_own():
    """Forward both halves and their concatenation, 8 widths; backward masks of a byte, choices, concatenation, 15."""
    one = sized(OSS)
    there, back = (
        [i for i in which(one, 1) if isinstance(i, Kernel) and ".clamp" in i.name]
        for which in (kernels.layer_forward, kernels.layer_backward)
    )
    width = TOKENS * OSS.top_k * OSS.moe_ffn * 2
    assert sum(k.bytes_read + k.bytes_written for k in there) == 8 * width
    assert sum(k.bytes_read + k.bytes_written for k in back) == 15 * width
    plain, narrow = sized(TINY_MOE), replace(FP16, fp8="mxfp8")
    more = stash.layer_stash(one, 1)["activations.mlp"] - stash.layer_stash(plain, 1)["activations.mlp"]
    assert more == 2 * width, "the limits keep what they limit"
    for stack in (replace(STACK_2024, fused_clamp=True), replace(STACK_2024, fused_experts=True)):
        fused, without = (sized(model, stack, narrow) for model in (OSS, TINY_MOE))
        assert kernels.layer_forward(fused, 1) == kernels.layer_forward(without, 1)
        assert kernels.layer_backward(fused, 1) == kernels.layer_backward(without, 1)
        assert stash.layer_stash(fused, 1) == stash.layer_stash(without, 1)


def test_limits_run_again_with_the_activation():
    names = [i.name for i in kernels.recompute_items(sized(OSS), "selective", 1, ("moe_act",))]
    assert names == [f"mlp.experts.{name}" for name in ("clamp.gate", "clamp.up", "clamp.concat", "silu")]


def test_fused_experts_leave_two_products_and_the_casts_of_what_comes_in():
    """Only of narrow operands: CuTe's grouped MLP. FLOPs stay; 16-bit experts are as before."""
    model = replace(TINY_MOE, mlp_bias=True)
    plain, fused = (replace(STACK_2024, fused_experts=on, weight_casts="once") for on in (False, True))
    narrow = replace(FP16, fp8="mxfp8")
    there, back = (
        {
            on: [i for i in which(sized(model, stack, narrow, ep=4), 1) if expert(i)]
            for on, stack in (("plain", plain), ("fused", fused))
        }
        for which in (kernels.layer_forward, kernels.layer_backward)
    )
    assert [k.name for k in there["fused"]] == [
        "mlp.experts.up.cast_input", "mlp.experts.up", "mlp.experts.down"
    ]  # fmt: skip
    assert [k.name for k in back["fused"]] == [
        "mlp.experts.down.cast_grad", "mlp.experts.down.input_grad", "mlp.experts.down.weight_grad",
        "mlp.experts.up.input_grad", "mlp.experts.up.weight_grad",
    ]  # fmt: skip
    for way in (there, back):
        assert sum(k.flops for k in way["fused"]) == sum(k.flops for k in way["plain"])
    assert kernels.layer_forward(sized(model, fused), 1) == kernels.layer_forward(sized(model, plain), 1)


def expert(item):
    return isinstance(item, Kernel) and item.name.startswith("mlp.experts")


def test_biases_of_experts_are_added_in_fp32_by_row():
    """The second product's: 28 bytes an element of the rows forward, 40 back, two and five passes an expert."""
    plain, biased = TINY_MOE, replace(TINY_MOE, mlp_bias=True)
    rows = TOKENS * plain.top_k * H
    ways = ((kernels.layer_forward, 28, 2, "bias."), (kernels.layer_backward, 40, 5, "bias_grad."))
    for part, bytes_, passes, seen in ways:
        more = [k for k in part(sized(biased)) if isinstance(k, Kernel) and f"experts.{seen}" in k.name]
        assert sum(k.bytes_read + k.bytes_written for k in more) == rows * bytes_
        assert len(more) == passes * plain.experts + 2
        assert not [k for k in part(sized(plain)) if isinstance(k, Kernel) and f"experts.{seen}" in k.name]
    added = plain.experts * (2 * plain.moe_ffn + H)
    assert layer_params(biased) - layer_params(plain) == added
