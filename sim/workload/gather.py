"""ZeRO-3 / FSDP: parameters live as shards and are gathered unit by unit, some units ahead.

Owns when a gather is issued, what it waits for, and how long the gathered copy lives. A gather at position p of a
pass waits until the compute of position p - prefetch - 1 has ended: no more than ``prefetch`` + 1 gathered units are
alive beside the root (FSDP's ``limit_all_gathers``; DeepSpeed's prefetch bucket, in units of layers). The host may be a
whole pass ahead of the GPU, so the rule holds across passes too: backward counts on from forward, and forward begins
to gather when the backward before it has ended (FSDP's root waits for the compute stream).
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.spec.types import Scenario
from sim.workload.block import BlockBuilder
from sim.workload.kernels_shape import memory_pass
from sim.workload.ops import Collective, Copy, Op, Phase, Work
from sim.workload.policy import GradientPolicy
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
        policies: Sequence[GradientPolicy],
        scenario: Scenario,
    ) -> None:
        self.block = block
        self.units = units
        self.phase = phase
        self.param_bytes = param_bytes
        self.prefetch = prefetch
        self.policies = policies  # of what is sharded or elsewhere; none: all is here, and every method does nothing
        self.scenario = scenario
        self.offload = scenario.offload
        self.gathered: dict[int, tuple[int, ...]] = {}  # position -> indexes of its gathers
        self.computed: dict[int, int] = {}  # position -> index of its last kernel
        self.issued = 0
        self.present: set[int] = set()
        self.before: dict[int, str] = {}  # position -> token of the compute of an earlier pass that it waits for

    def need(self, position: int) -> tuple[int, ...]:
        """Issue gathers up to ``prefetch`` ahead of ``position``; the dependencies of its compute."""
        while self.policies and self.issued < len(self.units) and self.issued <= position + self.prefetch:
            self._issue(self.issued)
            self.issued += 1
        return self._copied_out(position)

    def _copied_out(self, position: int) -> tuple[int, ...]:
        """What the compute of ``position`` waits for; FSDP2 first copies what was gathered into the parameters."""
        deps, unit = self.gathered.get(position, ()), self.units[position]
        copied = [policy for policy in self.policies if policy.copies == "per_parameter" and _moving(policy, unit)]
        if not deps or not copied:
            return deps
        size = sum(self._bytes(policy, unit) for policy in copied)
        kernel = memory_pass("parameters.copy_out", size, size, fused=True)
        first, last = self.block.kernels((kernel,), self.phase, layer=unit.layer, deps=deps)
        self.block.takes(first, GATHERED, size)
        self.block.frees(last, GATHERED, size)
        return (last,)

    def skip_roots(self) -> None:
        """Root units are still there from forward: this pass gathers only the others."""
        self.present = {i for i, unit in enumerate(self.units) if unit.root}

    def skip_all(self) -> None:
        """Nothing was freed in forward: this pass gathers nothing and frees everything."""
        self.present = set(range(len(self.units)))

    def announce(self) -> None:
        """The end of this pass: a pass that is told to ``follow`` counts on from here."""
        for back, position in enumerate(sorted(self.computed, reverse=True)[: self.prefetch + 1]):
            if self.policies:
                self.block.edit(self.computed[position], signals=(_token(back),))

    def follow(self) -> None:
        """This pass runs over the units the other way and the one before it has announced its end.

        The first gathers wait for its last computes, and none begins before the unit's earlier copy is freed.
        """
        ahead = range(min(self.prefetch + 1, len(self.units)))
        self.before = {position: _token(min(self.prefetch - position, position)) for position in ahead}

    def hold(self) -> None:
        """The end of this pass: nothing is gathered for whatever comes next before it."""
        if self.policies and self.computed:
            last = self.computed[max(self.computed)]
            self.block.add(
                Op(
                    name="pass ended",
                    work=None,
                    stream="gather",
                    phase=self.phase,
                    category="param_gather",
                    deps=(last,),
                )
            )

    def _issue(self, position: int) -> None:
        unit = self.units[position]
        if position in self.present or not unit.params:
            return
        before = self.computed.get(position - self.prefetch - 1)
        deps = () if before is None else (before,)
        self.gathered[position] = tuple(
            self._fetch(position, policy, deps) for policy in self.policies if _moving(policy, unit)
        )

    def _fetch(self, position: int, policy: GradientPolicy, deps: tuple[int, ...]) -> int:
        """One part of a unit: from drives to the host, over this rank's own link to the GPU, from the other ranks."""
        unit = self.units[position]
        size = self._bytes(policy, unit)
        name = f"{unit.name} experts" if policy.experts else unit.name
        steps: list[tuple[str, Work, str, str]] = []
        if self.offload.parameters == "nvme":
            steps.append((f"read {name}", Copy(direction="nvme_read", size=size / policy.ranks), "nvme", "nvme"))
        if self.offload.parameters != "none":
            copy = Copy(direction="h2d", size=size / policy.ranks, pinned=self.offload.pinned)
            steps.append((f"fetch {name}", copy, "h2d", "h2d"))
        if policy.ranks > 1:
            if policy.shard_bytes != self.param_bytes:
                shard = _moving(policy, unit) / policy.ranks * policy.shard_bytes
                cast = memory_pass("parameters.cast", shard, size / policy.ranks, fused=True)
                steps.append((f"cast {name}", cast, "gather", "param_gather"))
            whole = Collective(kind="all_gather", axis=policy.axis, size=size)
            steps.append((f"gather {name}", whole, "gather", "param_gather"))
        begin, index = len(self.block.ops), -1
        for title, work, stream, category in steps:
            index = self.block.side(title, work, stream, self.phase, category, deps=deps, layer=unit.layer)
            deps = (index,)
        if position in self.before:
            self.block.edit(begin, waits=(self.before[position],))
        self.block.takes(index, GATHERED, size)
        return index

    def done(self, position: int, last: int, *, free: bool) -> None:
        """The compute of ``position`` ends with op ``last``; ``free`` its gathered parameters then."""
        self.computed[position] = last
        if free:
            gathered = sum(self._bytes(policy, self.units[position]) for policy in self.policies)
            self.block.frees(last, GATHERED, gathered)

    def _bytes(self, policy: GradientPolicy, unit: Unit) -> float:
        """What a unit's gather carries: parameters in 16 bits or the recipe's form, without small tensors."""
        if not _moving(policy, unit):
            return 0.0
        whole = policy.gathered(unit, self.scenario)
        return whole - (policy.params(unit) - _moving(policy, unit)) * self.param_bytes


def _moving(policy: GradientPolicy, unit: Unit) -> int:
    """Parameters of a unit that are not here all the time: all but those of small tensors, none of them experts'."""
    return policy.params(unit) - (0 if policy.experts else unit.small)


def window(units: Sequence[Unit], prefetch: int, live: int) -> int:
    """How many units are gathered ahead of the one that computes: ``prefetch``, or as many as ``live`` allows.

    ``live`` parameters may be gathered at a time (DeepSpeed: stage3_max_live_parameters; 0: any number).
    """
    sizes = [unit.params - unit.small for unit in units if not unit.root]
    while live and prefetch and any(sum(sizes[i : i + prefetch + 1]) > live for i in range(len(sizes))):
        prefetch -= 1
    return prefetch


def _token(back: int) -> str:
    """Name of the compute that is ``back`` before the last of a pass."""
    return f"computed, {back} before the end"
