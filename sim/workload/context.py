"""Context parallelism: each rank has a part of every sequence, and needs the keys and values of all parts.

Owns how they reach it. ``ring`` (Liu et al. 2023, ring attention): in each of cp steps a rank works on one part while
the next arrives from its neighbour; causal masks are balanced by giving each rank an early and a late piece (zigzag),
so every rank and step does the same work. ``all_gather`` (Llama 3, section 3.3.2): all keys and values first, then
one kernel. Backward sends the gradients of keys and values the same way.
"""

from __future__ import annotations

from msgspec.structs import replace

from sim.workload.kernels_shape import Items, Shape
from sim.workload.ops import Collective, Kernel


def context_forward(shape: Shape, attention: Kernel) -> Items:
    """The attention kernel with the exchange of keys and values."""
    if shape.layout.cp == 1:
        return (attention,)
    if shape.layout.cp_kind == "all_gather":
        return (_gathered(shape), attention)
    return _ring(shape, attention, _pair(shape))


def context_backward(shape: Shape, attention: Kernel) -> Items:
    """Backward: keys and values again, and their gradients to where they belong."""
    if shape.layout.cp == 1:
        return (attention,)
    if shape.layout.cp_kind == "all_gather":
        back = Collective(kind="reduce_scatter", axis="cp", size=_pair(shape) * shape.layout.cp)
        return (_gathered(shape), attention, back)
    return _ring(shape, attention, 2 * _pair(shape))


def _pair(shape: Shape) -> float:
    """Bytes of one rank's keys and values."""
    return shape.act(shape.kv_width + shape.value_width)


def _gathered(shape: Shape) -> Collective:
    return Collective(kind="all_gather", axis="cp", size=_pair(shape) * shape.layout.cp)


def _ring(shape: Shape, attention: Kernel, message: float) -> Items:
    """As many steps as ranks, of an equal part of the work; all but the last send on what they work with."""
    cp = shape.layout.cp
    step = replace(
        attention,
        flops=attention.flops / cp,
        bytes_read=attention.bytes_read / cp,
        bytes_written=attention.bytes_written / cp,
        m=attention.m // cp,
    )
    send = Collective(kind="ring_step", axis="cp", size=message, overlap="next")
    return (*(item for _ in range(cp - 1) for item in (send, step)), step)
