"""Activation bytes against Korthikanti et al. 2022 (Reducing Activation Recomputation), and against the kernels."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workload_cases import (
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

from sim.workload import kernels, stash

SIZES = {"b": st.integers(1, 8), "s": st.sampled_from([64, 512, 2048]), "a": st.integers(1, 16)}


def layer(model, stack, **sizes):
    return sum(stash.layer_stash(shape(model, stack, **sizes)).values())


@given(**SIZES)
def test_a_megatron_layer_keeps_what_the_paper_says(b, s, a):
    """Equation 1: s b h (34 + 5 a s / h) bytes a layer."""
    h = 64 * a
    assert layer(gpt(1, h, a), STACK_2022, micro=b, sequence=s) == s * b * h * 34 + 5 * a * s * s * b


def test_the_papers_parts_of_a_layer():
    """Section 4.1: attention 11 s b h + 5 a s^2 b, MLP 19 s b h, norms 4 s b h; masks are 1 of the 11, 1 of the 19, 1
    of the 5."""
    b, s, h, a = 2, 128, 256, 4
    parts = stash.layer_stash(shape(TINY_GPT, STACK_2022, micro=b, sequence=s))
    assert parts["activations.attention"] == 10 * s * b * h + 4 * a * s * s * b
    assert parts["activations.mlp"] == 18 * s * b * h
    assert parts["activations.norm"] == 4 * s * b * h
    assert parts["activations.masks"] == 2 * s * b * h + a * s * s * b


@given(**SIZES)
def test_the_2020_stack_keeps_gelus_tanh_besides(b, s, a):
    """The eager scale, mask and bias passes keep nothing; the scripted GELU keeps one more 4h-wide tensor: 8 s b h."""
    h = 64 * a
    extra = layer(gpt(1, h, a), STACK_2020, micro=b, sequence=s) - layer(gpt(1, h, a), STACK_2022, micro=b, sequence=s)
    assert extra == 8 * s * b * h


@given(**SIZES)
def test_flash_keeps_no_square(b, s, a):
    """34 s b h and 4 bytes of row sums a head and token, in place of 5 a s^2 b."""
    h = 64 * a
    assert layer(gpt(1, h, a), STACK_2024, micro=b, sequence=s) == 34 * s * b * h + 4 * b * a * s


def test_without_dropout_masks_and_the_second_matrix_go():
    b, s, h, a = 2, 128, 256, 4
    dry = stash.layer_stash(shape(replace(TINY_GPT, dropout=0.0), STACK_2022, micro=b, sequence=s))
    assert dry["activations.masks"] == 0
    assert sum(dry.values()) == 32 * s * b * h + 2 * a * s * s * b


def test_a_llama_layer_under_flash():
    """By hand, 16 bit, widths a token: norms 2h, QKV input h, q h, k and v h/4 each (8 heads, 2 key heads), context h,
    MLP input h, gate and up 2f, product f; row sums 4 bytes a head."""
    h, f, tokens = 256, 704, 2 * 128
    assert layer(TINY_LLAMA, STACK_2024) == tokens * 2 * (2 * h + h + h + h // 2 + h + h + 3 * f) + 4 * tokens * 8


def test_eager_llama_keeps_fp32_norms_and_the_activated_gate():
    one = stash.layer_stash(shape(TINY_LLAMA, STACK_EAGER))
    tokens = 2 * 128
    assert one["activations.norm"] == 2 * tokens * 256 * (4 + 2)
    assert one["activations.mlp"] == tokens * 2 * (256 + 4 * 704)


def test_relu_keeps_its_output_only():
    gelu, relu = (layer(replace(TINY_GPT, activation=name), STACK_2022) for name in ("gelu", "relu"))
    assert gelu - relu == 2 * 128 * 4 * 256 * 2


@pytest.mark.parametrize("stack", STACKS, ids=lambda s: s.name)
@pytest.mark.parametrize("model", [TINY_GPT, TINY_LLAMA, TINY_BERT], ids=["gpt", "llama", "bert"])
def test_forward_wrote_what_is_kept(model, stack):
    """Nothing is kept that no kernel wrote, the layer's input apart; and full recompute keeps less."""
    one = shape(model, stack)
    kept = sum(stash.layer_stash(one).values())
    written = sum(k.bytes_written for k in kernels.layer_forward(one))
    assert stash.layer_input(one) < kept <= written + stash.layer_input(one)


def test_fp32_doubles_everything_but_masks():
    half, full = (stash.layer_stash(shape(TINY_GPT, STACK_2022, precision=p)) for p in (FP16, FULL))
    for owner in half:
        assert full[owner] == half[owner] * (1 if owner == "activations.masks" else 2)


def test_layer_input_is_the_papers_2sbh():
    """Section 4: full recompute keeps 2 s b h a layer."""
    assert stash.layer_input(shape(TINY_GPT, STACK_2022, micro=3, sequence=64)) == 2 * 64 * 3 * 256


def test_workspace_is_squares_in_math_attention_and_widths_in_flash():
    long = {"micro": 1, "sequence": 2048}
    residual = 2048 * 256 * 2
    assert stash.layer_workspace(shape(TINY_GPT, STACK_2020, **long)) == residual + 2 * 4 * 2048**2 * 2
    assert stash.layer_workspace(shape(TINY_GPT, STACK_2024, **long)) == residual + 2048 * 2 * (2 * 4 * 256)
    wide_heads = replace(TINY_GPT, ffn=256)
    assert stash.layer_workspace(shape(wide_heads, STACK_2024, **long)) == residual + 2048 * (4 * 3 * 256 + 4 * 256)


def test_head_keeps_the_softmax_in_the_type_of_the_loss():
    tokens, vocab, h = 2 * 128, 1000, 256
    old, new = (stash.head_stash(shape(TINY_GPT, s)) for s in (STACK_2020, STACK_2024))
    assert old["activations.logits"] == 4 * tokens * vocab
    assert new["activations.logits"] == 2 * tokens * vocab
    assert old["activations.head"] == 2 * tokens * h
    assert old["activations.norm"] == 2 * tokens * h


def test_the_unfused_loss_has_four_logits_alive_at_once():
    """16-bit logits, their fp32 copy, the copy the maximum was taken from, and the softmax: 2 + 4 + 4 + 4 bytes."""
    one = shape(TINY_GPT, STACK_2020)
    kept = stash.head_stash(one)["activations.logits"]
    assert kept + stash.head_workspace(one) == 14 * one.tokens * one.vocab
    assert stash.head_workspace(shape(TINY_GPT, STACK_2024)) == 0


def test_bert_keeps_its_transform_and_its_embedding_norm():
    one = shape(TINY_BERT, STACK_2020)
    width = one.tokens * 256 * 2
    head = stash.head_stash(one)
    assert head["activations.head"] == 3 * width + 2 * one.micro * 256 * 2
    assert head["activations.norm"] == width
    lookup = stash.embedding_stash(one)
    assert lookup["activations.norm"] == width
    assert lookup["activations.masks"] == width / 2
    assert lookup["activations.embedding"] == 8 * one.tokens
