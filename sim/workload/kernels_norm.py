"""Norms, and the way a block's output joins the residual stream: bias, dropout, add.

Owns these kernels' bytes in the fused and the eager form. Must not know what the block before them computed.
"""

from __future__ import annotations

from sim.workload.kernels_shape import (
    FP32,
    MASK_BYTES,
    Kernels,
    Shape,
    bias_add,
    bias_grad,
    dense_pass,
    dropout_backward,
    dropout_forward,
    grad_pass,
    memory_pass,
)


def eager_rmsnorm(shape: Shape) -> bool:
    """Whether the norm is a chain of fp32 passes. LayerNorm never is: frameworks have had one kernel for it."""
    return shape.model.norm == "rmsnorm" and not shape.stack.fused_norm


def norm_params(shape: Shape, head: int = 0) -> int:
    """Parameters of one norm over ``head`` elements (0: over the residual stream)."""
    return (head or shape.hidden) * (2 if shape.model.norm == "layernorm" else 1)


def norm_forward(shape: Shape, name: str, width: int = 0, head: int = 0) -> Kernels:
    """One pass (read x, write y), or the eager RMSNorm: to fp32, square, mean, rsqrt, scale, back, times weight.

    A token has ``width`` elements (0: the residual stream), normed in rows of ``head`` (0: all of them in one).
    """
    width = width or shape.hidden
    one, dtype = shape.act(width), shape.precision.compute
    if not eager_rmsnorm(shape):
        weights = norm_params(shape, head or width) * shape.elem
        return (memory_pass(name, one + weights, one, fused=shape.stack.fused_norm, dtype=dtype),)
    wide, row = one / shape.elem * FP32, float(shape.tokens * FP32 * (width // (head or width)))
    chain = [
        ("square", wide, wide), ("mean", wide, row), ("rsqrt", row, row),
        ("scale", wide + row, wide), ("weight", one, one),
    ]  # fmt: skip
    if shape.elem < FP32:
        chain.insert(0, ("to_fp32", one, wide))
        chain.insert(-1, ("from_fp32", wide, one))
    return tuple(memory_pass(f"{name}.{part}", read, written, dtype=dtype) for part, read, written in chain)


def norm_backward(shape: Shape, name: str, width: int = 0, head: int = 0) -> Kernels:
    """The input gradient (reads dy and x) and the weight gradient (reads both again), or the eager chain's passes.

    ``width`` and ``head`` as in ``norm_forward``.
    """
    width = width or shape.hidden
    one, dtype, fused = shape.act(width), shape.precision.compute, shape.stack.fused_norm
    weights = float(norm_params(shape, head or width) * shape.elem)
    weight_grad = memory_pass(f"{name}.weight_grad", 2 * one, weights, fused=fused, role="weight_grad", dtype=dtype)
    if not eager_rmsnorm(shape):
        return (grad_pass(shape, f"{name}.input_grad", width, (2, 1), fused=fused), weight_grad)
    wide, row = one / shape.elem * FP32, float(shape.tokens * FP32 * (width // (head or width)))
    chain = [
        ("weight", one, one), ("scale", wide + row, wide), ("scale_product", 2 * wide, wide),
        ("scale_sum", wide, row), ("rsqrt", 2 * row, row), ("square", wide + row, wide), ("add", 2 * wide, wide),
    ]  # fmt: skip
    if shape.elem < FP32:
        chain.insert(1, ("to_fp32", one, wide))
        chain.append(("from_fp32", wide, one))
    passes = (
        memory_pass(f"{name}.{part}_grad", read, written, role="input_grad", dtype=dtype)
        for part, read, written in chain
    )
    return (weight_grad, *passes)


def join_forward(shape: Shape, name: str, bias: bool) -> Kernels:
    """Add a block's output to the residual stream: one kernel, or bias add, dropout and residual add in turn."""
    h, mask = shape.hidden, shape.tokens * shape.hidden * MASK_BYTES
    if shape.stack.fused_bias_dropout_add:
        written = shape.act(h) + (mask if shape.dropout else 0)
        dtype = shape.precision.compute
        return (memory_pass(f"{name}.bias_dropout_add", 2 * shape.act(h), written, fused=True, dtype=dtype),)
    out = [bias_add(shape, name, h)] if bias and not shape.stack.fused_linear_bias else []
    if shape.dropout:
        out.append(dropout_forward(shape, name, shape.tokens * h))
    out.append(dense_pass(shape, f"{name}.residual", h, (2, 1)))
    return tuple(out)


def join_backward(shape: Shape, name: str, bias: bool) -> Kernels:
    """Dropout's backward, then the bias gradient. The residual branch keeps the same gradient: no kernel."""
    fused = shape.stack.fused_bias_dropout_add
    out = [dropout_backward(shape, name, shape.tokens * shape.hidden, fused=fused)] if shape.dropout else []
    if bias:
        out.append(bias_grad(shape, name, shape.hidden, fused=fused))
    return tuple(out)


def branch_sum(shape: Shape, name: str) -> Kernels:
    """Autograd adds the block's input gradient to the one that came along the residual branch."""
    return (grad_pass(shape, f"{name}.branch_sum", shape.hidden, (2, 1), fused=shape.stack.fused_bias_dropout_add),)
