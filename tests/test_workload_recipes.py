"""Narrow products: operands, casts and kept bytes of each recipe by hand, and every mix of layout and recipe."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workload_cases import (
    BF16,
    STACK_2022,
    STACK_2024,
    TINY_BERT,
    TINY_DEEPSEEK,
    TINY_GPT,
    TINY_LLAMA,
    TINY_MOE,
    shape,
)

from sim.spec.types import LayoutSpec
from sim.workload import kernels, stash
from sim.workload.kernels_linear import linear_backward, linear_forward
from sim.workload.ops import Collective, Kernel
from sim.workload.recipes import RECIPES

TOKENS, IN, OUT = 2 * 128, 256, 704
X, W, Y = TOKENS * IN, IN * OUT, TOKENS * OUT
MODELS = (TINY_GPT, TINY_LLAMA, TINY_BERT, TINY_MOE, TINY_DEEPSEEK)
# bytes of an element of an activation and of a weight with their scales; whether a pass finds the largest value;
# whether one cast writes both directions
BYTES = {
    "delayed": (1, 1, False, True),  # Transformer Engine, DelayedScaling: the scale is known before
    "tensorwise": (1, 1, True, True),  # Transformer Engine, Float8CurrentScaling; NVIDIA fp8 primer
    "rowwise": (1, 1, False, False),  # torchao, float8 README: rowwise
    "blockwise": (1 + 4 / 128, 1 + 4 / 16384, False, True),  # DeepSeek-V3, section 3.3.2
    "mxfp8": (1 + 1 / 32, 1 + 1 / 32, False, True),  # OCP MX specification 1.0, section 5.1
    "nvfp4": (0.5 + 1 / 16, 0.5 + 1 / 16, True, True),  # NVIDIA, Pretraining LLMs with NVFP4, section 2
}


def sized(model, recipe="none", stack=STACK_2024, **layout):
    return replace(shape(model, stack, precision=replace(BF16, fp8=recipe)), layout=LayoutSpec(**layout))


def own(items):
    return [i for i in items if isinstance(i, Kernel)]


def test_every_recipe_is_tested():
    assert set(BYTES) == set(RECIPES)


@pytest.mark.parametrize("recipe", BYTES)
def test_products_read_narrow_operands_and_write_16_bits(recipe):
    x, w, _, _ = BYTES[recipe]
    one = sized(TINY_LLAMA, recipe)
    forward = linear_forward(one, "l", IN, OUT)[-1]
    inner, weight = (k for k in linear_backward(one, "l", IN, OUT) if k.kind == "gemm")
    assert {k.dtype for k in (forward, inner, weight)} == {"fp4" if recipe == "nvfp4" else "fp8"}
    assert (forward.bytes_read, forward.bytes_written) == (X * x + W * w, Y * 2)
    assert (inner.bytes_read, inner.bytes_written) == (Y * x + W * w, X * 2)
    assert (weight.bytes_read, weight.bytes_written) == ((X + Y) * x, W * 2)
    assert forward.flops == inner.flops == weight.flops == 2 * TOKENS * IN * OUT


@pytest.mark.parametrize("recipe", BYTES)
def test_casts_of_a_linear_layer(recipe):
    """Input, weight and output gradient, each read in 16 bits: once to cast, once more if the largest value is sought;
    where a scale holds along one direction only, input, weight and gradient are cast again along the other, tokens
    down their columns, which takes two reads."""
    x, w, amax, both = BYTES[recipe]
    one = sized(TINY_LLAMA, recipe)
    forward = [k for k in linear_forward(one, "l", IN, OUT) if k.kind != "gemm"]
    backward = [k for k in linear_backward(one, "l", IN, OUT) if k.kind != "gemm"]
    reads = 2 if amax else 1
    assert sum(k.bytes_read for k in forward) == reads * 2 * (X + W)
    assert sum(k.bytes_read for k in backward) == reads * 2 * (Y if both else 3 * Y + W + 2 * X)
    written = sum(k.bytes_written for k in (*forward, *backward)) - (4 * 3 if amax else 0)
    assert written == pytest.approx(2 * ((X + Y) * x + W * w), rel=1e-12)
    assert len(forward) + len(backward) == (6 if amax or not both else 3)


@pytest.mark.parametrize("recipe", BYTES)
@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_only_linear_layers_of_layers_are_narrow(model, recipe):
    """Attention, router, logits, norms and the lookup run as without a recipe; FLOPs are the same."""
    wide, narrow = sized(model), sized(model, recipe)
    for part in (kernels.embedding_forward, kernels.head_forward, kernels.head_backward, kernels.embedding_backward):
        assert part(wide) == part(narrow)
    for part in (kernels.layer_forward, kernels.layer_backward):
        here = {k.name: k for k in own(part(narrow, 1)) if ".cast_" not in k.name}
        for k in own(part(wide, 1)):
            linear = k.kind == "gemm" and "router" not in k.name
            if linear:
                assert here[k.name] != k
            else:
                assert here[k.name] == k
            assert here[k.name].flops == k.flops
        assert len(here) == len(own(part(wide, 1)))


@pytest.mark.parametrize("recipe", BYTES)
def test_casts_come_before_the_product_that_reads_them(recipe):
    one = sized(TINY_LLAMA, recipe, tp=2, sequence_parallel=True)
    names = [i.name if isinstance(i, Kernel) else i.kind for i in kernels.layer_backward(one)]
    inner, weight = names.index("mlp.up.input_grad"), names.index("mlp.up.weight_grad")
    assert names.index("mlp.up.cast_grad") < inner
    if recipe == "rowwise":
        assert inner < names.index("mlp.up.cast_input_columns") < weight
        gathered = max(n for n in range(inner) if names[n] == "all_gather")
        assert gathered < names.index("mlp.up.cast_input_columns"), "it casts the gathered input"


@pytest.mark.parametrize("recipe", BYTES)
def test_bytes_kept_of_a_llama_layer(recipe):
    """Elements a token: inputs of QKV h, MLP h and the second product f are narrow where one cast writes both
    directions; the context stays in 16 bits for flash attention and is kept narrow besides."""
    x, _, _, both = BYTES[recipe]
    h, f = 256, 704
    kept, wide = (sum(stash.layer_stash(sized(TINY_LLAMA, r)).values()) for r in (recipe, "none"))
    saved = TOKENS * (2 * h + f) * (2 - x) - TOKENS * h * x if both else 0
    assert kept == pytest.approx(wide - saved, rel=1e-12)


def test_math_attention_does_not_read_its_context_again():
    kept, wide = (stash.layer_stash(sized(TINY_GPT, r, STACK_2022)) for r in ("tensorwise", "none"))
    assert wide["activations.attention"] - kept["activations.attention"] == TOKENS * 2 * 256


def test_bytes_kept_of_experts_in_8_bits():
    """Router input and what came back stay 16 bits wide; shared experts and rows keep inputs and products narrow."""
    kept, f = stash.layer_stash(sized(TINY_DEEPSEEK, "tensorwise"), 1)["activations.mlp"], 128
    rows = 4 * (256 + 2 * 2 * f + f + 2 * 256)
    shared = 256 + 2 * 2 * f + f
    assert kept == TOKENS * (2 * 256 + 4 * 16 + rows + shared)


def test_relu_keeps_its_output_in_both_forms():
    relu = replace(TINY_GPT, activation="relu")
    kept, wide = (stash.layer_stash(sized(relu, r))["activations.mlp"] for r in ("mxfp8", "none"))
    assert kept - wide == pytest.approx(TOKENS * (256 * (33 / 32 - 2) + 1024 * 33 / 32))


def test_what_was_kept_narrow_is_gathered_narrow():
    """Sequence parallelism: two gathers of the residual stream in 16 bits, two of kept inputs in one byte."""
    items = kernels.layer_backward(sized(TINY_LLAMA, "tensorwise", tp=2, sequence_parallel=True))
    sizes = sorted(i.size for i in items if isinstance(i, Collective) and i.kind == "all_gather")
    assert sizes == [TOKENS * 256] * 2 + [TOKENS * 256 * 2] * 2


PARTS = (
    kernels.embedding_forward, kernels.layer_forward, kernels.head_forward,
    kernels.head_backward, kernels.layer_backward, kernels.embedding_backward,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    model=st.sampled_from(MODELS), stack=st.sampled_from([STACK_2022, STACK_2024]), tp=st.sampled_from([1, 2, 4]),
    sequence_parallel=st.booleans(), cp=st.sampled_from([1, 2]), ep=st.sampled_from([1, 2, 8]),
    recipe=st.sampled_from(["none", *BYTES]), overlap=st.booleans(),
)  # fmt: skip
def test_every_mix_has_positive_sizes(model, stack, tp, sequence_parallel, cp, ep, recipe, overlap):  # noqa: PLR0917
    """And axes of size 1 exchange nothing; without a recipe nothing is narrow; backward splits in two without loss."""
    cp = cp if stack is STACK_2024 else 1
    ep = ep if model.experts else 1
    sequence_parallel = tp > 1 and (sequence_parallel or model.experts > 0)
    one = sized(model, recipe, stack, tp=tp, sequence_parallel=sequence_parallel, cp=cp, ep=ep, tp_overlap=overlap)
    items = [i for part in PARTS for i in part(one)]
    for i in items:
        if isinstance(i, Collective):
            assert i.size > 0
            assert {"tp": tp, "cp": cp, "ep": ep}[i.axis] > 1
        else:
            assert i.bytes_written > 0, i.name
            assert i.bytes_read > 0 or i.name.endswith(".zero"), i.name
            assert (i.flops > 0) == (i.kind in ("gemm", "attention")), i.name
            assert recipe != "none" or (i.dtype == "bf16" and ".cast_" not in i.name)
    assert all(size >= 0 for size in stash.layer_stash(one, 1).values())
    backward = kernels.layer_backward(one, 1)
    inputs, weights = kernels.split_backward(backward)
    assert len(inputs) + len(weights) == len(backward)
    assert all(k.role == "weight_grad" for k in weights)
    assert not [k for k in own(inputs) if k.role == "weight_grad"]


TE = replace(STACK_2024, weight_casts="once", narrow_tp_gather=True, narrow_param_gather=True, fused_accumulate=True)
"""What Transformer Engine under Megatron-Core does, as far as narrow products go."""


def test_weights_that_are_cast_once_a_step_cost_nothing_in_a_microbatch():
    each, once = (linear_forward(sized(TINY_LLAMA, "mxfp8", stack), "l", IN, OUT) for stack in (STACK_2024, TE))
    assert [k.name for k in each] == ["l.cast_input", "l.cast_weight", "l"]
    assert [k.name for k in once] == ["l.cast_input", "l"]
    apart = replace(TE, narrow_param_gather=False)
    for stack, read, written in ((TE, 33 / 32, 33 / 32), (apart, 2, 2 * 33 / 32)):
        (cast,) = kernels.cast_weights(W, replace(BF16, fp8="mxfp8"), stack)
        assert (cast.bytes_read, cast.bytes_written) == pytest.approx((W * read, W * written))


def test_with_delayed_scaling_a_norm_writes_the_operand_after_it():
    names = [k.name for k in own(kernels.layer_forward(sized(TINY_LLAMA, "delayed", TE)))]
    assert [name for name in names if ".cast_" in name] == ["attention.out.cast_input", "mlp.down.cast_input"]


@pytest.mark.parametrize("recipe", ["delayed", "tensorwise", "mxfp8", "nvfp4"])
def test_sequence_parallel_ranks_gather_what_they_have_cast(recipe):
    """Inputs and gradients travel narrow and each rank casts its part; what is reduced stays 16 bits wide."""
    x = BYTES[recipe][0]
    for stack, width, parts in ((STACK_2024, 2, 1), (TE, x, 2)):
        one = sized(TINY_LLAMA, recipe, stack, tp=2, sequence_parallel=True)
        forward, backward = kernels.layer_forward(one), kernels.layer_backward(one)
        gathered = [c.size for c in forward if isinstance(c, Collective) and c.kind == "all_gather"]
        assert gathered == pytest.approx([TOKENS * 256 * width] * 2)
        reduced = [c.size for c in forward if isinstance(c, Collective) and c.kind == "reduce_scatter"]
        assert reduced == [TOKENS * 256 * 2] * 2
        grads = [c.size for c in backward if isinstance(c, Collective) and c.kind == "all_gather"]
        assert grads == pytest.approx([TOKENS * 256 * size for size in (width, x, width, x)])
        cast = next(k for k in own(backward) if k.name == "mlp.down.cast_grad")
        assert cast.bytes_read == TOKENS * 256 * 2 / parts


def test_products_that_add_to_the_gradient_buffer_read_and_write_it():
    one = sized(TINY_LLAMA, stack=TE)
    weight = linear_backward(one, "l", IN, OUT)[-1]
    assert (weight.bytes_read, weight.bytes_written) == ((X + Y) * 2 + W * 4, W * 4)
    alone = replace(one, stack=STACK_2024)
    assert linear_backward(alone, "l", IN, OUT)[-1].bytes_written == W * 2


def test_products_beside_an_overlapped_exchange_are_cut_in_pieces():
    """Both ends of a region forward, and the product that takes the gathered gradient; none without overlap."""
    for overlap, names in (
        (False, set()),
        (True, {"attention.qkv", "attention.out", "mlp.up", "mlp.down", "mlp.down.input_grad",
                "attention.out.input_grad"}),
    ):  # fmt: skip
        one = sized(TINY_LLAMA, tp=2, sequence_parallel=True, tp_overlap=overlap)
        both = own((*kernels.layer_forward(one), *kernels.layer_backward(one)))
        assert {k.name for k in both if k.pieces > 1} == names
        assert {k.pieces for k in both if k.name in names} <= {2}
