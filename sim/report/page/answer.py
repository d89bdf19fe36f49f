"""The top of the page: how long, what limits it, by how much, what to change. Puts figures into sentences."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from sim.report.page.bars import single
from sim.report.page.markup import Child, tag
from sim.report.page.reasons import WORTH, busy_by_words, by_words, named, typed
from sim.report.page.shown import Shown
from sim.report.page.tables import section
from sim.report.result_json import largest
from sim.report.text import PLACES, remedy
from sim.report.theme import label
from sim.study.why import Suggestion, WhatIf
from sim.units import format as quantity

_UNEVEN = 0.1
"""Of the mean: more to compute than that is told at the top."""

_COMPUTING = ("forward", "backward", "recompute", "optimizer")


def headline(runs: Sequence[Shown]) -> Element:
    """A card a run: the step time, the sentences, the figures."""
    return tag("div", *(_card(run, runs) for run in runs), class_="beside cards")


def _card(run: Shown, runs: Sequence[Shown]) -> Element:
    result = run.result
    time, unit = quantity(result.step_time, "seconds").split(" ")
    head = tag("p", tag("b", time), f" {unit}", tag("span", " a training step"), _against(run, runs[0]), class_="big")
    rows = [
        ("tokens a second and GPU", f"{result.tokens_per_s_per_gpu:,.1f}"),
        ("MFU", f"{result.mfu:.1%}"),
        ("HFU (with recompute)", f"{result.hfu:.1%}"),
        ("GPUs", f"{result.ranks:,}"),
    ]
    cells = [tag("div", tag("dt", name), tag("dd", value)) for name, value in rows]
    return tag("article", named(run, runs, "h2"), head, tag("dl", *cells, class_="figures"), *_memory(run))


def _against(run: Shown, first: Shown) -> Child:
    """How much longer it takes than the first run."""
    if run is first:
        return None
    change = run.result.step_time / first.result.step_time - 1.0
    return tag("span", f" ({change:+z.1%} against {first.result.scenario})")


def _memory(run: Shown) -> list[Element]:
    """A bar for each place: the peak within its capacity, with the verdict."""
    found = []
    for where, place in PLACES.items():
        use = largest(run.result, where)
        if use is None or use.peak <= 0.0:
            continue
        words = f"{quantity(use.peak, 'bytes')} of {quantity(use.capacity, 'bytes')}"
        verdict = tag("b", "fits" if use.fits else "does not fit", class_="good" if use.fits else "bad")
        share = use.peak / use.capacity if use.capacity else 1.0
        scale = max(share, 1.0)
        bar = single(share / scale, "used" if use.fits else "over", "", of=1.0 / scale)
        found.append(tag("div", tag("span", place), bar, tag("span", words, " ", verdict), class_="fill"))
    return found


def answers(runs: Sequence[Shown]) -> Element:
    """For each run: what limits the step, by how much, what to change."""
    columns = [tag("div", named(run, runs), tag("dl", *_answer(run), class_="answer")) for run in runs]
    return section("answer", "In short", tag("div", *columns, class_="beside"))


def _answer(run: Shown) -> list[Element]:
    rows = [
        ("What limits the step", _limits(run)),
        ("Time without computing", _without_computing(run)),
        ("Uneven work", _uneven(run)),
        ("By how much", _by_how_much(run)),
        ("What to change", _change(run)),
    ]
    return [tag("div", tag("dt", head), tag("dd", *said)) for head, said in rows if said]


def _limits(run: Shown) -> list[Child]:
    """The largest shares of the critical path, in words."""
    step, ranked = run.result.step_time, list(by_words(run).items())
    if not ranked:
        return ["Nothing: the step is empty."]
    words, seconds = ranked[0]
    said: list[Child] = [
        tag("b", f"{words[:1].upper()}{words[1:]}"),
        f": it sets the pace for {quantity(seconds, 'seconds')} of the {quantity(step, 'seconds')} "
        f"({seconds / step:.0%} of the critical path, the chain of work that decides when the step ends).",
    ]
    busy = busy_by_words(run).get(words, 1.0)
    if busy < 0.5 * seconds / step:
        said.append(f" On average it is only {busy:.0%} busy: the work reaches a part of it at a time.")
    rest = [f"{words} ({seconds / step:.0%})" for words, seconds in ranked[1:4] if seconds >= 0.02 * step]
    return [*said, f" Then {', '.join(rest)}." if rest else None]


def _without_computing(run: Shown) -> list[Child]:
    """The largest parts of the breakdown that are no computing."""
    step = run.result.step_time
    lost = [(c, s) for c, s in run.result.breakdown.items() if c not in _COMPUTING and s >= 0.01 * step]
    if not lost:
        return ["GPUs compute all the time, to within 1 %."]
    parts = [f"{label(c)} {s / step:.0%} ({quantity(s, 'seconds')})" for c, s in sorted(lost, key=lambda one: -one[1])]
    return [f"A GPU waits, on average, for: {', '.join(parts[:4])}."]


def _uneven(run: Shown) -> list[Child]:
    """The rank with the most to compute, where that is far more than the mean: no faster part would even it out."""
    balance, step = run.explanation.balance, run.result.step_time
    if balance.imbalance < _UNEVEN:
        return []
    most = max(balance.ranks, key=lambda one: one.computing)
    where = f"{most.name} on {most.device}" + (f" and {most.members - 1} like it" if most.members > 1 else "")
    said = f": {where} computes for {quantity(most.computing, 'seconds')}, {balance.imbalance:.0%} more than the mean"
    path = f", and is on the critical path for {most.on_path / step:.0%} of the step." if step else "."
    staged = len({one.stage for one in balance.ranks}) > 1
    return [tag("b", f"Stage {most.stage}" if staged else "One rank"), said, path]


def _by_how_much(run: Shown) -> list[Child]:
    """What the resource that gains most would save."""
    if run.why is None or not run.why.what_if:
        words, seconds = next(iter(by_words(run).items()), ("", 0.0))
        share = seconds / run.result.step_time if run.result.step_time else 0.0
        return [f"At most about {share:.0%} of the step is to be had by speeding up {words} alone."]
    top = max(run.why.what_if, key=lambda one: one.gains[0])
    return [_gain(top), *_other_gains(run.why.what_if, top)]


def _gain(one: WhatIf) -> Child:
    tenth, twice, never = one.gains
    return tag(
        "span", "With ", tag("b", f"{one.says} 10 % faster"), f" the step takes {quantity(tenth, 'seconds')} "
        f"({tenth / one.base:.1%}) less; twice as fast, {twice / one.base:.0%} less; if it never held anything up, "
        f"{never / one.base:.0%} less.",
    )  # fmt: skip


def _other_gains(rows: Sequence[WhatIf], top: WhatIf) -> list[Child]:
    others = sorted((one for one in rows if one is not top), key=lambda one: -one.gains[1])
    worth = [f"{one.says} ({one.gains[1] / one.base:.0%})" for one in others if one.gains[1] >= 0.02 * one.base]
    if not worth:
        return [" Nothing else, made twice as fast, would save 2 %."]
    return [f" Of the rest, twice as fast: {', '.join(worth[:3])}."]


def _change(run: Shown) -> list[Child]:
    """Too big: what would make it smaller. Otherwise the best changes that were simulated."""
    said = _too_big(run)
    if run.why is None:
        return [*said, "Changes were not simulated for this page (it was made with --recorded)."]
    good = [one for one in run.why.suggestions if one.gain >= WORTH]
    if not good:
        nothing = "None of the changes of the scenario that were simulated makes it faster." if not said else None
        return [*said, nothing]
    first, *rest = good
    said = [*said, _suggestion(first)]
    if rest:
        said.append(f" Next best, each alone: {'; '.join(f'{one.says} ({one.gain:.0%})' for one in rest[:3])}.")
    return said


def _suggestion(one: Suggestion) -> Element:
    return tag(
        "span", tag("b", f"{one.says[:1].upper()}{one.says[1:]}"), f": {one.gain:.1%} less time, "
        f"{quantity(one.step_time, 'seconds')} a step; it fits ({quantity(one.peak, 'bytes')} of "
        f"{quantity(one.capacity, 'bytes')}). ", tag("code", typed(one)),
    )  # fmt: skip


def _too_big(run: Shown) -> list[Child]:
    said: list[Child] = []
    for where, place in PLACES.items():
        use = largest(run.result, where)
        if use is None or use.fits:
            continue
        owner = next(iter(use.at_peak))
        said.append(
            f"It does not fit: {quantity(use.peak - use.capacity, 'bytes')} too much {place}, most of it {owner} "
            f"({quantity(use.at_peak[owner], 'bytes')}): {remedy(owner, where)}. "
        )
    return said
