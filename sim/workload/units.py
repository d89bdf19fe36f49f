"""The model cut into units: embedding, layers, head; each with its kernels and the bytes it keeps.

A unit is what recompute, ZeRO-3 gathering and gradient buckets work on. Owns the cut; the kernels themselves come from
``kernels`` and the bytes from ``stash``.
"""

from __future__ import annotations

from dataclasses import dataclass

from sim.spec.types import Scenario
from sim.workload import kernels, stash
from sim.workload.model import (
    embedding_params,
    embedding_tensors,
    head_params,
    head_tensors,
    layer_params,
    layer_tensors,
)
from sim.workload.ops import Kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One unit of the model, for one microbatch on one rank.

    ``recompute`` is empty when activations are kept. ``kept`` bytes live from forward to backward; ``restored`` bytes
    exist only while the unit is recomputed and differentiated; ``workspace`` only while it is differentiated, and
    ``forward_workspace`` only during forward.
    ``root`` units (embedding and head) stay gathered from forward to backward under ZeRO-3, as FSDP's root does.
    """

    name: str
    layer: int
    params: int
    tensors: int
    forward: tuple[Kernel, ...]
    recompute: tuple[Kernel, ...]
    backward: tuple[Kernel, ...]
    kept: dict[str, float]
    restored: dict[str, float]
    forward_workspace: float
    workspace: float
    root: bool


def cut(scenario: Scenario) -> tuple[Unit, ...]:
    """Units in forward order. Layers share their kernel tuples, which makes their cost one look-up."""
    shape = kernels.Shape(
        model=scenario.model,
        micro=scenario.batch.micro,
        sequence=scenario.batch.sequence,
        stack=scenario.stack,
        precision=scenario.precision,
    )
    return (_embedding(shape), *_layers(shape, scenario), _head(shape))


def _embedding(shape: kernels.Shape) -> Unit:
    return Unit(
        name="embedding",
        layer=-1,
        params=embedding_params(shape.model),
        tensors=len(embedding_tensors(shape.model)),
        forward=kernels.embedding_forward(shape),
        recompute=(),
        backward=kernels.embedding_backward(shape),
        kept=stash.embedding_stash(shape),
        restored={},
        forward_workspace=0.0,
        workspace=0.0,
        root=True,
    )


def _layers(shape: kernels.Shape, scenario: Scenario) -> list[Unit]:
    forward, backward = kernels.layer_forward(shape), kernels.layer_backward(shape)
    full = scenario.recompute == "full"
    everything = stash.layer_stash(shape)
    checkpoint = {"activations.checkpoints": stash.layer_input(shape)}
    return [
        Unit(
            name=f"layer{i}",
            layer=i,
            params=layer_params(shape.model),
            tensors=len(layer_tensors(shape.model)),
            forward=forward,
            recompute=forward if full else (),
            backward=backward,
            kept=checkpoint if full else everything,
            restored=_without_checkpoint(everything, shape) if full else {},
            forward_workspace=0.0,
            workspace=stash.layer_workspace(shape),
            root=False,
        )
        for i in range(shape.model.layers)
    ]


def _without_checkpoint(stashed: dict[str, float], shape: kernels.Shape) -> dict[str, float]:
    """What recompute brings back: a pre-norm layer's first norm keeps the layer's input, which is the checkpoint."""
    if shape.model.post_norm:
        return stashed
    return {**stashed, "activations.norm": stashed["activations.norm"] - stash.layer_input(shape)}


def _head(shape: kernels.Shape) -> Unit:
    return Unit(
        name="head",
        layer=-1,
        params=head_params(shape.model),
        tensors=len(head_tensors(shape.model)),
        forward=kernels.head_forward(shape),
        recompute=(),
        backward=kernels.head_backward(shape),
        kept=stash.head_stash(shape),
        restored={},
        forward_workspace=stash.head_workspace(shape),
        workspace=0.0,
        root=True,
    )
