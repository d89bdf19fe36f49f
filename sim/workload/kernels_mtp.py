"""A module that predicts one token more (MTP), both ways: look-up, two norms, a projection, a layer, the head again.

DeepSeek-V3 report, section 2.2: the last layer's output and the embedding of the token after are normed, put side by
side and projected to the residual stream; a layer and the model's own output matrix follow, behind a norm of its own.
Table and output matrix are the model's; where they live on another pipeline rank, this one has a copy of the table.
Over tensor-parallel ranks the projection is a region of twice the width. Must not know pipelines.
"""

from __future__ import annotations

from sim.workload.kernels import layer_backward, layer_forward
from sim.workload.kernels_edges import head_backward, head_forward, lookup_table, lookup_table_backward
from sim.workload.kernels_linear import linear_backward, linear_forward
from sim.workload.kernels_norm import norm_backward, norm_forward
from sim.workload.kernels_shape import Items, Shape, dense_pass, grad_pass
from sim.workload.regions import region_backward, region_forward

JOIN = "mtp.join"


def mtp_forward(shape: Shape, layer: int) -> Items:
    """The module's forward; ``layer`` is the number of its layer, after those of the model."""
    between, width = shape.between, 2 * shape.hidden
    return (
        *lookup_table(shape),
        *norm_forward(between, "mtp.embedding_norm"),
        *norm_forward(between, "mtp.hidden_norm"),
        dense_pass(between, "mtp.concat", width, (1, 1)),
        *region_forward(shape, linear_forward(shape, JOIN, width, shape.hidden // shape.tp), width),
        *layer_forward(shape, layer),
        *head_forward(shape),
    )


def mtp_backward(shape: Shape, layer: int) -> Items:
    """The reverse; the gradient of the last layer's output joins that of the head in a pass of its own."""
    between, width = shape.between, 2 * shape.hidden
    return (
        *head_backward(shape),
        *layer_backward(shape, layer),
        *region_backward(shape, linear_backward(shape, JOIN, width, shape.hidden // shape.tp), width),
        *norm_backward(between, "mtp.hidden_norm"),
        *norm_backward(between, "mtp.embedding_norm"),
        *lookup_table_backward(shape),
        grad_pass(between, "mtp.branch_sum", shape.hidden, (2, 1)),
    )
