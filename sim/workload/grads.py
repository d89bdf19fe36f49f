"""What becomes of gradients as backward produces them: kept, reduced over the data-parallel ranks, sent to the CPU.

Owns buckets and their order. Gradients of a bucket are reduced (all-reduce, or reduce-scatter once the optimizer is
sharded) and, with ZeRO-Offload, this rank's part is copied to host memory at once, under the rest of backward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sim.spec.types import DTYPE_BYTES, Scenario
from sim.workload.block import BlockBuilder
from sim.workload.ops import Collective, Copy, Kernel
from sim.workload.shares import Held
from sim.workload.units import Unit

REDUCED = "gradients reduced"
ON_HOST = "gradients on the host"
OWNER = "gradients"
EXPERT_TENSORS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientPolicy:
    """How the gradients of one part of the parameters move: of routed ``experts``, or of the rest.

    ``axis`` names the process group that reduces them, of ``ranks`` ranks that hold shards; ``replicas`` groups of such
    ranks hold copies (HSDP). ``transient``: gradients exist only from backward to the end of their reduction or copy.
    """

    axis: str
    ranks: int
    replicas: int
    kind: Literal["all_reduce", "reduce_scatter"] | None
    overlap: bool
    offload: bool
    pinned: bool
    transient: bool
    bucket: float  # bytes on the wire, of the whole bucket
    grad_bytes: int
    wire_bytes: int
    experts: bool = False

    @property
    def idle(self) -> bool:
        """Nothing to do: one rank, gradients stay where they are."""
        return self.kind is None and not self.offload

    def params(self, held: Held) -> int:
        """The parameters that this policy is for."""
        return held.experts if self.experts else held.params - held.experts

    def tensors(self, unit: Unit) -> int:
        """The tensors of a unit that this policy is for; of all experts there are two, up (with gate) and down."""
        of_experts = EXPERT_TENSORS if unit.experts else 0
        return of_experts if self.experts else unit.tensors - of_experts


def policies_for(scenario: Scenario) -> tuple[GradientPolicy, ...]:
    """One policy, or a second one for experts that have other copies than the rest (``units.Unit.experts``)."""
    dense, layout = policy_for(scenario), scenario.layout
    if scenario.model.experts and layout.ep * layout.tp > 1:
        return dense, policy_for(scenario, experts=True)
    return (dense,)


def policy_for(scenario: Scenario, *, experts: bool = False) -> GradientPolicy:
    """The policy that layout, precision and offload ask for. Context-parallel ranks share parameters as dp ranks do.

    Whole ``experts`` are copied on every ``ep``-th of a stage's dp x cp x tp ranks. Where a pipeline holds two copies
    of the parameters (DualPipe), the two pipeline ranks that hold a stage are one group, of twice as many.
    """
    layout, precision = scenario.layout, scenario.precision
    offload = scenario.offload.gradients == "cpu"
    replicas = layout.dp_replicate if layout.zero >= 1 and not experts else 1
    everyone = (layout.expert_replicas if experts else layout.dp * layout.cp) * layout.copies
    kind: Literal["all_reduce", "reduce_scatter"] | None = None
    if everyone > 1:
        kind = "all_reduce" if layout.zero == 0 else "reduce_scatter"
    return GradientPolicy(
        axis="edp" if experts else "dp" if replicas == 1 else "shard",
        ranks=everyone // replicas,
        replicas=replicas,
        kind=kind,
        overlap=layout.overlap_grad_reduce,
        offload=offload,
        pinned=scenario.offload.pinned,
        transient=(layout.zero >= 2 and everyone > 1) or offload,
        bucket=layout.grad_bucket,
        grad_bytes=DTYPE_BYTES[precision.grads],
        wire_bytes=DTYPE_BYTES[precision.grad_comm],
        experts=experts,
    )


class GradientStream:
    """The gradients of one backward pass. ``unit_done`` in backward order, then ``finish``."""

    def __init__(self, block: BlockBuilder, policy: GradientPolicy) -> None:
        self.block = block
        self.policy = policy
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
            self.block.takes(first, OWNER, float(params * policy.grad_bytes))
        if policy.idle:
            return
        self.params += params
        self.last = last
        if self.params * policy.wire_bytes >= policy.bucket:
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
        if policy.grad_bytes != policy.wire_bytes and policy.kind:
            _, after = block.kernels((_cast(params, policy.grad_bytes, policy.wire_bytes),), "B")
        if policy.kind:
            after = self._reduce(params, after)
            self.flushed.append((REDUCED, after))
        if policy.offload:
            copy = Copy(direction="d2h", size=params * policy.grad_bytes / policy.ranks, pinned=policy.pinned)
            after = block.side(f"gradients to CPU {self.number}", copy, "d2h", "B", "d2h", deps=(after,))
            self.flushed.append((ON_HOST, after))
        if policy.transient:
            block.frees(after, OWNER, float(params * policy.grad_bytes))

    def _reduce(self, params: int, after: int) -> int:
        """All-reduce, or reduce-scatter and, between replicas, all-reduce of the shard."""
        policy = self.policy
        size = float(params * policy.wire_bytes)
        if policy.ranks > 1:
            work = Collective(kind=policy.kind or "all_reduce", axis=policy.axis, size=size)
            name = "all-reduce" if policy.kind == "all_reduce" else "reduce-scatter"
            name = f"{name} experts" if policy.experts else name
            after = self.block.side(f"{name} bucket {self.number}", work, "dp", "B", "dp", deps=(after,))
        if policy.replicas > 1:
            work = Collective(kind="all_reduce", axis="replicate", size=size / policy.ranks)
            after = self.block.side(f"all-reduce shard {self.number}", work, "dp", "B", "dp", deps=(after,))
        return after


def _cast(params: int, source: int, target: int) -> Kernel:
    return Kernel(
        name="cast gradients",
        kind="elementwise",
        flops=float(params),
        bytes_read=float(params * source),
        bytes_written=float(params * target),
    )
