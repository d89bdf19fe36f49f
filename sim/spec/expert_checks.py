"""Rules of mixtures of experts, latent attention and narrow products: what they need, and what would be ignored.

Owns the checks that tie a model's experts to the layout, and a recipe to the device; ``checks`` runs them.
"""

from __future__ import annotations

from collections.abc import Iterator

from sim.spec.build import batch_sizes, fits_of
from sim.spec.rule import Check, Finding
from sim.spec.types import DTYPE_BYTES
from sim.spec.validate import Draft
from sim.spec.wording import choices

_OF_EXPERTS = ("top_k", "moe_ffn", "shared_experts", "first_dense_layers", "router_bias", "top_k_nodes")
_OF_LATENTS = ("q_lora_rank", "kv_lora_rank", "nope_head_dim", "rope_head_dim", "v_head_dim")
_OF_EXPERT_LAYOUT = ("capacity_factor", "expert_imbalance", "expert_dispatch", "expert_overlap")


def _experts(d: Draft) -> Iterator[Finding]:
    m = d.model
    if not m.experts:
        for key in _OF_EXPERTS:
            if getattr(m, key):
                yield f"model.{key}", "has no effect without experts; leave it out, or set model.experts"
        return
    if not 1 <= m.top_k <= m.experts:
        yield "model.top_k", f"{m.top_k} of {m.experts} experts a token; choose 1 to {m.experts}"
    if not m.moe_ffn:
        yield "model.moe_ffn", "is the inner width of one expert; a model with experts needs it"
    if m.first_dense_layers >= m.layers:
        what = f"{m.first_dense_layers} of {m.layers} layers are dense, which leaves none with experts"
        yield "model.first_dense_layers", f"{what}; lower it, or set experts: 0"


def _clamp(d: Draft) -> Iterator[Finding]:
    if d.model.activation_clamp and not d.model.gated_mlp:
        yield "model.activation_clamp", "is simulated for gated MLPs only; leave it out, or set gated_mlp: true"


def _mtp(d: Draft) -> Iterator[Finding]:
    m = d.model
    if m.mtp_layers and (m.kind == "encoder" or m.post_norm or m.mlm_head):
        yield "model.mtp_layers", "is simulated for decoders with norms before their blocks; leave it out"


def _windows(d: Draft) -> Iterator[Finding]:
    m = d.model
    if m.full_every and not m.sliding_window:
        yield "model.full_every", "has no effect without a window; leave it out, or set sliding_window"
    if m.full_every == 1:
        yield "model.full_every", "1 makes every layer see all keys; leave out sliding_window and full_every"
    if m.sliding_window and m.kind == "encoder":
        yield "model.sliding_window", "windows are simulated for causal attention only; leave it out, or kind: decoder"
    if m.sliding_window and m.attention == "mla":
        yield "model.sliding_window", "has no meaning that is simulated with attention: mla; leave it out"


def _window_parts(d: Draft) -> Iterator[Finding]:
    if d.model.sliding_window and d.layout.cp > 1 and d.layout.cp_kind in (None, "ring"):
        what = "ring exchange of a window's keys is not simulated; set cp_kind: all_gather, or cp: 1"
        yield "layout.cp_kind", what


def _latent(d: Draft) -> Iterator[Finding]:
    m = d.model
    if m.attention != "mla":
        for key in _OF_LATENTS:
            if getattr(m, key):
                yield f"model.{key}", "has no effect with attention: mha; leave it out, or set attention: mla"
        return
    for key in _OF_LATENTS[1:]:
        if not getattr(m, key):
            yield f"model.{key}", "attention: mla needs it; give the model's"
    for key in ("kv_heads", "head_dim"):
        if getattr(m, key) is not None:
            yield f"model.{key}", "has no effect with attention: mla, which has its own head widths; leave it out"
    if m.qkv_bias or m.qk_norm:
        yield "model.attention", "mla is simulated without qkv_bias and qk_norm; set both to false"
    if m.positions != "rotary":
        yield "model.positions", f"mla rotates a part of each head, but positions are {m.positions}; set rotary"


def _expert_ranks(d: Draft) -> Iterator[Finding]:
    m, layout = d.model, d.layout
    if not m.experts:
        if layout.ep > 1:
            yield "layout.ep", f"{layout.ep} expert-parallel ranks, but the model has no experts; set ep: 1"
        for key in _OF_EXPERT_LAYOUT:
            if getattr(layout, key) is not None:
                yield f"layout.{key}", "has no effect in a model without experts; leave it out"
        return
    ranks = layout.dp * layout.cp * layout.tp
    if m.experts % layout.ep:
        yield "layout.ep", f"model.experts = {m.experts} is not a multiple of ep = {layout.ep}; choose a divisor"
    if ranks % layout.ep:
        what = f"ep = {layout.ep} does not divide dp * cp * tp = {ranks}, the ranks of a stage that share its experts"
        yield "layout.ep", f"{what}; choose a divisor"
    if layout.tp > 1 and not layout.sequence_parallel:
        what = f"experts with tp = {layout.tp} need it, or every tp rank would route the same tokens"
        yield "layout.sequence_parallel", f"{what}; set sequence_parallel: true"
    if m.shared_experts * m.moe_ffn % layout.tp:
        what = f"shared_experts * moe_ffn = {m.shared_experts * m.moe_ffn} is not a multiple of tp = {layout.tp}"
        yield "layout.tp", f"{what}, which splits them; choose a divisor"
    if (layout.dp_replicate or 1) > 1 and (layout.ep > 1 or layout.tp > 1):
        what = "copies of shards (HSDP) of experts spread over ep or tp ranks are not simulated"
        yield "layout.dp_replicate", f"{what}; shard over all ranks (dp_replicate: 1), or set ep: 1 and tp: 1"


def _routing(d: Draft) -> Iterator[Finding]:
    m, layout = d.model, d.layout
    if not m.experts:
        return
    busy = layout.expert_imbalance
    if layout.ep == 1:
        for key in ("expert_imbalance", "expert_dispatch"):
            if getattr(layout, key) is not None:
                yield f"layout.{key}", "has no effect with ep: 1, where every expert is at home; leave it out"
    elif busy is not None and busy < 1:
        yield "layout.expert_imbalance", f"{busy:g}: the busiest rank has at least the mean; give 1.0 or more"
    elif busy is not None and busy > (most := min(layout.ep, m.experts / m.top_k)):
        what = f"{busy:g}: {m.top_k} of {m.experts} experts a token over {layout.ep} ranks give a rank {most:g} at most"
        yield "layout.expert_imbalance", f"{what}; lower it"
    if busy is not None and layout.capacity_factor is not None:
        what = "has no effect with capacity_factor, which gives every expert the same rows"
        yield "layout.expert_imbalance", f"{what}; leave one of them out"
    if m.top_k_nodes and layout.expert_dispatch != "once_per_node" and layout.ep > 1:
        what = f"model.top_k_nodes = {m.top_k_nodes} saves traffic only where a token is sent once a node"
        yield "layout.expert_dispatch", f"{what}; set once_per_node, or model.top_k_nodes: 0"


def _expert_overlap(d: Draft) -> Iterator[Finding]:
    layout = d.layout
    if not (d.model.experts and layout.expert_overlap):
        return
    key = "layout.expert_overlap"
    if layout.ep == 1:
        yield key, "has no effect with ep: 1, where no token travels; leave it out"
    elif layout.schedule_file is not None:
        yield key, "has no effect on an order of yours; write (0F1;0B0)OVERLAP_F_B there, or leave schedule_file out"
    elif layout.pp > 1 and layout.schedule != "interleaved":
        what = (
            f"with pp = {layout.pp} is simulated for schedule: interleaved; in 1F1B every pair would wait for the next"
        )
        yield key, f"{what}; set it, with virtual_stages, or pp: 1 (dualpipe, dualpipev overlap as they are)"
    elif layout.zero == 3:
        yield key, "is not simulated with zero: 3, whose gathers would be of two passes at once; set zero: 1 or 2"
    elif batch_sizes(d.batch, layout.dp)["accumulation"] == 1 and layout.virtual_stages in (None, 1):
        yield key, "has no effect with one microbatch; raise batch.accumulation, or leave it out"


def _narrow(d: Draft) -> Iterator[Finding]:
    p = d.precision
    if p.fp8 == "none":
        if p.fp8_dispatch:
            yield "precision.fp8_dispatch", "has no effect with fp8: none; leave it out, or choose a recipe"
        return
    if DTYPE_BYTES[p.compute] != 2:
        what = f"narrow products start from 16-bit tensors, but compute is {p.compute}"
        yield "precision.fp8", f"{what}; compute in bf16 or fp16, or leave fp8 out"
    if p.fp8_dispatch and d.layout.ep == 1:
        yield "precision.fp8_dispatch", "has no effect with ep: 1, where no token travels; leave it out"
    needed = "fp4" if p.fp8 == "nvfp4" else "fp8"
    for device in [node.device for _, node, _ in d.machines]:
        known = fits_of(device.gemm)
        if needed not in known:
            what = f'device "{device.name}" has no GEMM speed in {needed}'
            yield "precision.fp8", f"{what}; leave fp8 out, or add gemm.{needed} (it has {choices(known)})"


CHECKS = (
    Check("experts are whole", ("model",), _experts),
    Check("a clamp has a gate", ("model",), _clamp),
    Check("prediction of more tokens", ("model",), _mtp),
    Check("windows mean something", ("model",), _windows),
    Check("windows and context parallelism", ("model", "layout"), _window_parts),
    Check("latent attention is whole", ("model",), _latent),
    Check("experts divide over ranks", ("model", "layout"), _expert_ranks),
    Check("routing", ("model", "layout"), _routing),
    Check("experts under each other", ("model", "layout", "batch"), _expert_overlap),
    Check("narrow products", ("precision", "layout", "cluster"), _narrow),
)
"""Every rule of experts, latents and narrow types."""
