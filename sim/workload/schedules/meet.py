"""Where ranks meet: do both come in the same order? Of schedules that are whole and can end.

Messages between two stages go one after another over one channel, first sent, first received; so a stage takes
microbatches in the order in which its neighbour makes them. With two copies of the parameters the two ranks that hold
the same stages reduce their gradients together, stage by stage as each is done, so both come to their stages alike.
"""

from __future__ import annotations

from collections.abc import Iterator

from sim.workload.schedules.types import Fault, Schedule, ScheduleAction

_Seen = dict[tuple[int, bool, int], list[tuple[int, ScheduleAction]]]


def meetings(schedule: Schedule) -> Iterator[Fault]:
    """The first message of each boundary that is taken out of turn, and partners that reduce in different order."""
    passes = _passes(schedule)
    for (stage, forward, direction), taken in passes.items():
        before = stage - 1 if forward else stage + 1
        if not 0 <= before < schedule.stages:
            continue
        home, there = schedule.home_in(stage, direction), schedule.home_in(before, direction)
        if home == there:
            continue
        for (position, part), (_, made) in zip(taken, passes[before, forward, direction], strict=True):
            if part.microbatch != made.microbatch:
                what = f"rank {home}, action {position}: {part} comes where {made} is the next message"
                rule = f"of stage {before}, and messages between two stages keep their order"
                yield Fault(home, position, f"{what} {rule}; take microbatches in the same order on both stages")
                break
    yield from _reductions(schedule)


def _passes(schedule: Schedule) -> _Seen:
    """Forwards, and input gradients or whole backwards, of each stage and direction in their order."""
    found: _Seen = {}
    for order in schedule.orders:
        for position, action in enumerate(order):
            for part in action.parts:
                if part.kind != "W":
                    key = (part.stage, part.kind == "F", schedule.direction(part.microbatch))
                    found.setdefault(key, []).append((position, part))
    return found


def _reductions(schedule: Schedule) -> Iterator[Fault]:
    """Ranks that hold the same stages finish their gradients in the same order."""
    if schedule.copies == 1:
        return
    for rank in range(schedule.ranks):
        other = schedule.partner(rank)
        mine, theirs = _finished(schedule, rank), _finished(schedule, other)
        for (stage, position), (elsewhere, _) in zip(mine, theirs, strict=True):
            if rank < other and stage != elsewhere:
                what = f"rank {rank}, action {position}: the gradients of stage {stage} are complete here"
                rule = f"where rank {other}, which reduces them together with this rank, completes stage {elsewhere}"
                yield Fault(rank, position, f"{what} {rule}; end both ranks with their stages in the same order")
                break


def _finished(schedule: Schedule, rank: int) -> list[tuple[int, int]]:
    """(stage, position of its last weight gradients) on a rank, first finished first."""
    last: dict[int, int] = {}
    for position, action in enumerate(schedule.orders[rank]):
        for part in action.parts:
            if part.kind in ("B", "W"):
                last[part.stage] = position
    return sorted(last.items(), key=lambda item: (item[1], item[0]))
