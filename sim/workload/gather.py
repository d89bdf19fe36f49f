"""ZeRO-3 / FSDP: parameters live as shards and are gathered unit by unit, some units ahead.

Owns when a gather is issued, what it waits for, and how long the gathered copy lives. A gather at position p of a
pass waits until the compute of position p - prefetch - 1 has ended: no more than ``prefetch`` + 1 gathered units are
alive beside the root (FSDP's ``limit_all_gathers``; DeepSpeed's prefetch bucket, in units of layers).
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.workload.block import BlockBuilder
from sim.workload.ops import Collective, Phase
from sim.workload.units import Unit

GATHERED = "parameters.gathered"


class Gathers:
    """The gathers of one pass (forward or backward) over ``units``, in the order of the pass."""

    def __init__(
        self,
        block: BlockBuilder,
        units: Sequence[Unit],
        *,
        phase: Phase,
        param_bytes: float,
        prefetch: int,
        axis: str,
    ) -> None:
        self.block = block
        self.units = units
        self.phase = phase
        self.param_bytes = param_bytes
        self.prefetch = prefetch
        self.axis = axis  # the process group that shards parameters; empty: all are here, and every method does nothing
        self.gathered: dict[int, int] = {}  # position -> index of its gather
        self.computed: dict[int, int] = {}  # position -> index of its last kernel
        self.issued = 0
        self.present: set[int] = set()

    def need(self, position: int) -> tuple[int, ...]:
        """Issue gathers up to ``prefetch`` ahead of ``position``; the dependencies of its compute."""
        while self.axis and self.issued < len(self.units) and self.issued <= position + self.prefetch:
            self._issue(self.issued)
            self.issued += 1
        return (self.gathered[position],) if position in self.gathered else ()

    def skip_roots(self) -> None:
        """Root units are still there from forward: this pass gathers only the others."""
        self.present = {i for i, unit in enumerate(self.units) if unit.root}

    def skip_all(self) -> None:
        """Nothing was freed in forward: this pass gathers nothing and frees everything."""
        self.present = set(range(len(self.units)))

    def _issue(self, position: int) -> None:
        unit = self.units[position]
        if position in self.present or not unit.params:
            return
        before = self.computed.get(position - self.prefetch - 1)
        deps = () if before is None else (before,)
        size = float(unit.params * self.param_bytes)
        work = Collective(kind="all_gather", axis=self.axis, size=size)
        index = self.block.side(
            f"gather {unit.name}", work, "gather", self.phase, "param_gather", deps=deps, layer=unit.layer
        )
        self.block.takes(index, GATHERED, size)
        self.gathered[position] = index

    def done(self, position: int, last: int, *, free: bool) -> None:
        """The compute of ``position`` ends with op ``last``; ``free`` its gathered parameters then."""
        self.computed[position] = last
        if free and self.axis:
            self.block.frees(last, GATHERED, float(self.units[position].params * self.param_bytes))
