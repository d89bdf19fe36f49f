"""What becomes of gradients as backward produces them: kept, reduced over the data-parallel ranks, sent to the host.

Owns buckets and their order. Gradients of a bucket are reduced (all-reduce, or reduce-scatter once the optimizer is
sharded) and, with ZeRO-Offload, this rank's part is copied to host memory at once, under the rest of backward. Where
the host adds up several microbatches, the sum so far comes back to the GPU, is added to there and returns (DeepSpeed,
``async_accumulate_grad_in_cpu_via_gpu``). A speculative update (SuperOffload) begins with a bucket's arrival.
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.spec.types import Scenario
from sim.workload.block import BlockBuilder
from sim.workload.host_step import HostStep
from sim.workload.kernels_shape import memory_pass
from sim.workload.ops import Collective, Copy, Kernel
from sim.workload.policy import GradientPolicy
from sim.workload.units import Unit

REDUCED = "gradients reduced"
ON_HOST = "gradients on the host"
UPDATED = "parameters updated"
OWNER = "gradients"
CAST = "cast gradients"


class GradientStream:
    """The gradients of one backward pass over ``units``. ``unit_done`` in backward order, then ``finish``.

    ``first`` and ``last``: of the microbatches whose gradients are added up. The host has ``offload.ratio`` of the
    pass's parameters, those whose gradients come first; the rest are updated where they are made.
    """

    def __init__(
        self,
        block: BlockBuilder,
        policy: GradientPolicy,
        scenario: Scenario,
        units: Sequence[Unit],
        *,
        first: bool,
        last: bool,
    ) -> None:
        self.block = block
        self.policy = policy
        self.scenario = scenario
        self.first, self.last_one = first, last
        self.room = round(
            scenario.offload.ratio * sum(policy.params(unit) for unit in units)
        )  # parameters for the host
        self.params = 0  # of the open bucket
        self.number = 0
        self.held: list[tuple[int, int]] = []  # without overlap: (parameters, last kernel) of full buckets
        self.last = -1
        self.flushed: list[tuple[str, int]] = []

    def unit_done(self, unit: Unit, first: int, last: int) -> None:
        """The unit's gradients exist once op ``last`` has ended; ``first`` begins to write them."""
        policy = self.policy
        params = policy.params(unit)
        if policy.transient:
            self.block.takes(first, OWNER, float(params * policy.new_bytes))
        if policy.idle:
            return
        self.params += params
        self.last = last
        if policy.copies != "none" or self.params * policy.wire_bytes >= policy.bucket:
            self._close()

    def finish(self) -> None:
        """Send what is left, and say on which ops the optimizer has to wait."""
        if self.params:
            self._close()
        for params, _ in self.held:
            self._send(params, self.last)
        self.held.clear()
        for token, index in dict(self.flushed).items():
            self.block.edit(index, signals=(token,))

    def _close(self) -> None:
        if self.policy.overlap:
            self._send(self.params, self.last)
        else:
            self.held.append((self.params, self.last))
        self.params = 0

    def _send(self, params: int, after: int) -> None:
        policy, block = self.policy, self.block
        self.number += 1
        if policy.copies != "none":
            self._fully_sharded(params, after)
            return
        if policy.grad_bytes != policy.wire_bytes and policy.kind:
            _, after = block.kernels((_cast(params, policy.grad_bytes, policy.wire_bytes),), "B")
        if policy.kind:
            after = self._reduce(params, after)
            self.flushed.append((REDUCED, after))
        if policy.offload == "each" or (policy.offload == "last" and self.last_one):
            after = self._to_host(params, after)
        if policy.transient:
            block.frees(after, OWNER, float(params * policy.grad_bytes))

    def _fully_sharded(self, params: int, after: int) -> None:
        """FSDP: a unit's gradients become one buffer of the wire's type, which is reduced.

        Per-parameter shards (FSDP2): one pass copies them in, and casts. Flat parameters (FSDP1): autograd joins the
        gradients of the views of the flat parameter; beside the next unit's backward they are cast, and divided by
        about the root of the ranks before the reduction (by the rest of it after).
        """
        policy, block = self.policy, self.block
        new, wire = float(params * policy.new_bytes), float(params * policy.wire_bytes)
        joined = wire if policy.copies == "per_parameter" else new
        _, after = block.kernels((_pass("gradient.join", new, joined),), "B")
        if joined != new:
            block.takes(after, OWNER, wire)
            block.frees(after, OWNER, new)
        if policy.copies == "flat":
            for kernel in self._flat(params):
                after = block.side(kernel.name, kernel, "dp", "B", "dp", deps=(after,))
                if kernel.name == CAST:
                    block.takes(after, OWNER, wire)
                    block.frees(after, OWNER, new)
        after = self._reduce(params, after)
        self.flushed.append((REDUCED, after))
        block.frees(after, OWNER, wire)

    def _flat(self, params: int) -> tuple[Kernel, ...]:
        """Passes over a unit's flat gradient before it is reduced."""
        policy, wire = self.policy, float(params * self.policy.wire_bytes)
        cast = () if policy.wire_bytes == policy.new_bytes else (_cast(params, policy.new_bytes, policy.wire_bytes),)
        return (*cast, _pass("gradient.divide", wire, wire))

    def _reduce(self, params: int, after: int) -> int:
        """All-reduce, or reduce-scatter and, between replicas, all-reduce of the shard."""
        policy = self.policy
        size = float(params * policy.wire_bytes)
        if policy.ranks > 1:
            work = Collective(kind=policy.kind or "all_reduce", axis=policy.axis, size=size)
            name = "all-reduce" if policy.kind == "all_reduce" else "reduce-scatter"
            name = f"{name} experts" if policy.experts else name
            stream = "dp" if policy.copies == "none" else "gather"  # FSDP: one communicator, so one queue
            after = self.block.side(f"{name} bucket {self.number}", work, stream, "B", "dp", deps=(after,))
        if policy.replicas > 1:
            work = Collective(kind="all_reduce", axis="replicate", size=size / policy.ranks)
            after = self.block.side(f"all-reduce shard {self.number}", work, "dp", "B", "dp", deps=(after,))
        return after

    def _to_host(self, params: int, after: int) -> int:
        """This rank's part of what the host updates; the sum of earlier microbatches comes for it and goes with it."""
        policy, block, offload = self.policy, self.block, self.scenario.offload
        mine = min(params, self.room)
        self.room -= mine
        if not mine:
            return after
        share = mine / policy.ranks
        size = share * policy.link_bytes
        if policy.offload == "each" and not self.first:
            back = Copy(direction="h2d", size=size, pinned=offload.pinned)
            name = f"gradients so far to GPU {self.number}"
            summed = block.side(name, back, "h2d", "B", "h2d", deps=(after,))
            add = memory_pass("gradient.accumulate", 2 * size, size, fused=True, role="weight_grad")
            after = block.side("add gradients so far", add, "d2h", "B", "d2h", deps=(after, summed))
        elif policy.link_bytes != policy.grad_bytes:
            cast = _cast(round(share), policy.grad_bytes, policy.link_bytes)
            after = block.side(cast.name, cast, "d2h", "B", "d2h", deps=(after,))
        copy = Copy(direction="d2h", size=size, pinned=offload.pinned)
        there = block.side(f"gradients to CPU {self.number}", copy, "d2h", "B", "d2h", deps=(after,))
        self.flushed.append((ON_HOST, there))
        if offload.update == "speculative" and self.last_one:
            updated = HostStep(block, self.scenario, "B", sync=False).update(share, (there,))
            self.flushed.append((UPDATED, updated))
        return there


def _pass(name: str, read: float, written: float) -> Kernel:
    return memory_pass(name, read, written, fused=True, role="weight_grad")


def _cast(params: int, source: int, target: int) -> Kernel:
    return Kernel(
        name=CAST,
        kind="elementwise",
        flops=float(params),
        bytes_read=float(params * source),
        bytes_written=float(params * target),
    )
