"""1F1B orders whose backwards run together with the forwards after them: exchanges of one hide under the other.

Megatron-Core's overlap_moe_expert_parallel_comm: the warm-up is one forward longer, and from then on a forward and the
backward of an earlier microbatch are one action, also on a single rank. One more microbatch is in flight.
"""

from __future__ import annotations

from dataclasses import replace

from sim.workload.schedules.types import Order, Schedule, ScheduleAction, overlap


def paired(schedule: Schedule) -> Schedule:
    """The schedule with every backward that a forward follows joined to that forward."""
    return replace(schedule, orders=tuple(_paired(order) for order in schedule.orders))


def _paired(order: Order) -> Order:
    found: list[ScheduleAction] = []
    for action in order:
        if found and action.kind == "F" and found[-1].kind == "B":
            found.append(overlap(action, found.pop()))
        else:
            found.append(action)
    return tuple(found)
