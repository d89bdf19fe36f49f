"""ZeRO 1 and 2: the parameters that other ranks updated, gathered under the next forward instead of after the update.

Owns when those gathers run with ``overlap_param_gather`` (Megatron-LM's ``--overlap-param-gather``). A step in its
steady state begins with every rank's own part updated, and ends when that is so again; the first forward of each stage
gathers the parts of the others, bucket by bucket in the order of its units. A unit waits for its bucket and the next
ones arrive meanwhile. Nothing holds a gather back but the one before it: later stages of a pipeline gather while it
fills, for which Megatron-LM sends theirs off at once, in one bucket. What arrives replaces the old parameters in place:
no memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.spec.types import Scenario
from sim.workload.block import BlockBuilder
from sim.workload.ops import Collective
from sim.workload.policy import GradientPolicy
from sim.workload.units import Unit


def refresh(
    block: BlockBuilder, units: Sequence[Unit], policy: GradientPolicy, *, scenario: Scenario
) -> dict[int, int]:
    """Issue the gathers of one stage, of the parameters of one ``policy``: position of a unit -> the op it waits for.

    A bucket takes whole units and is full once it has ``gather_bucket`` bytes or more.
    """
    number, sizes = _buckets(
        [policy.gathered(unit, scenario) for unit in units], scenario.layout.gather_bucket
    )
    what = "experts" if policy.experts else "parameters"
    issued = []
    for count, size in enumerate(sizes, start=1):
        work = Collective(kind="all_gather", axis=policy.axis, size=size)
        issued.append(block.side(f"all-gather {what} {count}/{len(sizes)}", work, "gather", "F", "param_gather"))
    return {position: issued[mine] for position, mine in number.items()}


def _buckets(held: Sequence[float], bucket: float) -> tuple[dict[int, int], list[float]]:
    """Bucket of each unit that holds bytes, bytes of each bucket."""
    number: dict[int, int] = {}
    sizes: list[float] = []
    for position, size in enumerate(held):
        if size > 0.0:
            if not sizes or sizes[-1] >= bucket:
                sizes.append(0.0)
            number[position] = len(sizes) - 1
            sizes[-1] += size
    return number, sizes
