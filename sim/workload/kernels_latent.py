"""The kernels of latent attention (MLA), both ways: DeepSeek-V2 technical report, section 2.1; as trained.

Queries and key-values go down to their rank, are normed, and go up to the heads; a part of each head is rotated, for
keys one part that all heads share. Down projections and their norms are on every tensor-parallel rank and work on the
tokens between regions; up projections split heads (Megatron-LM ``multi_latent_attention.py``), so what a region gathers
and reduces is as wide as the latents, not as the residual stream. Must not know norms of the layer or residuals.
"""

from __future__ import annotations

from dataclasses import replace

from sim.workload.kernels_attention import rotate_backward, rotate_forward
from sim.workload.kernels_core import core_backward, core_forward
from sim.workload.kernels_linear import linear_backward, linear_forward
from sim.workload.kernels_norm import norm_backward, norm_forward
from sim.workload.kernels_shape import Items, Kernels, Role, Shape, grad_pass, memory_pass
from sim.workload.ops import Collective, Kernel
from sim.workload.regions import region_backward, region_forward


def latent_widths(shape: Shape) -> tuple[int, int]:
    """Width of the input of the query and of the key-value up projections; the latter with the rotated key's part."""
    model = shape.model
    return model.q_lora_rank or model.hidden, model.kv_lora_rank + model.rope_head_dim


def latent_forward(shape: Shape) -> Items:
    """Down, norm, up, rotation, attention proper, output product; the collectives of its region are in."""
    between, model = shape.between, shape.model
    queries, keys = latent_widths(shape)
    down: list[Kernel] = []
    if model.q_lora_rank:
        down.extend(linear_forward(between, "attention.q_down", shape.hidden, queries))
        down.extend(norm_forward(between, "attention.q_norm", queries))
    down.extend(linear_forward(between, "attention.kv_down", shape.hidden, keys))
    down.extend(norm_forward(between, "attention.kv_norm", model.kv_lora_rank))
    region: Items = (
        *linear_forward(shape, "attention.q_up", queries, shape.q_width, enters=model.q_lora_rank > 0),
        *linear_forward(shape, "attention.kv_up", model.kv_lora_rank, up_width(shape), enters=True),
        *_rotate_forward(shape),
        *core_forward(shape),
        *linear_forward(shape, "attention.out", shape.context_width, shape.hidden),
    )
    return (*down, *region_forward(shape, region, queries + keys))


def latent_backward(shape: Shape) -> Items:
    """The reverse; the gradients that reach the layer's input along queries and keys are added.

    Both weight gradients of the up projections come last: with sequence parallelism they need the latents gathered.
    """
    between, model = shape.between, shape.model
    queries, keys = latent_widths(shape)
    kv_up = linear_backward(shape, "attention.kv_up", model.kv_lora_rank, up_width(shape))
    region: Items = (
        *linear_backward(shape, "attention.out", shape.context_width, shape.hidden, leaves=True),
        *core_backward(shape),
        *_rotate_backward(shape),
        *(k for k in kv_up if k.role == "input_grad"),
        *linear_backward(shape, "attention.q_up", queries, shape.q_width),
        *(k for k in kv_up if k.role == "weight_grad"),
    )
    down: list[Kernel | Collective] = [*region_backward(shape, region, queries + keys)]
    down.extend(norm_backward(between, "attention.kv_norm", model.kv_lora_rank))
    down.extend(linear_backward(between, "attention.kv_down", shape.hidden, keys))
    if model.q_lora_rank:
        down.extend(norm_backward(between, "attention.q_norm", queries))
        down.extend(linear_backward(between, "attention.q_down", shape.hidden, queries))
    down.append(grad_pass(between, "attention.latent_sum", shape.hidden, (2, 1)))
    return tuple(down)


def up_width(shape: Shape) -> int:
    """Output width of the key-value up projection: the unrotated part of each key, and each value."""
    return shape.head_batch // shape.micro * (shape.model.nope_head_dim + shape.model.v_head_dim)


def _rotated(shape: Shape) -> tuple[int, int]:
    """Rotated elements a token of the queries, and of the one key part."""
    rope = shape.model.rope_head_dim
    return shape.head_batch // shape.micro * rope, rope


def _rotate_forward(shape: Shape) -> Kernels:
    """Rotate, then put each head's parts together; fused kernels rotate queries in place and keys as they go.

    Eager code takes even and odd elements apart first (DeepSeek's pairs are neighbours), and copies the values, which
    are a part of what the up projection wrote.
    """
    (q, k), dtype, wide = _rotated(shape), shape.precision.compute, shape.act(shape.q_width)
    read, values, shape = shape.act(shape.kv_width - q + k), shape.act(shape.value_width), _rotating(shape)
    if shape.stack.fused_rope:
        keys = memory_pass("attention.rope_k", read, shape.act(shape.kv_width), fused=True, dtype=dtype)
        return (*rotate_forward(shape, "attention.rope_q", q), keys)
    rotated = [
        kernel
        for part, width in (("q", q), ("k", k))
        for kernel in (_pairs(shape, part, width), *rotate_forward(shape, f"attention.rope_{part}", width))
    ]
    return (
        *rotated,
        _slices(shape, "attention.q_concat", (wide, wide)),
        _slices(shape, "attention.k_concat", (read, shape.act(shape.kv_width))),
        _slices(shape, "attention.v_copy", (values, values)),
    )


def _rotating(shape: Shape) -> Shape:
    """The shape with a stack whose rotation is fused if that of latent attention is."""
    return replace(shape, stack=replace(shape.stack, fused_rope=shape.stack.fused_latent_rope))


def _pairs(shape: Shape, part: str, width: int, role: Role = "forward") -> Kernel:
    """Neighbours apart, or together again: a pass in steps of two elements."""
    name = f"attention.rope_{part}{'' if role == 'forward' else '_grad'}.pairs"
    return _slices(shape, name, (shape.act(width), shape.act(width)), role)


def _slices(shape: Shape, name: str, moved: tuple[float, float], role: Role = "forward") -> Kernel:
    """A pass that puts slices of rows elsewhere: bytes read and written."""
    return memory_pass(name, *moved, quality="rearranged", role=role, dtype=shape.precision.compute)


def _rotate_backward(shape: Shape) -> Kernels:
    """Rotate back, sum the one key part over heads, and join the other parts with the values' gradient.

    Eager: autograd puts even and odd elements each into a tensor of zeros and adds the two; queries are joined.
    """
    (q, k), dtype, wide = _rotated(shape), shape.precision.compute, shape.act(shape.q_width)
    shape = _rotating(shape)
    joined, fused = shape.act(shape.kv_width - q) + shape.act(shape.value_width), shape.stack.fused_rope
    parts = (("k", k), ("q", q))
    head_sum = memory_pass(
        "attention.rope_k_sum", shape.act(q), shape.act(k), fused=fused, role="input_grad", dtype=dtype
    )
    if fused:
        back = [k for part, w in parts for k in rotate_backward(shape, f"attention.rope_{part}_grad", w)]
        name = "attention.kv_grad_concat"
        return (head_sum, *back, memory_pass(name, joined, joined, fused=True, role="input_grad", dtype=dtype))
    back = [
        kernel
        for part, width in parts
        for kernel in (
            *rotate_backward(shape, f"attention.rope_{part}_grad", width),
            _pairs(shape, part, width, "input_grad"),
            grad_pass(shape, f"attention.rope_{part}_grad.sum", width, (2, 3)),
        )
    ]
    queries = _slices(shape, "attention.q_grad_concat", (wide, wide), "input_grad")
    return (head_sum, *back, queries, _slices(shape, "attention.kv_grad_concat", (joined, joined), "input_grad"))
