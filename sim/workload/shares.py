"""How many parameters one rank holds of each unit, before any sharding over data-parallel ranks.

Owns the split of tensors over tensor- and expert-parallel ranks (Megatron-LM: QKV, gate, up and the embedding tables by
columns or vocabulary, the two output projections by rows; norms, routers and biases of row-split layers on every rank).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sim.workload import model
from sim.workload.kernels import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Parameters of one rank: ``dense`` ones, reduced over all data-parallel ranks, and those of its ``experts``."""

    dense: int
    experts: int
    tensors: int


# Parts of a tensor's name -> how it is split. What is not named here is on every tensor-parallel rank.
_SPLIT = (
    "attention.qkv", "attention.out.weight", "attention.q_b", "attention.kv_b", "attention.q.",
    "mlp.up", "mlp.gate", "mlp.down.weight", "shared", "embedding.tokens", "head.output.weight", "head.output.bias",
)  # fmt: skip


def layer_share(shape: Shape, layer: int) -> Share:
    """One layer's parameters on one rank."""
    return _share(shape, model.layer_tensors(shape.model, layer))


def embedding_share(shape: Shape) -> Share:
    """The embedding's parameters on one rank."""
    return _share(shape, model.embedding_tensors(shape.model))


def head_share(shape: Shape, *, copy: bool) -> Share:
    """The head's parameters on one rank; ``copy``: with a tied output matrix of its own."""
    share = _share(shape, model.head_tensors(shape.model))
    if not (copy and shape.model.tied_embeddings):
        return share
    extra = shape.model.vocab * shape.model.hidden // shape.layout.tp
    return Share(dense=share.dense + extra, experts=0, tensors=share.tensors + 1)


def _share(shape: Shape, tensors: Iterable[model.Tensor]) -> Share:
    dense = experts = count = 0
    for name, _, size in tensors:
        count += 1
        if "experts" in name and "shared" not in name:
            experts += size // (shape.layout.ep * shape.layout.expert_tp)
        else:
            dense += size // shape.layout.tp if any(part in name for part in _SPLIT) else size
    return Share(dense=dense, experts=experts, tensors=count)
