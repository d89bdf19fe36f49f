"""Schedules as text for people: over time (``grid``), or the bare orders with marks in them (``marked``)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import ceil

from sim.errors import Problem, ScenarioError
from sim.workload.schedules.dry_run import dry_run
from sim.workload.schedules.types import Schedule, ScheduleAction

MARK = "<-- here"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A grid as text, as far as it was asked for, and the characters of its longest line drawn whole."""

    text: str
    width: int


def grid(schedule: Schedule, durations: tuple[int, int, int] | None = None) -> str:
    """A row a rank, a column a unit of time; ``=`` goes on with an action, a dot is an idle unit.

    ``durations`` of F, I and W in whole units (default 1, 1, 1); B takes I + W, an overlap (``0F5&3B1``) all three.

    Raises:
        ScenarioError: durations that are not whole units of at least 1.
        DeadlockError: the schedule cannot end.
    """
    return draw(schedule, durations).text


def draw(schedule: Schedule, durations: tuple[int, int, int] | None = None, *, width: int = 0) -> Drawn:
    """The grid, of which only the first ``width`` characters of each line are drawn (0: all).

    Raises:
        ScenarioError: durations that are not whole units of at least 1.
        DeadlockError: the schedule cannot end.
    """
    units = durations or (1, 1, 1)
    if any(unit != int(unit) or unit < 1 for unit in units):
        what = f"durations {units} are not whole units of at least 1; scale them to whole numbers"
        raise ScenarioError([Problem(f"schedule {schedule.name}", 0, 0, "", what)])
    run = dry_run(schedule, *units)
    spans = [
        [(_short(a), round(start), round(end)) for a, (start, end) in zip(order, times, strict=True)]
        for order, times in zip(schedule.orders, run.times, strict=True)
    ]
    end = round(run.makespan)
    cell = max([len(str(end)), *(ceil((len(t) + 1) / (e - s)) for row in spans for t, s, e in row)])
    label = len(f"rank {schedule.ranks - 1}")
    full = label + len(" | ") + cell * end - 1
    shown = min(end, width // cell + 1) if width else end
    head = "".join(str(t).ljust(cell) for t in range(shown))
    lines = [f"{'time'.ljust(label)} | {head}"]
    for rank, row in enumerate(spans):
        lines.append(f"{f'rank {rank}'.ljust(label)} | {_line(row, cell, shown)}")
    lines = [(line[:width] if width else line).rstrip() for line in lines]
    return Drawn(text="\n".join(lines) + "\n", width=full)


def _line(row: list[tuple[str, int, int]], cell: int, until: int) -> str:
    """The actions of a rank that begin before ``until``, and dots where it is idle."""
    texts, now = [], 0
    for text, start, end in row:
        if start >= until:
            break
        texts.append(".".ljust(cell) * (start - now) + text.ljust((end - start) * cell - 1, "=") + " ")
        now = end
    texts.append(".".ljust(cell) * (until - now))
    return "".join(texts)


def _short(action: ScheduleAction) -> str:
    return "&".join(map(str, action.parts))


def marked(schedule: Schedule, cells: Collection[tuple[int, int]], around: int = 4) -> str:
    """The orders about the first of ``cells`` (rank, position), each of the cells marked; columns are positions.

    A position one past the end of a rank's order marks where something is missing.
    """
    rank, position = min(cells)
    ranks = range(max(0, rank - around), min(schedule.ranks, rank + around + 1))
    columns = range(max(0, position - around), position + around + 1)
    table = [["action", *map(str, columns)]]
    for r in ranks:
        order = schedule.orders[r]
        texts = [_short(order[c]) if c < len(order) else "" for c in columns]
        texts = [f"{t} {MARK}".strip() if (r, c) in cells else t for t, c in zip(texts, columns, strict=True)]
        table.append([f"rank {r}", *texts])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rows = (" ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table)
    return "\n".join(rows)
