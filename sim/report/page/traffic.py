"""Communication and copies, use of resources over time, ranks against each other: the parts of the page on where."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from sim.analysis.explanation import LinkUse, RankLoad
from sim.report.page.bars import single, stacked, strip
from sim.report.page.markup import Child, tag
from sim.report.page.reasons import named
from sim.report.page.shown import Shown
from sim.report.page.tables import more, note, section, swatch, table
from sim.report.text import BOUND, held_by
from sim.units import format as quantity

_MOST_LINKS = 2  # rows of one kind before the rest is folded away
_ALL_LINKS = 60
_MOST_RANKS = 128


def communication(runs: Sequence[Shown]) -> Element | None:
    """What was in flight, how much of it was hidden, what moved at which rate."""
    if not any(run.explanation.exposure or run.result.transfers for run in runs):
        return None
    parts = [tag("div", named(run, runs), _exposure(run), _transfers(run)) for run in runs]
    said = (
        "In flight: on a stream beside computing. Hidden: the rank computed meanwhile. Cost: what it adds to the step, "
        "its line of the breakdown. Rates and bytes are those of one rank."
    )
    return section("communication", "Communication and copies", tag("div", *parts), note(said))


def _exposure(run: Shown) -> Element:
    rows: list[list[Child]] = []
    for one in run.explanation.exposure:
        hidden = one.overlapped / one.busy if one.busy else 0.0
        share = one.busy / run.result.step_time
        parts = [(f"c-{one.category}", share * hidden, "hidden"), ("exposed", share * (1.0 - hidden), "exposed")]
        words = f"{hidden:.0%} hidden"
        rows.append(
            [swatch(one.category), quantity(one.busy, "seconds"), stacked(parts, words, height=14), words,
             quantity(one.costs, "seconds")]
        )  # fmt: skip
    heads = ["category", "#in flight", "|hidden, exposed", "#hidden", "#cost"]
    return table("Communication hidden and exposed", heads, rows)


def _transfers(run: Shown) -> Element | None:
    if not run.result.transfers:
        return None
    rows: list[list[Child]] = []
    for use in run.result.transfers:
        share = use.achieved / use.alone if use.alone else 0.0
        rates = [quantity(rate, "bytes_per_s") for rate in (use.alone, use.achieved)]
        bar = single(share, "bind", f"{share:.0%} of the rate alone")
        moved = [quantity(use.bytes, "bytes"), f"{use.count:,.0f}"]
        rows.append([swatch(use.category), *moved, *rates, bar, held_by(use)])
    heads = ["a rank sends", "#bytes", "#times", "#rate alone", "#rate reached", "|reached of alone", "held by"]
    return table("Transfers", heads, rows)


def links(runs: Sequence[Shown]) -> Element:
    """How busy each resource is over the step: the busiest of each kind, the rest folded away."""
    parts = [tag("div", named(run, runs), *_links(run)) for run in runs]
    said = "Share of the capacity in use, over the step from left to right. × is how many such resources do the same."
    return section("links", "How busy everything is", *parts, note(said))


def _links(run: Shown) -> list[Child]:
    seen: dict[str, int] = {}
    first: list[LinkUse] = []
    rest: list[LinkUse] = []
    for use in run.explanation.links:
        seen[use.kind] = seen.get(use.kind, 0) + 1
        (first if seen[use.kind] <= _MOST_LINKS else rest).append(use)
    found: list[Child] = [_links_table(first)]
    if rest:
        shown = rest[:_ALL_LINKS]
        words = f"{len(rest)} more resources"
        words += f", the busiest {_ALL_LINKS} of them" if len(rest) > _ALL_LINKS else ""
        found.append(more(words, _links_table(shown)))
    return found


def _links_table(uses: Sequence[LinkUse]) -> Element:
    rows: list[list[Child]] = []
    for use in uses:
        name = f"{use.name} ×{use.members}" if use.members > 1 else use.name
        words = f"{use.mean:.0%} on average, {use.peak:.0%} at most"
        rows.append(
            [name, BOUND.get(use.kind, use.kind), strip(use.over_time, words), f"{use.mean:.1%}", f"{use.peak:.0%}"]
        )
    return table("Use of resources", ["resource", "what it is", "|over the step", "#average", "#most"], rows)


def ranks(runs: Sequence[Shown]) -> Element | None:
    """How each class of ranks spends the step; nothing where all are alike."""
    if all(len(run.explanation.balance.ranks) < 2 for run in runs):
        return None
    parts = [tag("div", named(run, runs), *_ranks(run)) for run in runs]
    said = (
        "Ranks that live the same life are one row. Communication, copies and host work count where computing waited "
        "for them; idle is waiting for other ranks."
    )
    return section("ranks", "Ranks against each other", tag("div", *parts), note(said))


def _ranks(run: Shown) -> list[Child]:
    balance, step = run.explanation.balance, run.result.step_time
    shown = balance.ranks[:_MOST_RANKS]
    heads = ["ranks", "#stage", "|", "#computing", "#communication", "#launch", "#idle", "#on the path"]
    said = f"The busiest rank computes {balance.imbalance:.1%} more than the mean. "
    late = [(run.explanation.balance.ranks[number], seconds) for number, seconds in balance.late[:1] if seconds > 0.0]
    if late:
        rank, seconds = late[0]
        cost = quantity(seconds, "seconds")
        said += f"Collectives wait longest for {rank.name} on {rank.device}: it costs the others {cost}. "
    return [tag("p", said), table("Ranks", heads, (_rank(one, step) for one in shown), tall=True)]


def _rank(one: RankLoad, step: float) -> list[Child]:
    name = f"{one.name} ×{one.members}, {one.device}" if one.members > 1 else f"{one.name}, {one.device}"
    parts = [
        ("c-forward", one.computing / step, "computing"),
        ("c-dp", one.exposed / step, "communication"),
        ("c-host_launch", one.launching / step, "launch"),
        ("c-bubble", one.idle / step, "idle"),
    ]
    numbers = [
        quantity(value, "seconds") for value in (one.computing, one.exposed, one.launching, one.idle, one.on_path)
    ]
    return [name, str(one.stage), stacked(parts, "", height=14), *numbers]
