"""What backward does again of a layer, where a framework is cleverer than running all of it or only attention.

Owns the choice among a layer's forward kernels; knows neither their sizes nor when they run.

PyTorch's checkpoint stops at the last saved tensor (2.1, non-reentrant: ``set_checkpoint_early_stop``); compiled code
never has the rest. torchtitan's selective checkpoints keep the output of attention, of reductions and of every second
matrix product (counted through the layer: q, v, gate and down are kept; k, the output projection and up are not) and do
everything between again. Megatron-Core names modules (``MODULES``): of a norm, an activation and the up projections of
latent attention it throws the output away, of the others everything but their input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sim.workload.kernels_core import core_forward
from sim.workload.kernels_latent import latent_forward
from sim.workload.kernels_linear import linear_forward
from sim.workload.kernels_mlp import mlp_forward
from sim.workload.kernels_moe import experts_forward, moe_forward, shared_shape
from sim.workload.kernels_norm import norm_forward
from sim.workload.kernels_shape import Items, Shape
from sim.workload.model import is_moe
from sim.workload.ops import Collective, Kernel
from sim.workload.regions import region_forward

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


def again_by_modules(shape: Shape, modules: Sequence[str], layer: int = 0) -> Items:
    """What the named modules run again before a layer's backward, in the order of its forward."""
    return tuple(item for name, again in MODULES.items() if name in modules for item in again(shape, layer))


def _norms(shape: Shape, layer: int) -> Items:
    return (*norm_forward(shape.between, "norm1"), *norm_forward(shape.between, "norm2"))


def _up_projections(shape: Shape, layer: int) -> Items:
    """From the latents, which are gathered again over sequence-parallel ranks, to rotated queries, keys and values."""
    items = latent_forward(shape)
    names = [item.name if isinstance(item, Kernel) else item.axis for item in items]
    begin = next(i for i, name in enumerate(names) if name == "tp" or name.startswith("attention.q_up"))
    return items[begin : items.index(core_forward(shape)[0])]


def _mlp(shape: Shape, layer: int) -> Items:
    return () if is_moe(shape.model, layer) else region_forward(shape, mlp_forward(shape))


def _experts(shape: Shape, layer: int) -> Items:
    """Routing and exchanges too: the layer's shared experts with them."""
    return moe_forward(shape) if is_moe(shape.model, layer) else ()


def _activation(shape: Shape, layer: int) -> Items:
    """What stands between the experts' two products, but for casts of weights."""
    if not is_moe(shape.model, layer):
        return ()
    items = experts_forward(shape)
    *up, down = (i for i, kernel in enumerate(items) if kernel.kind == "gemm")
    return tuple(k for k in items[up[-1] + 1 : down] if ".cast_weight" not in k.name)


def _shared_experts(shape: Shape, layer: int) -> Items:
    if not is_moe(shape.model, layer):
        return ()
    one = shared_shape(shape)
    return region_forward(one, mlp_forward(one, "mlp.shared"))


MODULES: Mapping[str, Callable[[Shape, int], Items]] = {
    "layernorm": _norms,
    "mla_up_proj": _up_projections,
    "core_attn": lambda shape, _: core_forward(shape),
    "mlp": _mlp,
    "moe_act": _activation,
    "moe": _experts,
    "shared_experts": _shared_experts,
}
"""Module -> the work that backward does again for it (Megatron-Core, ``TransformerConfig.recompute_modules``)."""
