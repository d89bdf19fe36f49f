"""How gradients move: which process group reduces which part, and what leaves the GPU.

Owns the reading of layout, precision and offload into one small record a part of the parameters; what happens with it
is written in ``grads``, ``gather`` and ``step_end``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sim.spec.types import DTYPE_BYTES, Scenario
from sim.workload.recipes import RECIPES
from sim.workload.shares import Held
from sim.workload.units import Unit

EXPERT_TENSORS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientPolicy:
    """How the gradients of one part of the parameters move: of routed ``experts``, or of the rest.

    ``axis`` names the process group that reduces them, of ``ranks`` ranks that hold shards; ``replicas`` groups of such
    ranks hold copies (HSDP). ``offload``: they go to host memory, with ``last`` microbatches only or with each.
    ``transient``: gradients exist only from backward to the end of their reduction or copy. Bytes of a gradient:
    ``grad_bytes`` as stored, ``new_bytes`` as autograd makes it, ``wire_bytes`` in collectives, ``link_bytes`` on the
    way to the host. ``shard_bytes`` of a parameter in its shard. ``copies``: passes over whole gradients before they
    are reduced, as ``StackSpec.zero3_copies`` says.
    """

    axis: str
    ranks: int
    replicas: int
    kind: Literal["all_reduce", "reduce_scatter"] | None
    overlap: bool
    offload: Literal["none", "each", "last"]
    transient: bool
    bucket: float  # bytes on the wire, of the whole bucket
    grad_bytes: int
    wire_bytes: int
    link_bytes: int
    new_bytes: int
    shard_bytes: int
    copies: Literal["none", "flat", "per_parameter"] = "none"
    experts: bool = False

    @property
    def idle(self) -> bool:
        """Nothing to do: one rank, gradients stay where they are."""
        return self.kind is None and self.offload == "none"

    def params(self, held: Held) -> int:
        """The parameters that this policy is for."""
        return held.experts if self.experts else held.params - held.experts

    def gathered(self, held: Held, scenario: Scenario) -> float:
        """Bytes in which these parameters travel to be whole: 16 bits, or the recipe's form.

        Nobody sends fp4, or fp8 with a scale a row.
        """
        width, recipe = scenario.precision.param_bytes, scenario.precision.fp8
        whole = float(self.params(held) * width)
        if not scenario.stack.narrow_param_gather or recipe in ("none", "nvfp4", "rowwise"):
            return whole
        narrow = min(self.params(held), held.experts if self.experts else max(0, held.narrow - held.experts))
        return whole - narrow * (width - RECIPES[recipe].weight)

    def tensors(self, unit: Unit) -> int:
        """The tensors of a unit that this policy is for; of all experts there are two, up (with gate) and down."""
        of_experts = EXPERT_TENSORS if unit.experts else 0
        return of_experts if self.experts else unit.tensors - of_experts


def sharded_master(scenario: Scenario) -> bool:
    """Whether a rank's shards of the parameters are the fp32 master weights, with no 16-bit copy beside them (FSDP)."""
    here = scenario.offload.optimizer == "none" and scenario.offload.parameters == "none"
    return scenario.stack.sharded_master and scenario.layout.zero == 3 and scenario.precision.master and here


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
    layout, precision, offload = scenario.layout, scenario.precision, scenario.offload
    replicas = layout.dp_replicate if layout.zero >= 1 and not experts else 1
    everyone = (layout.expert_replicas if experts else layout.dp * layout.cp) * layout.copies
    kind: Literal["all_reduce", "reduce_scatter"] | None = None
    if everyone > 1:
        kind = "all_reduce" if layout.zero == 0 else "reduce_scatter"
    moves: Literal["none", "each", "last"] = "none"
    if offload.gradients == "cpu":
        moves = "last" if offload.accumulate == "gpu" else "each"
    stored = DTYPE_BYTES[precision.grads]
    copies = scenario.stack.zero3_copies if layout.zero == 3 and everyone > 1 and moves == "none" else "none"
    return GradientPolicy(
        axis="edp" if experts else "dp" if replicas == 1 else "shard",
        ranks=everyone // replicas,
        replicas=replicas,
        kind=kind,
        overlap=layout.overlap_grad_reduce,
        offload=moves,
        transient=(layout.zero >= 2 and everyone > 1) or moves == "each",
        bucket=layout.grad_bucket,
        grad_bytes=stored,
        wire_bytes=DTYPE_BYTES[precision.grad_comm],
        link_bytes=DTYPE_BYTES["fp32"] if offload.casts == "gpu" else stored,
        new_bytes=stored if copies == "none" else precision.param_bytes,
        shard_bytes=DTYPE_BYTES["fp32"] if sharded_master(scenario) else precision.param_bytes,
        copies=copies,
        experts=experts,
    )
