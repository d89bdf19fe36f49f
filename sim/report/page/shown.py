"""What a page shows of a run: everything computed before, by others. Owns no number and no word of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sim.analysis.explanation import Explanation
from sim.analysis.result import Result
from sim.study.why import Why
from sim.timeline.columns import Timeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One run on the page.

    ``settings``: (key, value as written, what vouches for it) of the resolved scenario, in its order; ``why`` is
    ``None`` where nobody simulated what would be faster. ``described`` is the scenario's own sentence.
    """

    result: Result
    timeline: Timeline
    explanation: Explanation
    settings: Sequence[tuple[str, str, str]]
    described: str = ""
    why: Why | None = None
