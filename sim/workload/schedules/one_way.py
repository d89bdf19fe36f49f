"""GPipe, 1F1B and interleaved 1F1B: one direction, whole backwards, stages round robin over ranks.

Each function gives the order of actions; p is the number of pipeline ranks, m of microbatches, v of stages a rank
holds.
"""

from __future__ import annotations

from sim.workload.schedules.refuse import refuse, require_sizes
from sim.workload.schedules.types import Order, Schedule, ScheduleAction


def gpipe(p: int, m: int, v: int = 1) -> Schedule:
    """All forwards, then all backwards, last microbatch first (Huang et al. 2019). Keeps m microbatches in flight."""
    require_sizes("gpipe", p, m, v, only=1)
    orders = tuple(
        tuple([ScheduleAction(s, "F", k) for k in range(m)] + [ScheduleAction(s, "B", k) for k in reversed(range(m))])
        for s in range(p)
    )
    return Schedule(name="gpipe", rank_of_stage=tuple(range(p)), microbatches=m, orders=orders)


def one_f_one_b(p: int, m: int, v: int = 1) -> Schedule:
    """One forward, one backward in turn (PipeDream-Flush): stage s keeps at most p - s microbatches in flight."""
    require_sizes("1f1b", p, m, v, only=1)
    return Schedule(
        name="1f1b",
        rank_of_stage=tuple(range(p)),
        microbatches=m,
        orders=tuple(alternate(s, m, p - s - 1) for s in range(p)),
    )


def alternate(stage: int, m: int, warmup: int) -> Order:
    """``warmup`` forwards, then a forward and a backward in turn, then the backwards that are left."""
    warmup = min(warmup, m)
    order = [ScheduleAction(stage, "F", k) for k in range(warmup)]
    for k in range(m - warmup):
        order += (ScheduleAction(stage, "F", warmup + k), ScheduleAction(stage, "B", k))
    return tuple(order + [ScheduleAction(stage, "B", k) for k in range(m - warmup, m)])


def interleaved(p: int, m: int, v: int) -> Schedule:
    """Interleaved 1F1B (Narayanan et al. 2021): rank r holds stages r, r + p, ..., r + (v-1)p; m is a multiple of p.

    Microbatches go through a rank in groups of p: the group on its first stage, then on its second, and so on.
    Warm-up is 2(p - r - 1) + (v - 1)p forwards, as in Megatron-LM (at most all mv).

    Raises:
        ScenarioError: v below 2 (that is 1f1b), or m not a multiple of p.
    """
    require_sizes("interleaved", p, m, v)
    if v < 2:
        refuse("interleaved", p, m, f"v = {v} stage a rank leaves nothing to interleave; set v to 2, or use 1f1b")
    if m % p:
        near = f"{m - m % p} or {m - m % p + p}" if m > p else f"{p}"
        rule = f"microbatches go in groups of p = {p}, and m = {m} is not a multiple"
        refuse("interleaved", p, m, f"{rule}; set m to {near}, or use 1f1b")
    orders = tuple(_interleave(r, p, m, v) for r in range(p))
    return Schedule(name="interleaved", rank_of_stage=tuple(s % p for s in range(p * v)), microbatches=m, orders=orders)


def _interleave(rank: int, p: int, m: int, v: int) -> Order:
    passes = [
        (chunk * p + rank, group + within) for group in range(0, m, p) for chunk in range(v) for within in range(p)
    ]
    forwards = [ScheduleAction(stage, "F", k) for stage, k in passes]
    # Backwards visit the stages of a rank from the last to the first.
    backwards = [ScheduleAction((v - 1) * p + 2 * rank - stage, "B", k) for stage, k in passes]
    warmup = min(2 * (p - rank - 1) + (v - 1) * p, m * v)
    order = forwards[:warmup]
    for pair in zip(forwards[warmup:], backwards, strict=False):  # the backwards beyond are the cool-down
        order += pair
    return tuple(order + backwards[m * v - warmup :])
