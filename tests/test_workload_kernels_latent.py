"""Latent attention and head norms: FLOPs, bytes and exchanges against the formulas of DeepSeek-V2, section 2.1."""

from dataclasses import replace

import pytest
from workload_cases import FP16, STACK_2020, STACK_2022, STACK_2024, STACK_EAGER, TINY_LLAMA, deepseek, llama, shape

from sim.spec.types import LayoutSpec
from sim.workload import kernels, shares, stash
from sim.workload.model import layer_params, layer_tensors
from sim.workload.ops import Collective, Kernel

TOKENS, H, A, QR, KVR, NOPE, ROPE, V = 2 * 128, 256, 8, 96, 64, 32, 16, 24
DENSE = deepseek(experts=0, shared_experts=0, top_k=0, moe_ffn=0)
DIRECT = replace(DENSE, q_lora_rank=0)
QK_NORM = replace(TINY_LLAMA, qk_norm=True)


def sized(model, stack=STACK_2024, **layout):
    return replace(shape(model, stack, precision=FP16), layout=LayoutSpec(**layout))


def flops(items):
    return sum(i.flops for i in items if isinstance(i, Kernel))


def attention_of(items):
    return {i.name: i for i in items if isinstance(i, Kernel) and i.name.startswith("attention")}


def over(items, axis):
    return [(i.kind, i.size) for i in items if isinstance(i, Collective) and i.axis == axis]


@pytest.mark.parametrize(("stack", "share"), [(STACK_2024, 0.5), (STACK_2022, 1.0), (STACK_2020, 1.0)])
def test_flops_of_latent_attention(stack, share):
    """Down h (qr + kvr + rope), up qr a (nope + rope) + kvr a (nope + v), out a v h; scores and context s a (d + v)."""
    done = attention_of(kernels.layer_forward(sized(DENSE, stack)))
    matrices = H * (QR + KVR + ROPE) + QR * A * (NOPE + ROPE) + KVR * A * (NOPE + V) + A * V * H
    assert sum(k.flops for k in done.values()) == 2 * TOKENS * (matrices + 128 * A * (NOPE + ROPE + V) * share)


def test_the_flash_kernel_has_two_head_dimensions():
    """Reads q and k of nope + rope, v of v; backward 2.5 times the FLOPs, reads the context and its gradient too."""
    forward = attention_of(kernels.layer_forward(sized(DENSE)))["attention.flash"]
    backward = attention_of(kernels.layer_backward(sized(DENSE)))["attention.flash_grad"]
    qk, v, sums = A * (NOPE + ROPE) * 2, A * V * 2, A * 4
    assert (forward.k, backward.k) == (NOPE + ROPE, NOPE + ROPE)
    assert forward.bytes_read == TOKENS * (2 * qk + v)
    assert forward.bytes_written == TOKENS * (v + sums)
    assert backward.flops == 2.5 * forward.flops
    assert backward.bytes_read == TOKENS * (2 * qk + v + 2 * v + sums)
    assert backward.bytes_written == TOKENS * (2 * qk + v)


def test_the_layer_launches_its_steps_in_order():
    assert list(attention_of(kernels.layer_forward(sized(DENSE)))) == [
        "attention.q_down", "attention.q_norm", "attention.kv_down", "attention.kv_norm", "attention.q_up",
        "attention.kv_up", "attention.rope_q", "attention.rope_k", "attention.flash", "attention.out",
        "attention.bias_dropout_add",
    ]  # fmt: skip
    direct = list(attention_of(kernels.layer_forward(sized(DIRECT))))
    assert direct[:3] == ["attention.kv_down", "attention.kv_norm", "attention.q_up"]


@pytest.mark.parametrize("model", [DENSE, DIRECT], ids=["low-rank queries", "direct queries"])
@pytest.mark.parametrize("stack", [STACK_2020, STACK_2022, STACK_2024, STACK_EAGER], ids=lambda s: s.name)
def test_every_linear_has_its_two_gradients(model, stack):
    forward = [k for k in kernels.layer_forward(sized(model, stack)) if k.kind == "gemm" and k.batch == 1]
    backward = {k.name: k for k in kernels.layer_backward(sized(model, stack)) if k.kind == "gemm" and k.batch == 1}
    for k in forward:
        inner, weight = backward.pop(f"{k.name}.input_grad"), backward.pop(f"{k.name}.weight_grad")
        assert (inner.m, inner.n, inner.k) == (k.m, k.k, k.n)
        assert (weight.m, weight.n, weight.k) == (k.n, k.k, k.m)
    assert not backward
    held = sorted(k.n * k.k for k in forward)
    assert held == sorted(c for n, _, c in layer_tensors(model) if n.endswith("weight") and "norm" not in n)


def test_traffic_of_the_rotation_by_hand():
    """Fused: queries' rotated part in place; keys of all heads written from their plain part and the one rotated."""
    forward = attention_of(kernels.layer_forward(sized(DENSE)))
    rope_q, rope_k = forward["attention.rope_q"], forward["attention.rope_k"]
    assert rope_q.bytes_read == rope_q.bytes_written == TOKENS * 2 * A * ROPE
    assert (rope_k.bytes_read, rope_k.bytes_written) == (TOKENS * 2 * (A * NOPE + ROPE), TOKENS * 2 * A * (NOPE + ROPE))
    back = attention_of(kernels.layer_backward(sized(DENSE)))
    assert back["attention.rope_k_sum"].bytes_read == TOKENS * 2 * A * ROPE
    assert back["attention.kv_grad_concat"].bytes_written == TOKENS * 2 * A * (NOPE + V)


def test_traffic_of_the_eager_rotation_by_hand():
    """Megatron-Core unless asked for its experimental kernels: pairs apart, rotate, join queries and keys, copy values.

    Back: the plain rotation's passes, pairs into zeros and their sum, and both products' gradients joined.
    """
    eager = sized(DENSE, replace(STACK_2024, fused_latent_rope=False))
    q, k, v, part = (TOKENS * 2 * width for width in (A * (NOPE + ROPE), A * NOPE + ROPE, A * V, A * ROPE))
    there = attention_of(kernels.layer_forward(eager))
    moved = {name: (one.bytes_read, one.bytes_written) for name, one in there.items() if one.quality == "rearranged"}
    assert moved == {
        "attention.rope_q.pairs": (part, part), "attention.rope_k.pairs": (part / A, part / A),
        "attention.q_concat": (q, q), "attention.k_concat": (k, q), "attention.v_copy": (v, v),
    }  # fmt: skip
    back = attention_of(kernels.layer_backward(eager))
    moved = {name: one.bytes_written for name, one in back.items() if one.quality == "rearranged"}
    assert moved == {
        "attention.rope_k_grad.pairs": part / A, "attention.rope_q_grad.pairs": part,
        "attention.q_grad_concat": q, "attention.kv_grad_concat": TOKENS * 2 * A * (NOPE + V),
    }  # fmt: skip
    assert back["attention.rope_q_grad.sum"].bytes_read == 2 * part


def test_the_way_back_by_hand():
    """Key part summed over heads, up projections, then norms and down projections on this rank's tokens, and a sum."""
    back = attention_of(kernels.layer_backward(sized(DENSE, tp=2, sequence_parallel=True)))
    names = list(back)
    assert names[names.index("attention.rope_k_sum") :] == [
        "attention.rope_k_sum", "attention.rope_k_grad", "attention.rope_q_grad", "attention.kv_grad_concat",
        "attention.kv_up.input_grad", "attention.q_up.input_grad", "attention.q_up.weight_grad",
        "attention.kv_up.weight_grad", "attention.kv_norm.input_grad", "attention.kv_norm.weight_grad",
        "attention.kv_down.input_grad", "attention.kv_down.weight_grad", "attention.q_norm.input_grad",
        "attention.q_norm.weight_grad", "attention.q_down.input_grad", "attention.q_down.weight_grad",
        "attention.latent_sum",
    ]  # fmt: skip
    assert back["attention.q_norm.input_grad"].bytes_written == TOKENS / 2 * 2 * QR
    assert back["attention.kv_norm.input_grad"].bytes_written == TOKENS / 2 * 2 * KVR
    assert back["attention.latent_sum"].bytes_written == TOKENS / 2 * 2 * H


def test_tensor_parallel_ranks_exchange_latents():
    """Forward as Megatron's; backward sums the gradients of the latents, not of the residual stream."""
    latents, stream = TOKENS * 2 * (QR + KVR + ROPE), TOKENS * 2 * H
    one = sized(DENSE, tp=4)
    assert over(kernels.layer_forward(one), "tp") == [("all_reduce", stream)] * 2
    assert over(kernels.layer_backward(one), "tp") == [("all_reduce", stream), ("all_reduce", latents)]
    one = sized(DENSE, tp=4, sequence_parallel=True)
    assert over(kernels.layer_forward(one), "tp")[:2] == [("all_gather", latents), ("reduce_scatter", stream)]
    assert over(kernels.layer_backward(one), "tp")[3:] == [
        ("all_gather", stream), ("all_gather", latents), ("reduce_scatter", latents),
    ]  # fmt: skip
    assert over(kernels.layer_forward(sized(DIRECT, tp=4, sequence_parallel=True)), "tp")[0] == (
        "all_gather", TOKENS * 2 * (H + KVR + ROPE),
    )  # fmt: skip


def test_latents_are_gathered_again_before_any_weight_gradient_needs_them():
    items = kernels.layer_backward(sized(DENSE, tp=4, sequence_parallel=True))
    gathers = [n for n, i in enumerate(items) if isinstance(i, Collective) and i.kind == "all_gather"]
    names = [i.name if isinstance(i, Kernel) else i.kind for i in items]
    assert gathers[-1] < names.index("attention.kv_up.weight_grad")
    assert gathers[-1] < names.index("attention.q_up.weight_grad")
    assert names.index("attention.kv_up.input_grad") < gathers[-1], "it runs beside the last input gradient"


def test_context_parallel_ranks_exchange_whole_keys_and_values():
    message = 2 * 32 * 2 * A * (NOPE + ROPE + V)
    assert over(kernels.layer_forward(sized(DENSE, cp=4)), "cp") == [("ring_step", message)] * 3


def test_bytes_kept_of_latent_attention_by_hand():
    """Input h, each latent before and after its norm, the rotated key part, q and k, v, context, row sums."""
    kept = stash.layer_stash(sized(DENSE))["activations.attention"]
    latents = 2 * QR + 2 * KVR + ROPE
    assert kept == TOKENS * (2 * (H + latents + 2 * A * (NOPE + ROPE) + A * V + A * V) + 4 * A)
    split = stash.layer_stash(sized(DENSE, tp=4, sequence_parallel=True))["activations.attention"]
    assert split == kept / 4
    without = stash.layer_stash(sized(DENSE, tp=4))["activations.attention"]
    assert without == kept / 4 + TOKENS * 2 * (H + latents) * 3 / 4
    assert kept - stash.layer_stash(sized(DIRECT))["activations.attention"] == TOKENS * 2 * 2 * QR


def test_up_projections_are_split_and_down_projections_are_not():
    split = QR * A * (NOPE + ROPE) + KVR * A * (NOPE + V) + A * V * H + 3 * H * 704
    assert shares.layer_share(sized(DENSE, tp=4)).params == layer_params(DENSE) - split * 3 // 4


def test_head_norms_read_and_write_heads():
    """Qwen3: one norm over each head of q and k with 32 weights; backward reads twice, for two gradients."""
    plain, normed = (attention_of(kernels.layer_forward(sized(m))) for m in (TINY_LLAMA, QK_NORM))
    extra = {name: k for name, k in normed.items() if name not in plain}
    assert {name: k.bytes_written for name, k in extra.items()} == {
        "attention.q_head_norm": TOKENS * 2 * 256, "attention.k_head_norm": TOKENS * 2 * 64,
    }  # fmt: skip
    assert extra["attention.k_head_norm"].bytes_read == TOKENS * 2 * 64 + 2 * 32
    back = attention_of(kernels.layer_backward(sized(QK_NORM)))
    assert back["attention.q_head_norm.weight_grad"].bytes_written == 2 * 32
    assert back["attention.q_head_norm.input_grad"].bytes_read == 2 * TOKENS * 2 * 256
    assert layer_params(QK_NORM) - layer_params(TINY_LLAMA) == 2 * 32


def test_head_norms_keep_their_inputs():
    extra = [sum(stash.layer_stash(sized(m, tp=2)).values()) for m in (QK_NORM, TINY_LLAMA)]
    assert extra[0] - extra[1] == TOKENS * 2 * (256 + 64) / 2


def test_eager_head_norms_have_a_row_a_head():
    """The chain of fp32 passes: means of 8 heads of q a token."""
    back = attention_of(kernels.layer_forward(sized(QK_NORM, STACK_EAGER)))
    assert back["attention.q_head_norm.mean"].bytes_written == TOKENS * A * 4


def test_values_are_as_wide_as_keys_without_latents():
    one = sized(llama(1, 256, 8, 2, 704, 1000))
    assert (one.kv_width, one.value_width, one.context_width, one.q_width) == (64, 64, 256, 256)
