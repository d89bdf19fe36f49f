"""The kernels of a transformer layer in the order in which an eager framework launches them.

Owns the order of blocks, norms and residuals (pre-norm, or BERT's post-norm) and is the room's front door to
kernels: everything another module needs is imported from here. Must not know pipelines, ranks or devices. Tensor
parallelism would be a field of ``Shape``.
"""

from __future__ import annotations

from sim.workload.kernels_attention import attention_backward, attention_forward
from sim.workload.kernels_edges import embedding_backward, embedding_forward, head_backward, head_forward
from sim.workload.kernels_mlp import mlp_backward, mlp_forward
from sim.workload.kernels_norm import branch_sum, join_backward, join_forward, norm_backward, norm_forward
from sim.workload.kernels_optimizer import (
    accumulate_grads,
    grad_clip,
    grad_norm,
    optimizer_step,
    state_bytes,
    zero_grad,
)
from sim.workload.kernels_shape import Kernels, Shape

__all__ = [
    "Kernels",
    "Shape",
    "accumulate_grads",
    "embedding_backward",
    "embedding_forward",
    "grad_clip",
    "grad_norm",
    "head_backward",
    "head_forward",
    "layer_backward",
    "layer_forward",
    "optimizer_step",
    "state_bytes",
    "zero_grad",
]


def layer_forward(shape: Shape) -> Kernels:
    """One layer forward: norm, attention, join, norm, MLP, join; each norm after its join in a post-norm model."""
    norm1, norm2 = norm_forward(shape, "norm1"), norm_forward(shape, "norm2")
    attention = (*attention_forward(shape), *join_forward(shape, "attention", shape.model.out_bias))
    mlp = (*mlp_forward(shape), *join_forward(shape, "mlp", shape.model.mlp_bias))
    if shape.model.post_norm:
        return (*attention, *norm1, *mlp, *norm2)
    return (*norm1, *attention, *norm2, *mlp)


def layer_backward(shape: Shape) -> Kernels:
    """One layer backward, as autograd runs it: each product's input gradient, then its weight gradient.

    Where the residual stream split in two, the gradients of the branches are added: twice a layer.
    """
    norm1, norm2 = norm_backward(shape, "norm1"), norm_backward(shape, "norm2")
    attention = (*join_backward(shape, "attention", shape.model.out_bias), *attention_backward(shape))
    mlp = (*join_backward(shape, "mlp", shape.model.mlp_bias), *mlp_backward(shape))
    sum1, sum2 = branch_sum(shape, "norm1"), branch_sum(shape, "norm2")
    if shape.model.post_norm:
        return (*norm2, *mlp, *sum2, *norm1, *attention, *sum1)
    return (*mlp, *norm2, *sum2, *attention, *norm1, *sum1)
