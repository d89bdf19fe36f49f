"""The model cut into units and stages: embedding, layers, head; each with its work and the bytes it keeps.

A unit is what recompute, ZeRO-3 gathering and gradient buckets work on; a stage is a run of units on one pipeline rank.
Owns the cut; the work itself comes from ``kernels``, the bytes from ``stash``, the split of parameters from ``shares``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sim.spec.types import Scenario
from sim.workload import kernels, shares, stash
from sim.workload.kernels import Items
from sim.workload.kernels_mtp import mtp_backward, mtp_forward
from sim.workload.model import is_moe, window_of
from sim.workload.ops import Kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One unit of the model, for one microbatch on one rank.

    ``params`` are this rank's parameters before any sharding over data-parallel ranks, in ``tensors`` tensors; of these
    ``experts`` belong to routed experts whose copies are on other ranks than those of the rest.
    ``recompute`` is empty when activations are kept. ``kept`` bytes live from forward to backward; ``restored`` bytes
    exist only while the unit is recomputed and differentiated; ``workspace`` only while it is differentiated, and
    ``forward_workspace`` only during forward. ``root`` units (embedding and head) stay gathered from forward to
    backward under ZeRO-3, as FSDP's root does.
    """

    name: str
    layer: int
    params: int
    experts: int
    tensors: int
    small: int
    forward: Items
    recompute: Items
    backward: Items
    kept: dict[str, float]
    restored: dict[str, float]
    forward_workspace: float
    workspace: float
    root: bool
    narrow: int = 0  # parameters whose products are narrow
    looked_up: tuple[int, int] = (0, 0)  # parameters of tables, whose gradients no product makes, and their tensors
    matrices: frozenset[tuple[str, int]] = frozenset()  # its kinds of weight matrices: see ``shares``


def shape_of(scenario: Scenario) -> kernels.Shape:
    """One microbatch on one rank."""
    return kernels.Shape(
        model=scenario.model,
        micro=scenario.batch.micro,
        sequence=scenario.batch.sequence,
        stack=scenario.stack,
        precision=scenario.precision,
        layout=scenario.layout,
    )


def stages(scenario: Scenario, *, apart: bool) -> tuple[tuple[Unit, ...], ...]:
    """Units of each virtual stage in model order. Equal layers share their work, which makes their cost one look-up.

    ``apart``: the last stage is on another rank than the first, so that what both use of the token table is a copy.
    """
    shape = shape_of(scenario)
    count = scenario.layout.pp * scenario.layout.virtual_stages
    split = scenario.layout.stage_layers or (scenario.model.layers // count,) * count
    layers = _Layers(shape, scenario.recompute_modules)
    found, begin = [], 0
    for number, width in enumerate(split):
        units = [layers.unit(begin + i, recomputed=_recomputed(scenario, i)) for i in range(width)]
        begin += width
        if number == 0:
            units.insert(0, _embedding(shape, again=0 if apart else scenario.model.mtp_layers))
        if number == count - 1:
            extra = range(scenario.model.mtp_layers)
            units += [_mtp(layers, i, apart=apart, recomputed=_recomputed(scenario, width + i)) for i in extra]
            units.append(_head(shape, apart=apart))
        found.append(tuple(units))
    return tuple(found)


def _recomputed(scenario: Scenario, position: int) -> str:
    """How the layer at a position of its stage is recomputed: full for the first ``recompute_layers`` of the stage."""
    if scenario.recompute == "full" and 0 <= scenario.recompute_layers <= position:
        return "none"
    return scenario.recompute


class _Layers:
    """Layers by how they are recomputed, whether they have experts and what they see: each kind's work built once."""

    def __init__(self, shape: kernels.Shape, modules: Sequence[str]) -> None:
        self.shape = shape
        self.modules = modules
        self.built: dict[tuple[str, bool, int], Unit] = {}

    def unit(self, layer: int, *, recomputed: str) -> Unit:
        """Layer number ``layer`` of the model."""
        kind = (recomputed, is_moe(self.shape.model, layer), window_of(self.shape.model, layer))
        if kind not in self.built:
            self.built[kind] = self._build(recomputed, layer)
        return replace(self.built[kind], name=f"layer{layer}", layer=layer)

    def _build(self, recomputed: str, layer: int) -> Unit:
        shape = self.shape
        share = shares.layer_share(shape, layer)
        everything = stash.layer_stash(shape, layer)
        kept, restored = everything, dict[str, float]()
        if recomputed == "full":
            kept = {"activations.checkpoints": stash.layer_input(shape)}
            restored = _without_checkpoint(everything, shape)
        elif recomputed == "selective" and self.modules:
            restored = _summed(stash.module_stash(shape, module, layer) for module in self.modules)
            kept = {owner: size - restored.get(owner, 0.0) for owner, size in everything.items()}
        elif recomputed == "selective":
            kept = stash.layer_stash(shape, layer, selective=True)
            restored = {owner: size - kept[owner] for owner, size in everything.items() if size > kept[owner]}
        return Unit(
            name="layer",
            layer=-1,
            params=share.params,
            experts=share.experts if shape.layout.ep * shape.layout.tp > 1 else 0,
            tensors=share.tensors,
            small=share.small,
            forward=kernels.layer_forward(shape, layer),
            recompute=kernels.recompute_items(shape, recomputed, layer, self.modules),
            backward=kernels.layer_backward(shape, layer),
            kept=kept,
            restored=restored,
            forward_workspace=0.0,
            workspace=stash.layer_workspace(shape, layer),
            root=False,
            narrow=_narrow(kernels.layer_forward(shape, layer)),
            matrices=share.matrices,
        )


def _summed(parts: Iterable[dict[str, float]]) -> dict[str, float]:
    """Bytes by owner."""
    found: dict[str, float] = {}
    for part in parts:
        for owner, size in part.items():
            found[owner] = found.get(owner, 0.0) + size
    return found


def _narrow(forward: Items) -> int:
    """Weights of narrow products: (m x k)(k x n) has k x n of them."""
    products = (k for k in forward if isinstance(k, Kernel) and k.dtype in ("fp8", "fp4"))
    return sum(k.n * k.k * k.batch for k in products)


def _without_checkpoint(stashed: dict[str, float], shape: kernels.Shape) -> dict[str, float]:
    """What recompute brings back: a pre-norm layer's first norm keeps the layer's input, which is the checkpoint."""
    if shape.model.post_norm:
        return stashed
    return {**stashed, "activations.norm": max(0.0, stashed["activations.norm"] - stash.layer_input(shape))}


def _embedding(shape: kernels.Shape, *, again: int) -> Unit:
    """``again``: times that its table is looked up once more on this rank."""
    share = shares.embedding_share(shape)
    return Unit(
        name="embedding",
        layer=-1,
        params=share.params,
        experts=0,
        tensors=share.tensors,
        small=share.small,
        forward=kernels.embedding_forward(shape),
        recompute=(),
        backward=kernels.embedding_backward(shape, again),
        kept=stash.embedding_stash(shape),
        restored={},
        forward_workspace=0.0,
        workspace=stash.table_gradient(shape),
        root=True,
        looked_up=(share.params, share.tensors),
    )


def _mtp(layers: _Layers, number: int, *, apart: bool, recomputed: str) -> Unit:
    """A module that predicts one token more: a layer with what is before and behind it, which never runs again.

    ``apart``: on another rank than the embedding, whose table the first such module has a copy of (the copy that a tied
    output matrix is, where there is one).
    """
    shape, layer = layers.shape, layers.shape.model.layers + number
    own, head = layers.unit(layer, recomputed=recomputed), stash.head_stash(shape)
    first = apart and number == 0
    copy = first and not shape.model.tied_embeddings
    share, forward = shares.mtp_share(shape, number, copy=copy), mtp_forward(shape, layer)
    return replace(
        own,
        name=f"mtp{number}",
        params=share.params,
        experts=share.experts if shape.layout.ep * shape.layout.tp > 1 else 0,
        tensors=share.tensors,
        small=share.small,
        forward=forward,
        backward=mtp_backward(shape, layer),
        kept=_summed((own.kept, stash.join_stash(shape), head)),
        forward_workspace=stash.head_workspace(shape),
        workspace=max(own.workspace, stash.head_backward_workspace(shape)),
        narrow=_narrow(forward),
        looked_up=(shape.vocab * shape.hidden, 1) if first else (0, 0),
        matrices=share.matrices,
    )


def _head(shape: kernels.Shape, *, apart: bool) -> Unit:
    """``apart``: on another rank than the embedding, so that a tied output matrix is a copy of its own."""
    share = shares.head_share(shape, copy=apart)
    return Unit(
        name="head",
        layer=-1,
        params=share.params,
        experts=0,
        tensors=share.tensors,
        small=share.small,
        forward=kernels.head_forward(shape),
        recompute=(),
        backward=kernels.head_backward(shape),
        kept=stash.head_stash(shape),
        restored={},
        forward_workspace=stash.head_workspace(shape),
        workspace=stash.head_backward_workspace(shape),
        root=True,
    )
