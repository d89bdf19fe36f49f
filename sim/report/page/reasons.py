"""Where the time goes, what binds the step, what would be gained, who waits for whom: the parts of the page on why."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote
from xml.etree.ElementTree import Element

from sim.analysis.explanation import Wait
from sim.report.page.bars import nested, single, stacked
from sim.report.page.markup import Child, tag
from sim.report.page.shown import Shown
from sim.report.page.tables import beside, more, note, section, swatch, table
from sim.report.result_json import largest
from sim.report.text import BOUND
from sim.report.theme import CATEGORIES, label
from sim.study.why import Suggestion
from sim.units import format as quantity

_LEAST = 0.0005  # of the step: less is not a row
WORTH = 0.005  # of the step: what gains less is not a change to recommend
_GAINS = ("gain-never", "gain-twice", "gain-tenth")
_MOST_CHANGES = 8
_MOST_WAITS = 12


def named(run: Shown, runs: Sequence[Shown], level: str = "h3") -> Child:
    """The run's name over its part, where there are two."""
    return tag(level, run.result.scenario, class_="run") if len(runs) > 1 else None


def breakdown(runs: Sequence[Shown]) -> Element:
    """A bar a run on one scale, and the seconds by category."""
    longest = max(run.result.step_time for run in runs) or 1.0
    bars = [tag("div", named(run, runs), _breakdown_bar(run, longest)) for run in runs]
    heads = ["category"]
    for run in runs:
        heads += [f"#{run.result.scenario if len(runs) > 1 else 'seconds'}", "#share"]
    heads += ["#change"] if len(runs) == 2 else ["|"]
    present = _categories(runs)
    rows = [_breakdown_row(category, runs) for category in present]
    said = "They add up to the step: communication, copies and launches count only where computing waited for them."
    return section(
        "breakdown", "Where the time goes", *bars, table("Seconds of the step by category", heads, rows), note(said)
    )


def _categories(runs: Sequence[Shown]) -> list[str]:
    """Those that are worth a row, by their most seconds in any run."""
    most: dict[str, float] = {}
    for run in runs:
        for category, seconds in run.result.breakdown.items():
            if seconds >= _LEAST * run.result.step_time:
                most[category] = max(seconds, most.get(category, 0.0))
    return sorted(most, key=lambda category: -most[category])


def _breakdown_bar(run: Shown, longest: float) -> Element:
    order = [*CATEGORIES, *(c for c in run.result.breakdown if c not in CATEGORIES)]
    parts = [
        (f"c-{category}", seconds / longest, f"{label(category)} {seconds / run.result.step_time:.0%}")
        for category in order
        if (seconds := run.result.breakdown.get(category, 0.0)) > 0.0
    ]
    return stacked(parts, f"Breakdown of {run.result.scenario}: " + ", ".join(words for _, _, words in parts))


def _breakdown_row(category: str, runs: Sequence[Shown]) -> list[Child]:
    row: list[Child] = [swatch(category)]
    seconds = [run.result.breakdown.get(category, 0.0) for run in runs]
    for run, value in zip(runs, seconds, strict=True):
        row += [quantity(value, "seconds"), f"{value / run.result.step_time:.1%}"]
    if len(runs) == 2:
        return [*row, _signed(seconds[1] - seconds[0])]
    share = seconds[0] / runs[0].result.step_time
    return [*row, single(share, f"c-{category}", f"{share:.0%}")]


def _signed(seconds: float) -> str:
    return f"{'+' if seconds > 0 else ''}{quantity(seconds, 'seconds')}"


def binds(runs: Sequence[Shown]) -> Element:
    """The critical path by resource, with how busy such resources are."""
    said = (
        "The critical path is the chain of recorded causes that ends with the step: only what is on it can make the "
        "step shorter. A resource can set the pace and yet be idle on average: it may be needed by one thing at a time."
    )
    parts = [tag("div", named(run, runs), _binds_table(run), _path_of(run)) for run in runs]
    return section("binds", "What binds the step", beside(parts), note(said))


def by_words(run: Shown) -> dict[str, float]:
    """Seconds of the critical path by what binds it, in words (directions of a link share one), longest first."""
    found: dict[str, float] = {}
    for kind, seconds in run.explanation.path.by_resource.items():
        words = BOUND.get(kind, kind)
        found[words] = found.get(words, 0.0) + seconds
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def busy_by_words(run: Shown) -> dict[str, float]:
    """Mean use of the resources of a kind, by the same words; of two directions the busier."""
    busy: dict[str, float] = {}
    for kind, share in run.explanation.kinds.items():
        busy[BOUND.get(kind, kind)] = max(share, busy.get(BOUND.get(kind, kind), 0.0))
    return busy


def _binds_table(run: Shown) -> Element:
    busy = busy_by_words(run)
    rows: list[list[Child]] = []
    for words, seconds in by_words(run).items():
        share = seconds / run.explanation.path.length
        if share >= _LEAST:
            used = f"{busy[words]:.0%}" if words in busy else "–"
            rows.append([words, quantity(seconds, "seconds"), f"{share:.1%}", single(share, "bind", ""), used])
    heads = ["resource or cause", "#on the path", "#share", "|", "#busy on average"]
    return table("Critical path by what binds it", heads, rows)


def _path_of(run: Shown) -> Element:
    """The same path by op and by pipeline stage."""
    path = run.explanation.path
    ops = [[name, quantity(s, "seconds"), f"{s / path.length:.1%}"] for name, s in list(path.by_op.items())[:10]]
    parts: list[Child] = [table("Critical path by op", ["op", "#on the path", "#share"], ops)]
    if len(path.by_stage) > 1:
        stages = [[name, quantity(s, "seconds"), f"{s / path.length:.1%}"] for name, s in path.by_stage.items()]
        parts.append(table("Critical path by stage", ["pipeline stage", "#on the path", "#share"], stages))
    return more(f"The path by op ({path.pieces:,} links, {path.moves:,} from rank to rank)", *parts)


def what_if(runs: Sequence[Shown]) -> Element | None:
    """What each resource would gain, simulated; and the changes of the scenario that were tried."""
    if all(run.why is None for run in runs):
        return None
    parts = [tag("div", named(run, runs), *_what_if(run)) for run in runs]
    said = "Each row is the step simulated again with that one thing faster everywhere."
    return section("what-if", "What if it were faster", beside(parts), note(said))


def _what_if(run: Shown) -> list[Child]:
    if run.why is None:
        return [note("Nothing was simulated for this run.")]
    ranked = sorted(run.why.what_if, key=lambda one: -one.gains[2])
    rows: list[list[Child]] = []
    for one in ranked:
        if max(one.gains) < _LEAST * one.base:
            continue
        shares = [gain / one.base for gain in one.gains]
        words = [f"{share:.1%}" for share in shares]
        bar = nested(shares[::-1], _GAINS, f"saves {words[0]} if 10 % faster, {words[1]} if twice, {words[2]} at most")
        rows.append([one.says, bar, *words])
    heads = ["faster everywhere", "|time saved", "#10 % faster", "#twice", "#never binds"]
    return [table("Time saved by what is faster", heads, rows), *_suggestions(run)]


def _suggestions(run: Shown) -> list[Child]:
    if run.why is None or not (run.why.suggestions or run.why.refused):
        return []
    found: list[Child] = []
    faster = [one for one in run.why.suggestions if one.gain >= WORTH]
    use = largest(run.result, "gpu")
    enough = (1.0 - WORTH) * use.peak if use else 0.0
    smaller = sorted((o for o in run.why.suggestions if o.gain < WORTH and o.peak < enough), key=lambda o: o.peak)
    for title, rows in (("Changes that save time", faster), ("Changes that save memory only", smaller)):
        if rows:
            found += [tag("h3", title), _changes(title, rows[:_MOST_CHANGES])]
    if neither := [one for one in run.why.suggestions if one not in faster and one not in smaller]:
        found.append(more(f"{len(neither)} save neither", _changes("Changes that save neither", neither)))
    if not faster:
        found.insert(0, note("No change of the scenario that was simulated makes it faster."))
    if run.why.refused:
        tried = table("Refused", ["change", "why"], run.why.refused)
        found.append(more(f"{len(run.why.refused)} more do not fit, are not possible here or change nothing", tried))
    return found


def typed(change: Suggestion) -> str:
    """The options that make a change, as a shell takes them."""
    return " ".join(f"--set {quote(text)}" for text in change.sets)


def _changes(title: str, changes: Sequence[Suggestion]) -> Element:
    rows: list[list[Child]] = []
    for one in changes:
        numbers = [f"{-one.gain:+z.1%}", quantity(one.step_time, "seconds"), quantity(one.peak, "bytes")]
        rows.append([one.says, *numbers, tag("code", typed(one))])
    return table(title, ["change, simulated; it fits", "#time", "#step", "#GPU memory", "how"], rows)


def waits(runs: Sequence[Shown]) -> Element:
    """Who stood idle for whom: computing first."""
    parts = []
    for run in runs:
        computing = [one for one in run.explanation.waits if one.computing]
        others = [one for one in run.explanation.waits if not one.computing]
        found: list[Child] = [_waits("Computing that waited", computing)]
        if others:
            found.append(more("Communication, copies and host work that waited", _waits("Other work", others)))
        parts.append(tag("div", named(run, runs), *found))
    said = (
        "Seconds in which a stream stood idle before such work (or ran below full speed), a rank, on average. Streams "
        "wait at the same time: these do not add up to the step."
    )
    return section("waits", "Who waits for whom", beside(parts), note(said))


def _waits(title: str, waits: Sequence[Wait]) -> Element:
    rows: list[list[Child]] = [
        [swatch(one.category), _waited(one), quantity(one.seconds, "seconds"), f"{one.count:,.0f}"]
        for one in waits[:_MOST_WAITS]
    ]
    return table(title, [title.lower(), "for", "#seconds", "#times"], rows or [["nothing", "", "", ""]])


def _waited(wait: Wait) -> str:
    if wait.on == "launch":
        return "its launch by the host"
    if wait.on == "peers":
        return "the last rank to come to the exchange"
    if wait.on == "contention":
        return f"slowed: others use {BOUND.get(wait.whom, wait.whom)}"
    return f"{label(wait.whom)}{', its turn in the stream' if wait.on == 'stream' else ''}"
