"""Counts of a model against published exact counts, and against formulas from papers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workload_cases import TINY_BERT, TINY_DEEPSEEK, bert, deepseek, gpt, llama, moe

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


V3 = deepseek(
    layers=61, hidden=7168, heads=128, experts=256, top_k=8, moe_ffn=2048, vocab=129280, ffn=18432,
    first_dense_layers=3, q_lora_rank=1536, kv_lora_rank=512, nope_head_dim=128, rope_head_dim=64, v_head_dim=128,
    router_bias=True,
)  # fmt: skip
V2 = deepseek(
    layers=60, hidden=5120, heads=128, experts=160, top_k=6, moe_ffn=1536, vocab=102400, ffn=12288, shared_experts=2,
    q_lora_rank=1536, kv_lora_rank=512, nope_head_dim=128, rope_head_dim=64, v_head_dim=128,
)  # fmt: skip
MIXTRAL = moe(32, 4096, 32, 8, 8, 2, 14336, 32000)
QWEN3 = moe(48, 2048, 32, 4, 128, 8, 768, 151936, head_dim=128, qk_norm=True)
# (model, all parameters, those active for one token, as their papers and model cards print the two)
SPARSE = {
    "mixtral-8x7b": (MIXTRAL, 46_702_792_704, 12.88e9, (46.7e9, 12.9e9)),
    "qwen3-30b-a3b": (QWEN3, 30_532_122_624, 3.353e9, (30.5e9, 3.3e9)),
    "deepseek-v3": (V3, 671_026_419_200, 37.55e9, (671e9, 37e9)),
    "deepseek-v2": (V2, 235_741_434_880, 21.38e9, (236e9, 21e9)),
}


@pytest.mark.parametrize("name", SPARSE)
def test_sparse_models_have_their_published_parameters(name):
    """DeepSeek-V3 without its multi-token prediction layer, with the 256 balancing biases of each router."""
    model, total, active, printed = SPARSE[name]
    assert counts.params(model) == total
    assert counts.active_params(model) == pytest.approx(active, rel=2e-4)
    assert total == pytest.approx(printed[0], rel=2e-3)
    assert counts.active_params(model) == pytest.approx(printed[1], rel=2e-2)
    assert sum(count for _, _, count in counts.tensors(model)) == total


def test_parts_of_deepseek_v3():
    """By hand from the report's section 4.2: latents of 1536 and 512, 128 heads of 128 + 64 and 128, 3 dense layers."""
    h, heads = 7168, 128
    queries = h * 1536 + 1536 + 1536 * heads * 192
    keys_values = h * (512 + 64) + 512 + 512 * heads * (128 + 128)
    attention = queries + keys_values + heads * 128 * h
    assert attention == 187_107_328
    assert counts.layer_params(V3, 2) == attention + 2 * h + 3 * h * 18432
    experts = h * 256 + 256 + (256 + 1) * 3 * h * 2048
    assert counts.layer_params(V3, 3) == attention + 2 * h + experts
    assert counts.params(V3) == 3 * counts.layer_params(V3, 2) + 58 * counts.layer_params(V3, 3) + 2 * 129280 * h + h


def test_a_dense_model_is_all_active():
    assert counts.active_params(PUBLISHED["gpt2"][0]) == 124_439_808


def test_flops_count_the_experts_that_are_visited():
    """6 FLOPs a parameter in a product and token, and scores over heads of two sizes; the lookup, norms and the
    balancing bias work in none."""
    s = 4096
    norms = 61 * (2 * 7168 + 1536 + 512) + 7168
    in_products = counts.active_params(V3) - counts.embedding_params(V3) - norms - 58 * 256
    expected = 6 * in_products + 6 * 61 * 128 * (192 + 128) * s
    assert counts.model_flops_per_token(V3, s) == pytest.approx(expected, rel=1e-12)


def test_sparse_layers_begin_after_the_dense_ones():
    assert [counts.is_moe(TINY_DEEPSEEK, layer) for layer in range(3)] == [False, True, True]
    assert not counts.is_moe(PUBLISHED["gpt2"][0], 0)


def test_a_window_counts_the_pairs_that_a_mask_would_show():
    """Twice the entries of a banded lower triangle, up to its diagonal: L^2 for a full one, by the convention."""
    for length, window in ((64, 0), (64, 64), (64, 16), (64, 1), (300, 128)):
        keys = window or length
        entries = sum(min(i + 1, keys) for i in range(length))
        assert counts.attended_pairs(length, window) == 2 * entries - min(keys, length)


def test_every_so_many_th_layer_sees_everything():
    """GPT-OSS alternates, the window first; Gemma 3 has five layers with a window, then one without."""
    alternating = llama(6, 64, 4, 4, 128, 100, sliding_window=128, full_every=2, attention_sinks=True)
    assert [counts.window_of(alternating, i) for i in range(6)] == [128, 0, 128, 0, 128, 0]
    five_to_one = llama(6, 64, 4, 4, 128, 100, sliding_window=1024, full_every=6)
    assert [counts.window_of(five_to_one, i) for i in range(6)] == [1024] * 5 + [0]
    plain = llama(6, 64, 4, 4, 128, 100)
    assert counts.params(alternating) - counts.params(plain) == 6 * 4  # one sink a head
    pairs = 2.0 * 512 * 128 - 128**2
    saved = counts.model_flops_per_token(plain, 512) - counts.model_flops_per_token(alternating, 512)
    assert saved == pytest.approx(3 * 2 * 3 * (512**2 - pairs) * 64 * 2 / 512)  # three layers; 64 = heads x head_dim
