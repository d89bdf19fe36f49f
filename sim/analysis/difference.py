"""Where the seconds went between two runs: figure by figure. Pure: results in, differences out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sim.analysis.explanation import Delta, RunDifference
from sim.analysis.result import Result

PLACES = ("gpu", "host", "nvme")


def difference(a: Result, b: Result, keys: Sequence[tuple[str, str, str]] = ()) -> RunDifference:
    """Run ``b`` against run ``a``; ``keys`` are (key, in a, in b) of their scenarios."""
    return RunDifference(
        a=a.scenario,
        b=b.scenario,
        step=Delta(name="step", a=a.step_time, b=b.step_time),
        breakdown=deltas(a.breakdown, b.breakdown),
        path=deltas(_seconds(a), _seconds(b)),
        phases=deltas(a.phases, b.phases),
        sent=deltas({row.category: row.bytes for row in a.transfers}, {row.category: row.bytes for row in b.transfers}),
        memory=deltas(_peaks(a), _peaks(b)),
        keys=tuple(keys),
    )


def deltas(a: Mapping[str, float], b: Mapping[str, float]) -> tuple[Delta, ...]:
    """Every name of either, largest change first; equals in the order of the first."""
    rows = [Delta(name=name, a=a.get(name, 0.0), b=b.get(name, 0.0)) for name in dict.fromkeys([*a, *b])]
    return tuple(sorted(rows, key=lambda row: -abs(row.change)))


def _seconds(result: Result) -> dict[str, float]:
    return {reason: share * result.step_time for reason, share in result.bound_by.items()}


def _peaks(result: Result) -> dict[str, float]:
    used = {where: [use.peak for use in result.memory if use.where == where] for where in PLACES}
    return {where: max(peaks) for where, peaks in used.items() if peaks}
