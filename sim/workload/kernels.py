"""The kernels of a transformer layer in the order in which an eager framework launches them.

Owns the order of blocks, norms and residuals (pre-norm, or BERT's post-norm) and is the room's front door to
kernels: everything another module needs is imported from here. Must not know pipelines, ranks or devices.
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.workload.kernels_again import again_by_modules, again_by_products, every_second_product, until_saved
from sim.workload.kernels_attention import attention_backward, attention_forward
from sim.workload.kernels_core import math_core
from sim.workload.kernels_edges import embedding_backward, embedding_forward, head_backward, head_forward
from sim.workload.kernels_latent import latent_backward, latent_forward
from sim.workload.kernels_mlp import mlp_backward, mlp_forward
from sim.workload.kernels_moe import moe_backward, moe_forward
from sim.workload.kernels_norm import branch_sum, join_backward, join_forward, norm_backward, norm_forward
from sim.workload.kernels_optimizer import (
    accumulate_grads,
    cast_weights,
    copy_and_zero,
    grad_clip,
    grad_norm,
    optimizer_step,
    state_bytes,
    zero_grad,
)
from sim.workload.kernels_shape import Items, Kernels, Shape
from sim.workload.model import is_moe
from sim.workload.ops import Kernel
from sim.workload.regions import region_backward, region_forward

__all__ = [
    "Items",
    "Kernels",
    "Shape",
    "accumulate_grads",
    "cast_weights",
    "copy_and_zero",
    "embedding_backward",
    "embedding_forward",
    "grad_clip",
    "grad_norm",
    "head_backward",
    "head_forward",
    "layer_backward",
    "layer_forward",
    "optimizer_step",
    "recompute_items",
    "split_backward",
    "state_bytes",
    "zero_grad",
]


def layer_forward(shape: Shape, layer: int = 0) -> Items:
    """One layer forward: norm, attention, join, norm, MLP, join; each norm after its join in a post-norm model.

    ``layer`` is its number in the model: the first ones may be dense where the others have experts, and some may see
    a window of keys only.
    """
    shape = shape.at(layer)
    between = shape.between
    norm1, norm2 = norm_forward(between, "norm1"), norm_forward(between, "norm2")
    join1 = join_forward(between, "attention", shape.model.out_bias)
    experts = is_moe(shape.model, layer)  # which add their biases themselves
    join2 = join_forward(between, "mlp", shape.model.mlp_bias and not experts)
    mixer = latent_forward(shape) if shape.latent else region_forward(shape, attention_forward(shape))
    attention = (*mixer, *join1)
    mlp = (*(moe_forward(shape) if experts else region_forward(shape, mlp_forward(shape))), *join2)
    if shape.model.post_norm:
        return (*attention, *norm1, *mlp, *norm2)
    return (*norm1, *attention, *norm2, *mlp)


def layer_backward(shape: Shape, layer: int = 0) -> Items:
    """One layer backward, as autograd runs it: each product's input gradient, then its weight gradient.

    Where the residual stream split in two, the gradients of the branches are added: twice a layer.
    """
    shape = shape.at(layer)
    between = shape.between
    norm1, norm2 = norm_backward(between, "norm1"), norm_backward(between, "norm2")
    join1 = join_backward(between, "attention", shape.model.out_bias)
    experts = is_moe(shape.model, layer)
    join2 = join_backward(between, "mlp", shape.model.mlp_bias and not experts)
    mixer = latent_backward(shape) if shape.latent else region_backward(shape, attention_backward(shape))
    attention = (*join1, *mixer)
    mlp = (*join2, *(moe_backward(shape) if experts else region_backward(shape, mlp_backward(shape))))
    sum1, sum2 = branch_sum(between, "norm1"), branch_sum(between, "norm2")
    if shape.model.post_norm:
        return (*norm2, *mlp, *sum2, *norm1, *attention, *sum1)
    return (*mlp, *norm2, *sum2, *attention, *norm1, *sum1)


def recompute_items(shape: Shape, kind: str, layer: int = 0, modules: Sequence[str] = ()) -> Items:
    """What backward does again: nothing, ``modules`` or attention's core (selective), or the layer's forward (full).

    Selective (Korthikanti et al. 2022, section 5): scores, softmax, dropout, context; nothing where one flash kernel
    does all of it, which keeps no such matrix. Stacks with other ideas: ``kernels_again``.
    """
    if kind == "full":
        forward = layer_forward(shape, layer)
        return until_saved(forward) if shape.stack.recompute_stops else forward
    if kind == "selective" and modules:
        return again_by_modules(shape.at(layer), modules, layer)
    if kind == "selective" and again_by_products(shape, layer):
        return every_second_product(shape, layer_forward(shape, layer))
    if kind == "selective" and not shape.flash:
        return math_core(shape)
    return ()


def split_backward(items: Items) -> tuple[Items, Items]:
    """Input gradients with their collectives, and weight gradients, which nobody waits for (zero-bubble schedules)."""
    later = tuple(i for i in items if isinstance(i, Kernel) and i.role == "weight_grad")
    first = tuple(i for i in items if not (isinstance(i, Kernel) and i.role == "weight_grad"))
    return first, later
