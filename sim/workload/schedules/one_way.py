"""GPipe, 1F1B, interleaved 1F1B and zero-bubble H1: one direction, stages round robin over ranks.

Each function gives the order of actions; p is the number of pipeline ranks, m of microbatches, v of stages a rank
holds.
"""

from __future__ import annotations

from sim.workload.schedules.types import Schedule, ScheduleAction

Order = tuple[ScheduleAction, ...]


def gpipe(p: int, m: int, v: int = 1) -> Schedule:
    """All forwards, then all backwards, last microbatch first (Huang et al. 2019). Keeps m microbatches in flight."""
    orders = tuple(
        tuple([ScheduleAction(s, "F", k) for k in range(m)] + [ScheduleAction(s, "B", k) for k in reversed(range(m))])
        for s in range(p)
    )
    return Schedule(name="gpipe", rank_of_stage=tuple(range(p)), microbatches=m, orders=orders)


def one_f_one_b(p: int, m: int, v: int = 1) -> Schedule:
    """One forward, one backward in turn (PipeDream-Flush): stage s keeps at most p - s microbatches in flight."""
    return Schedule(
        name="1f1b",
        rank_of_stage=tuple(range(p)),
        microbatches=m,
        orders=tuple(_alternate(s, m, min(p - s - 1, m)) for s in range(p)),
    )


def _alternate(stage: int, m: int, warmup: int) -> Order:
    order = [ScheduleAction(stage, "F", k) for k in range(warmup)]
    for k in range(m - warmup):
        order += [ScheduleAction(stage, "F", warmup + k), ScheduleAction(stage, "B", k)]
    return tuple(order + [ScheduleAction(stage, "B", k) for k in range(m - warmup, m)])


def interleaved(p: int, m: int, v: int) -> Schedule:
    """Interleaved 1F1B (Narayanan et al. 2021): rank r holds stages r, r + p, ..., r + (v-1)p; m is a multiple of p.

    Microbatches go through a rank in groups of p: the group on its first stage, then on its second, and so on.
    Warm-up is 2(p - r - 1) + (v - 1)p forwards, as in Megatron-LM.
    """
    total = m * v

    def virtual(rank: int, k: int, *, forward: bool) -> ScheduleAction:
        group, inside = divmod(k, p * v)
        chunk, within = divmod(inside, p)
        if not forward:
            chunk = v - 1 - chunk
        return ScheduleAction(chunk * p + rank, "F" if forward else "B", group * p + within)

    orders = []
    for rank in range(p):
        warmup = total if m == p else min((p - rank - 1) * 2 + (v - 1) * p, total)
        order = [virtual(rank, k, forward=True) for k in range(warmup)]
        for k in range(total - warmup):
            order += [virtual(rank, warmup + k, forward=True), virtual(rank, k, forward=False)]
        order += [virtual(rank, k, forward=False) for k in range(total - warmup, total)]
        orders.append(tuple(order))
    home = tuple(s % p for s in range(p * v))
    return Schedule(name="interleaved", rank_of_stage=home, microbatches=m, orders=tuple(orders))


def zb_h1(p: int, m: int, v: int = 1) -> Schedule:
    """Zero bubble H1 (Qi et al. 2023): 1F1B with weight gradients split off and put off by the stage's number.

    A later stage has more time between its last input gradient and the end; it fills it with weight gradients. Keeps as
    many microbatches in flight as 1F1B; the bubble is (p-1)(t_F + t_I - t_W).
    """
    orders = []
    for s in range(p):
        order: list[ScheduleAction] = []
        done = 0
        for action in _alternate(s, m, min(p - s - 1, m)):
            if action.kind == "F":
                order.append(action)
                continue
            order.append(ScheduleAction(s, "I", action.microbatch))
            if action.microbatch >= s:
                order.append(ScheduleAction(s, "W", done))
                done += 1
        order += [ScheduleAction(s, "W", k) for k in range(done, m)]
        orders.append(tuple(order))
    return Schedule(name="zb-h1", rank_of_stage=tuple(range(p)), microbatches=m, orders=tuple(orders))
