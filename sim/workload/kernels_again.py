"""What backward does again of a layer, where a framework is cleverer than running all of it or only attention.

Owns the choice among a layer's forward kernels; knows neither their sizes nor when they run.

PyTorch's checkpoint stops at the last saved tensor (2.1, non-reentrant: ``set_checkpoint_early_stop``); compiled code
never has the rest. torchtitan's selective checkpoints keep the output of attention, of reductions and of every second
matrix product (counted through the layer: q, v, gate and down are kept; k, the output projection and up are not) and do
everything between again.
"""

from __future__ import annotations

from sim.workload.kernels_linear import linear_forward
from sim.workload.kernels_shape import Items, Shape
from sim.workload.model import is_moe
from sim.workload.ops import Collective, Kernel

LAST = "mlp.down"
KEPT = ("attention.q", "attention.v", "mlp.gate_in")


def until_saved(forward: Items) -> Items:
    """A layer's forward up to its last saved tensor, the input of the second MLP product, whose output nobody needs.

    Where something behind that product is kept (a norm of a post-norm model, experts), all of it runs again.
    """
    names = [item.name if isinstance(item, Kernel) else "" for item in forward]
    if LAST not in names or any(name.startswith("norm") for name in names[names.index(LAST) :]):
        return forward
    return forward[: names.index(LAST)]


def again_by_products(shape: Shape, layer: int = 0) -> bool:
    """Whether selective recompute of this layer is torchtitan's: a dense layer with a gated MLP and fused attention."""
    plain = shape.flash and shape.model.gated_mlp and not (shape.latent or shape.model.post_norm)
    return shape.stack.selective == "products" and plain and not is_moe(shape.model, layer)


def every_second_product(shape: Shape, forward: Items) -> Items:
    """Keys, output projection, up, and all passes between, to the input of the last product.

    Exchanges between ranks are not among them: reductions are kept, and what a region gathers again for its weight
    gradients is counted there (``regions``).
    """
    instead = {
        "attention.qkv": linear_forward(shape, "attention.k", shape.hidden, shape.kv_width),
        "attention.k": linear_forward(shape, "attention.k", shape.hidden, shape.kv_width),
        "mlp.up": linear_forward(shape, "mlp.up", shape.hidden, shape.ffn),
    }
    out: list[Kernel | Collective] = []
    for item in until_saved(forward):
        if isinstance(item, Collective) or item.kind == "attention" or ".cast_" in item.name or item.name in KEPT:
            continue
        out.extend(instead.get(item.name, (item,)))
    return tuple(out)
