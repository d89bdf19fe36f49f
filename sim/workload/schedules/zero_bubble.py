"""Zero-bubble schedules: a backward in two parts, input gradients (I) first, weight gradients (W) where there is room.

Nobody waits for W, so it fills what would be idle time. H1 is 1F1B with W put off; V gives each rank two stages, one on
the way down and one on the way up, so that the rank which starts first also ends with the model's last stage.
"""

from __future__ import annotations

from sim.workload.schedules.one_way import alternate
from sim.workload.schedules.refuse import require_sizes
from sim.workload.schedules.types import ActionKind, Order, Schedule, ScheduleAction


def zb_h1(p: int, m: int, v: int = 1) -> Schedule:
    """Zero bubble H1 (Qi et al. 2023, §2.1): 1F1B with weight gradients put off by the stage's number.

    A later stage has more time between its last input gradient and the end; it fills it with weight gradients. No rank
    keeps more than min(p, m) microbatches, 1F1B's peak; the bubble is
    (p-1)(t_F + t_I - t_W) where m >= p and t_W <= t_I.
    """
    require_sizes("zb-h1", p, m, v, only=1)
    orders = tuple(_put_off(alternate(s, m, p - s - 1), s) for s in range(p))
    return Schedule(name="zb-h1", rank_of_stage=tuple(range(p)), microbatches=m, orders=orders)


def _put_off(order: Order, delay: int) -> Order:
    """Each B split: I in its place, W behind the I of ``delay`` microbatches later, the last Ws at the end."""
    split: list[ScheduleAction] = []
    stage, total = order[0].stage, len(order) // 2
    for action in order:
        if action.kind == "F":
            split.append(action)
            continue
        split.append(ScheduleAction(stage, "I", action.microbatch))
        if action.microbatch >= delay:
            split.append(ScheduleAction(stage, "W", action.microbatch - delay))
    return tuple(split + [ScheduleAction(stage, "W", k) for k in range(max(total - delay, 0), total)])


def zb_v(p: int, m: int, v: int = 2) -> Schedule:
    """Zero bubble V (Qi et al. 2023, §6): rank r holds stages r and 2p - 1 - r.

    Where t_F = t_I = t_W and m >= 2p - 1, no rank is idle between its first action and its last; ranks start one t_F
    apart, so the step takes 6m + p - 1 actions of a stage.

    Each rank keeps at most 2p activations of a stage, which is half a rank's layers: as much as rank 0 of 1F1B. A step
    of fewer than 2p - 1 microbatches is the longer schedule with the microbatches left out that it lacks.
    """
    require_sizes("zb-v", p, m, v, only=2)
    orders = tuple(tuple(a for a in _vee(r, p, max(m, 2 * p - 1)) if a.microbatch < m) for r in range(p))
    home = (*range(p), *reversed(range(p)))
    return Schedule(name="zb-v", rank_of_stage=home, microbatches=m, orders=orders)


class _Writer:
    """Appends actions on the two stages of a rank; each kind of action takes its microbatches in order."""

    def __init__(self, stages: tuple[int, int]) -> None:
        self.stages = stages
        self.order: list[ScheduleAction] = []
        self.next = {(side, kind): 0 for side in (0, 1) for kind in "FIW"}

    def add(self, side: int, *kinds: ActionKind) -> None:
        for kind in kinds:
            self.order.append(ScheduleAction(self.stages[side], kind, self.next[side, kind]))
            self.next[side, kind] += 1


def _vee(rank: int, p: int, m: int) -> list[ScheduleAction]:
    """The order of one rank for m >= 2p - 1: fill the V, one of each in turn, then drain with W left over."""
    write, down, up = _Writer((rank, 2 * p - 1 - rank)), 0, 1
    for _ in range(2 * (p - rank) - 1):
        write.add(down, "F")
    for _ in range(rank):
        write.add(up, "F")
        write.add(down, "F")
    for _ in range(p - rank):
        write.add(up, "F", "I", "W")
    while write.next[up, "F"] < m:
        if write.next[down, "F"] < m:
            write.add(down, "F")
        write.add(down, "I", "W")
        write.add(up, "F", "I", "W")
    for _ in range(rank):
        write.add(down, "I")
        write.add(up, "I")
    for _ in range(p - rank):
        write.add(down, "I", "W")
    for side in (up, down):
        while write.next[side, "W"] < m:
            write.add(side, "W")
    return write.order
