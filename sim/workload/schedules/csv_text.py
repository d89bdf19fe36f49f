"""Schedules in the CSV of torch pipelining: a row a rank, a cell an action.

Cells such as ``2F0``, ``1I3``, ``1W3``, ``2B0``, ``(0F1;7B0)OVERLAP_F_B``; empty ones are idle steps and mean nothing
here. Cells for messages and parameters (``SEND_F``, ``UNSHARD``, ...) are dropped and counted: the simulator derives
them. The text is hostile until it is checked: sizes are bounded before anything is built from them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

from sim.errors import Problem, ScenarioError
from sim.workload.schedules.check import SHOWN, said, validate
from sim.workload.schedules.types import ActionKind, Order, Schedule, ScheduleAction, overlap

LIMIT = 4 * 2**20  # characters
MOST_RANKS = 65_536
LARGEST = 1_000_000  # stage or microbatch

_COMPUTE = re.compile(r"([0-9]{1,7})([FBIW])([0-9]{1,7})")
_DERIVED = re.compile(r"[0-9]{1,7}(?:UNSHARD|RESHARD|REDUCE_GRAD|SEND_F|RECV_F|SEND_B|RECV_B)(?:[0-9]{1,7})?")
_OVERLAP = re.compile(r"\(([^;()]*);([^;()]*)\)OVERLAP_F_B")
_OLD = re.compile(r"([0-9]+)BW([0-9]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSchedule:
    """A schedule read from text, and how many cells of messages and parameters were dropped."""

    schedule: Schedule
    dropped: int


@dataclass(frozen=True, slots=True)
class _Cell:
    action: ScheduleAction
    line: int
    column: int


def to_csv(schedule: Schedule) -> str:
    """The schedule as text, a row a rank. The name is not kept, nor idle steps, which no schedule has."""
    return "".join(",".join(map(str, order)) + "\n" for order in schedule.orders)


def from_csv(text: str, name: str = "schedule.csv") -> ReadSchedule:
    """Read a schedule and check it. Ranks, stages and where they live, microbatches and copies follow from the cells.

    A stage on two mirrored ranks means two copies of the parameters, in opposite directions (DualPipe).

    Raises:
        ScenarioError: too large, a cell that is none, or a schedule that is unsound; with row and column of the cell.
    """
    if len(text) > LIMIT:
        raise _refuse(name, 0, 0, f"the text has {len(text)} characters; at most {LIMIT} (4 MiB) are read")
    rows = [row.removesuffix("\r") for row in text.rstrip().split("\n")]
    if len(rows) > MOST_RANKS:
        raise _refuse(name, 0, 0, f"{len(rows)} rows; a row is a rank, and there may be {MOST_RANKS}")
    cells, dropped = _parse(rows, name)
    schedule = _assemble(cells, name)
    found = validate(schedule)
    if found:
        problems = []
        for fault, what in zip(found, said(schedule, found), strict=False):
            line, column = _place(cells, fault.rank, fault.position)
            problems.append(Problem(name, line, column, "", what))
        raise ScenarioError(problems)
    return ReadSchedule(schedule=schedule, dropped=dropped)


def _refuse(name: str, line: int, column: int, what: str) -> ScenarioError:
    return ScenarioError([Problem(name, line, column, "", what)])


def _place(cells: list[list[_Cell]], rank: int, position: int) -> tuple[int, int]:
    """Line and column of an action; of its row where it is missing, 0 and 0 where no rank is to blame."""
    if rank < 0:
        return 0, 0
    row = cells[rank]
    return (row[position].line, row[position].column) if position < len(row) else (rank + 1, 1)


def _parse(rows: list[str], name: str) -> tuple[list[list[_Cell]], int]:
    cells: list[list[_Cell]] = []
    problems: list[Problem] = []
    dropped = 0
    for line, row in enumerate(rows, start=1):
        mine: list[_Cell] = []
        for column, text in _split(row):
            if _DERIVED.fullmatch(text):
                dropped += 1
                continue
            action = _action(text)
            if isinstance(action, str):
                problems.append(Problem(name, line, column, "", action))
            else:
                mine.append(_Cell(action, line, column))
            if len(problems) == SHOWN:
                raise ScenarioError(problems)
        cells.append(mine)
    if problems:
        raise ScenarioError(problems)
    return cells, dropped


def _split(row: str) -> Iterator[tuple[int, str]]:
    """Column (from 1) and text of each cell that is not empty, without spaces and quotes around it."""
    at = 1
    for cell in row.split(","):
        text = cell.strip().removeprefix('"').removesuffix('"').strip()
        if text:
            yield at + cell.index(text), text
        at += len(cell) + 1


def _action(text: str) -> ScheduleAction | str:
    """The action that a cell names, or what is wrong with it."""
    both = _OVERLAP.fullmatch(text)
    if both:
        forward, backward = (_single(part.strip()) for part in both.groups())
        if forward is None or backward is None or (forward.kind, backward.kind) != ("F", "B"):
            return f"{_quote(text)} must overlap a forward and a whole backward, as in (0F1;7B0)OVERLAP_F_B"
        return overlap(forward, backward)
    single = _single(text)
    if single is not None:
        return single
    if _OLD.fullmatch(text):
        return f"{_quote(text)} is the older spelling; write B for the whole backward, I for input gradients alone"
    return f"{_quote(text)} is not an action: a stage, one of F B I W, a microbatch (2F0), each below {LARGEST}"


def _single(text: str) -> ScheduleAction | None:
    match = _COMPUTE.fullmatch(text)
    if match is None:
        return None
    stage, microbatch = int(match[1]), int(match[3])
    if max(stage, microbatch) >= LARGEST:
        return None
    return ScheduleAction(stage, cast(ActionKind, match[2]), microbatch)


def _quote(text: str) -> str:
    return ascii(text if len(text) <= 40 else text[:37] + "...")


def _assemble(cells: list[list[_Cell]], name: str) -> Schedule:
    """The schedule that the cells describe; not yet checked, but no larger than the text."""
    orders: tuple[Order, ...] = tuple(tuple(cell.action for cell in row) for row in cells)
    parts = [(rank, part) for rank, order in enumerate(orders) for action in order for part in action.parts]
    if not parts:
        raise _refuse(name, 0, 0, "no cell is a forward or a backward; a row a rank, with cells such as 2F0")
    stages = 1 + max(part.stage for _, part in parts)
    microbatches = 1 + max(part.microbatch for _, part in parts)
    if stages * microbatches > len(parts):
        sizes = f"{stages} stages and {microbatches} microbatches (numbered from 0) make {stages * microbatches}"
        raise _refuse(name, 0, 0, f"{sizes} forwards, more than the {len(parts)} actions that are here")
    homes: list[list[int]] = [[] for _ in range(stages)]
    first: list[tuple[int, int]] = [(microbatches, 0)] * stages  # lowest microbatch of a stage, and where it is
    for rank, part in parts:
        first[part.stage] = min(first[part.stage], (part.microbatch, rank))
        if rank not in homes[part.stage][:3]:
            homes[part.stage].append(rank)
    home = tuple(rank for _, rank in first)
    return Schedule(
        name=name, rank_of_stage=home, microbatches=microbatches, orders=orders, copies=_copies(home, homes)
    )


def _copies(home: tuple[int, ...], homes: list[list[int]]) -> Literal[1, 2]:
    """2 where every stage is found on its rank and on that of its mirror image."""
    mirrored = all(sorted(homes[s]) == sorted((home[s], home[-1 - s])) for s in range(len(home)))
    return 2 if mirrored and all(len(ranks) == 2 for ranks in homes) else 1
