"""Is a schedule sound? Every action where it belongs and once, in an order that can end."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

from sim.errors import Problem, ScenarioError
from sim.workload.schedules.dry_run import Durations, advance, waits
from sim.workload.schedules.grid import marked
from sim.workload.schedules.meet import meetings
from sim.workload.schedules.types import Fault, Order, Schedule, ScheduleAction

SHOWN = 20  # problems that an error lists
FOUND = 1000  # problems that are looked for
DRAWN = 3  # of them with the grid
UNIT = Durations(f=1.0, i=1.0, w=1.0, overlap=3.0)


def validate(schedule: Schedule) -> list[Fault]:
    """What is wrong with a schedule (the first 1000 things), by rank and position; empty if it is sound.

    Of a schedule that is whole and cannot end, where each rank is stuck.
    """
    found = list(_shape(schedule))
    if found:
        return found
    cells = (fault for rank, order in enumerate(schedule.orders) for fault in _cells(schedule, rank, order))
    found = list(islice(chain(cells, _missing(schedule)), FOUND))
    if not found:
        found = [Fault(*wait) for wait in waits(schedule, advance(schedule, UNIT))]
    if not found:
        found = [*meetings(schedule)]
    return sorted(found)[:FOUND]


def check(schedule: Schedule) -> None:
    """Return if the schedule is sound.

    Raises:
        ScenarioError: otherwise; the first problems with the orders around them, the cell marked ``<-- here``.
    """
    found = validate(schedule)
    if found:
        raise ScenarioError([Problem(f"schedule {schedule.name}", 0, 0, "", what) for what in said(schedule, found)])


def said(schedule: Schedule, found: list[Fault]) -> list[str]:
    """The faults in words, the first of them drawn, and how many are left out."""
    texts = [fault.what for fault in found[:SHOWN]]
    for i, fault in enumerate(found[:DRAWN]):
        if 0 <= fault.rank < schedule.ranks:
            texts[i] += "\n" + marked(schedule, {(fault.rank, fault.position)})
    if len(found) > SHOWN:
        least = "at least " if len(found) == FOUND else ""
        texts[-1] += f" (and {least}{len(found) - SHOWN} more problems)"
    return texts


def _shape(schedule: Schedule) -> Iterator[Fault]:
    ranks = schedule.ranks
    if not (ranks and schedule.stages and schedule.microbatches > 0):
        yield Fault(-1, 0, "a schedule needs at least one rank, one stage and one microbatch")
    for stage, rank in enumerate(schedule.rank_of_stage):
        if not 0 <= rank < ranks:
            yield Fault(-1, 0, f"stage {stage} lives on rank {rank}, but there are {ranks} ranks")
    held = set(schedule.rank_of_stage)
    for rank in range(ranks):
        if rank not in held and not schedule.orders[rank]:
            yield Fault(rank, 0, f"rank {rank} does nothing and holds no stage; leave it out")
    if schedule.copies not in (1, 2):
        yield Fault(-1, 0, f"{schedule.copies} copies of the parameters; there may be 1, or 2 in opposite directions")
    elif schedule.copies == 2 and schedule.microbatches % 2:
        yield Fault(-1, 0, f"two copies share the microbatches evenly, and {schedule.microbatches} is odd")
    if schedule.copies == 2:
        yield from _partners(schedule)


def _partners(schedule: Schedule) -> Iterator[Fault]:
    """With two copies each rank holds its stages together with one other rank: they reduce their gradients together."""
    homes = schedule.rank_of_stage
    of: dict[int, int] = {}
    for stage, rank in enumerate(homes):
        other = homes[-1 - stage]
        if of.setdefault(rank, other) != other:
            what = f"rank {rank} shares stages with rank {of[rank]} and stage {stage} with rank {other}"
            yield Fault(-1, 0, f"{what}; with two copies the stages of a rank are mirrored on one other rank")


def _cells(schedule: Schedule, rank: int, order: Order) -> Iterator[Fault]:
    """Faults of single actions: not a stage of this rank, done before, or before what it follows from."""
    seen: dict[tuple[int, str, int], int] = {}
    for position, action in enumerate(order):
        at = f"rank {rank}, action {position}: "
        if (action.kind == "OVERLAP") != bool(action.pair) or (
            action.pair and [part.kind for part in action.pair] != ["F", "B"]
        ):
            yield Fault(rank, position, f"{at}an overlap holds a forward and a backward, nothing else does")
            continue
        for part in action.parts:
            what = _wrong(schedule, rank, part, seen)
            if what:
                yield Fault(rank, position, f"{at}{what}")
        for stage, kind, k, _ in action.parts:
            seen.setdefault((stage, kind, k), position)


def _wrong(schedule: Schedule, rank: int, part: ScheduleAction, seen: dict[tuple[int, str, int], int]) -> str:
    stage, kind, k, _ = part
    if not (0 <= stage < schedule.stages and 0 <= k < schedule.microbatches):
        have = f"stages 0 to {schedule.stages - 1} and microbatches 0 to {schedule.microbatches - 1}"
        return f"{part} is not there: the schedule has {have}"
    if schedule.home(stage, k) != rank:
        return f"{part} belongs to rank {schedule.home(stage, k)}"
    # An action excludes itself; a whole backward and its parts exclude each other.
    for other in {"F": "F", "B": "BIW", "I": "IB", "W": "WB"}[kind]:
        if (stage, other, k) in seen:
            first = f"{stage}{other}{k} was done as action {seen[stage, other, k]}"
            return f"{part} is done twice: {first}" if other == kind else f"{part} is too much: {first}"
    before = {"F": "", "B": "F", "I": "F", "W": "I"}[kind]
    if before and (stage, before, k) not in seen:
        return f"{part} comes before {stage}{before}{k}"
    return ""


def _missing(schedule: Schedule) -> Iterator[Fault]:
    has = {part[:3] for order in schedule.orders for action in order for part in action.parts}
    for stage in range(schedule.stages):
        for k in range(schedule.microbatches):
            rank = schedule.home(stage, k)
            end = len(schedule.orders[rank])
            if (stage, "F", k) not in has:
                yield Fault(rank, end, f"rank {rank}: {stage}F{k} is missing")
            if (stage, "B", k) in has or ((stage, "I", k) in has and (stage, "W", k) in has):
                continue
            lacks = next((f"{stage}{kind}{k}" for kind in "IW" if (stage, kind, k) not in has), "")
            if (stage, "I", k) in has or (stage, "W", k) in has:
                yield Fault(rank, end, f"rank {rank}: {lacks} is missing")
            else:
                yield Fault(rank, end, f"rank {rank}: {stage}B{k} (or {stage}I{k} and {stage}W{k}) is missing")
