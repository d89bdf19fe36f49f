"""Which ranks are exported, and which rank class lives the life of each. Knows no format."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.analysis.split import spans_of_classes
from sim.errors import Problem, ScenarioError
from sim.timeline.columns import Timeline

_RANGE = re.compile(r"\s*(\d{1,9})\s*(?:-\s*(\d{1,9})\s*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lives:
    """``ranks`` to export, ``class_of`` each of them, and the spans of every rank class that is needed, ascending."""

    ranks: tuple[int, ...]
    class_of: dict[int, int]
    spans: dict[int, NDArray[np.int64]]


def lives(timeline: Timeline, ranks: Sequence[int], rank_class: NDArray[np.int64]) -> Lives:
    """``rank_class`` (ranks,) says which class of ``timeline`` each rank of the step belongs to."""
    class_of = {rank: int(rank_class[rank]) for rank in ranks}
    spans = dict(enumerate(spans_of_classes(timeline)))
    wanted = sorted(set(class_of.values()))
    return Lives(ranks=tuple(ranks), class_of=class_of, spans={number: spans[number] for number in wanted})


def chosen(text: str, timeline: Timeline) -> tuple[int, ...]:
    """The ranks that ``text`` names: ``each`` (one of each class), ``all``, or numbers and ranges such as ``0,8-11``.

    Raises:
        ScenarioError: what in it is no rank of the step.
    """
    world = sum(row.members for row in timeline.rank_classes)
    if text == "each":
        return tuple(sorted(row.representative for row in timeline.rank_classes))
    if text == "all":
        return tuple(range(world))
    found: dict[int, None] = {}
    wrong = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        first = int(match[1]) if match else world
        last = int(match[2] or match[1]) if match else world
        if not first <= last < world:
            wrong.append(part.strip() or "nothing")
            continue
        found.update(dict.fromkeys(range(first, last + 1)))
    if wrong:
        what = (
            f"{', '.join(wrong[:8])}: not ranks of this step, which has 0 to {world - 1}; "
            "give numbers and ranges such as 0,8-11, or all, or each (one of each kind)"
        )
        raise ScenarioError([Problem("export", 0, 0, "--ranks", what)])
    return tuple(sorted(found))
