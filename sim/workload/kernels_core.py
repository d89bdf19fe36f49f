"""Attention proper, from queries, keys and values to the context, both ways.

Owns the three shapes attention has had: eager passes over the s x s matrix (as in DeepSpeed's Megatron-LM examples of
2020, ``mpu/transformer.py``), one fused scale-mask-softmax kernel between two batched products (Megatron-LM of
2021), one flash kernel (Dao 2022, 2023). Must not know the projections around it.
"""

from __future__ import annotations

from sim.workload.context import context_backward, context_forward
from sim.workload.kernels_shape import (
    FP32,
    Items,
    Kernels,
    Shape,
    dense_pass,
    dropout_backward,
    dropout_forward,
    gemm,
    grad_pass,
    memory_pass,
)
from sim.workload.ops import Kernel

FLASH_BACKWARD = 2.5  # five products for two: FlashAttention's convention (Dao 2023, section 4.1)


def core_forward(shape: Shape) -> Items:
    """Queries, keys and values to the context, with what context-parallel ranks exchange for it."""
    return context_forward(shape, _flash_forward(shape)) if shape.flash else _math_forward(shape)


def core_backward(shape: Shape) -> Items:
    """The gradient of the context to those of queries, keys and values."""
    return context_backward(shape, _flash_backward(shape)) if shape.flash else _math_backward(shape)


def _flash(shape: Shape, name: str, factor: float) -> Kernel:
    q, kv, context = (shape.act(w) for w in (shape.q_width, shape.kv_width + shape.value_width, shape.context_width))
    row_sums = float(shape.head_batch * shape.local_sequence * FP32)
    backward = name.endswith("grad")
    flops = 2.0 * shape.pairs / shape.layout.cp * sum(shape.head_dims) * shape.head_batch * factor
    return Kernel(
        name=name, kind="attention", flops=flops / 2 if shape.causal else flops,
        bytes_read=(q + kv + 2 * context + row_sums) if backward else q + kv,
        bytes_written=(q + kv) if backward else context + row_sums,
        m=shape.sequence, n=shape.local_sequence, k=shape.head_dims[0], batch=shape.head_batch,
        dtype=shape.precision.compute, role="input_grad" if backward else "forward", causal=shape.causal,
        window=shape.window,
    )  # fmt: skip


def _flash_forward(shape: Shape) -> Kernel:
    """One kernel: 4 s^2 d FLOPs a head, halved if causal (``pairs``). Dropout happens inside and keeps no mask.

    Where scores and values have different dimensions it is 2 s^2 times their sum.
    """
    return _flash(shape, "attention.flash", 1.0)


def _flash_backward(shape: Shape) -> Kernel:
    """One kernel of 2.5 times the forward FLOPs; reads q, k, v, output and its gradient, writes three gradients."""
    return _flash(shape, "attention.flash_grad", FLASH_BACKWARD)


def _layout_copies(shape: Shape) -> Kernels:
    """Copies that make q, k, v fit the batched products: all three in eager code, k and v where heads share them.

    Latent attention puts queries and keys together itself, in the order that the products want.
    """
    if shape.latent:
        return ()
    q, kv, dtype = shape.act(shape.q_width), shape.act(shape.kv_width), shape.precision.compute
    out = [dense_pass(shape, "attention.q_copy", shape.q_width, (1, 1))] if shape.eager_layout else []
    if shape.eager_layout or shape.grouped:
        out.extend(memory_pass(f"attention.{part}_copy", kv, q, dtype=dtype) for part in ("k", "v"))
    return tuple(out)


def math_core(shape: Shape) -> Kernels:
    """Scores, softmax, dropout, context: all that is of the size of the s x s matrices."""
    s, (d, v), batch = shape.sequence, shape.head_dims, shape.head_batch
    out = [gemm(shape, "attention.scores", (s, s, d), batch), *_softmax_forward(shape)]
    if shape.dropout:
        out.append(dropout_forward(shape, "attention.probs", shape.scores))
    return (*out, gemm(shape, "attention.context", (s, v, s), batch))


def _math_forward(shape: Shape) -> Kernels:
    out = [*_layout_copies(shape), *math_core(shape)]
    out.append(dense_pass(shape, "attention.context_copy", shape.context_width, (1, 1)))
    return tuple(out)


def _softmax_forward(shape: Shape) -> Kernels:
    """Scale, mask, softmax over the s x s matrices: one kernel, passes in fp32 where it refuses, or a pass for each.

    A decoder's eager mask is two passes, times the 0/1 triangle and minus 10000 x its complement (itself two small
    kernels); an encoder adds its padding mask in one. The mask is one s x s matrix, or one row a sequence (encoder).
    """
    size, dtype = float(shape.scores * shape.elem), shape.precision.compute
    mask = float((shape.sequence if shape.causal else shape.micro) * shape.sequence * shape.elem)
    if shape.softmax == "fused":
        read = size if shape.causal else size + mask
        return (memory_pass("attention.scale_mask_softmax", read, size, fused=True, dtype=dtype),)
    if shape.softmax == "wide":
        return _wide_softmax_forward(shape)
    chain = [("scale", size, size)]
    if shape.causal:
        chain.append(("mask_multiply", size + mask, size))
        chain += [("mask_complement", mask, mask), ("mask_weight", mask, mask), ("mask_subtract", size + mask, size)]
    else:
        chain.append(("mask_add", size + mask, size))
    chain.append(("softmax", size, size))
    return tuple(memory_pass(f"attention.{name}", read, written, dtype=dtype) for name, read, written in chain)


def _math_backward(shape: Shape) -> Kernels:
    s, (d, v), batch = shape.sequence, shape.head_dims, shape.head_batch
    out = [grad_pass(shape, "attention.context_copy_grad", shape.context_width, (1, 1))] if shape.eager_layout else []
    out.append(gemm(shape, "attention.context.grad_probs", (s, s, v), batch, role="input_grad"))
    out.append(gemm(shape, "attention.context.grad_v", (s, v, s), batch, role="input_grad"))
    if shape.dropout:
        out.append(dropout_backward(shape, "attention.probs", shape.scores))
    out.extend(_softmax_backward(shape))
    out.append(gemm(shape, "attention.scores.grad_q", (s, d, s), batch, role="input_grad"))
    out.append(gemm(shape, "attention.scores.grad_k", (s, d, s), batch, role="input_grad"))
    return tuple(out)


def _softmax_backward(shape: Shape) -> Kernels:
    """Reads the gradient and the saved softmax. Eager code then masks and scales in passes; a subtraction is free."""
    size, dtype = float(shape.scores * shape.elem), shape.precision.compute
    if shape.softmax == "fused":
        name = "attention.scale_mask_softmax_grad"
        return (memory_pass(name, 2 * size, size, fused=True, role="input_grad", dtype=dtype),)
    if shape.softmax == "wide":
        return _wide_softmax_backward(shape)
    out = [memory_pass("attention.softmax_grad", 2 * size, size, role="input_grad", dtype=dtype)]
    if shape.causal:
        read = size + shape.sequence**2 * shape.elem
        out.append(memory_pass("attention.mask_multiply_grad", read, size, role="input_grad", dtype=dtype))
    out.append(memory_pass("attention.scale_grad", size, size, role="input_grad", dtype=dtype))
    return tuple(out)


def _wide_softmax_forward(shape: Shape) -> Kernels:
    """Where the fused kernel refuses a number of heads: to fp32, scale, fill the mask, softmax, back to 16 bits."""
    size, wide, mask, dtype = _wide_sizes(shape)
    chain = [("scale", wide, wide), ("mask_fill", wide + mask, wide), ("softmax", wide, wide)]
    if wide > size:
        chain = [("to_fp32", size, wide), *chain, ("from_fp32", wide, size)]
    return tuple(memory_pass(f"attention.{name}", read, written, dtype=dtype) for name, read, written in chain)


def _wide_softmax_backward(shape: Shape) -> Kernels:
    size, wide, mask, dtype = _wide_sizes(shape)
    chain = [("softmax_grad", 2 * wide, wide), ("mask_fill_grad", wide + mask, wide), ("scale_grad", wide, wide)]
    if wide > size:
        chain = [("to_fp32_grad", size, wide), *chain, ("from_fp32_grad", wide, size)]
    return tuple(
        memory_pass(f"attention.{name}", read, written, role="input_grad", dtype=dtype) for name, read, written in chain
    )


def _wide_sizes(shape: Shape) -> tuple[float, float, float, str]:
    """Bytes of the scores as they come, in fp32 and of the mask (one byte each), and the type they come in."""
    mask = float(shape.sequence**2)
    return float(shape.scores * shape.elem), float(shape.scores * FP32), mask, shape.precision.compute
