"""Writing a block: a small builder that appends ops in the order in which the host issues them.

Owns the bookkeeping of indexes and memory effects, and nothing about what the ops mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from sim.workload.ops import Block, Kernel, MemoryEffect, Op, Phase, Work

COMPUTE = "compute"
CATEGORY: dict[Phase, str] = {
    "F": "forward",
    "B": "backward",
    "I": "backward",
    "W": "backward",
    "R": "recompute",
    "O": "optimizer",
}


class BlockBuilder:
    """Appends ops and hands back their index, for use as a dependency of later ops of the same block."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ops: list[Op] = []

    def add(self, op: Op) -> int:
        """Append one op."""
        self.ops.append(op)
        return len(self.ops) - 1

    def kernels(
        self, kernels: Iterable[Kernel], phase: Phase, *, layer: int = -1, deps: Sequence[int] = ()
    ) -> tuple[int, int]:
        """Append kernels to the compute stream; the first waits for ``deps``. Returns the first and last index.

        With no kernel at all a marker stands in, so that whoever depends on the group still has something to wait for.
        """
        first = len(self.ops)
        for kernel in kernels:
            self.ops.append(
                Op(
                    name=kernel.name,
                    work=kernel,
                    stream=COMPUTE,
                    phase=phase,
                    category=CATEGORY[phase],
                    deps=tuple(deps) if len(self.ops) == first else (),
                    layer=layer,
                )
            )
        if len(self.ops) == first:
            self.marker("nothing", phase, deps=deps)
        return first, len(self.ops) - 1

    def marker(self, name: str, phase: Phase, *, deps: Sequence[int] = (), waits: Sequence[str] = ()) -> int:
        """An op without work on the compute stream: a place where it waits for others."""
        return self.add(
            Op(
                name=name,
                work=None,
                stream=COMPUTE,
                phase=phase,
                category=CATEGORY[phase],
                deps=tuple(deps),
                waits=tuple(waits),
            )
        )

    def side(
        self,
        name: str,
        work: Work,
        stream: str,
        phase: Phase,
        category: str,
        *,
        deps: Sequence[int] = (),
        layer: int = -1,
    ) -> int:
        """An op beside the compute stream: a collective, a copy, work of the CPU."""
        return self.add(
            Op(
                name=name,
                work=work,
                stream=stream,
                phase=phase,
                category=category,
                deps=tuple(deps),
                layer=layer,
            )
        )

    def takes(self, index: int, owner: str, size: float, *, where: str = "gpu") -> None:
        """Op ``index`` allocates ``size`` bytes when it starts."""
        self._effect(
            index, MemoryEffect(owner=owner, size=size, at="start", where="host" if where == "host" else "gpu")
        )

    def frees(self, index: int, owner: str, size: float, *, where: str = "gpu") -> None:
        """Op ``index`` gives ``size`` bytes back when it ends."""
        self._effect(index, MemoryEffect(owner=owner, size=-size, at="end", where="host" if where == "host" else "gpu"))

    def _effect(self, index: int, effect: MemoryEffect) -> None:
        if effect.size:
            op = self.ops[index]
            self.ops[index] = replace(op, memory=(*op.memory, effect))

    def edit(self, index: int, *, waits: Sequence[str] = (), signals: Sequence[str] = (), sync: bool = False) -> None:
        """Add tokens to an op, or let the host wait for it."""
        op = self.ops[index]
        self.ops[index] = replace(op, waits=(*op.waits, *waits), signals=(*op.signals, *signals), sync=op.sync or sync)

    def block(self) -> Block:
        """The finished block."""
        return Block(name=self.name, ops=tuple(self.ops))
