"""A pipeline schedule is data: for each pipeline rank, its actions in order. A bubble is never written down.

Actions print as in torch pipelining: ``2F0`` is the forward of microbatch 0 on stage 2, ``B`` a whole backward, ``I``
and ``W`` its input-gradient and weight-gradient parts, ``(0F5;3B1)OVERLAP_F_B`` a forward and a backward run together.

Stages are numbered in model order. A schedule with two ``copies`` (DualPipe) holds the parameters twice: microbatches
of the first half flow through the first copy (direction 0), those of the second half through the other (direction 1),
which is laid out in reverse, so stage s of direction 1 lives where stage ``stages - 1 - s`` of direction 0 does. The
microbatch says which copy is meant: an action names no direction, and dependencies are the same for both.

Must not know: what a stage computes, how long anything takes, how messages travel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

ActionKind = Literal["F", "B", "I", "W", "OVERLAP"]


class ScheduleAction(NamedTuple):
    """One thing a pipeline rank does for one microbatch on one of its stages.

    A tuple and not a dataclass: large schedules have 1e5 of them. An OVERLAP holds the two actions in ``pair`` (forward
    first) and bears the stage and microbatch of the forward.
    """

    stage: int
    kind: ActionKind
    microbatch: int
    pair: tuple[ScheduleAction, ...] = ()

    def __str__(self) -> str:
        if self.pair:
            return f"({';'.join(map(str, self.pair))})OVERLAP_F_B"
        return f"{self.stage}{self.kind}{self.microbatch}"

    @property
    def parts(self) -> tuple[ScheduleAction, ...]:
        """The F, B, I or W that it consists of: itself, or the two of an overlap."""
        return self.pair or (self,)


Order = tuple[ScheduleAction, ...]
"""What one pipeline rank does, first to last."""


def overlap(forward: ScheduleAction, backward: ScheduleAction) -> ScheduleAction:
    """A forward and a whole backward of another microbatch, run together."""
    return ScheduleAction(forward.stage, "OVERLAP", forward.microbatch, (forward, backward))


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """A thing wrong with a schedule: the rank and the position in its order, and what is wrong."""

    rank: int
    position: int
    what: str

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """``rank_of_stage[s]`` is where stage s (of direction 0) lives; ``orders[r]`` what pipeline rank r does."""

    name: str
    rank_of_stage: tuple[int, ...]
    microbatches: int
    orders: tuple[Order, ...]
    copies: Literal[1, 2] = 1  # of the parameters: 2 where a second copy runs in the other direction

    @property
    def stages(self) -> int:
        """Virtual stages, in model order; each is held ``copies`` times."""
        return len(self.rank_of_stage)

    @property
    def ranks(self) -> int:
        """Pipeline ranks."""
        return len(self.orders)

    def direction(self, microbatch: int) -> int:
        """Which copy of the parameters a microbatch flows through: 0, or 1 for the second half with two copies."""
        return int(self.copies == 2 and 2 * microbatch >= self.microbatches)

    def home(self, stage: int, microbatch: int) -> int:
        """The pipeline rank on which ``microbatch`` passes ``stage``."""
        return self.home_in(stage, self.direction(microbatch))

    def home_in(self, stage: int, direction: int) -> int:
        """The pipeline rank that holds ``stage`` of a direction."""
        return self.rank_of_stage[self.stages - 1 - stage if direction else stage]

    @property
    def directions(self) -> range:
        """The directions that microbatches flow in: 0, and 1 with two copies."""
        return range(self.copies)

    def holds(self, rank: int) -> tuple[int, ...]:
        """The stages that a rank holds, of any direction, in model order; none is on one rank in both directions."""
        return tuple(s for s in range(self.stages) if rank in [self.home_in(s, d) for d in self.directions])

    def partner(self, rank: int) -> int:
        """The rank that holds the same stages of the other direction; the rank itself where there is one copy."""
        if self.copies == 1 or rank not in self.rank_of_stage:
            return rank
        return self.home_in(self.rank_of_stage.index(rank), 1)
