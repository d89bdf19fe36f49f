"""What to change: candidates by rule, each weighed and simulated; only those that fit are told, by what they gain.

Owns the table of rules (the seam for a new one: a function and a line in ``RULES``). A rule proposes ``--set`` texts
and knows no gain: that is simulated. Every candidate does as many tokens a step as the scenario: the batch stays, so
that training does the same. What the scenario's own checks refuse, or memory does not hold, is told with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sim.api import Step, check, run, scenario_of
from sim.errors import SteplineError
from sim.spec.types import Scenario
from sim.study import rules
from sim.study.parallel import each
from sim.study.rules import Candidate
from sim.study.short import MANY, WHOLE, Way, cut_of, time_of, way_for
from sim.study.why import Suggestion

RULES: dict[str, Callable[[Step], Iterator[Candidate]]] = {
    "micro-batch": rules.micro_batch,
    "recompute": rules.recompute,
    "ZeRO stage": rules.zero_stage,
    "pipeline": rules.pipeline,
    "layout": rules.layout,
    "mesh order": rules.mesh_order,
    "overlap": rules.overlap,
    "offload": rules.offload,
    "balance": rules.balance,
}

WORTH = 0.005
"""Share of the step that a change must save to be tried together with others."""
MORE = 5
"""Changes that are tried on top of the best one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """A candidate, tried: seconds and memory, or why not."""

    candidate: Candidate
    seconds: float = 0.0
    peak: float = 0.0
    capacity: float = 0.0
    why_not: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    source: str
    overrides: tuple[str, ...]
    candidate: Candidate
    tokens: int
    whole: bool
    way: Way


def suggest(
    step: Step, source: str, overrides: Sequence[str] = (), told: Callable[[int, int, str], None] | None = None,
    *, jobs: int = 2,
) -> tuple[tuple[Suggestion, ...], tuple[tuple[str, str], ...]]:  # fmt: skip
    """Changes that fit, by gain, and (change, why not) of those that do not.

    ``source`` and ``overrides`` are what ``step`` was made from; ``told`` is called with (done, of, what).
    """
    way, base = way_for(step)
    found = [
        Candidate(kind=kind, says=one.says, sets=tuple(text for text in one.sets if _changes(text, step.document)))
        for kind, rule in RULES.items()
        for one in rule(step)
    ]
    distinct = {candidate.sets: candidate for candidate in reversed(found)}
    candidates = [candidate for candidate in found if distinct[candidate.sets] is candidate]
    whole = way == WHOLE and len(step.timeline.spans.op) <= MANY
    task = partial(
        _Task, source=source, overrides=tuple(overrides), tokens=_tokens(step.scenario), whole=whole, way=way
    )
    jobs = jobs if len(step.timeline.spans.op) > 2000 else 1
    tried: list[_Tried] = []
    tasks = [task(candidate=candidate) for candidate in candidates]
    for _, one in each(_try, tasks, jobs, called=lambda task: task.candidate.says):
        tried.append(one)
        if told is not None:
            told(len(tried), len(tasks), one.candidate.says)
    now = max(use.peak for use in step.result.memory if use.where == "gpu")
    fits, refused = _sorted(tried, base, now, candidates)
    both = _together(fits, task)
    if both is not None:
        fits = (_suggestion(both, base), *fits)
    return fits, refused


def _together(fits: Sequence[Suggestion], task: Callable[..., _Task]) -> _Tried | None:
    """The best change with the best of other kinds added one by one, as long as each makes it faster; None: none does.

    One after another, since each is tried on top of those before it; a few simulations.
    """
    good = [one for one in fits if one.gain >= WORTH]
    best_of_kind = {one.kind: one for one in reversed(good)}
    chosen = [one for one in good if best_of_kind[one.kind] is one][: 1 + MORE]
    if len(chosen) < 2:
        return None
    best: _Tried | None = None
    sets, says, seconds = chosen[0].sets, chosen[0].says, chosen[0].step_time
    for one in chosen[1:]:
        merged = tuple({text.partition("=")[0]: text for text in (*sets, *one.sets)}.values())
        candidate = Candidate(kind="together", says=f"{says}; {one.says}", sets=merged)
        tried = _try(task(candidate=candidate))
        if not tried.why_not and tried.seconds < seconds * (1.0 - WORTH):
            best, sets, says, seconds = tried, merged, candidate.says, tried.seconds
    return best


def _changes(text: str, document: Mapping[str, Any]) -> bool:
    """Whether an override does anything: taking back a key that is not there does not."""
    key, _, value = text.partition("=")
    if value != "null":
        return True
    node: Any = document
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node is not None


def _sorted(
    tried: Sequence[_Tried], base: float, now: float, order: Sequence[Candidate]
) -> tuple[tuple[Suggestion, ...], tuple[tuple[str, str], ...]]:
    """By gain, then in the order of the rules: processes finish as they please."""
    place = {candidate: number for number, candidate in enumerate(order)}
    tried = [replace(one, why_not="changes nothing") if _same(one, base, now) else one for one in tried]
    tried = sorted(tried, key=lambda one: place[one.candidate])
    fits = [_suggestion(one, base) for one in tried if not one.why_not]
    return (
        tuple(sorted(fits, key=lambda one: -one.gain)),
        tuple((one.candidate.says, one.why_not) for one in tried if one.why_not),
    )


def _suggestion(one: _Tried, base: float) -> Suggestion:
    return Suggestion(
        kind=one.candidate.kind,
        says=one.candidate.says,
        sets=one.candidate.sets,
        step_time=one.seconds,
        gain=1.0 - one.seconds / base,
        peak=one.peak,
        capacity=one.capacity,
    )


def _same(one: _Tried, base: float, peak: float) -> bool:
    """Whether a candidate that fits takes the same time and memory as the step as it is."""
    return not one.why_not and abs(one.seconds / base - 1.0) < 1e-9 and abs(one.peak / peak - 1.0) < 1e-6


def _try(task: _Task) -> _Tried:
    sets = [*task.overrides, *task.candidate.sets]
    try:
        verdict = check(task.source, sets)
        gpu = next(weight for weight in verdict.weights if weight.where == "gpu")
        tight = [weight for weight in verdict.weights if not weight.fits]
        if tight:
            return _too_big(task.candidate, tight[0].where, tight[0].peak, tight[0].capacity)
        scenario = scenario_of(task.source, sets)
        assert _tokens(scenario) == task.tokens, "a rule changed the batch"
        if not task.whole:
            way = Way(merged=task.way.merged, at=cut_of(scenario) if task.way.at else ())
            return _Tried(
                candidate=task.candidate, seconds=time_of(scenario, way), peak=gpu.peak, capacity=gpu.capacity
            )
        result = run(task.source, sets).result
    except SteplineError as error:
        lines = str(error).splitlines()
        return _Tried(candidate=task.candidate, why_not=lines[0].split(": ", 2)[-1])
    worst = [use for use in result.memory if not use.fits]
    if worst:
        return _too_big(task.candidate, worst[0].where, worst[0].peak, worst[0].capacity)
    top = max((use for use in result.memory if use.where == "gpu"), key=lambda use: use.peak / use.capacity)
    return _Tried(candidate=task.candidate, seconds=result.step_time, peak=top.peak, capacity=top.capacity)


def _too_big(candidate: Candidate, where: str, peak: float, capacity: float) -> _Tried:
    what = f"does not fit: {peak / 1e9:.1f} GB of {capacity / 1e9:.1f} GB ({where})"
    return _Tried(candidate=candidate, why_not=what)


def _tokens(scenario: Scenario) -> int:
    return scenario.batch.size * scenario.batch.sequence
