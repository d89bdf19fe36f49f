"""Writing a block: a small builder that appends ops in the order in which the host issues them.

Owns the bookkeeping of indexes and memory effects, and nothing about what the ops mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from sim.workload.ops import Block, Collective, Kernel, MemoryEffect, Op, Phase, Work

COMPUTE = "compute"
CATEGORY: dict[Phase, str] = {
    "F": "forward",
    "B": "backward",
    "I": "backward",
    "W": "backward",
    "R": "recompute",
    "O": "optimizer",
}


class _Chain:
    """Who waits for whom in a sequence of kernels and collectives."""

    def __init__(self, deps: tuple[int, ...]) -> None:
        self.pending = deps  # what the next kernel waits for
        self.later: tuple[int, ...] = ()  # what the kernel after the next waits for: it runs beside the next one
        self.last: tuple[int, ...] = deps  # the last kernel, or what stands before the first
        self.before_last: tuple[int, ...] = deps

    def for_kernel(self) -> tuple[int, ...]:
        """Dependencies of the next kernel."""
        return self.pending

    def for_collective(self) -> tuple[int, ...]:
        """Dependencies of a collective that comes next."""
        return self.pending or self.last

    def kernel(self, index: int) -> None:
        self.before_last, self.last = self.last, (index,)
        self.pending, self.later = self.later, ()

    def collective(self, index: int, *, late: bool) -> None:
        if late:
            self.later = (*self.later, index)
        else:
            self.pending = (*self.pending, index)


class BlockBuilder:
    """Appends ops and hands back their index, for use as a dependency of later ops of the same block."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ops: list[Op] = []
        self.effects: dict[int, list[MemoryEffect]] = {}  # by op, until the block is finished

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

    def items(
        self, items: Iterable[Kernel | Collective], phase: Phase, *, layer: int = -1, deps: Sequence[int] = ()
    ) -> tuple[int, int]:
        """Append kernels and the collectives between them, each in its place; returns the first and last index.

        A collective starts when the kernel before it has ended, and the kernel after it waits for it: exposed. One
        marked ``overlap`` runs beside its neighbour instead: the next kernel, which does not wait for it, or the
        previous one, with which it starts. Whoever comes after both waits for both.
        """
        begin = len(self.ops)
        chain = _Chain(tuple(deps))
        for item in items:
            if isinstance(item, Kernel):
                index = self.add(
                    Op(
                        name=item.name,
                        work=item,
                        stream=COMPUTE,
                        phase=phase,
                        category=CATEGORY[phase],
                        deps=chain.for_kernel(),
                        layer=layer,
                    )
                )
                chain.kernel(index)
            else:
                early = item.overlap == "previous"
                index = self.side(
                    f"{item.kind.replace('_', '-')} {item.axis}", item, item.axis, phase, item.axis,
                    deps=chain.before_last if early else chain.for_collective(), layer=layer,
                )  # fmt: skip
                chain.collective(index, late=item.overlap == "next")
        if chain.pending or chain.later or len(self.ops) == begin:
            chain.kernel(self.marker("joined", phase, deps=(*chain.pending, *chain.later)))
        return begin, len(self.ops) - 1

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
            self.effects.setdefault(index, []).append(effect)

    def edit(self, index: int, *, waits: Sequence[str] = (), signals: Sequence[str] = (), sync: bool = False) -> None:
        """Add tokens to an op, or let the host wait for it."""
        op = self.ops[index]
        self.ops[index] = replace(op, waits=(*op.waits, *waits), signals=(*op.signals, *signals), sync=op.sync or sync)

    def block(self) -> Block:
        """The finished block."""
        for index, effects in self.effects.items():
            self.ops[index] = replace(self.ops[index], memory=(*self.ops[index].memory, *effects))
        self.effects.clear()
        return Block(name=self.name, ops=tuple(self.ops))
