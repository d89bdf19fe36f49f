"""The kernels of an MLP block, from the first product to the second, both ways.

Every stack is given ONE product for gate and up together, as Megatron-LM lays them. Unfused GELU is the scripted tanh
form of Megatron-LM 2020 (``torch.jit.script``): after warm-up one pass each way, but it keeps its tanh for backward.
``name`` is the MLP's: one of several (experts).
Must not know norms or residuals.
"""

from __future__ import annotations

from sim.workload.kernels_linear import Parts, linear_backward, linear_forward, parts_backward, parts_forward
from sim.workload.kernels_shape import (
    MASK_BYTES,
    Kernels,
    Shape,
    bias_add,
    bias_grad,
    dense_pass,
    grad_pass,
    memory_pass,
)


def scripted_gelu(shape: Shape) -> bool:
    """Whether the activation is the scripted GELU that writes and keeps its tanh."""
    model = shape.model
    stack = shape.stack
    plain = model.activation == "gelu" and not model.gated_mlp
    return plain and stack.scripted_gelu and not stack.fused_bias_activation


def mlp_forward(shape: Shape, name: str = "mlp") -> Kernels:
    """First product, bias, activation, second product; the last bias belongs to the residual join."""
    out = [*parts_forward(shape, f"{name}.up", shape.hidden, _up(shape, name), enters=name == "mlp")]
    if shape.model.mlp_bias and not (shape.stack.fused_bias_activation or shape.stack.fused_linear_bias):
        out.append(bias_add(shape, f"{name}.up", shape.up_width))
    out.extend(_activation_forward(shape, name))
    out.extend(linear_forward(shape, f"{name}.down", shape.ffn, shape.hidden))
    return tuple(out)


def _up(shape: Shape, name: str) -> Parts:
    """The gate and what it is for, or the one product of a plain MLP."""
    if not shape.model.gated_mlp:
        return ((f"{name}.up", shape.up_width),)
    return (f"{name}.gate_in", shape.ffn), (f"{name}.up", shape.up_width - shape.ffn)


def mlp_backward(shape: Shape, name: str = "mlp") -> Kernels:
    """The reverse, with the first product's bias gradient as a sum over tokens."""
    leaves = name != "mlp.experts"  # these are whole on their rank
    out = [
        *linear_backward(shape, f"{name}.down", shape.ffn, shape.hidden, leaves=leaves),
        *_activation_backward(shape, name),
        *_clamp_backward(shape, name),
    ]
    if shape.model.mlp_bias:
        out.append(bias_grad(shape, f"{name}.up", shape.up_width, fused=shape.stack.fused_bias_activation))
    out.extend(parts_backward(shape, f"{name}.up", shape.hidden, _up(shape, name)))
    return tuple(out)


def clamped(shape: Shape) -> bool:
    """Whether both inputs of the activation are limited in passes of their own."""
    fused = shape.stack.fused_clamp or bool(shape.local_experts and shape.stack.fused_experts and shape.recipe)
    return shape.model.activation_clamp and not fused


def _clamp_forward(shape: Shape, mlp: str) -> Kernels:
    """Gate and up apart, each limited, and together again (Megatron-Core, ``weighted_bias_quick_geglu_impl``)."""
    if not clamped(shape):
        return ()
    limits = (dense_pass(shape, f"{mlp}.clamp.{side}", shape.ffn, (1, 1)) for side in ("gate", "up"))
    return (*limits, dense_pass(shape, f"{mlp}.clamp.concat", shape.up_width, (1, 1)))


def _clamp_backward(shape: Shape, mlp: str) -> Kernels:
    """Gradients of inputs within their limits (the gate has one, up two): masks, choices; then together again."""
    if not clamped(shape):
        return ()
    one, mask = shape.act(shape.ffn), float(shape.tokens * shape.ffn * MASK_BYTES)
    steps = (
        ("gate.mask", one, mask), ("gate.choice", one + mask, one), ("up.least", one, mask), ("up.most", one, mask),
        ("up.mask", 2 * mask, mask), ("up.choice", one + mask, one), ("concat", 2 * one, 2 * one),
    )  # fmt: skip
    dtype = shape.precision.compute
    return tuple(memory_pass(f"{mlp}.clamp_grad.{n}", r, w, role="input_grad", dtype=dtype) for n, r, w in steps)


def _activation_forward(shape: Shape, mlp: str) -> Kernels:
    return (*_clamp_forward(shape, mlp), *_activate(shape, mlp))


def _activate(shape: Shape, mlp: str) -> Kernels:
    name = f"{mlp}.{shape.model.activation}"
    if shape.stack.fused_bias_activation:
        read, written = shape.act(shape.up_width), shape.act(shape.ffn)
        return (memory_pass(name, read, written, fused=True, dtype=shape.precision.compute),)
    if shape.model.gated_mlp:
        return (dense_pass(shape, name, shape.ffn, (1, 1)), dense_pass(shape, f"{mlp}.gate", shape.ffn, (2, 1)))
    scripted = scripted_gelu(shape)
    return (dense_pass(shape, name, shape.ffn, (1, 2 if scripted else 1), fused=scripted),)


def _activation_backward(shape: Shape, mlp: str) -> Kernels:
    name = f"{mlp}.{shape.model.activation}_grad"
    if shape.stack.fused_bias_activation:
        read, written = shape.act(shape.ffn + shape.up_width), shape.act(shape.up_width)
        return (memory_pass(name, read, written, fused=True, role="input_grad", dtype=shape.precision.compute),)
    if shape.model.gated_mlp:
        return (
            grad_pass(shape, f"{mlp}.gate_grad.activation", shape.ffn, (2, 1)),
            grad_pass(shape, f"{mlp}.gate_grad.up", shape.ffn, (2, 1)),
            grad_pass(shape, name, shape.ffn, (2, 1)),
            grad_pass(shape, f"{mlp}.up_grad_concat", shape.up_width, (1, 1)),
        )
    scripted = scripted_gelu(shape)
    return (grad_pass(shape, name, shape.ffn, (3 if scripted else 2, 1), fused=scripted),)
