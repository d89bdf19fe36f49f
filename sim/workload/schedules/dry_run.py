"""A dry run of a schedule: equal stages, free messages, nothing shared. For checks, grids and oracles, not for results.

Dependencies: F(s) after F(s-1); I(s), or the whole B(s), after F(s) and after I or B of s+1; W after its I. An overlap
waits for what both of its actions need, and both end with it. Work grows with the number of actions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from sim.errors import DeadlockError
from sim.workload.schedules.types import Order, Schedule, ScheduleAction

Done = tuple[int, bool, int]  # stage, forward or input gradients, microbatch: what others wait for


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """Seconds (or any unit) of an action: F, I, W and of a forward and a whole backward run together."""

    f: float
    i: float
    w: float
    overlap: float

    def of(self, action: ScheduleAction) -> float:
        """Duration of an action; a whole backward is i + w."""
        kind = action.kind
        if kind == "F":
            return self.f
        if kind == "B":
            return self.i + self.w
        if kind == "OVERLAP":
            return self.overlap
        return self.i if kind == "I" else self.w


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """Start and end of every action, by rank in order, and what follows; times in the unit of the durations."""

    times: tuple[tuple[tuple[float, float], ...], ...]
    makespan: float
    busy: tuple[float, ...]
    in_flight: tuple[int, ...]  # by rank: most activations of a stage for a microbatch held at once, F to B or W


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a dry run came: times by rank, and for each rank that is stuck what it waits for."""

    times: tuple[tuple[tuple[float, float], ...], ...]
    blocked: tuple[tuple[int, Done], ...]  # rank, and what its next action lacks


def dry_run(schedule: Schedule, t_f: float, t_i: float, t_w: float, t_overlap: float | None = None) -> DryRun:
    """Run the schedule on equal stages: F takes t_f, I t_i, W t_w, B t_i + t_w.

    An overlap takes ``t_overlap``; None means t_f + t_i + t_w, nothing gained.

    Raises:
        DeadlockError: the orders wait for each other; each rank that is stuck, with its action and what that lacks.
    """
    durations = Durations(f=t_f, i=t_i, w=t_w, overlap=t_f + t_i + t_w if t_overlap is None else t_overlap)
    progress = advance(schedule, durations)
    if progress.blocked:
        raise DeadlockError("\n".join(what for _, _, what in waits(schedule, progress)))
    return DryRun(
        times=progress.times,
        makespan=max((rows[-1][1] for rows in progress.times if rows), default=0.0),
        busy=tuple(sum(durations.of(action) for action in order) for order in schedule.orders),
        in_flight=tuple(_in_flight(order) for order in schedule.orders),
    )


def advance(schedule: Schedule, durations: Durations) -> Progress:
    """Run as far as the schedule goes; a rank that waits is woken by what it waits for."""
    orders, last = schedule.orders, schedule.stages - 1
    ends: dict[Done, float] = {}
    sleepers: dict[Done, list[int]] = {}
    times: list[list[tuple[float, float]]] = [[] for _ in orders]
    ready = deque(range(len(orders)))
    while ready:
        rank = ready.popleft()
        rows, order = times[rank], orders[rank]
        while len(rows) < len(order):
            action = order[len(rows)]
            start = rows[-1][1] if rows else 0.0
            needs = list(_needs(action, last))
            missing = next((need for need in needs if need not in ends), None)
            if missing is not None:
                sleepers.setdefault(missing, []).append(rank)
                break
            start = max([start, *(ends[need] for need in needs)])
            rows.append((start, start + durations.of(action)))
            for done in _gives(action):
                ends[done] = rows[-1][1]
                ready.extend(sleepers.pop(done, ()))
    blocked = sorted((rank, need) for need, ranks in sleepers.items() for rank in ranks)
    return Progress(times=tuple(tuple(rows) for rows in times), blocked=tuple(blocked))


def _needs(action: ScheduleAction, last_stage: int) -> Iterator[Done]:
    for stage, kind, k, _ in action.parts:
        if kind == "F":
            if stage > 0:
                yield stage - 1, True, k
        elif kind == "W":
            yield stage, False, k
        else:
            yield stage, True, k
            if stage < last_stage:
                yield stage + 1, False, k


def _gives(action: ScheduleAction) -> Iterator[Done]:
    for stage, kind, k, _ in action.parts:
        if kind != "W":
            yield stage, kind == "F", k


def _in_flight(order: Order) -> int:
    held = most = 0
    for action in order:
        kinds = [part.kind for part in action.parts]
        held += kinds.count("F")
        most = max(most, held)
        held -= kinds.count("B") + kinds.count("W")
    return most


def waits(schedule: Schedule, progress: Progress) -> list[tuple[int, int, str]]:
    """Of each stuck rank: the rank, the position of its next action, and in words what that waits for."""
    wanted = {need for _, need in progress.blocked}
    doers = {
        done: (rank, position)
        for rank, order in enumerate(schedule.orders)
        for position, action in enumerate(order)
        for done in _gives(action)
        if done in wanted
    }
    said = []
    for rank, need in progress.blocked:
        position = len(progress.times[rank])
        stage, forward, k = need
        what = f"{stage}F{k}" if forward else f"the input gradients of microbatch {k} on stage {stage}"
        who = f"rank {doers[need][0]} does it as action {doers[need][1]}" if need in doers else "nobody does it"
        action = schedule.orders[rank][position]
        said.append((rank, position, f"rank {rank}, action {position}: {action} waits for {what}; {who}"))
    return said
