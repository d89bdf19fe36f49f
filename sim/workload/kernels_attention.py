"""The kernels of an attention block, from the QKV product to the output product, both ways.

Owns the three shapes attention has had: eager passes over the s x s matrix (as in DeepSpeed's Megatron-LM examples of
2020, ``mpu/transformer.py``), one fused scale-mask-softmax kernel between two batched products (Megatron-LM of
2021), one flash kernel (Dao 2022, 2023). Every stack is given ONE QKV product; a framework with three small ones reads
the input twice more. Must not know norms, residuals or what follows.
"""

from __future__ import annotations

from sim.workload.context import context_backward, context_forward
from sim.workload.kernels_shape import (
    FP32,
    Items,
    Kernels,
    Shape,
    bias_add,
    bias_grad,
    dense_pass,
    dropout_backward,
    dropout_forward,
    gemm,
    grad_pass,
    linear_backward,
    linear_forward,
    memory_pass,
)
from sim.workload.ops import Collective, Kernel

FLASH_BACKWARD = 2.5  # five products for two: FlashAttention's convention (Dao 2023, section 4.1)


def attention_forward(shape: Shape) -> Items:
    """QKV product, bias, rotation, attention proper, output product; its bias belongs to the residual join."""
    out: list[Kernel | Collective] = [linear_forward(shape, "attention.qkv", shape.hidden, shape.qkv_width)]
    if shape.model.qkv_bias and not shape.stack.fused_bias_activation:
        out.append(bias_add(shape, "attention.qkv", shape.qkv_width))
    out.extend(_rope_forward(shape))
    out.extend(context_forward(shape, _flash_forward(shape)) if shape.flash else _math_forward(shape))
    out.append(linear_forward(shape, "attention.out", shape.q_width, shape.hidden))
    return tuple(out)


def attention_backward(shape: Shape) -> Items:
    """The reverse: output product, attention proper, rotation, gathering of the QKV gradient, QKV product."""
    out: list[Kernel | Collective] = [*linear_backward(shape, "attention.out", shape.q_width, shape.hidden)]
    out.extend(context_backward(shape, _flash_backward(shape)) if shape.flash else _math_backward(shape))
    out.extend(_rope_backward(shape))
    out.extend(_join_qkv_grad(shape))
    if shape.model.qkv_bias:
        out.append(bias_grad(shape, "attention.qkv", shape.qkv_width, fused=shape.stack.fused_bias_activation))
    out.extend(linear_backward(shape, "attention.qkv", shape.hidden, shape.qkv_width))
    return tuple(out)


def _rope_forward(shape: Shape) -> Kernels:
    """Rotate queries and keys: a kernel each, or negate-half, concatenate, times cos, times sin, add."""
    if shape.model.positions != "rotary":
        return ()
    out: list[Kernel] = []
    for part, width in (("q", shape.q_width), ("k", shape.kv_width)):
        name = f"attention.rope_{part}"
        if shape.stack.fused_rope:
            out.append(dense_pass(shape, name, width, (1, 1), fused=True))
            continue
        out.append(dense_pass(shape, f"{name}.negate", width // 2, (1, 1)))
        out.extend(dense_pass(shape, f"{name}.{step}", width, (1, 1)) for step in ("concat", "cos", "sin"))
        out.append(dense_pass(shape, f"{name}.add", width, (2, 1)))
    return tuple(out)


def _rope_backward(shape: Shape) -> Kernels:
    """The rotation back: a kernel each, or times cos, times sin, swapped halves, and their sum."""
    if shape.model.positions != "rotary":
        return ()
    out: list[Kernel] = []
    for part, width in (("k", shape.kv_width), ("q", shape.q_width)):
        name = f"attention.rope_{part}"
        if shape.stack.fused_rope:
            out.append(grad_pass(shape, f"{name}_grad", width, (1, 1), fused=True))
            continue
        out.extend(grad_pass(shape, f"{name}_grad.{step}", width, (1, 1)) for step in ("cos", "sin", "swap"))
        out.append(grad_pass(shape, f"{name}_grad.add", width, (2, 1)))
    return tuple(out)


def _flash(shape: Shape, name: str, factor: float) -> Kernel:
    q, kv = shape.act(shape.q_width), shape.act(shape.kv_width)
    row_sums = float(shape.head_batch * shape.local_sequence * FP32)
    backward = name.endswith("grad")
    flops = 4.0 * shape.local_sequence * shape.sequence * shape.model.head_dim * shape.head_batch * factor
    return Kernel(
        name=name, kind="attention", flops=flops / 2 if shape.causal else flops,
        bytes_read=(3 * q + 2 * kv + row_sums) if backward else q + 2 * kv,
        bytes_written=(q + 2 * kv) if backward else q + row_sums,
        m=shape.sequence, n=shape.sequence, k=shape.model.head_dim, batch=shape.head_batch,
        dtype=shape.precision.compute, role="input_grad" if backward else "forward", causal=shape.causal,
    )  # fmt: skip


def _flash_forward(shape: Shape) -> Kernel:
    """One kernel: 4 s^2 d FLOPs a head, halved if causal. Dropout happens inside and keeps no mask."""
    return _flash(shape, "attention.flash", 1.0)


def _flash_backward(shape: Shape) -> Kernel:
    """One kernel of 2.5 times the forward FLOPs; reads q, k, v, output and its gradient, writes three gradients."""
    return _flash(shape, "attention.flash_grad", FLASH_BACKWARD)


def _layout_copies(shape: Shape) -> Kernels:
    """Copies that make q, k, v fit the batched products: all three in eager code, k and v where heads share them."""
    q, kv, dtype = shape.act(shape.q_width), shape.act(shape.kv_width), shape.precision.compute
    out = [dense_pass(shape, "attention.q_copy", shape.q_width, (1, 1))] if shape.eager_layout else []
    if shape.eager_layout or shape.grouped:
        out.extend(memory_pass(f"attention.{part}_copy", kv, q, dtype=dtype) for part in ("k", "v"))
    return tuple(out)


def math_core(shape: Shape) -> Kernels:
    """Scores, softmax, dropout, context: all that is of the size of the s x s matrices."""
    s, d, batch = shape.sequence, shape.model.head_dim, shape.head_batch
    out = [gemm(shape, "attention.scores", (s, s, d), batch), *_softmax_forward(shape)]
    if shape.dropout:
        out.append(dropout_forward(shape, "attention.probs", shape.scores))
    return (*out, gemm(shape, "attention.context", (s, d, s), batch))


def _math_forward(shape: Shape) -> Kernels:
    out = [*_layout_copies(shape), *math_core(shape)]
    out.append(dense_pass(shape, "attention.context_copy", shape.q_width, (1, 1)))
    return tuple(out)


def _softmax_forward(shape: Shape) -> Kernels:
    """Scale, mask, softmax over the s x s matrices: one kernel, or a pass for each.

    A decoder's eager mask is two passes, times the 0/1 triangle and minus 10000 x its complement (itself two small
    kernels); an encoder adds its padding mask in one. The mask is one s x s matrix, or one row a sequence (encoder).
    """
    size, dtype = float(shape.scores * shape.elem), shape.precision.compute
    mask = float((shape.sequence if shape.causal else shape.micro) * shape.sequence * shape.elem)
    if shape.stack.fused_softmax:
        read = size if shape.causal else size + mask
        return (memory_pass("attention.scale_mask_softmax", read, size, fused=True, dtype=dtype),)
    chain = [("scale", size, size)]
    if shape.causal:
        chain.append(("mask_multiply", size + mask, size))
        chain += [("mask_complement", mask, mask), ("mask_weight", mask, mask), ("mask_subtract", size + mask, size)]
    else:
        chain.append(("mask_add", size + mask, size))
    chain.append(("softmax", size, size))
    return tuple(memory_pass(f"attention.{name}", read, written, dtype=dtype) for name, read, written in chain)


def _math_backward(shape: Shape) -> Kernels:
    s, d, batch = shape.sequence, shape.model.head_dim, shape.head_batch
    out = [grad_pass(shape, "attention.context_copy_grad", shape.q_width, (1, 1))] if shape.eager_layout else []
    out.append(gemm(shape, "attention.context.grad_probs", (s, s, d), batch, role="input_grad"))
    out.append(gemm(shape, "attention.context.grad_v", (s, d, s), batch, role="input_grad"))
    if shape.dropout:
        out.append(dropout_backward(shape, "attention.probs", shape.scores))
    out.extend(_softmax_backward(shape))
    out.append(gemm(shape, "attention.scores.grad_q", (s, d, s), batch, role="input_grad"))
    out.append(gemm(shape, "attention.scores.grad_k", (s, d, s), batch, role="input_grad"))
    return tuple(out)


def _softmax_backward(shape: Shape) -> Kernels:
    """Reads the gradient and the saved softmax. Eager code then masks and scales in passes; a subtraction is free."""
    size, dtype = float(shape.scores * shape.elem), shape.precision.compute
    if shape.stack.fused_softmax:
        name = "attention.scale_mask_softmax_grad"
        return (memory_pass(name, 2 * size, size, fused=True, role="input_grad", dtype=dtype),)
    out = [memory_pass("attention.softmax_grad", 2 * size, size, role="input_grad", dtype=dtype)]
    if shape.causal:
        read = size + shape.sequence**2 * shape.elem
        out.append(memory_pass("attention.mask_multiply_grad", read, size, role="input_grad", dtype=dtype))
    out.append(memory_pass("attention.scale_grad", size, size, role="input_grad", dtype=dtype))
    return tuple(out)


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
