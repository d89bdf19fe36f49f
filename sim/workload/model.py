"""What a transformer is made of: parameters by tensor, multiplications by matrix product.

Owns exact counts that follow from a ``ModelSpec`` alone, and the lecture's round figures beside them. Must not know a
batch, a precision, a software stack, a rank or a device. MACs ("multiplications") are not FLOPs: FLOPs are twice that.

A layer is one attention block (multi-head, or DeepSeek's latent attention) and one MLP, or a router with experts in its
place (DeepSeek-V2 and -V3 technical reports, sections 2.1; Mixtral, section 2). Modules that predict one token more
each (MTP; V3, section 2.2) share both tables with the model. Limit: a gate on shared experts is not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from sim.spec.types import ModelSpec

Tensor = tuple[str, int, int]
"""Name, layer (-1: outside the layers), parameters."""


def attention_widths(model: ModelSpec) -> tuple[int, int]:
    """Width of the queries, and of the keys: heads x head_dim, which need not be ``hidden``.

    Values are as wide as keys, but for latent attention (``value_width``).
    """
    if latent(model):
        return (model.heads * head_dims(model)[0],) * 2
    return model.heads * model.head_dim, model.kv_heads * model.head_dim


def latent(model: ModelSpec) -> bool:
    """Whether keys and values come from a low-rank latent (MLA)."""
    return model.attention == "mla"


def head_dims(model: ModelSpec) -> tuple[int, int]:
    """Dimensions of one head in the scores (with latent attention: unrotated and rotated), and in the values."""
    if latent(model):
        return model.nope_head_dim + model.rope_head_dim, model.v_head_dim
    return model.head_dim, model.head_dim


def value_width(model: ModelSpec) -> int:
    """Width of the values, one head for each of the keys."""
    return (model.heads if latent(model) else model.kv_heads) * head_dims(model)[1]


def is_moe(model: ModelSpec, layer: int) -> bool:
    """Whether the MLP of a layer is a mixture of experts."""
    return model.experts > 0 and layer >= model.first_dense_layers


def window_of(model: ModelSpec, layer: int) -> int:
    """Keys that a token of a layer sees, itself among them; 0: all before it.

    Of layers numbered from 1 every ``full_every``-th sees all (GPT-OSS: 2; Gemma 3: 6).
    """
    full = model.full_every and (layer + 1) % model.full_every == 0
    return 0 if full else model.sliding_window


def attended_pairs(sequence: int, window: int) -> float:
    """Twice the (query, key) pairs of one causal sequence: L^2, the convention, or the band of a window W.

    The band has L W - W (W - 1) / 2 pairs; its double is L^2 + L at W = L, of which the L is left out.
    """
    if not window or window >= sequence:
        return float(sequence) ** 2
    return 2.0 * sequence * window - float(window) ** 2


def mlp_in_width(model: ModelSpec) -> int:
    """Output width of the first MLP product: gate and up side by side when gated."""
    return model.ffn * (2 if model.gated_mlp else 1)


def _linear(name: str, layer: int, size: tuple[int, int], bias: bool) -> Iterator[Tensor]:
    yield f"{name}.weight", layer, size[0] * size[1]
    if bias:
        yield f"{name}.bias", layer, size[1]


def _norm(model: ModelSpec, name: str, layer: int, width: int = 0) -> Iterator[Tensor]:
    """``width`` 0: that of the residual stream."""
    yield f"{name}.weight", layer, width or model.hidden
    if model.norm == "layernorm":
        yield f"{name}.bias", layer, width or model.hidden


def embedding_tensors(model: ModelSpec) -> tuple[Tensor, ...]:
    """Tensors before the first layer: token, position and token-type tables, and the norm over them."""
    out: list[Tensor] = [("embedding.tokens.weight", -1, model.vocab * model.hidden)]
    if model.positions == "learned":
        out.append(("embedding.positions.weight", -1, model.max_positions * model.hidden))
    if model.token_types:
        out.append(("embedding.token_types.weight", -1, model.token_types * model.hidden))
    if model.embedding_norm:
        out.extend(_norm(model, "embedding.norm", -1))
    return tuple(out)


def layer_tensors(model: ModelSpec, layer: int = 0) -> tuple[Tensor, ...]:
    """Tensors of one layer in the order of the forward pass; QKV is one tensor, and so are gate and up.

    The matrices of all experts are one tensor, as a grouped product takes them.
    """
    prefix = f"layers.{layer}"
    attention = list(_attention(model, f"{prefix}.attention", layer))
    if is_moe(model, layer):
        mlp = list(_experts(model, f"{prefix}.mlp", layer))
    else:
        mlp = list(_mlp(model, f"{prefix}.mlp", layer, model.ffn))
    norm1 = list(_norm(model, f"{prefix}.norm1", layer))
    norm2 = list(_norm(model, f"{prefix}.norm2", layer))
    if model.post_norm:
        return (*attention, *norm1, *mlp, *norm2)
    return (*norm1, *attention, *norm2, *mlp)


def _attention(model: ModelSpec, name: str, layer: int) -> Iterator[Tensor]:
    """Latent attention: queries and key-values each down to their rank, normed, and up to the heads.

    The rotated part of the keys, one for all heads, comes straight out of the down projection. Its projections have no
    biases (refused at the door).
    """
    h, (q, kv) = model.hidden, attention_widths(model)
    context = model.heads * head_dims(model)[1]
    if latent(model):
        rank, rope, queries = model.kv_lora_rank, model.rope_head_dim, model.q_lora_rank
        if queries:
            yield from _linear(f"{name}.q_down", layer, (h, queries), bias=False)
            yield from _norm(model, f"{name}.q_norm", layer, queries)
        yield from _linear(f"{name}.q_up", layer, (queries or h, q), bias=False)
        yield from _linear(f"{name}.kv_down", layer, (h, rank + rope), bias=False)
        yield from _norm(model, f"{name}.kv_norm", layer, rank)
        yield from _linear(f"{name}.kv_up", layer, (rank, kv - model.heads * rope + context), bias=False)
    else:
        yield from _linear(f"{name}.qkv", layer, (h, q + 2 * kv), model.qkv_bias)
    if model.qk_norm:
        yield from _norm(model, f"{name}.q_head_norm", layer, model.head_dim)
        yield from _norm(model, f"{name}.k_head_norm", layer, model.head_dim)
    if model.attention_sinks:
        yield f"{name}.sinks", layer, model.heads
    yield from _linear(f"{name}.out", layer, (context, h), model.out_bias)


def _mlp(model: ModelSpec, name: str, layer: int, ffn: int) -> Iterator[Tensor]:
    yield from _linear(f"{name}.up", layer, (model.hidden, ffn * (2 if model.gated_mlp else 1)), model.mlp_bias)
    yield from _linear(f"{name}.down", layer, (ffn, model.hidden), model.mlp_bias)


def _experts(model: ModelSpec, name: str, layer: int) -> Iterator[Tensor]:
    yield from _linear(f"{name}.router", layer, (model.hidden, model.experts), bias=model.router_bias)
    for tensor, _, one in _mlp(model, f"{name}.experts", layer, model.moe_ffn):
        yield tensor, layer, model.experts * one
    if model.shared_experts:
        yield from _mlp(model, f"{name}.shared", layer, model.shared_experts * model.moe_ffn)


def head_tensors(model: ModelSpec) -> tuple[Tensor, ...]:
    """Tensors after the last layer: final norm (pre-norm models), pooler, MLM head, untied output matrix."""
    h, out = model.hidden, list[Tensor]()
    if not model.post_norm:
        out.extend(_norm(model, "head.norm", -1))
    if model.pooler:
        out.extend(_linear("head.pooler", -1, (h, h), bias=True))
    if model.mlm_head:
        out.extend(_linear("head.transform", -1, (h, h), bias=True))
        out.extend(_norm(model, "head.transform_norm", -1))
        out.append(("head.output.bias", -1, model.vocab))
    if not model.tied_embeddings:
        out.append(("head.output.weight", -1, model.vocab * h))
    return tuple(out)


def mtp_tensors(model: ModelSpec, number: int) -> tuple[Tensor, ...]:
    """Tensors of a module that predicts one token more: two norms, the projection of both, a layer, a norm."""
    layer, name = model.layers + number, f"mtp.{number}"
    return (
        *_norm(model, f"{name}.embedding_norm", layer),
        *_norm(model, f"{name}.hidden_norm", layer),
        *_linear(f"{name}.join", layer, (2 * model.hidden, model.hidden), bias=False),
        *layer_tensors(model, layer),
        *_norm(model, f"{name}.norm", layer),
    )


def tensors(model: ModelSpec) -> tuple[Tensor, ...]:
    """All parameters as (name, layer or -1, count), in the order in which a framework registers them.

    A tied output matrix is the token table and does not occur again.
    """
    layers = (tensor for layer in range(model.layers) for tensor in layer_tensors(model, layer))
    extra = (tensor for number in range(model.mtp_layers) for tensor in mtp_tensors(model, number))
    return (*embedding_tensors(model), *layers, *extra, *head_tensors(model))


def embedding_params(model: ModelSpec) -> int:
    """Parameters before the first layer."""
    return sum(count for _, _, count in embedding_tensors(model))


def layer_params(model: ModelSpec, layer: int = 0) -> int:
    """Parameters of one layer, biases and norms included."""
    return sum(count for _, _, count in layer_tensors(model, layer))


def head_params(model: ModelSpec) -> int:
    """Parameters after the last layer; 0 for a tied output matrix itself."""
    return sum(count for _, _, count in head_tensors(model))


def mtp_params(model: ModelSpec) -> int:
    """Parameters of the modules that predict one token more."""
    return sum(count for number in range(model.mtp_layers) for _, _, count in mtp_tensors(model, number))


def params(model: ModelSpec) -> int:
    """All parameters, exactly."""
    layers = sum(count * layer_params(model, layer) for layer, count in _layer_kinds(model))
    return embedding_params(model) + layers + mtp_params(model) + head_params(model)


def active_params(model: ModelSpec) -> int:
    """Parameters that work on one token: all but those of the routed experts it does not visit.

    Both tables of an untied model are in, as in Mixtral's 12.9e9 (Jiang et al. 2024, section 1).
    """
    sizes = (c for n, _, c in layer_tensors(model, model.first_dense_layers) if ".experts." in n)
    idle = sum(c // model.experts * (model.experts - model.top_k) for c in sizes) if model.experts else 0
    return params(model) - idle * (max(0, model.layers - model.first_dense_layers) + model.mtp_layers)


def _layer_kinds(model: ModelSpec) -> tuple[tuple[int, int], ...]:
    """A layer of each kind, and how many there are like it."""
    first: dict[tuple[bool, int], int] = {}
    count = Counter((is_moe(model, layer), window_of(model, layer)) for layer in range(model.layers))
    for layer in range(model.layers):
        first.setdefault((is_moe(model, layer), window_of(model, layer)), layer)
    return tuple((layer, count[kind]) for kind, layer in first.items())


def lecture_params(model: ModelSpec) -> int:
    """The lecture's parameters of one layer: 12 H^2 (4 H^2 of attention, 8 H^2 of an MLP four times as wide)."""
    return 12 * model.hidden**2


def lecture_multiplications(model: ModelSpec, sequence: int) -> int:
    """The lecture's multiplications (MACs) of one layer, forward, for one sequence of L tokens: 2 L^2 H + 12 L H^2."""
    return 2 * sequence**2 * model.hidden + 12 * sequence * model.hidden**2


def exact_multiplications(model: ModelSpec, sequence: int, layer: int = 0) -> int:
    """Multiplications (MACs) of one layer's matrix products, forward, for one sequence.

    Scores and context are counted over the whole L x L square, causal or not, and over twice the band of a sliding
    window. Of routed experts those count that a token visits, ``top_k``.
    """
    matrices = 0
    for name, _, count in layer_tensors(model, layer):
        if name.endswith(".weight") and "norm" not in name:
            matrices += count // model.experts * model.top_k if ".experts." in name else count
    pairs = int(attended_pairs(sequence, window_of(model, layer)))
    return sequence * matrices + pairs * model.heads * sum(head_dims(model))


def head_multiplications(model: ModelSpec, sequence: int) -> int:
    """Multiplications (MACs) after the last layer, forward, one sequence: logits, MLM transform, pooler (one token)."""
    h = model.hidden
    per_token = h * model.vocab + (h * h if model.mlm_head else 0)
    return sequence * per_token + (h * h if model.pooler else 0)


def mtp_multiplications(model: ModelSpec, sequence: int) -> int:
    """Multiplications (MACs) of the modules that predict one token more, logits and all, forward, one sequence."""
    joins = model.mtp_layers * (sequence * 2 * model.hidden**2 + head_multiplications(model, sequence))
    layers = range(model.layers, model.layers + model.mtp_layers)
    return joins + sum(exact_multiplications(model, sequence, layer) for layer in layers)


@dataclass(frozen=True, kw_only=True, slots=True)
class LectureGap:
    """The lecture's figure over the exact one, minus 1: of a layer's parameters, and of its multiplications."""

    params: float
    multiplications: float


def lecture_gap(model: ModelSpec, sequence: int) -> LectureGap:
    """How far the lecture's round figures are from this model's (0.01: one per cent too high)."""
    return LectureGap(
        params=lecture_params(model) / layer_params(model) - 1,
        multiplications=lecture_multiplications(model, sequence) / exact_multiplications(model, sequence) - 1,
    )


def model_flops_per_token(model: ModelSpec, sequence: int) -> float:
    """Model FLOPs of forward and backward for one token: 3 x the FLOPs of the forward matrix products.

    Attention scores and logits are in; recompute, element-wise work and the token lookup are not. Causal attention is
    counted in full, as Megatron-LM (Narayanan et al. 2021, appendix) and PaLM (appendix B) do for MFU, so a kernel
    that skips the upper triangle shows a higher MFU than the work it did.
    """
    layers = sum(count * exact_multiplications(model, sequence, layer) for layer, count in _layer_kinds(model))
    macs = layers + mtp_multiplications(model, sequence) + head_multiplications(model, sequence)
    return 3 * 2 * macs / sequence
