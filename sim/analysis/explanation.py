"""Why a step takes as long as it does: the shapes that every explaining analysis of this room fills.

All values are seconds, bytes and shares; names are those of the timeline's tables. Owns no computation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class PathShares:
    """The critical path, ``length`` seconds, added up five ways; each sums to the length, largest first.

    ``by_resource``: kind of resource that bound it (or latency, host launch, waiting for peers). ``by_category``,
    ``by_op`` (names), ``by_stream``, ``by_stage`` (pipeline rank) count time in which nobody works under its reason.
    ``pieces`` is how many links the chain has, ``moves`` how often it goes from one rank class to another.
    """

    length: float
    by_resource: dict[str, float]
    by_category: dict[str, float]
    by_op: dict[str, float]
    by_stream: dict[str, float]
    by_stage: dict[str, float]
    pieces: int
    moves: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """One category of communication or copies: seconds of a step, means over ranks.

    ``busy`` in flight on streams other than compute; of these ``overlapped`` while the rank's compute stream worked and
    ``exposed`` while it did not (they sum to ``busy``). ``costs`` is its line of the breakdown: the part of the step
    that compute waited for it, which may be less than ``exposed`` (two exchanges at once, an idle tail) or more (it is
    on the compute stream itself).
    """

    category: str
    busy: float
    overlapped: float
    exposed: float
    costs: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What spans of ``category`` waited on while their own stream stood idle: mean seconds a rank, and how often.

    ``on``: ``dependency``, ``stream`` (order), ``launch`` (the host), ``peers`` (the last member of a collective) or
    ``contention`` (it ran, below full speed). ``whom``: the category it waited for, or the kind of resource. With
    ``computing`` it was the compute stream that stood idle; other streams are idle by nature.
    """

    category: str
    on: str
    whom: str
    computing: bool
    seconds: float
    count: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkUse:
    """Utilisation of one resource class (``members`` equal resources): shares of its capacity.

    ``mean`` over the step, ``peak`` the busiest of the equal slices of time in ``over_time`` (slices,). ``path`` is the
    share of the critical path that resources of this kind bind.
    """

    name: str
    kind: str
    members: int
    mean: float
    peak: float
    path: float
    over_time: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankLoad:
    """How one rank class (``members`` ranks at pipeline rank ``stage``) spends the step: seconds of each of its ranks.

    ``computing`` on its compute stream, ``exposed`` its communication, copies and host work that computing waited for,
    ``launching`` waiting for the host, ``idle`` waiting for others; they sum to the step. ``on_path`` seconds of the
    critical path run on this class.
    """

    rank_class: int
    name: str
    device: str
    stage: int
    members: int
    computing: float
    exposed: float
    launching: float
    idle: float
    on_path: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """Ranks against each other. ``imbalance`` is the busiest compute stream over the mean, minus 1.

    ``waiting``: mean seconds in which a rank computed nothing and was ready for an exchange whose last member had not
    come; ``late`` says who that was: (rank class, mean seconds of others' waiting), largest first.
    """

    ranks: tuple[RankLoad, ...]
    imbalance: float
    waiting: float
    late: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPeak:
    """The fullest moment of one place (``gpu``, ``host``, ``nvme``), of the rank class that is nearest to its capacity.

    ``owners``: bytes by owner then, largest first. ``during``: the op, its phase and its microbatch (-1: none) that
    took the last of it; empty where nothing is running.
    """

    where: str
    rank_class: int
    stage: int
    device: str
    time: float
    peak: float
    capacity: float
    owners: dict[str, float]
    during: str
    phase: str
    microbatch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Everything that the timeline alone says about why. ``kinds``: utilisation by kind of resource, averaged.

    ``slice_s`` is the length of a slice of time in every ``LinkUse.over_time``.
    """

    scenario: str
    step_time: float
    path: PathShares
    exposure: tuple[Exposure, ...]
    waits: tuple[Wait, ...]
    links: tuple[LinkUse, ...]
    kinds: dict[str, float]
    slice_s: float
    balance: Balance
    peaks: tuple[MemoryPeak, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpDetail:
    """All spans of one op name in a category: means over ranks. ``on_path`` seconds of the critical path.

    ``seconds`` they ran, ``alone`` they would have run with everything to themselves, ``waited`` for peers.
    ``bound_by`` is the kind of resource that sets their duration alone.
    """

    name: str
    kind: str
    stream: str
    count: float
    seconds: float
    alone: float
    waited: float
    bytes: float
    flops: float
    on_path: float
    bound_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """One category of the breakdown: ``seconds`` of the step, its ops (longest first), what delayed whom.

    ``waiting_for_it``: waits of other categories on this one; ``its_waits``: its own. ``by_stage``: pipeline rank ->
    seconds of its breakdown.
    """

    category: str
    seconds: float
    share: float
    by_stage: dict[int, float]
    ops: tuple[OpDetail, ...]
    its_waits: tuple[Wait, ...]
    waiting_for_it: tuple[Wait, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """One figure of two runs, ``a`` and ``b``."""

    name: str
    a: float
    b: float

    @property
    def change(self) -> float:
        """``b - a``: positive where the second run takes more."""
        return self.b - self.a


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDifference:
    """Where the seconds went from run ``a`` to run ``b``, each list by size of change.

    ``breakdown`` and ``path`` (by resource, seconds of the critical path) each sum to the change of ``step``. ``sent``:
    bytes a rank sends by category; ``memory``: bytes at the peak by place. ``keys``: (key, in a, in b) where the
    resolved scenarios differ.
    """

    a: str
    b: str
    step: Delta
    breakdown: tuple[Delta, ...]
    path: tuple[Delta, ...]
    phases: tuple[Delta, ...]
    sent: tuple[Delta, ...]
    memory: tuple[Delta, ...]
    keys: tuple[tuple[str, str, str], ...] = field(default=())
