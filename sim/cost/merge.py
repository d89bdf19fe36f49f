"""Runs of kernels as one op: the same times with a tenth of the events.

Owns the merging of consecutive compute ops that nothing can come between: no one waits for an inner one, none waits for
anything but the one before, and they belong to the same line of the breakdown. Alone, the merged op ends exactly when
the last of its kernels would: kernels run back to back, or as the host launches them, whichever is later. What is
given up: under contention it has the average load of its kernels, and its memory is taken at its start and given back
at its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from sim.cost.kernels import KernelCost
from sim.workload.ops import Kernel, Op


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Kernels one after another: seconds in all, those bound by arithmetic, bytes, FLOPs, the pull of launches.

    ``reach`` is the time from the first launch to the end of the last kernel on a GPU that only ever waits for
    launches.
    """

    kernels: int
    duration: float
    arithmetic: float
    moved: float
    flops: float
    reach: float


def runs(ops: Sequence[Op]) -> list[list[int]]:
    """Indexes of a block's ops, those that can be one op together."""
    waited = {dep for op in ops for dep in op.deps}
    found: list[list[int]] = []
    for index, op in enumerate(ops):
        if found and _follows(ops[found[-1][-1]], op) and found[-1][-1] not in waited:
            found[-1].append(index)
        else:
            found.append([index])
    return found


def _follows(before: Op, op: Op) -> bool:
    """Whether ``op`` can only run right after ``before``, and counts as the same."""
    kernels = isinstance(before.work, Kernel) and isinstance(op.work, Kernel)
    alike = (before.stream, before.category, before.phase) == (op.stream, op.category, op.phase)
    return kernels and alike and not (op.deps or op.waits or before.signals or before.sync)


def joined(
    kernels: Sequence[Kernel],
    costs: Sequence[KernelCost],
    launch: float,
    speeds: tuple[float, float],
    *,
    blocking: bool = False,
) -> Run:
    """One run. ``launch`` is the host's time for one kernel, ``speeds`` of SMs and HBM against the usual ones.

    ``blocking``: the host waits for each kernel before it launches the next.
    """
    sm, hbm = speeds
    durations = [cost.duration / (sm if cost.bound_by == "sm" else hbm) for cost in costs]
    arithmetic = sum(d for d, cost in zip(durations, costs, strict=True) if cost.bound_by == "sm")
    rest = reach = sum(durations)
    for number, (before, _) in enumerate(pairwise(durations), start=1):
        rest -= before
        reach = max(reach, number * launch + rest)
    if blocking:
        reach = sum(durations) + (len(durations) - 1) * launch
    return Run(
        kernels=len(kernels),
        duration=sum(durations),
        arithmetic=arithmetic,
        moved=sum(k.bytes_read + k.bytes_written for k in kernels),
        flops=sum(k.flops for k in kernels),
        reach=reach if len(kernels) > 1 else 0.0,
    )
