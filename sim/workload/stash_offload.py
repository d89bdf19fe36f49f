"""Activations in host memory: what forward keeps for backward leaves the GPU and comes back in time.

Owns the copies of checkpoints (DeepSpeed ``cpu_checkpointing``, ZeRO-Infinity section 5.1.2) or, without recompute, of
everything that a layer keeps. A layer's bytes leave when its forward has ended and return one layer ahead of backward,
never two. Embedding and head keep theirs. Must not know what is in them.
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.workload.block import BlockBuilder
from sim.workload.ops import Copy
from sim.workload.units import Unit

ON_HOST = "activations"
AHEAD = 1


class StashOffload:
    """The copies of one pass; ``on`` False: everything stays, and every method does nothing."""

    def __init__(self, block: BlockBuilder, *, on: bool, pinned: bool, layers: int = 0) -> None:
        self.block = block
        self.on = on
        self.layers = layers  # of the model, the first ones; 0: all
        self.pinned = pinned
        self.fetched: dict[int, int] = {}  # position -> its copy
        self.computed: dict[int, int] = {}

    def moves(self, unit: Unit) -> bool:
        """Whether this unit's bytes leave the GPU."""
        mine = not self.layers or unit.layer < self.layers
        return self.on and mine and not unit.root and sum(unit.kept.values()) > 0

    def leave(self, unit: Unit, last: int) -> int:
        """Forward of the unit ends with op ``last``: the op after which its bytes are gone."""
        size = sum(unit.kept.values())
        copy = Copy(direction="d2h", size=size, pinned=self.pinned)
        index = self.block.side(f"stash {unit.name}", copy, "d2h", "F", "d2h", deps=(last,), layer=unit.layer)
        self.block.takes(index, ON_HOST, size, where="host")
        self.block.edit(index, signals=(_token(unit),))
        return index

    def need(self, units: Sequence[Unit], position: int) -> tuple[int, ...]:
        """Issue copies back up to one unit ahead of ``position``; what the unit's backward waits for."""
        for ahead in range(position, min(position + AHEAD + 1, len(units))):
            if self.moves(units[ahead]) and ahead not in self.fetched:
                self.fetched[ahead] = self._fetch(units[ahead], self.computed.get(ahead - AHEAD - 1))
        return (self.fetched[position],) if position in self.fetched else ()

    def done(self, position: int, last: int) -> None:
        """Backward of the unit ends with op ``last``."""
        self.computed[position] = last

    def begin(self, position: int, otherwise: int) -> int:
        """The op from which on the unit's bytes are on the GPU again."""
        return self.fetched.get(position, otherwise)

    def _fetch(self, unit: Unit, after: int | None) -> int:
        size = sum(unit.kept.values())
        copy = Copy(direction="h2d", size=size, pinned=self.pinned)
        deps = () if after is None else (after,)
        index = self.block.side(f"fetch stash {unit.name}", copy, "h2d", "B", "h2d", deps=deps, layer=unit.layer)
        self.block.edit(index, waits=(_token(unit),))
        self.block.frees(index, ON_HOST, size, where="host")
        return index


def _token(unit: Unit) -> str:
    return f"stash of {unit.name} on the host"
