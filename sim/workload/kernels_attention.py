"""The kernels of a multi-head attention block, from the QKV product to the output product, both ways.

Every stack is given ONE QKV product; a framework with three small ones reads the input twice more. Attention proper is
in ``kernels_core``. Must not know norms of the layer, residuals or what follows.
"""

from __future__ import annotations

from sim.workload.kernels_core import core_backward, core_forward
from sim.workload.kernels_linear import Parts, linear_backward, linear_forward, parts_backward, parts_forward
from sim.workload.kernels_norm import norm_backward, norm_forward
from sim.workload.kernels_shape import (
    Items,
    Kernels,
    Shape,
    bias_add,
    bias_grad,
    dense_pass,
    grad_pass,
    memory_pass,
)
from sim.workload.ops import Collective, Kernel


def attention_forward(shape: Shape) -> Items:
    """QKV product and bias, head norms, rotation, attention proper, output product; its bias belongs to the join."""
    out: list[Kernel | Collective] = [
        *parts_forward(shape, "attention.qkv", shape.hidden, _qkv(shape), enters=True)
    ]
    if shape.model.qkv_bias and not (shape.stack.fused_bias_activation or shape.stack.fused_linear_bias):
        out.append(bias_add(shape, "attention.qkv", shape.qkv_width))
    out.extend(_head_norms_forward(shape))
    out.extend(_rope_forward(shape))
    out.extend(core_forward(shape))
    out.extend(linear_forward(shape, "attention.out", shape.q_width, shape.hidden))
    return tuple(out)


def attention_backward(shape: Shape) -> Items:
    """The reverse: output product, attention proper, rotation, gathering of the QKV gradient, QKV product."""
    out: list[Kernel | Collective] = [
        *linear_backward(shape, "attention.out", shape.q_width, shape.hidden, leaves=True)
    ]
    out.extend(core_backward(shape))
    out.extend(_rope_backward(shape))
    out.extend(_head_norms_backward(shape))
    out.extend(_join_qkv_grad(shape))
    if shape.model.qkv_bias:
        out.append(bias_grad(shape, "attention.qkv", shape.qkv_width, fused=shape.stack.fused_bias_activation))
    out.extend(parts_backward(shape, "attention.qkv", shape.hidden, _qkv(shape)))
    return tuple(out)


def _qkv(shape: Shape) -> Parts:
    return ("attention.q", shape.q_width), ("attention.k", shape.kv_width), ("attention.v", shape.kv_width)


def _rope_forward(shape: Shape) -> Kernels:
    if shape.model.positions != "rotary":
        return ()
    parts = (("q", shape.q_width), ("k", shape.kv_width))
    return tuple(k for part, width in parts for k in rotate_forward(shape, f"attention.rope_{part}", width))


def rotate_forward(shape: Shape, name: str, width: int) -> Kernels:
    """Rotate ``width`` elements a token: one kernel, or negate-half, concatenate, times cos, times sin, add."""
    if shape.stack.fused_rope:
        return (dense_pass(shape, name, width, (1, 1), fused=True),)
    return (
        dense_pass(shape, f"{name}.negate", width // 2, (1, 1)),
        *(dense_pass(shape, f"{name}.{step}", width, (1, 1)) for step in ("concat", "cos", "sin")),
        dense_pass(shape, f"{name}.add", width, (2, 1)),
    )


def _rope_backward(shape: Shape) -> Kernels:
    if shape.model.positions != "rotary":
        return ()
    parts = (("k", shape.kv_width), ("q", shape.q_width))
    return tuple(k for part, width in parts for k in rotate_backward(shape, f"attention.rope_{part}_grad", width))


def rotate_backward(shape: Shape, name: str, width: int) -> Kernels:
    """The rotation back: one kernel, or times cos, times sin, swapped halves, and their sum."""
    if shape.stack.fused_rope:
        return (grad_pass(shape, name, width, (1, 1), fused=True),)
    return (
        *(grad_pass(shape, f"{name}.{step}", width, (1, 1)) for step in ("cos", "sin", "swap")),
        grad_pass(shape, f"{name}.add", width, (2, 1)),
    )


def _head_norms_forward(shape: Shape) -> Kernels:
    """A norm over each head of queries and of keys, where the model has them (Qwen3)."""
    if not shape.model.qk_norm:
        return ()
    parts, head = (("q", shape.q_width), ("k", shape.kv_width)), shape.model.head_dim
    return tuple(k for part, w in parts for k in norm_forward(shape, f"attention.{part}_head_norm", w, head))


def _head_norms_backward(shape: Shape) -> Kernels:
    if not shape.model.qk_norm:
        return ()
    parts, head = (("k", shape.kv_width), ("q", shape.q_width)), shape.model.head_dim
    return tuple(k for part, w in parts for k in norm_backward(shape, f"attention.{part}_head_norm", w, head))


def _join_qkv_grad(shape: Shape) -> Kernels:
    """Sum the gradients of shared heads (math path), and bring dq, dk, dv together as one gradient of the product."""
    q, kv, dtype = shape.act(shape.q_width), shape.act(shape.kv_width), shape.precision.compute
    out: list[Kernel] = []
    if shape.grouped and not shape.flash:
        out.extend(
            memory_pass(f"attention.{part}_head_sum", q, kv, role="input_grad", dtype=dtype) for part in ("k", "v")
        )
    if shape.eager_layout:
        widths = (("q", shape.q_width), ("k", shape.kv_width), ("v", shape.kv_width))
        out.extend(grad_pass(shape, f"attention.{part}_copy_grad", width, (1, 1)) for part, width in widths)
    else:
        out.append(grad_pass(shape, "attention.qkv_grad_concat", shape.qkv_width, (1, 1)))
    return tuple(out)
