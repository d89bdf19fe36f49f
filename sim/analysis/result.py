"""The result of a step: every figure that is shown, computed once, from the timeline."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """Memory of one rank class over time, on the GPU or in its share of the host.

    ``times`` (n,) seconds; ``by_owner[owner]`` (n,) bytes, a step function: the value from ``times[i]`` on. ``peak``
    is the largest sum, ``peak_time`` when, ``at_peak`` the owners' bytes at that instant, ``capacity`` what there is.
    """

    rank_class: int
    where: str
    times: NDArray[np.float64]
    by_owner: dict[str, NDArray[np.float64]]
    peak: float
    peak_time: float
    at_peak: dict[str, float]
    capacity: float

    @property
    def fits(self) -> bool:
        """Whether the peak is within the capacity."""
        return self.peak <= self.capacity


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A published figure (``low`` to ``high``, equal for a single value) and ours, in one unit."""

    figure: str
    low: float
    high: float
    ours: float
    source: str
    note: str = ""

    @property
    def difference(self) -> float:
        """Ours over the middle of what was published, minus 1."""
        return self.ours / ((self.low + self.high) / 2) - 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferUse:
    """One kind of transfer (a category of copies or collectives): what it asked for and what it got.

    Means over all ranks: ``bytes`` that a rank sends in a step, in so many (``count``) exchanges; ``busy`` seconds in
    flight; ``exposed`` seconds in which nothing was computed meanwhile; ``alone`` the bytes/s it would reach with its
    route to itself, ``achieved`` what it reached. ``most`` bytes: of the rank that sends most. ``bound_by`` is the
    resource that holds its largest exchange; ``ranks`` use one such resource for this, and ``shared_with`` says which
    other work used it at the same time, and for how many seconds.
    """

    category: str
    bytes: float
    most: float
    count: float
    busy: float
    exposed: float
    alone: float
    achieved: float
    bound_by: str
    ranks: float = 1.0
    shared_with: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One simulated step, explained.

    ``breakdown``: category -> seconds, summing to ``step_time`` (averaged over ranks). ``phases``: forward, backward,
    optimizer seconds as a training log would time them. ``bound_by``: resource or cause -> share of the critical path.
    """

    scenario: str
    step_time: float
    tokens_per_s_per_gpu: float
    mfu: float
    hfu: float
    fits: bool
    breakdown: dict[str, float]
    phases: dict[str, float]
    bound_by: dict[str, float]
    memory: tuple[MemoryUse, ...]
    transfers: tuple[TransferUse, ...]
    published: tuple[Comparison, ...]
    utilisation: dict[str, float]
    ranks: int
    rank_classes: int
    ops: int
    events: int
    wall: float
    placement: str = "packed"  # which device each rank has: a word, or devices in the order of ranks


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """Memory in one place without simulating: the peak, who holds it (owner -> bytes, largest first), what there is."""

    where: str
    peak: float
    at_peak: dict[str, float]
    capacity: float

    @property
    def fits(self) -> bool:
        """Whether the peak is within the capacity."""
        return self.peak <= self.capacity


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What ``stepline check`` says: exact sizes beside the lecture's round ones, and the memory of one rank.

    ``layer_params`` and ``layer_multiplications`` (MACs of one layer, forward, one sequence) are exact; the
    ``lecture_`` ones are 12H² and 2L²H + 12LH². ``sustained`` is the stack's fraction of short-burst speed on this
    device; ``assumed`` when the stack file has none for it and 1 is used.
    """

    scenario: str
    params: int
    layer_params: int
    lecture_params: int
    layer_multiplications: int
    lecture_multiplications: int
    weights: tuple[Weight, ...]
    published: tuple[Comparison, ...]
    sustained: float
    assumed: bool

    @property
    def fits(self) -> bool:
        """Whether everything fits."""
        return all(weight.fits for weight in self.weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The pipeline schedule of a scenario, for people and for other programs.

    ``grid`` is a row a rank and a column a unit of time, cut where it was asked to be; drawn whole it is ``width``
    characters wide. ``held`` is the most activations of a stage that each rank keeps at once. ``csv`` is the text of
    torch pipelining; ``dropped`` counts the cells of messages and parameters that a file of the user's had.
    """

    scenario: str
    name: str
    ranks: int
    stages: int
    microbatches: int
    copies: int
    held: tuple[int, ...]
    grid: str
    width: int
    csv: str
    dropped: int
