"""Runs of kernels as one op: the same times with a tenth of the events.

Owns the merging of consecutive compute ops that nothing can come between: no one waits for an inner one, none waits for
anything but the one before, and they belong to the same layer and line of the breakdown. Alone, the merged op ends
exactly when the last of its kernels would: kernels run back to back, or as the host launches them, whichever is
later. Under contention it has the average load of its kernels, which is what is given up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from sim.plan import PlanOp
from sim.timeline.columns import OpRow

Pair = tuple[PlanOp, OpRow]
KERNELS = ("gemm", "attention", "elementwise", "embedding", "optimizer")


def merge(pairs: Sequence[Pair]) -> list[Pair]:
    """The block with runs of kernels merged; dependencies renumbered."""
    waited = {dep for plan, _ in pairs for dep in plan.deps}
    runs: list[list[int]] = []
    for index in range(len(pairs)):
        if runs and _follows(pairs, runs[-1][-1], index, waited):
            runs[-1].append(index)
        else:
            runs.append([index])
    number = {index: new for new, run in enumerate(runs) for index in run}
    merged = []
    for run in runs:
        plan, row = _join([pairs[i] for i in run]) if len(run) > 1 else pairs[run[0]]
        merged.append((replace(plan, deps=tuple(number[d] for d in plan.deps)), row))
    return merged


def _follows(pairs: Sequence[Pair], before: int, index: int, waited: set[int]) -> bool:
    """Whether op ``index`` can only run right after op ``before``, and nobody can tell them apart."""
    (first, above), (plan, row) = pairs[before], pairs[index]
    alike = row.kind in KERNELS and above.kind in KERNELS and row.stream == above.stream
    alike = alike and (row.category, row.phase, row.layer) == (above.category, above.phase, above.layer)
    free = not (plan.deps or plan.waits or first.signals or first.sync or before in waited)
    quiet = all(e.at_end for e in row.memory) and not any(e.at_end for e in above.memory)
    return alike and free and quiet


def _join(run: Sequence[Pair]) -> Pair:
    plans, rows = [plan for plan, _ in run], [row for _, row in run]
    duration = sum(plan.duration for plan in plans)
    loads: dict[int, float] = {}
    demands: dict[int, float] = {}
    bound: dict[int, float] = {}
    for plan, row in run:
        for r, load in plan.loads:
            loads[r] = loads.get(r, 0.0) + load * plan.duration / duration
        for r, amount in row.demands:
            demands[r] = demands.get(r, 0.0) + amount
        bound[row.bound_by] = bound.get(row.bound_by, 0.0) + plan.duration
    plan = replace(
        plans[0],
        duration=duration,
        loads=tuple(loads.items()),
        launch_rest=sum(plan.launch for plan in plans[1:]),
        reach=_reach(plans),
        signals=plans[-1].signals,
        sync=plans[-1].sync,
    )
    row = replace(
        rows[0],
        name=f"{rows[0].name} ... {rows[-1].name}",
        kind="kernels",
        flops=sum(row.flops for row in rows),
        size=sum(row.size for row in rows),
        duration=duration,
        bound_by=max(bound, key=lambda r: (bound[r], -r)),
        demands=tuple(demands.items()),
        memory=tuple(effect for row in rows for effect in row.memory),
        kernels=len(rows),
    )
    return plan, row


def _reach(plans: Sequence[PlanOp]) -> float:
    """Seconds from the first launch to the end of the last kernel on a GPU that only ever waits for launches.

    The last kernel ends no earlier than the launch of any kernel k plus the durations from k on.
    """
    rest = sum(plan.duration for plan in plans)
    launched, reach = 0.0, rest
    for before, plan in pairwise(plans):
        rest -= before.duration
        launched += plan.launch
        reach = max(reach, launched + rest)
    return reach
