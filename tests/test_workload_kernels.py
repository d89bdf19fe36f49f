"""Kernels against closed forms, and against what each software stack is known to launch."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workload_cases import (
    BF16,
    FP16,
    FULL,
    STACK_2020,
    STACK_2022,
    STACK_2024,
    STACK_EAGER,
    STACKS,
    TINY_BERT,
    TINY_GPT,
    TINY_LLAMA,
    gpt,
    shape,
)

from sim.errors import ScenarioError
from sim.workload import kernels
from sim.workload.model import layer_tensors, model_flops_per_token

MODELS = {"gpt": TINY_GPT, "llama": TINY_LLAMA, "bert": TINY_BERT}
PARTS = (
    kernels.embedding_forward, kernels.layer_forward, kernels.head_forward,
    kernels.head_backward, kernels.layer_backward, kernels.embedding_backward,
)  # fmt: skip
EVERY_CASE = [pytest.param(m, s, id=f"{n}-{s.name}") for n, m in MODELS.items() for s in STACKS]


def flops(some):
    return sum(k.flops for k in some)


def traffic(some):
    return sum(k.bytes_read + k.bytes_written for k in some)


def names(some):
    return [k.name for k in some]


def gemms(some):
    return [k for k in some if k.kind == "gemm"]


@given(b=st.integers(1, 8), s=st.integers(1, 512), heads=st.integers(1, 8), d=st.sampled_from([64, 128]))
def test_gpt_layer_has_the_papers_flops(b, s, heads, d):
    """Narayanan et al. 2021, appendix: forward 24 b s h^2 + 4 b s^2 h, backward twice that."""
    h = heads * d
    one = shape(gpt(1, h, heads), STACK_2020, micro=b, sequence=s)
    expected = 24 * b * s * h * h + 4 * b * s * s * h
    assert flops(kernels.layer_forward(one)) == expected
    assert flops(kernels.layer_backward(one)) == 2 * expected


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_kernels_of_a_step_do_the_model_flops(model):
    one = shape(model, STACK_2022)
    layers = (*kernels.layer_forward(one), *kernels.layer_backward(one))
    rest = (*kernels.head_forward(one), *kernels.head_backward(one))
    edges = (*kernels.embedding_forward(one), *kernels.embedding_backward(one))
    done = model.layers * flops(layers) + flops(rest) + flops(edges)
    assert done == pytest.approx(one.tokens * model_flops_per_token(model, one.sequence), rel=1e-12)


@pytest.mark.parametrize(("model", "stack"), EVERY_CASE)
def test_every_linear_has_its_two_gradients(model, stack):
    one = shape(model, stack)
    forward = [k for part in PARTS[:3] for k in gemms(part(one)) if k.batch == 1]
    backward = {k.name: k for part in PARTS[3:] for k in gemms(part(one)) if k.batch == 1}
    for k in forward:
        inner, weight = backward.pop(f"{k.name}.input_grad"), backward.pop(f"{k.name}.weight_grad")
        assert (inner.m, inner.n, inner.k, inner.role) == (k.m, k.k, k.n, "input_grad")
        assert (weight.m, weight.n, weight.k, weight.role) == (k.n, k.k, k.m, "weight_grad")
        # the weight gradient writes as many elements as the forward product has weights
        assert weight.bytes_written == k.k * k.n * one.elem
    assert not backward


@pytest.mark.parametrize(("model", "stack"), EVERY_CASE)
def test_linears_hold_the_layers_matrices(model, stack):
    """k x n of the batch-free products are the layer's two-dimensional parameters."""
    one = shape(model, stack)
    held = sorted(k.n * k.k for k in gemms(kernels.layer_forward(one)) if k.batch == 1)
    matrices = sorted(c for n, _, c in layer_tensors(model) if n.endswith("weight") and "norm" not in n)
    assert held == matrices


@pytest.mark.parametrize(("model", "stack"), EVERY_CASE)
def test_kernels_move_bytes_and_say_which_way_they_go(model, stack):
    one = shape(model, stack)
    for number, part in enumerate(PARTS):
        for k in part(one):
            assert k.bytes_written > 0, k.name
            assert k.bytes_read > 0 or k.name.endswith(".zero"), k.name
            assert (k.role == "forward") == (number < 3), k.name
            assert (k.flops > 0) == (k.kind in ("gemm", "attention")), k.name


def test_the_2020_layer_launches_what_its_source_launches():
    """The order of DeepSpeedExamples/Megatron-LM, mpu/transformer.py, statement by statement."""
    assert names(kernels.layer_forward(shape(TINY_GPT, STACK_2020))) == [
        "norm1", "attention.qkv", "attention.qkv.bias", "attention.q_copy", "attention.k_copy", "attention.v_copy",
        "attention.scores", "attention.scale", "attention.mask_multiply", "attention.mask_complement",
        "attention.mask_weight", "attention.mask_subtract", "attention.softmax", "attention.probs.dropout",
        "attention.context", "attention.context_copy", "attention.out", "attention.bias", "attention.dropout",
        "attention.residual", "norm2", "mlp.up", "mlp.up.bias", "mlp.gelu", "mlp.down", "mlp.bias", "mlp.dropout",
        "mlp.residual",
    ]  # fmt: skip


def test_the_2020_layer_goes_back_the_way_it_came():
    """Autograd's reverse: a join's dropout and bias first, each product's input gradient before its weight's."""
    assert names(kernels.layer_backward(shape(TINY_GPT, STACK_2020))) == [
        "mlp.dropout_grad", "mlp.bias_grad", "mlp.down.input_grad", "mlp.down.weight_grad", "mlp.gelu_grad",
        "mlp.up.bias_grad", "mlp.up.input_grad", "mlp.up.weight_grad", "norm2.input_grad", "norm2.weight_grad",
        "norm2.branch_sum", "attention.dropout_grad", "attention.bias_grad", "attention.out.input_grad",
        "attention.out.weight_grad", "attention.context_copy_grad", "attention.context.grad_probs",
        "attention.context.grad_v", "attention.probs.dropout_grad", "attention.softmax_grad",
        "attention.mask_multiply_grad", "attention.scale_grad", "attention.scores.grad_q", "attention.scores.grad_k",
        "attention.q_copy_grad", "attention.k_copy_grad", "attention.v_copy_grad", "attention.qkv.bias_grad",
        "attention.qkv.input_grad", "attention.qkv.weight_grad", "norm1.input_grad", "norm1.weight_grad",
        "norm1.branch_sum",
    ]  # fmt: skip


def test_the_2024_llama_layer_launches_what_its_source_launches():
    assert names(kernels.layer_forward(shape(TINY_LLAMA, STACK_2024))) == [
        "norm1", "attention.qkv", "attention.rope_q", "attention.rope_k", "attention.flash", "attention.out",
        "attention.bias_dropout_add", "norm2", "mlp.up", "mlp.silu", "mlp.down", "mlp.bias_dropout_add",
    ]  # fmt: skip


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("part", PARTS[1:5])
def test_later_stacks_launch_less_and_move_less(model, part):
    eager, old, middle, new = (part(shape(model, s)) for s in (STACK_EAGER, STACK_2020, STACK_2022, STACK_2024))
    assert len(eager) >= len(old) >= len(middle) >= len(new)
    assert traffic(eager) >= traffic(old) >= traffic(middle) >= traffic(new)
    assert len(old) > len(new)
    assert traffic(old) > traffic(new)


@given(b=st.integers(1, 4), s=st.sampled_from([64, 256, 1024]))
def test_traffic_over_the_score_matrices(b, s):
    """Bytes an s x s element sees, 16 bit: eager decoder forward scale, mask x2, softmax, dropout read and write it
    (10 x 2) and the byte mask; backward dropout, softmax (reads two), mask, scale. Products beside that: scores writes
    2, context reads 2; the gradient of the probabilities is written once, and the products read probabilities once
    and scores' gradient twice. Flash: none.
    """

    def quadratic(stack, part):
        return sum(
            k.bytes_read + k.bytes_written
            for k in part(shape(TINY_GPT, stack, micro=b, sequence=s))
            if k.kind != "gemm" and any(w in k.name for w in ("scale", "mask_mul", "mask_sub", "softmax", "probs"))
        )

    matrix, mask = b * TINY_GPT.heads * s * s, s * s
    assert quadratic(STACK_2020, kernels.layer_forward) == matrix * (10 * 2 + 1) + 2 * mask * 2
    assert quadratic(STACK_2020, kernels.layer_backward) == matrix * ((2 + 3 + 2 + 2) * 2 + 1) + mask * 2
    assert quadratic(STACK_2022, kernels.layer_forward) == matrix * (4 * 2 + 1)
    assert quadratic(STACK_2022, kernels.layer_backward) == matrix * (5 * 2 + 1)
    assert quadratic(STACK_2024, kernels.layer_forward) == 0


def linear_traffic(some):
    """Bytes of the passes whose size does not grow with the square of the sequence, products apart."""
    square = ("scale", "mask", "softmax", "probs")
    return traffic(k for k in some if k.kind == "elementwise" and not any(word in k.name for word in square))


def test_traffic_along_the_tokens_in_2020():
    """By hand, in activations of width h (16 bit; a byte mask is 0.5), beside 13 h of norm and bias parameters.

    Forward: norms 2 x 2, QKV bias 6, three copies 6, context copy 2, joins 2 x (2 + 2.5 + 3), bias 8, GELU (reads 4,
    writes 4 and 4) 12: 53. Backward: dropouts 2 x 2.5, biases 1 + 1 + 4 + 3, GELU (reads 12, writes 4) 16, norms 2 x
    (3 + 2), branch sums 2 x 3, context copy 2, three copies 6: 54.
    """
    one = shape(TINY_GPT, STACK_2020)
    width, params = one.tokens * 256 * 2, 13 * 256 * 2
    assert linear_traffic(kernels.layer_forward(one)) == 53 * width + params
    assert linear_traffic(kernels.layer_backward(one)) == 54 * width + params


def test_traffic_along_the_tokens_in_2024():
    """Llama by hand, elements a token: norms 4 h, joins 6 h, rotation 2 (q + kv), SwiGLU 2 f in, f out. Back: norms
    10 h, branch sums 6 h, rotation the same, SwiGLU f and 2 f in, 2 f out, dq dk dv joined 2 (q + 2 kv); 2 h weights.
    """
    one = shape(TINY_LLAMA, STACK_2024)
    h, q, kv, f, params = 256, 256, 64, 704, 2 * 256 * 2
    forward = 10 * h + 2 * (q + kv) + 3 * f
    backward = 16 * h + 2 * (q + kv) + 5 * f + 2 * (q + 2 * kv)
    assert linear_traffic(kernels.layer_forward(one)) == one.tokens * 2 * forward + params
    assert linear_traffic(kernels.layer_backward(one)) == one.tokens * 2 * backward + params


def test_traffic_of_eager_llama_is_its_chains():
    """By hand, bytes a token. RMSNorm forward, from x in 16 bit: cast 2+4, square 4+4, mean 4, scale 4+4, cast 4+2,
    weight 2+2: 36 h. Back: weight gradient 2+2, weight 2+2, cast 2+4, scale 4+4, its product with x 4+4+4, sum 4,
    square 4+4, add 8+4, cast 4+2: 64 h. Rotation, elements: half 1/2+1/2, concat, cos, sin 2 each, add 3: 10; back
    2+2+2+3.
    """
    one, flash = (shape(TINY_LLAMA, s, sequence=512) for s in (STACK_EAGER, STACK_2024))
    tokens, h, heads = one.tokens, 256, (256 + 64) * 2
    for part, norm, rope in ((kernels.layer_forward, 36, 10), (kernels.layer_backward, 64, 9)):
        eager = traffic(k for k in part(one) if k.name.startswith("norm1.") and "branch" not in k.name)
        assert eager == pytest.approx(tokens * norm * h, rel=0.01)  # a few values a row besides
        assert traffic(k for k in part(one) if "rope" in k.name) == tokens * heads * rope
        assert traffic(k for k in part(flash) if "rope" in k.name) == tokens * heads * 2


def test_traffic_of_flash_attention():
    """Forward reads q, k, v, writes o and a row sum; backward reads q, k, v, o, do and the sums, writes dq, dk, dv."""
    one = shape(TINY_LLAMA, STACK_2024)
    q, kv, sums = one.tokens * 256 * 2, one.tokens * 64 * 2, one.tokens * 8 * 4
    forward, backward = (
        next(k for k in part(one) if k.kind == "attention") for part in (kernels.layer_forward, kernels.layer_backward)
    )
    assert (forward.bytes_read, forward.bytes_written) == (q + 2 * kv, q + sums)
    assert (backward.bytes_read, backward.bytes_written) == (3 * q + 2 * kv + sums, q + 2 * kv)


def test_traffic_of_the_embedding():
    """GPT: each table read and written once a token, one sum (3), dropout 2.5; back, dropout 2.5, each table zeroed
    and its rows read and added, and the tied table's sum reads two and writes one."""
    one = shape(TINY_GPT, STACK_2020)
    width, ids, table, positions = one.tokens * 256 * 2, one.tokens * 8, 1000 * 256 * 2, 1024 * 256 * 2
    assert traffic(kernels.embedding_forward(one)) == width * (2 * 2 + 3 + 2.5) + 2 * ids
    assert traffic(kernels.embedding_backward(one)) == width * (2.5 + 2 * 2) + 2 * ids + 4 * table + positions


@pytest.mark.parametrize("stack", STACKS, ids=lambda s: s.name)
@pytest.mark.parametrize("part", PARTS)
def test_no_dropout_no_dropout_kernel(stack, part):
    """Without dropout the same kernels run but for dropout's own; a join that dropped elements writes no mask."""
    dry = replace(TINY_GPT, dropout=0.0)
    wet_kernels, dry_kernels = part(shape(TINY_GPT, stack)), part(shape(dry, stack))
    own = [k for k in wet_kernels if ".dropout" in k.name]
    assert names(dry_kernels) == [n for n in names(wet_kernels) if ".dropout" not in n]
    joins = sum("bias_dropout_add" in k.name for k in dry_kernels)
    mask = joins * 2 * 128 * TINY_GPT.hidden
    assert traffic(wet_kernels) - traffic(dry_kernels) == traffic(own) + mask


@pytest.mark.parametrize(("model", "share"), [(TINY_GPT, 0.5), (TINY_BERT, 1.0)], ids=["causal", "full"])
def test_flash_attention_flops(model, share):
    """Dao 2023, section 4.1: 4 s^2 d a head, halved for a causal mask, backward 2.5 times the forward."""
    one = shape(model, STACK_2024)
    forward = [k for k in kernels.layer_forward(one) if k.kind == "attention"]
    backward = [k for k in kernels.layer_backward(one) if k.kind == "attention"]
    expected = 4 * one.sequence**2 * model.head_dim * one.micro * model.heads * share
    assert [k.flops for k in forward] == [expected]
    assert [k.flops for k in backward] == [2.5 * expected]
    assert (forward[0].m, forward[0].k, forward[0].batch) == (one.sequence, model.head_dim, one.micro * model.heads)
    assert forward[0].causal is (share == 0.5)


def test_flash_reads_fewer_keys_when_heads_share_them():
    one = shape(TINY_LLAMA, STACK_2024)
    flash = next(k for k in kernels.layer_forward(one) if k.kind == "attention")
    q, kv = 8 * 32, 2 * 32
    assert flash.bytes_read == one.tokens * (q + 2 * kv) * 2
    math = names(kernels.layer_forward(shape(TINY_LLAMA, STACK_2022)))
    assert "attention.k_copy" in math  # the batched products need one key head a query head
    assert "attention.q_copy" not in math


def test_an_encoder_is_post_norm_and_sees_both_ways():
    eager = names(kernels.layer_forward(shape(TINY_BERT, STACK_2020)))
    assert eager[0] == "attention.qkv"
    assert eager[-1] == "norm2"
    assert "attention.mask_add" in eager
    assert not [n for n in eager if "multiply" in n]
    assert names(kernels.layer_backward(shape(TINY_BERT, STACK_2020)))[0] == "norm2.input_grad"


def test_bert_head_runs_the_transform_over_all_positions():
    one = shape(TINY_BERT, STACK_2020)
    head = {k.name: k for k in kernels.head_forward(one)}
    assert "head.norm" not in head
    assert (head["head.transform"].m, head["head.transform"].n) == (one.tokens, 256)
    assert (head["head.logits"].m, head["head.logits"].n) == (one.tokens, 1000)
    assert head["head.pooler"].m == one.micro


@pytest.mark.parametrize(
    ("stack", "precision", "forward", "backward"),
    [
        # bytes a logit: cast 2+4; copy, subtract, exp, divide 8 each; max and sum read 4. Back: scale 8, cast 4+2
        (STACK_2020, FP16, 6 + 4 * 8 + 2 * 4, 8 + 6),
        (STACK_2020, FULL, 4 * 8 + 2 * 4, 8),
        (replace(STACK_2020, fp32_logits=False), FP16, 4 * 4 + 2 * 2, 4),
        (STACK_2024, FP16, 2, 2 + 2),
    ],
)
def test_traffic_of_the_loss(stack, precision, forward, backward):
    one = shape(gpt(1, 64, 1, vocab=100_000), stack, precision=precision)
    count = one.tokens * 100_000

    def loss(part):
        return traffic(k for k in part(one) if k.name.startswith("loss"))

    assert loss(kernels.head_forward) / count == pytest.approx(forward, rel=1e-3)
    assert loss(kernels.head_backward) / count == pytest.approx(backward, rel=1e-3)


def test_a_tied_table_gets_two_gradients():
    tied, untied = (replace(TINY_GPT, tied_embeddings=t) for t in (True, False))
    extra = set(names(kernels.embedding_backward(shape(tied, STACK_2020)))) - set(
        names(kernels.embedding_backward(shape(untied, STACK_2020)))
    )
    assert extra == {"embedding.tied_sum"}


def test_the_three_tables_of_bert_are_looked_up_and_added():
    lookups = [k for k in kernels.embedding_forward(shape(TINY_BERT, STACK_2020)) if k.kind == "embedding"]
    assert names(lookups) == ["embedding.tokens", "embedding.positions", "embedding.token_types"]
    assert len([n for n in names(kernels.embedding_forward(shape(TINY_BERT, STACK_2020))) if n.endswith("add")]) == 2


@pytest.mark.parametrize(
    ("precision", "moved"),
    [(FP16, 3 * 4 + 2 + 3 * 4 + 2), (BF16, 3 * 4 + 4 + 3 * 4 + 2), (FULL, 4 * 4 + 3 * 4)],
    ids=["fp16", "bf16, fp32 gradients", "fp32"],
)
def test_fused_adam_moves_28_or_30_bytes(precision, moved):
    (adam,) = kernels.optimizer_step(1e6, precision, STACK_2020)
    assert adam.bytes_read + adam.bytes_written == moved * 1e6


def test_unfused_adam_runs_its_chain_for_every_tensor():
    one = kernels.optimizer_step(1e6, FP16, STACK_EAGER, tensors=1)
    ten = kernels.optimizer_step(1e6, FP16, STACK_EAGER, tensors=10)
    assert len(ten) == 10 * len(one)
    assert traffic(ten) == pytest.approx(traffic(one))
    # m, v, root, epsilon at 8; two adds at 12; the update 16; casts 2+4 and 4+2
    assert traffic(one) == pytest.approx(1e6 * (4 * 8 + 2 * 12 + 16 + 6 + 6))


def test_gradient_buffers():
    """A 16-bit buffer is the first gradient itself; an fp32 one is read and written every time: 2 + 4 + 4 bytes."""
    assert kernels.accumulate_grads(100, FP16, first=True) == ()
    assert traffic(kernels.accumulate_grads(100, FP16)) == 100 * 6
    assert traffic(kernels.accumulate_grads(100, BF16, first=True)) == 100 * 10
    assert len(kernels.accumulate_grads(100, BF16, 4)) == 4
    assert traffic(kernels.zero_grad(100, 4)) == 400
    assert traffic(kernels.grad_norm(100, 2)) == 204
    assert traffic(kernels.grad_clip(100, 2)) == 400


@settings(max_examples=30)
@given(micro=st.integers(1, 4), scale=st.integers(2, 4), stack=st.sampled_from(STACKS))
def test_a_layers_work_is_proportional_to_sequences(micro, scale, stack):
    """Apart from weights and masks read once, all is so: products' FLOPs exactly."""
    few = kernels.layer_forward(shape(TINY_LLAMA, stack, micro=micro))
    many = kernels.layer_forward(shape(TINY_LLAMA, stack, micro=scale * micro))
    assert names(few) == names(many)
    assert flops(many) == scale * flops(few)
    assert traffic(many) <= scale * traffic(few)


def test_a_product_in_fp32_moves_twice_the_bytes():
    half, full = (gemms(kernels.layer_forward(shape(TINY_GPT, STACK_2020, precision=p))) for p in (FP16, FULL))
    assert traffic(full) == 2 * traffic(half)
    assert {k.dtype for k in full} == {"fp32"}


def test_flash_in_fp32_is_refused_by_name():
    with pytest.raises(ScenarioError, match=r"flash2 attention does not exist in fp32.*math"):
        shape(TINY_GPT, STACK_2024, precision=FULL)


def test_an_empty_batch_is_refused():
    with pytest.raises(ScenarioError, match="at least one sequence"):
        shape(TINY_GPT, STACK_2020, micro=0)


def test_layers_with_a_window_do_less_attention_and_the_same_of_everything_else():
    model = replace(TINY_LLAMA, sliding_window=32, full_every=2)
    windowed, full = (kernels.layer_forward(shape(model, STACK_2024), layer) for layer in (0, 1))
    plain = kernels.layer_forward(shape(TINY_LLAMA, STACK_2024), 0)
    assert full == plain
    changed = [(a, b) for a, b in zip(windowed, plain, strict=True) if a != b]
    assert [a.name for a, _ in changed] == ["attention.flash"]
    band, square = 2 * 128 * 32 - 32**2, 128**2
    assert changed[0][0].flops / changed[0][1].flops == pytest.approx(band / square)
    assert changed[0][0].bytes_read == changed[0][1].bytes_read
