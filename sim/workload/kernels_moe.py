"""The kernels of a mixture of experts in place of an MLP, both ways, with the exchanges that carry tokens to experts.

Owns routing, the order of tokens, and who has how many of them. Each token goes to ``top_k`` experts; experts are in
equal numbers on the expert-parallel ranks, whole on each (no tensor parallelism inside an expert). Rows of the busiest
rank are ``expert_imbalance`` times the mean, and every rank is given that many, for all wait for the busiest in the
next exchange; with ``capacity_factor`` each expert has exactly its capacity, padded or dropped (GShard, section 2.2).
Shared experts are an ordinary MLP over all tokens (DeepSeekMoE, section 3.2). Must not know norms or residuals.
A token's copies travel each on their own, or once to a node (``expert_dispatch``), in 16 bits or, towards the experts,
in the recipe's form. Not modelled: exchanges under other kernels of the same pass, auxiliary losses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from sim.workload.kernels_linear import linear_backward, linear_forward
from sim.workload.kernels_mlp import mlp_backward, mlp_forward
from sim.workload.kernels_shape import (
    FP32,
    INDEX_BYTES,
    Items,
    Kernels,
    Role,
    Shape,
    dense_pass,
    grad_pass,
    memory_pass,
)
from sim.workload.ops import Collective, Kernel
from sim.workload.regions import region_backward, region_forward


def sent_rows(shape: Shape) -> int:
    """Rows that a rank sends to experts, wherever they are: its tokens times ``top_k``, or full capacities."""
    model, tokens = shape.model, shape.between.tokens
    rows = tokens * model.top_k
    if shape.layout.capacity_factor:
        return model.experts * math.ceil(shape.layout.capacity_factor * rows / model.experts)
    return rows


def received_rows(shape: Shape) -> int:
    """Rows that the busiest rank's experts work on. On one expert-parallel rank all are at home."""
    busy = shape.layout.expert_imbalance if shape.layout.ep > 1 else 1.0
    return math.ceil(sent_rows(shape) * busy)


def expert_shape(shape: Shape) -> Shape:
    """The rows at a rank's experts: full width, on this rank alone."""
    return replace(
        shape,
        model=replace(shape.model, ffn=shape.model.moe_ffn, experts=0),
        layout=replace(shape.layout, tp=1, ep=1, sequence_parallel=False, capacity_factor=0.0, expert_imbalance=1.0),
        token_parts=1,
        rows=received_rows(shape),
        local_experts=shape.model.experts // shape.layout.ep,
    )


def shared_shape(shape: Shape) -> Shape:
    """The shared experts as one MLP, split over tensor-parallel ranks as any other."""
    model = shape.model
    return replace(
        shape,
        model=replace(model, ffn=model.shared_experts * model.moe_ffn, experts=0),
        layout=replace(shape.layout, ep=1, capacity_factor=0.0, expert_imbalance=1.0),
    )


def moe_forward(shape: Shape) -> Items:
    """Route, permute, dispatch, experts, combine, unpermute; then shared experts, and the sum of both."""
    here, shared = shape.between, shape.model.shared_experts
    out: list[Kernel | Collective] = [*_route_forward(here)]
    out.extend(_move(shape, "mlp.permute", "forward"))
    out.extend(_exchange(shape, dispatch=True))
    out.extend(_by_expert(shape, "mlp.sort", "forward"))
    out.extend(experts_forward(shape))
    out.extend(_by_expert(shape, "mlp.unsort", "forward"))
    out.extend(_exchange(shape, dispatch=False))
    out.extend(_move(shape, "mlp.unpermute", "forward"))
    if shared:
        one = shared_shape(shape)
        out.extend(region_forward(one, mlp_forward(one, "mlp.shared")))
        out.append(dense_pass(here, "mlp.shared_sum", shape.hidden, (2, 1)))
    return tuple(out)


def moe_backward(shape: Shape) -> Items:
    """The reverse; the gradients of router, experts and shared experts towards the input are added."""
    here, shared = shape.between, shape.model.shared_experts
    out: list[Kernel | Collective] = []
    if shared:
        one = shared_shape(shape)
        out.extend(region_backward(one, mlp_backward(one, "mlp.shared")))
    out.extend(_move(shape, "mlp.unpermute_grad", "input_grad"))
    out.extend(_exchange(shape, dispatch=True))
    out.extend(_by_expert(shape, "mlp.unsort_grad", "input_grad"))
    out.extend(_experts_backward(shape))
    out.extend(_by_expert(shape, "mlp.sort_grad", "input_grad"))
    out.extend(_exchange(shape, dispatch=False))
    out.extend(_move(shape, "mlp.permute_grad", "input_grad"))
    out.extend(_route_backward(here))
    names = ("mlp.router_sum", "mlp.shared_grad_sum") if shared else ("mlp.router_sum",)
    out.extend(grad_pass(here, name, shape.hidden, (2, 1)) for name in names)
    return tuple(out)


def experts_forward(shape: Shape) -> Kernels:
    """Both grouped products and what stands between and behind them, but for what the products do themselves."""
    one = expert_shape(shape)
    every = (*mlp_forward(one, "mlp.experts"), *_bias_forward(one))
    return _unfused(one, every, ("mlp.experts.up.cast_input", "mlp.experts.up.cast_weight"))


def _experts_backward(shape: Shape) -> Kernels:
    """The reverse. Fused: only the gradient that comes in is cast, the products' epilogues do the rest."""
    one = expert_shape(shape)
    every = (*_bias_backward(one), *mlp_backward(one, "mlp.experts"))
    return _unfused(one, every, ("mlp.experts.down.cast_grad",))


def _unfused(one: Shape, every: Kernels, passes: tuple[str, ...]) -> Kernels:
    """All of it, or the products and these passes: CuTe's grouped MLP of Transformer Engine, for narrow operands."""
    if not (one.stack.fused_experts and one.recipe):
        return every
    return tuple(kernel for kernel in every if kernel.kind == "gemm" or kernel.name.startswith(passes))


def _route_forward(here: Shape) -> Kernels:
    """The router's product, scores over all experts in fp32, the best ``top_k`` of them."""
    model, dtype = here.model, here.precision.compute
    logits, scores, chosen = _scores(here)
    return (
        *linear_forward(here.unquantised, "mlp.router", here.hidden, model.experts),
        memory_pass("mlp.scores", logits, scores, dtype=dtype),
        memory_pass("mlp.top_k", scores, chosen, dtype=dtype),
    )


def _route_backward(here: Shape) -> Kernels:
    """Gradients of the chosen scores, spread over all experts, through the scores, and the router's product."""
    model, dtype = here.model, here.precision.compute
    logits, scores, chosen = _scores(here)
    return (
        memory_pass("mlp.top_k_grad", chosen, scores, role="input_grad", dtype=dtype),
        memory_pass("mlp.scores_grad", 2 * scores, logits, role="input_grad", dtype=dtype),
        *linear_backward(here.unquantised, "mlp.router", here.hidden, model.experts),
    )


def _scores(here: Shape) -> tuple[float, float, float]:
    """Bytes of the router's output, of fp32 scores, and of the chosen scores with their experts' numbers."""
    model, tokens = here.model, here.tokens
    chosen = float(tokens * model.top_k * (FP32 + INDEX_BYTES))
    return here.act(model.experts), float(tokens * model.experts * FP32), chosen


def _move(shape: Shape, name: str, role: Role) -> Kernels:
    """Between the order of tokens and the order of experts.

    ``permute`` copies each token to its rows, and its gradient sums them; ``unpermute`` sums rows by their scores, and
    its gradient reads the rows again for the gradient of the scores.
    """
    here, h = shape.between, shape.hidden * shape.elem
    rows, tokens = float(sent_rows(shape) * h), float(here.tokens * h)
    weights = float(here.tokens * shape.model.top_k * (FP32 + INDEX_BYTES))
    read, written = {
        "mlp.permute": (rows + weights, rows),
        "mlp.permute_grad": (rows + weights, tokens),
        "mlp.unpermute": (rows + weights, tokens),
        "mlp.unpermute_grad": (tokens + rows + weights, rows + weights),
    }[name]
    return (memory_pass(name, read, written, quality="rearranged", role=role, dtype=shape.precision.compute),)


def _bias_forward(one: Shape) -> Kernels:
    """The bias of the experts' second product, times each row's score: Megatron-Core adds it expert by expert in fp32.

    Each expert's scaled bias and sum; the rows of all experts put together, and back to 16 bits. The first product adds
    its own bias.
    """
    if not one.model.mlp_bias:
        return ()
    return (
        *_each_expert(one, "bias", (("scale", 0, FP32), ("add", one.elem + FP32, FP32)), "forward"),
        *_all_experts(one, "bias", (("concat", FP32, FP32), ("cast", FP32, one.elem)), "forward"),
    )


def _bias_backward(one: Shape) -> Kernels:
    """To fp32; each expert's rows back to 16 bits, its bias's and its scores' gradients, each a product and a sum.

    Last, the rows of all experts are put together again.
    """
    if not one.model.mlp_bias:
        return ()
    wide = FP32
    steps = (("back", wide, one.elem), ("bias", wide, wide), ("bias_sum", wide, 0), ("scores", wide, wide),
             ("scores_sum", wide, 0))  # fmt: skip
    return (
        *_all_experts(one, "bias_grad", (("cast", one.elem, wide),), "input_grad"),
        *_each_expert(one, "bias_grad", steps, "input_grad"),
        *_all_experts(one, "bias_grad", (("concat", one.elem, one.elem),), "input_grad"),
    )


Steps = Sequence[tuple[str, int, int]]
"""Passes over the rows: name, bytes read and written of an element."""


def _all_experts(one: Shape, name: str, steps: Steps, role: Role) -> Kernels:
    return _passes(one, name, steps, role, float(one.tokens * one.hidden))


def _each_expert(one: Shape, name: str, steps: Steps, role: Role) -> Kernels:
    """The steps of one expert after those of another, each with its part of the rows."""
    part = one.tokens * one.hidden / one.local_experts
    return _passes(one, name, steps, role, part) * one.local_experts


def _passes(one: Shape, name: str, steps: Steps, role: Role, elements: float) -> Kernels:
    return tuple(
        memory_pass(f"mlp.experts.{name}.{step}", elements * r, elements * w, role=role, dtype=one.precision.compute)
        for step, r, w in steps
    )


def _by_expert(shape: Shape, name: str, role: Role) -> Kernels:
    """Rows arrive by sender, and experts want theirs together: a copy, unless there is one sender or one expert."""
    if shape.layout.ep in (1, shape.model.experts):
        return ()
    size = float(received_rows(shape) * shape.hidden * shape.elem)
    return (memory_pass(name, size, size, fused=True, role=role, dtype=shape.precision.compute),)


def _exchange(shape: Shape, *, dispatch: bool) -> Items:
    """All-to-all over the expert-parallel ranks, as much as the busiest one receives (``dispatch``) or sends back."""
    layout, model = shape.layout, shape.model
    if layout.ep == 1:
        return ()
    narrow = dispatch and shape.precision.fp8_dispatch and shape.recipe is not None
    width = shape.recipe.operand if narrow and shape.recipe else float(shape.elem)
    once = layout.expert_dispatch == "once_per_node"
    work = Collective(
        kind="all_to_all",
        axis="ep",
        size=received_rows(shape) * shape.hidden * width,
        copies=model.top_k if once else 0,
        most_nodes=model.top_k_nodes if once else 0,
    )
    return (work,)
