"""Counts of a model against published exact counts, and against formulas from papers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workload_cases import TINY_BERT, bert, gpt, llama

from sim.workload import model as counts

GPT3 = gpt(96, 12288, 96, positions=2048)
# (model, parameters as published: the sum of the tensors in the checkpoint of that name on its model card)
PUBLISHED = {
    "gpt2": (gpt(12, 768, 12), 124_439_808),
    "gpt2-medium": (gpt(24, 1024, 16), 354_823_168),
    "gpt2-large": (gpt(36, 1280, 20), 774_030_080),
    "gpt2-xl": (gpt(48, 1600, 25), 1_557_611_200),
    "llama-2-7b": (llama(32, 4096, 32, 32, 11008, 32000), 6_738_415_616),
    "llama-2-13b": (llama(40, 5120, 40, 40, 13824, 32000), 13_015_864_320),
    "llama-2-70b": (llama(80, 8192, 64, 8, 28672, 32000), 68_976_648_192),
    "llama-3-8b": (llama(32, 4096, 32, 8, 14336, 128256), 8_030_261_248),
    "llama-3-70b": (llama(80, 8192, 64, 8, 28672, 128256), 70_553_706_496),
    "llama-3-405b": (llama(126, 16384, 128, 8, 53248, 128256), 405_853_388_800),
    "mistral-7b": (llama(32, 4096, 32, 8, 14336, 32000), 7_241_732_096),
    "qwen2.5-7b": (llama(28, 3584, 28, 4, 18944, 152064, qkv_bias=True), 7_615_616_512),
    "tinyllama": (llama(22, 2048, 32, 4, 5632, 32000), 1_100_048_384),
    "bert-base": (bert(12, 768, 12), 109_482_240),
    "bert-large": (bert(24, 1024, 16), 335_141_888),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_equal_the_published_count(name):
    model, published = PUBLISHED[name]
    assert counts.params(model) == published


def test_the_two_figures_of_gpt3_count_different_things():
    """175B is printed in the paper (Brown et al. 2020, table 2.1) without digits; two figures are in use.

    With biases, norms and positions and a tied output it is 174.6e9. Leaving all these out, and counting an output
    matrix of its own, 12 L H^2 + 2 V H, gives 175,181,291,520.
    """
    assert counts.params(GPT3) == 174_604_259_328
    assert GPT3.layers * counts.lecture_params(GPT3) + 2 * GPT3.vocab * GPT3.hidden == 175_181_291_520


@pytest.mark.parametrize(
    ("model", "framework", "merged"),
    [
        (PUBLISHED["gpt2"][0], 148, 0),  # names in GPT-2's checkpoint; QKV is one tensor there too
        (PUBLISHED["llama-2-7b"][0], 291, 3),  # q, k, v and gate, up are separate there: 3 more a layer
        (PUBLISHED["bert-base"][0], 199, 4),  # q, k, v with biases are separate there: 4 more a layer
    ],
)
def test_tensors_are_as_many_as_in_the_checkpoint(model, framework, merged):
    assert len(counts.tensors(model)) == framework - merged * model.layers


@pytest.mark.parametrize("name", ["gpt2", "llama-3-8b", "bert-base"])
def test_tensors_come_in_order_and_sum_to_the_model(name):
    model = PUBLISHED[name][0]
    all_tensors = counts.tensors(model)
    layers = [layer for _, layer, _ in all_tensors if layer >= 0]
    assert layers == sorted(layers)
    assert set(layers) == set(range(model.layers))
    assert len({tensor_name for tensor_name, _, _ in all_tensors}) == len(all_tensors)
    assert sum(count for _, _, count in all_tensors) == counts.params(model)
    assert all_tensors[0][0] == "embedding.tokens.weight"


def test_parts_of_bert_base():
    """Devlin et al. 2019: 12 H^2 + 13 H a layer, tables of 30522, 512 and 2 rows and a norm, a pooler of H^2 + H."""
    model, h = PUBLISHED["bert-base"][0], 768
    assert counts.layer_params(model) == 12 * h * h + 13 * h
    assert counts.embedding_params(model) == (30522 + 512 + 2) * h + 2 * h
    assert counts.head_params(model) == h * h + h
    with_mlm = bert(12, h, 12, mlm_head=True)
    assert counts.head_params(with_mlm) - counts.head_params(model) == h * h + h + 2 * h + 30522


@given(hidden=st.integers(1, 64), sequence=st.integers(1, 4096))
def test_the_lecture_is_exact_in_multiplications_for_gpt(hidden, sequence):
    """12 L H^2 + 2 L^2 H is every matrix product of a GPT layer, neither more nor less; parameters lack 13 H."""
    model = gpt(1, 64 * hidden, hidden)
    gap = counts.lecture_gap(model, sequence)
    assert gap.multiplications == 0
    assert gap.params == pytest.approx(12 / (12 + 13 / model.hidden) - 1)


def test_the_lecture_underrates_llama_3_8b():
    """H = 4096: attention 2 H^2 (1 + 1/4), MLP 3 H x 3.5 H: 13 H^2 for the lecture's 12."""
    gap = counts.lecture_gap(PUBLISHED["llama-3-8b"][0], 8192)
    assert counts.lecture_params(PUBLISHED["llama-3-8b"][0]) / (13 * 4096**2) - 1 == pytest.approx(-1 / 13)
    assert gap.params == pytest.approx(-1 / 13, abs=1e-4)
    assert gap.multiplications == pytest.approx((12 + 4) / (13 + 4) - 1)


@pytest.mark.parametrize(("layers", "hidden", "heads"), [(24, 2304, 24), (96, 12288, 96)])
def test_model_flops_are_megatrons(layers, hidden, heads):
    """Narayanan et al. 2021, equation 2 and above: 72 B s l h^2 (1 + s/6h + V/12lh) without recompute (96 with)."""
    s, vocab = 2048, 51200
    expected = 72 * layers * hidden**2 * (1 + s / (6 * hidden) + vocab / (12 * layers * hidden))
    model = gpt(layers, hidden, heads, vocab=vocab, positions=s)
    assert counts.model_flops_per_token(model, s) == pytest.approx(expected, rel=1e-12)


def test_model_flops_are_palms_for_grouped_heads():
    """PaLM, appendix B: 6 N + 12 L H Q T, N the parameters in products (no token lookup, no norms)."""
    model, s = PUBLISHED["llama-3-70b"][0], 4096
    norms = (2 * model.layers + 1) * model.hidden
    in_products = counts.params(model) - counts.embedding_params(model) - norms
    expected = 6 * in_products + 12 * model.layers * model.heads * model.head_dim * s
    assert counts.model_flops_per_token(model, s) == pytest.approx(expected, rel=1e-12)


def test_pooler_counts_one_token_a_sequence():
    bare = bert(2, 256, 4, vocab=1000, mlm_head=True, pooler=False)
    extra = counts.model_flops_per_token(TINY_BERT, 128) - counts.model_flops_per_token(bare, 128)
    assert extra == pytest.approx(6 * 256**2 / 128)
