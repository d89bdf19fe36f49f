"""The time of a step that is long to simulate, from shorter ones: for asking many questions of one scenario.

Owns two ways to save events, and the check that nothing is lost by them. Runs of kernels become one op (``lower``'s
``merged``). And a pipeline that is full does the same for every further microbatch: where the step is a straight line
in their number, two short steps give the long one, ``t(m) = t(a) + (m - a) (t(b) - t(a)) / (b - a)``. Either is used
only if it reproduces the step that was simulated whole to ``TRUSTED``; else every question is asked of the whole step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sim.api import Step, step_time
from sim.spec.types import Scenario

FEW = 30_000
"""Spans of a step below which it is simulated whole: that takes less than a second."""
MANY = 300_000
"""Spans, of merged kernels, above which microbatches are left out."""
TRUSTED = 2e-4
"""Relative error of the whole step's time up to which a shorter way is believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How to simulate a scenario's step: with merged kernels (None: as usual), at so many microbatches (none: all)."""

    merged: bool | None = None
    at: tuple[int, ...] = ()


WHOLE = Way()


def time_of(scenario: Scenario, way: Way, part: str = "", by: float = 1.0) -> float:
    """Seconds of the step, ``part`` of the machine being ``by`` times as fast."""
    if not way.at:
        return step_time(scenario, part, by, merged=way.merged)
    a, b = way.at
    short, longer = (step_time(_with(scenario, m), part, by, merged=way.merged) for m in way.at)
    return short + (scenario.batch.accumulation - a) * (longer - short) / (b - a)


def way_for(step: Step) -> tuple[Way, float]:
    """A way to ask many questions of a step, and what it says of the step as it is."""
    spans, known = len(step.timeline.spans.op), step.result.step_time
    candidates = [Way(merged=True)] if FEW < spans <= MANY else []
    if spans > MANY and (at := cut_of(step.scenario)):
        candidates.append(Way(merged=True, at=at))
    for way in candidates:
        said = time_of(step.scenario, way)
        if abs(said / known - 1.0) <= TRUSTED:
            return way, said
    return WHOLE, known


def _with(scenario: Scenario, microbatches: int) -> Scenario:
    batch = scenario.batch
    size = batch.micro * microbatches * scenario.layout.dp
    return replace(scenario, batch=replace(batch, accumulation=microbatches, size=size))


def cut_of(scenario: Scenario) -> tuple[int, ...]:
    """Two numbers of microbatches with which the pipeline is full, if that saves two fifths of the work."""
    layout, count = scenario.layout, scenario.batch.accumulation
    if layout.schedule_file is not None:
        return ()
    step = layout.pp if layout.virtual_stages > 1 or layout.copies > 1 else max(1, layout.pp // 16)
    at = (layout.pp + step, layout.pp + 2 * step)
    return at if sum(at) <= 0.6 * count else ()
