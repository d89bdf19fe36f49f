"""Context parallelism: each rank has a part of every sequence, and needs the keys and values of all parts.

Owns how they reach it. ``ring`` (Liu et al. 2023, ring attention): in each of cp steps a rank works on one part while
the next arrives from its neighbour; causal masks are balanced by giving each rank an early and a late piece (zigzag),
so every rank and step does the same work. ``all_gather`` (Llama 3, section 3.3.2): all keys and values first, then
one kernel. Backward sends the gradients of keys and values the same way. ``all_to_all`` (DeepSpeed-Ulysses, Jacobs et
al. 2023): whole sequences of a part of the heads, and back.

Whoever works part by part adds each result to those before, which are in fp32: all rows of a part that comes earlier,
half of them where the zigzag's keys come later, so three quarters. A stack with ``context_parts`` (PyTorch) does so
with gathered keys too, which it repeats for every query head, and in eager passes.
"""

from __future__ import annotations

from msgspec.structs import replace

from sim.workload.kernels_shape import FP32, Items, Kernels, Role, Shape, memory_pass
from sim.workload.ops import Collective, Kernel

ROWS = 0.75
"""Rows of a part's result that there are, on average, in a zigzag."""

_EAGER = (("widen", 0, FP32), ("difference", 2 * FP32, FP32), ("weigh", FP32, FP32), ("subtract", 2 * FP32, FP32))
_EAGER_GRADS = (("widen", 0, FP32), ("add", 2 * FP32, FP32))
"""Passes of PyTorch's merge and of its sum of gradients: bytes an element read (0: as computed) and written."""


def context_forward(shape: Shape, attention: Kernel) -> Items:
    """The attention kernel with the exchange of keys and values."""
    layout = shape.layout
    if layout.cp == 1:
        return (attention,)
    if layout.cp_kind == "all_to_all":
        return (_exchange(shape, _in(shape)), _by_heads(shape, attention), _exchange(shape, shape.context_width))
    merge = _merge(shape, "attention.merge", shape.context_width, "forward")
    if layout.cp_kind == "all_gather":
        return (_gathered(shape), *_parts(shape, attention, merge))
    return _ring(shape, attention, _pair(shape), merge)


def context_backward(shape: Shape, attention: Kernel) -> Items:
    """Backward: keys and values again, and their gradients to where they belong."""
    layout = shape.layout
    if layout.cp == 1:
        return (attention,)
    if layout.cp_kind == "all_to_all":
        return (_exchange(shape, shape.context_width), _by_heads(shape, attention), _exchange(shape, _in(shape)))
    merge = _merge(shape, "attention.merge_grad", shape.q_width + _keys(shape), "input_grad")
    if layout.cp_kind == "all_gather" and shape.stack.context_parts:
        wide = FP32 / shape.elem  # gradients go round as they are added up
        return (_gathered(shape), *_ring(shape, attention, wide * _pair(shape), merge))
    if layout.cp_kind == "all_gather":
        back = Collective(kind="reduce_scatter", axis="cp", size=_pair(shape) * layout.cp)
        return (_gathered(shape), attention, back)
    return _ring(shape, attention, 2 * _pair(shape), merge)


def context_workspace(shape: Shape) -> float:
    """Bytes alive for a moment in backward beside the attention kernel's: gathered keys and values, sums in fp32.

    A ring holds two parts, one that it works with and one that arrives; with gradients that is four.
    """
    layout = shape.layout
    if layout.cp == 1 or layout.cp_kind == "all_to_all":
        return 0.0
    sums = float(shape.tokens * (shape.q_width + _keys(shape)) * FP32)
    if layout.cp_kind == "ring":
        return sums + 4 * _pair(shape)
    whole = layout.cp * _pair(shape)
    return whole + sums if shape.stack.context_parts else 2 * whole


def _in(shape: Shape) -> int:
    return shape.q_width + shape.kv_width + shape.value_width


def _keys(shape: Shape) -> int:
    """Width of keys and values that are exchanged."""
    repeated = shape.q_width + shape.context_width
    return repeated if shape.stack.context_parts else shape.kv_width + shape.value_width


def _pair(shape: Shape) -> float:
    """Bytes of one rank's keys and values."""
    return shape.act(_keys(shape))


def _gathered(shape: Shape) -> Collective:
    return Collective(kind="all_gather", axis="cp", size=_pair(shape) * shape.layout.cp)


def _exchange(shape: Shape, width: int) -> Collective:
    """All tokens of some heads for all heads of some tokens, or the other way round."""
    return Collective(kind="all_to_all", axis="cp", size=shape.act(width))


def _by_heads(shape: Shape, attention: Kernel) -> Kernel:
    """Of whole sequences, for a part of the heads: as much work."""
    return replace(attention, n=shape.sequence, batch=attention.batch // shape.layout.cp)


def _merge(shape: Shape, name: str, width: int, role: Role) -> Kernels:
    """A part's result, of ``width`` elements a token, added to those before."""
    elements, dtype = ROWS * shape.tokens * width, shape.precision.compute
    if not shape.stack.context_parts:
        read, written = elements * (shape.elem + FP32), elements * FP32
        return (memory_pass(name, read, written, fused=True, role=role, dtype=dtype),)
    passes = _EAGER if role == "forward" else _EAGER_GRADS
    return tuple(
        memory_pass(f"{name}.{step}", elements * (read or shape.elem), elements * written, role=role, dtype=dtype)
        for step, read, written in passes
    )


def _part(shape: Shape, attention: Kernel) -> Kernel:
    cp = shape.layout.cp
    return replace(
        attention,
        flops=attention.flops / cp,
        bytes_read=attention.bytes_read / cp,
        bytes_written=attention.bytes_written / cp,
        m=attention.m // cp,
    )


def _parts(shape: Shape, attention: Kernel, merge: Kernels) -> Kernels:
    """One kernel, or one a part."""
    if not shape.stack.context_parts:
        return (attention,)
    step = _part(shape, attention)
    return (step, *(kernel for _ in range(shape.layout.cp - 1) for kernel in (step, *merge)))


def _ring(shape: Shape, attention: Kernel, message: float, merge: Kernels) -> Items:
    """As many steps as ranks, of an equal part of the work; all but the last send on what they work with."""
    cp, step = shape.layout.cp, _part(shape, attention)
    send = Collective(kind="ring_step", axis="cp", size=message, overlap="next")
    out: list[Kernel | Collective] = [send, step]
    for number in range(1, cp):
        out += [*([send] if number < cp - 1 else []), step, *merge]
    return tuple(out)
