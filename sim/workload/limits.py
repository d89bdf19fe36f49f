"""What this room cannot cut into kernels, refused by name with what is possible instead.

Owns the rules that tie a model, a layout and a precision together for experts, latent attention and narrow products.
A file's own rules are the spec room's; these hold for whoever builds a ``Shape`` by hand as well.
"""

from __future__ import annotations

from collections.abc import Iterator

from sim.errors import Problem, ScenarioError
from sim.spec.types import DTYPE_BYTES, LayoutSpec, ModelSpec, PrecisionSpec

Finding = tuple[str, str]
"""Key, what is wrong and what to do."""


def refuse(model: ModelSpec, layout: LayoutSpec, precision: PrecisionSpec) -> None:
    """Raise ScenarioError that lists everything which is not modelled."""
    found = [*_experts(model, layout), *_expert_layout(model, layout), *_latent(model), *_narrow(precision)]
    if found:
        raise ScenarioError([Problem("", 0, 0, key, what) for key, what in found])


def _experts(model: ModelSpec, layout: LayoutSpec) -> Iterator[Finding]:
    if not model.experts:
        if layout.ep > 1:
            yield "layout.ep", f"{layout.ep} expert-parallel ranks, but the model has no experts; set ep: 1"
        if layout.capacity_factor or layout.expert_imbalance != 1.0:
            yield "layout", "capacity_factor and expert_imbalance have no effect without experts; leave them out"
        return
    if not 1 <= model.top_k <= model.experts:
        yield "model.top_k", f"{model.top_k} of {model.experts} experts a token; choose 1 to {model.experts}"
    if model.moe_ffn < 1:
        yield "model.moe_ffn", "is the inner width of an expert; give it"
    if model.mlp_bias:
        yield "model.mlp_bias", "biases of experts are not simulated; set mlp_bias: false"


def _expert_layout(model: ModelSpec, layout: LayoutSpec) -> Iterator[Finding]:
    if not model.experts:
        return
    if model.experts % layout.ep:
        yield "layout.ep", f"{model.experts} experts are not a multiple of ep = {layout.ep}; choose a divisor"
    if layout.tp > 1 and not layout.sequence_parallel:
        what = "every rank would route the same tokens"
        yield "layout.sequence_parallel", f"experts with tp = {layout.tp} need it: {what}; set sequence_parallel: true"
    if layout.expert_imbalance < 1.0:
        yield "layout.expert_imbalance", f"{layout.expert_imbalance}: the busiest rank has at least the mean, 1.0"
    if layout.capacity_factor < 0.0:
        yield "layout.capacity_factor", f"{layout.capacity_factor} is below 0; 0 keeps every token"
    if layout.capacity_factor and layout.expert_imbalance != 1.0:
        what = "with capacity_factor every expert has the same rows"
        yield "layout.expert_imbalance", f"has no effect: {what}; leave one of them out"


def _latent(model: ModelSpec) -> Iterator[Finding]:
    if model.attention != "mla":
        return
    for key in ("kv_lora_rank", "nope_head_dim", "rope_head_dim", "v_head_dim"):
        if getattr(model, key) < 1:
            yield f"model.{key}", "latent attention (mla) needs it; give the model's"
    if model.qkv_bias or model.qk_norm:
        yield "model.attention", "mla is simulated without qkv_bias and qk_norm; set both to false"
    if model.positions != "rotary":
        yield "model.positions", f"mla rotates a part of each head, but positions are {model.positions}; set rotary"


def _narrow(precision: PrecisionSpec) -> Iterator[Finding]:
    if precision.fp8 != "none" and DTYPE_BYTES[precision.compute] != 2:
        what = f"narrow products start from 16-bit tensors, but compute is {precision.compute}"
        yield "precision.fp8", f"{what}; compute in bf16 or fp16, or leave fp8 out"
