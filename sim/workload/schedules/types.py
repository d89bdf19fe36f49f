"""A pipeline schedule is data: for each pipeline rank, its actions in order. A bubble is never written down.

Actions print as in torch pipelining: ``2F0`` is the forward of microbatch 0 on stage 2, ``B`` a whole backward, ``I``
and ``W`` its input-gradient and weight-gradient parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

ActionKind = Literal["F", "B", "I", "W"]


class ScheduleAction(NamedTuple):
    """One thing a pipeline rank does for one microbatch on one of its stages."""

    stage: int
    kind: ActionKind
    microbatch: int

    def __str__(self) -> str:
        return f"{self.stage}{self.kind}{self.microbatch}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """``rank_of_stage[s]`` is where virtual stage s (in model order) lives; ``orders[r]`` what pipeline rank r does."""

    name: str
    rank_of_stage: tuple[int, ...]
    microbatches: int
    orders: tuple[tuple[ScheduleAction, ...], ...]

    @property
    def stages(self) -> int:
        """Virtual stages."""
        return len(self.rank_of_stage)

    @property
    def ranks(self) -> int:
        """Pipeline ranks."""
        return len(self.orders)
