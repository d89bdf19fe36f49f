"""In and out of tensor-parallel regions: the collectives of Megatron-LM's f and g, and of sequence parallelism.

A region (attention, MLP, logits) works on a part of the widths; between regions every rank has the whole width, of all
tokens or, with sequence parallelism, of its part of them. Shoeybi et al. 2019, section 3; Korthikanti et al. 2022,
section 4.2. Owns what is exchanged at the borders and beside which kernel; ``tp_overlap`` lets it run under the
neighbouring product, which is then cut in pieces; with a stack's ``async_tp`` only what a product does not wait for
runs beside it, in backward.
"""

from __future__ import annotations

from typing import Literal

from msgspec.structs import replace

from sim.workload.kernels_linear import saved_input
from sim.workload.kernels_shape import FP32, Items, Kernels, Role, Shape, memory_pass
from sim.workload.ops import Collective, Kernel

Overlap = Literal["none", "next", "previous"]
Kind = Literal["all_gather", "reduce_scatter", "all_reduce"]


def region_forward(shape: Shape, kernels: Items, width: int = 0) -> Items:
    """All-gather in and reduce-scatter out (sequence parallel), or all-reduce out.

    ``width`` is that of the region's input, 0 for the residual stream; its output joins the residual stream.
    """
    if shape.tp == 1:
        return kernels
    if shape.layout.sequence_parallel:
        kernels = _cut(shape, kernels, first=True, last=True)
        out = _reordered(shape, "region.scatter", shape.act(shape.hidden), "forward", adds=True)
        scatter = _exchange(shape, "reduce_scatter", "previous")
        return (*_arrived(shape, _gather(shape, width), "forward"), *kernels, *_leaving(shape, out, scatter))
    return (*kernels, _exchange(shape, "all_reduce", "previous"))


def region_backward(shape: Shape, kernels: Items, width: int = 0) -> Items:
    """The conjugates. The input gradient's reduction comes before the last weight gradients, beside which it can run.

    With sequence parallelism the gradient is gathered on the way in, and the region's input, of which only a part was
    kept, is gathered again for these weight gradients, beside the input gradient before them; in the narrow form if
    that is what was kept.
    """
    if shape.tp == 1:
        return kernels
    last = max(i for i, k in enumerate(kernels) if isinstance(k, Kernel) and (k.kind, k.role) == ("gemm", "input_grad"))
    before, grad, after = kernels[:last], kernels[last], kernels[last + 1 :]
    if shape.layout.sequence_parallel:
        incoming, before = _gather(shape), _cut(shape, before, first=True, last=False)
        kept = saved_input(shape, width or shape.hidden)
        again = replace(_exchange(shape, "all_gather", "next", independent=True), size=kept)
        scatter = _exchange(shape, "reduce_scatter", "next", width, independent=True)
        out = _reordered(shape, "region.scatter", shape.act(width or shape.hidden), "input_grad", adds=True)
        copied = _arrived(shape, again, "input_grad")
        return (
            *_arrived(shape, incoming, "input_grad"),
            *before,
            *copied,
            grad,
            *_leaving(shape, out, scatter),
            *after,
        )
    return (*before, grad, _exchange(shape, "all_reduce", "next", width, independent=True), *after)


def _reordered(shape: Shape, name: str, size: float, role: Role, *, adds: bool = False) -> Kernels:
    """What a stack with ``second_dimension`` does beside an exchange of ``size`` bytes.

    PyTorch exchanges along a tensor's first dimension, and tokens are its second: what was gathered is copied into
    their order, and what will be scattered out of it. Under products (``tp_overlap``) the pieces need no copy, but a
    scatter's parts, one of each rank, are added up in a pass of their own.
    """
    if not shape.stack.second_dimension:
        return ()
    if not shape.layout.tp_overlap:
        return (memory_pass(name, size, size, fused=True, role=role, dtype=shape.precision.compute),)
    if adds:
        return (memory_pass(name, size, size / shape.tp, fused=True, role=role, dtype=shape.precision.compute),)
    return ()


def _arrived(shape: Shape, gather: Collective, role: Role) -> Items:
    return (gather, *_reordered(shape, "region.gather", gather.size, role))


def _leaving(shape: Shape, passes: Kernels, scatter: Collective) -> Items:
    """A copy comes before what it copies for, a sum after."""
    return (scatter, *passes) if shape.layout.tp_overlap else (*passes, scatter)


def lookup_forward(shape: Shape) -> Items:
    """Each rank looks up its part of the vocabulary: the rows are summed over ranks."""
    if shape.tp == 1:
        return ()
    kind: Literal["reduce_scatter", "all_reduce"] = "reduce_scatter" if shape.layout.sequence_parallel else "all_reduce"
    return (Collective(kind=kind, axis="tp", size=shape.act(shape.hidden)),)


def lookup_backward(shape: Shape) -> Items:
    """With sequence parallelism the gradient of all tokens is needed again."""
    if shape.tp == 1 or not shape.layout.sequence_parallel:
        return ()
    return (Collective(kind="all_gather", axis="tp", size=shape.act(shape.hidden)),)


def loss_exchange(shape: Shape) -> Items:
    """Vocabulary-parallel cross entropy: maximum, predicted logit and sum, one fp32 number a token each."""
    if shape.tp == 1:
        return ()
    one = Collective(kind="all_reduce", axis="tp", size=float(shape.tokens * FP32))
    return (one, one, one)


def _cut(shape: Shape, kernels: Items, *, first: bool, last: bool) -> Items:
    """With ``tp_overlap`` the products at a region's borders are cut in as many pieces as there are ranks.

    Transformer Engine's user buffers: each piece is multiplied as it arrives, or leaves as it is ready.
    """
    products = [i for i, k in enumerate(kernels) if isinstance(k, Kernel) and k.kind == "gemm"]
    if not shape.layout.tp_overlap or not products:
        return kernels
    ends = {products[0]} if first else set[int]()
    ends |= {products[-1]} if last else set()
    return tuple(
        replace(k, pieces=shape.tp) if i in ends and isinstance(k, Kernel) else k for i, k in enumerate(kernels)
    )


def _gather(shape: Shape, width: int = 0) -> Collective:
    """What comes into a region: activations or gradients, cast before where the stack gathers the recipe's form."""
    whole = _exchange(shape, "all_gather", "next", width)
    if not (shape.narrow_gather and shape.recipe):
        return whole
    return replace(whole, size=whole.size / shape.elem * shape.recipe.operand)


def _exchange(shape: Shape, kind: Kind, beside: Overlap, width: int = 0, *, independent: bool = False) -> Collective:
    """``width`` elements of all tokens (0: the residual stream).

    ``independent``: the product beside it neither makes nor needs what is exchanged, so that no product has to be cut
    in pieces for the two to run at once.
    """
    hidden = shape.layout.tp_overlap or (independent and shape.stack.async_tp)
    overlap: Overlap = beside if hidden else "none"
    return Collective(kind=kind, axis="tp", size=shape.act(width or shape.hidden), overlap=overlap)
