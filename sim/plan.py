"""What the engine is asked to run: ops with a latency, a duration and loads on resources, in streams.

The cost room writes a ``Plan``, the engine reads it, and neither sees the other. A plan knows no model and no
device: only numbers, and tables of names that travel on to the timeline.

A *rank class* stands for ``members`` ranks that live the same life (design §3). A resource of the plan is the
representative of a class of equal resources. A load is the share (0..) of a resource's capacity that the activity takes
at full speed, summed over all members of the activity's class that meet that resource; alone, it runs for ``duration``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from sim.timeline.columns import OpRow, RankClassRow, ResourceRow


class PlanOp(msgspec.Struct, frozen=True, kw_only=True):
    """One op template of one rank class.

    ``row`` indexes ``Plan.ops``; ``latency`` and ``duration`` in seconds; ``loads`` pairs of (resource index, load);
    ``weight`` its share when resources are contended; ``launch`` seconds of the host thread; ``deps`` indexes of
    earlier ops in the block; ``waits`` and ``signals`` token numbers; ``group`` its rendezvous (-1: none). An op that
    stands for several kernels takes ``launch_rest`` more of the host after the first launch, and ends no earlier than
    ``reach`` after it.
    """

    row: int
    stream: int
    latency: float
    duration: float
    loads: tuple[tuple[int, float], ...]
    weight: float = 1.0
    launch: float = 0.0
    launch_rest: float = 0.0
    reach: float = 0.0
    kernels: int = 1
    deps: tuple[int, ...] = ()
    waits: tuple[int, ...] = ()
    signals: tuple[int, ...] = ()
    sync: bool = False
    group: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class RankPlan:
    """The program of one rank class: op templates by block, and the (block, microbatch) actions in order."""

    blocks: tuple[tuple[PlanOp, ...], ...]
    actions: tuple[tuple[int, int], ...]
    streams: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything the engine needs.

    ``group_sizes[g]`` is how many rank classes meet at rendezvous g; ``token_names`` is for messages only.
    ``launch_queue`` is how many launched, unfinished kernels a rank's host may be ahead by.
    """

    ranks: tuple[RankPlan, ...]
    group_sizes: tuple[int, ...]
    token_names: tuple[str, ...]
    ops: tuple[OpRow, ...]
    rank_classes: tuple[RankClassRow, ...]
    resources: tuple[ResourceRow, ...]
    stream_names: tuple[str, ...]
    launch_queue: int = 1024


def quicker(plan: Plan, by: float) -> Plan:
    """The plan with every latency (starts and hops of exchanges, starts of copies) divided by ``by``."""
    return replace(
        plan,
        ranks=tuple(
            replace(
                rank,
                blocks=tuple(
                    tuple(msgspec.structs.replace(op, latency=op.latency / by) if op.latency else op for op in block)
                    for block in rank.blocks
                ),
            )
            for rank in plan.ranks
        ),
        ops=tuple(msgspec.structs.replace(row, latency=row.latency / by) if row.latency else row for row in plan.ops),
    )
