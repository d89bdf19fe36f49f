"""From a timeline to an ``Explanation``: strings the explaining analyses together, computes nothing itself."""

from __future__ import annotations

from sim.analysis.balance import balance
from sim.analysis.breakdown import averaged, breakdowns
from sim.analysis.explanation import Explanation
from sim.analysis.exposure import exposure
from sim.analysis.links import SLICES, by_kind, links
from sim.analysis.path import critical_path
from sim.analysis.path_shares import path_shares
from sim.analysis.peaks import peaks
from sim.analysis.result import Result
from sim.analysis.waits import waits
from sim.timeline.columns import Timeline


def explain(timeline: Timeline, result: Result) -> Explanation:
    """Why the step takes as long as it does: everything that its timeline says."""
    pieces = critical_path(timeline)
    path = path_shares(timeline, pieces)
    parts = breakdowns(timeline)
    used = links(timeline, {kind: seconds / path.length for kind, seconds in path.by_resource.items()})
    return Explanation(
        scenario=result.scenario,
        step_time=timeline.makespan,
        path=path,
        exposure=exposure(timeline, averaged(timeline, parts)),
        waits=waits(timeline),
        links=used,
        kinds=by_kind(timeline, used),
        slice_s=timeline.makespan / SLICES,
        balance=balance(timeline, parts, pieces),
        peaks=peaks(timeline, result.memory),
    )
