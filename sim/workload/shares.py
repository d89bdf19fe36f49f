"""How many parameters one rank holds of each unit, before any sharding over data-parallel ranks.

Owns the split of tensors over tensor-parallel ranks (Megatron-LM: QKV, up and the embedding tables by columns or
vocabulary, the two output projections by rows; norms and biases of row-split layers on every rank; of latent attention
the up projections) and of experts over expert-parallel ranks, whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from sim.workload import model
from sim.workload.kernels import Shape


class Held(Protocol):
    """What a unit, or a rank, holds: parameters in so many tensors, of which so many of routed experts."""

    @property
    def params(self) -> int:
        """All parameters."""

    @property
    def tensors(self) -> int:
        """Tensors that they are in."""

    @property
    def experts(self) -> int:
        """Parameters of routed experts."""

    @property
    def small(self) -> int:
        """Parameters of tensors that ZeRO-3 keeps gathered (``layout.persistence_threshold``)."""

    @property
    def narrow(self) -> int:
        """Parameters whose products are narrow."""

    @property
    def matrices(self) -> frozenset[tuple[str, int]]:
        """Kinds of weight matrices in its layers: what each is and its parameters, of experts one's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Parameters of one rank, in so many tensors; ``experts`` of them are of routed experts.

    Those are copied (and their gradients summed) over fewer ranks than the rest: the data-parallel ranks over ep.
    """

    params: int
    tensors: int
    experts: int = 0
    small: int = 0
    narrow: int = 0
    matrices: frozenset[tuple[str, int]] = frozenset()

    @classmethod
    def of(cls, units: Iterable[Held]) -> Share:
        """All that a rank holds."""
        held = list(units)
        return cls(
            params=sum(unit.params for unit in held),
            tensors=sum(unit.tensors for unit in held),
            experts=sum(unit.experts for unit in held),
            small=sum(unit.small for unit in held),
            narrow=sum(unit.narrow for unit in held),
            matrices=frozenset[tuple[str, int]]().union(*(unit.matrices for unit in held)),
        )


# Parts of a tensor's name -> it is split. What is not named here is on every tensor-parallel rank.
_SPLIT = (
    "attention.qkv", "attention.out.weight", "mlp.up", "mlp.down.weight",
    "attention.q_up", "attention.kv_up", "mlp.shared.up", "mlp.shared.down.weight",
    ".join.weight", "embedding.tokens", "head.output.weight", "head.output.bias",
)  # fmt: skip


def layer_share(shape: Shape, layer: int = 0) -> Share:
    """One layer's parameters on one rank."""
    tensors = model.layer_tensors(shape.model, layer)
    return replace(_share(shape, tensors), matrices=frozenset(_matrices(shape, tensors)))


def mtp_share(shape: Shape, number: int, *, copy: bool) -> Share:
    """Parameters on one rank of a module that predicts one token more; ``copy``: with a table of its own."""
    tensors = model.mtp_tensors(shape.model, number)
    share = replace(_share(shape, tensors), matrices=frozenset(_matrices(shape, tensors)))
    return _with_table(shape, share) if copy else share


def embedding_share(shape: Shape) -> Share:
    """The embedding's parameters on one rank."""
    return _share(shape, model.embedding_tensors(shape.model))


def head_share(shape: Shape, *, copy: bool) -> Share:
    """The head's parameters on one rank; ``copy``: with a tied output matrix of its own."""
    share = _share(shape, model.head_tensors(shape.model))
    return _with_table(shape, share) if copy and shape.model.tied_embeddings else share


def _with_table(shape: Shape, share: Share) -> Share:
    return replace(share, params=share.params + shape.vocab * shape.model.hidden, tensors=share.tensors + 1)


def _matrices(shape: Shape, tensors: Iterable[model.Tensor]) -> Iterator[tuple[str, int]]:
    """Weights of a layer's linear layers by the part of the layer that they are in; a router's is none of them."""
    for name, _, size in tensors:
        part = name.split(".", 2)[-1]
        if not part.endswith(".weight") or "norm" in part or "router" in part:
            continue
        one = size // shape.model.experts if ".experts." in name else _mine(shape, name, size)
        yield part, one


def _share(shape: Shape, tensors: Iterable[model.Tensor]) -> Share:
    params = count = experts = small = 0
    for name, _, size in tensors:
        count += 1
        mine = _mine(shape, name, size)
        experts += mine if ".experts." in name else 0
        params += mine
        small += mine if mine <= shape.layout.persistence_threshold else 0
    return Share(params=params, tensors=count, experts=experts, small=small)


def _mine(shape: Shape, name: str, size: int) -> int:
    """A rank's part of a tensor. Key and value heads that are copied to several ranks count on each of them."""
    if "attention.qkv" in name:
        whole = shape.model.heads * shape.model.head_dim + 2 * shape.model.kv_heads * shape.model.head_dim
        return size // whole * shape.qkv_width
    if ".experts." in name:
        return size // shape.layout.ep
    return -(-size // shape.tp) if any(part in name for part in _SPLIT) else size
