"""Is a schedule sound, and what does it look like? Validation and the grid, by a dry run in unit times."""

from __future__ import annotations

from dataclasses import dataclass

from sim.workload.schedules.types import Schedule, ScheduleAction


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """Start and end of every action, by rank in order; seconds in the unit of the durations given."""

    times: tuple[tuple[tuple[float, float], ...], ...]
    makespan: float
    in_flight: tuple[int, ...]  # most microbatches (over its stages) whose activations a rank holds at once


def dry_run(schedule: Schedule, durations: dict[str, float]) -> DryRun | None:
    """Run the schedule with free messages; None where it cannot end. ``durations`` by action kind."""
    done: dict[ScheduleAction, float] = {}
    cursor, clock = [0] * schedule.ranks, [0.0] * schedule.ranks
    times: list[list[tuple[float, float]]] = [[] for _ in schedule.orders]
    moved = True
    while moved:
        moved = False
        for rank, order in enumerate(schedule.orders):
            while cursor[rank] < len(order):
                action = order[cursor[rank]]
                ready = _ready(action, schedule, done)
                if ready is None:
                    break
                start = max(clock[rank], ready)
                clock[rank] = done[action] = start + durations[action.kind]
                times[rank].append((start, clock[rank]))
                cursor[rank] += 1
                moved = True
    if any(at < len(order) for at, order in zip(cursor, schedule.orders, strict=True)):
        return None
    return DryRun(
        times=tuple(tuple(rows) for rows in times),
        makespan=max(clock),
        in_flight=tuple(_in_flight(order) for order in schedule.orders),
    )


def _ready(action: ScheduleAction, schedule: Schedule, done: dict[ScheduleAction, float]) -> float | None:
    """When everything that the action needs has ended; None while it has not."""
    stage, kind, k = action
    if kind == "F":
        needs = [[ScheduleAction(stage - 1, "F", k)]] if stage else []
    elif kind == "W":
        needs = [[ScheduleAction(stage, "I", k)]]
    else:
        needs = [[ScheduleAction(stage, "F", k)]]
        if stage + 1 < schedule.stages:
            needs.append([ScheduleAction(stage + 1, "B", k), ScheduleAction(stage + 1, "I", k)])
    ends = [next((done[a] for a in either if a in done), None) for either in needs]
    return None if any(end is None for end in ends) else max([0.0, *(end for end in ends if end is not None)])


def _in_flight(order: tuple[ScheduleAction, ...]) -> int:
    held = most = 0
    for action in order:
        held += {"F": 1, "B": -1, "I": 0, "W": -1}[action.kind]
        most = max(most, held)
    return most


def problems(schedule: Schedule) -> list[str]:
    """What is wrong with a schedule, in words; empty if it is sound."""
    found = []
    for rank, order in enumerate(schedule.orders):
        seen: dict[ScheduleAction, int] = {}
        for position, action in enumerate(order):
            if not (0 <= action.stage < schedule.stages and 0 <= action.microbatch < schedule.microbatches):
                found.append(f"rank {rank}, action {position}: {action} names a stage or microbatch that is not there")
            elif schedule.rank_of_stage[action.stage] != rank:
                home = schedule.rank_of_stage[action.stage]
                found.append(f"rank {rank}, action {position}: {action} belongs to rank {home}")
            if action in seen:
                found.append(f"rank {rank}, action {position}: {action} was done before, as action {seen[action]}")
            seen.setdefault(action, position)
        found += _missing(schedule, rank, seen)
    if not found and dry_run(schedule, {"F": 1.0, "B": 2.0, "I": 1.0, "W": 1.0}) is None:
        found.append("the order deadlocks: some action waits for one that comes after it\n" + grid(schedule))
    return found


def _missing(schedule: Schedule, rank: int, seen: dict[ScheduleAction, int]) -> list[str]:
    found = []
    for stage in [s for s in range(schedule.stages) if schedule.rank_of_stage[s] == rank]:
        for k in range(schedule.microbatches):
            has = {kind: ScheduleAction(stage, kind, k) in seen for kind in ("F", "B", "I", "W")}
            if not has["F"]:
                found.append(f"rank {rank}: {stage}F{k} is missing")
            if has["B"] == (has["I"] and has["W"]) or has["I"] != has["W"]:
                found.append(f"rank {rank}: {stage}B{k}, or {stage}I{k} and {stage}W{k}, must occur once")
    return found


def grid(schedule: Schedule) -> str:
    """A row a rank, a column a unit of time (a whole backward takes two); dots are idle."""
    run = dry_run(schedule, {"F": 1.0, "B": 2.0, "I": 1.0, "W": 1.0})
    if run is None:
        return "\n".join(" ".join(str(a) for a in order) for order in schedule.orders)
    width = max(len(str(a)) for order in schedule.orders for a in order) + 1
    lines = []
    for order, times in zip(schedule.orders, run.times, strict=True):
        cells = ["."] * round(run.makespan)
        for action, (start, end) in zip(order, times, strict=True):
            for column in range(round(start), round(end)):
                cells[column] = str(action)
        lines.append("".join(cell.ljust(width) for cell in cells).rstrip())
    return "\n".join(lines)
