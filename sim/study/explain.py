"""Everything that is said about why: what the timeline tells, and what simulating again tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sim.analysis.detail import detail
from sim.analysis.difference import difference
from sim.analysis.explain import explain as explain_timeline
from sim.analysis.explanation import Detail, Explanation, RunDifference
from sim.errors import Problem, ScenarioError
from sim.study.differences import differences
from sim.study.opened import Opened
from sim.study.suggest import suggest
from sim.study.whatif import what_if
from sim.study.why import Why

Told = Callable[[int, int, str], None]


def explain(opened: Opened) -> Explanation:
    """Why the step takes as long as it does: what its timeline says."""
    return explain_timeline(opened.step.timeline, opened.step.result)


def ask(opened: Opened, told: Told | None = None, *, jobs: int = 2) -> Why:
    """What if one thing were faster, and what to change: simulated."""
    rows = what_if(opened.step, told, jobs=jobs)
    changes, refused = suggest(opened.step, opened.source, opened.overrides, told, jobs=jobs)
    return Why(what_if=rows, suggestions=changes, refused=refused)


def category(opened: Opened, name: str) -> Detail:
    """One category of the breakdown in detail. Raises ``ScenarioError`` for one that the step does not have."""
    known = dict.fromkeys([*opened.step.result.breakdown, *(op.category for op in opened.step.timeline.ops)])
    if name not in known:
        what = f"'{name}' is no category of this step; it has {', '.join(known)}"
        raise ScenarioError([Problem("explain", 0, 0, "CATEGORY", what)])
    return detail(opened.step.timeline, name)


def compare(a: Opened, b: Opened) -> RunDifference:
    """Where the seconds went from ``a`` to ``b``."""
    keys = differences([a.step.document, b.step.document])
    rows = [(row.key, *row.values) for row in keys]
    return replace(difference(a.step.result, b.step.result), keys=tuple((k, x, y) for k, x, y in rows))
