"""What a transformer is made of: parameters by tensor, multiplications by matrix product.

Owns exact counts that follow from a ``ModelSpec`` alone, and the lecture's round figures beside them. Must not know a
batch, a precision, a software stack, a rank or a device. MACs ("multiplications") are not FLOPs: FLOPs are twice that.

Limits: dense models with one attention block and one MLP a layer; no mixture of experts, no latent attention.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sim.spec.types import ModelSpec

Tensor = tuple[str, int, int]
"""Name, layer (-1: outside the layers), parameters."""


def attention_widths(model: ModelSpec) -> tuple[int, int]:
    """Width of the queries, and of the keys (or values): heads x head_dim, which need not be ``hidden``."""
    return model.heads * model.head_dim, model.kv_heads * model.head_dim


def mlp_in_width(model: ModelSpec) -> int:
    """Output width of the first MLP product: gate and up side by side when gated."""
    return model.ffn * (2 if model.gated_mlp else 1)


def _linear(name: str, layer: int, size: tuple[int, int], bias: bool) -> Iterator[Tensor]:
    yield f"{name}.weight", layer, size[0] * size[1]
    if bias:
        yield f"{name}.bias", layer, size[1]


def _norm(model: ModelSpec, name: str, layer: int) -> Iterator[Tensor]:
    yield f"{name}.weight", layer, model.hidden
    if model.norm == "layernorm":
        yield f"{name}.bias", layer, model.hidden


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
    """Tensors of one layer in the order of the forward pass; QKV is one tensor, and so are gate and up."""
    q, kv = attention_widths(model)
    h, prefix = model.hidden, f"layers.{layer}"
    attention = [
        *_linear(f"{prefix}.attention.qkv", layer, (h, q + 2 * kv), model.qkv_bias),
        *_linear(f"{prefix}.attention.out", layer, (q, h), model.out_bias),
    ]
    mlp = [
        *_linear(f"{prefix}.mlp.up", layer, (h, mlp_in_width(model)), model.mlp_bias),
        *_linear(f"{prefix}.mlp.down", layer, (model.ffn, h), model.mlp_bias),
    ]
    norm1 = list(_norm(model, f"{prefix}.norm1", layer))
    norm2 = list(_norm(model, f"{prefix}.norm2", layer))
    if model.post_norm:
        return (*attention, *norm1, *mlp, *norm2)
    return (*norm1, *attention, *norm2, *mlp)


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


def tensors(model: ModelSpec) -> tuple[Tensor, ...]:
    """All parameters as (name, layer or -1, count), in the order in which a framework registers them.

    A tied output matrix is the token table and does not occur again.
    """
    layers = (tensor for layer in range(model.layers) for tensor in layer_tensors(model, layer))
    return (*embedding_tensors(model), *layers, *head_tensors(model))


def embedding_params(model: ModelSpec) -> int:
    """Parameters before the first layer."""
    return sum(count for _, _, count in embedding_tensors(model))


def layer_params(model: ModelSpec) -> int:
    """Parameters of one layer, biases and norms included."""
    return sum(count for _, _, count in layer_tensors(model))


def head_params(model: ModelSpec) -> int:
    """Parameters after the last layer; 0 for a tied output matrix itself."""
    return sum(count for _, _, count in head_tensors(model))


def params(model: ModelSpec) -> int:
    """All parameters, exactly."""
    return embedding_params(model) + model.layers * layer_params(model) + head_params(model)


def lecture_params(model: ModelSpec) -> int:
    """The lecture's parameters of one layer: 12 H^2 (4 H^2 of attention, 8 H^2 of an MLP four times as wide)."""
    return 12 * model.hidden**2


def lecture_multiplications(model: ModelSpec, sequence: int) -> int:
    """The lecture's multiplications (MACs) of one layer, forward, for one sequence of L tokens: 2 L^2 H + 12 L H^2."""
    return 2 * sequence**2 * model.hidden + 12 * sequence * model.hidden**2


def exact_multiplications(model: ModelSpec, sequence: int) -> int:
    """Multiplications (MACs) of one layer's matrix products, forward, for one sequence.

    Scores and context are counted over the whole L x L square, causal or not.
    """
    q, kv = attention_widths(model)
    h = model.hidden
    projections = h * (q + 2 * kv) + q * h
    mlp = h * mlp_in_width(model) + model.ffn * h
    return sequence * (projections + mlp) + 2 * sequence**2 * q


def head_multiplications(model: ModelSpec, sequence: int) -> int:
    """Multiplications (MACs) after the last layer, forward, one sequence: logits, MLM transform, pooler (one token)."""
    h = model.hidden
    per_token = h * model.vocab + (h * h if model.mlm_head else 0)
    return sequence * per_token + (h * h if model.pooler else 0)


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
    macs = model.layers * exact_multiplications(model, sequence) + head_multiplications(model, sequence)
    return 3 * 2 * macs / sequence
