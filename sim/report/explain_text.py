"""What ``stepline explain`` prints: paragraphs and tables of an ``Explanation`` and of simulated answers.

Formats; computes nothing but shares of what it is given. Works without a terminal and at 80 columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from sim.analysis.explanation import Balance, Explanation, Exposure, LinkUse, MemoryPeak, Wait
from sim.report.text import BOUND, PLACES, plain_table, remedy
from sim.report.theme import label
from sim.study.why import Suggestion, WhatIf, Why
from sim.units import format as quantity

SHOWN = 8
"""Rows of a list that may be long."""


def show(console: Console, found: Explanation) -> None:
    """What the timeline says of why."""
    console.print(f"{found.scenario}: step {_s(found.step_time)}")
    show_path(console, found)
    if found.exposure:
        console.print(exposure_table(found.exposure))
    waits = [wait for wait in found.waits if wait.computing]
    if waits:
        console.print(waits_table(waits[:SHOWN], "computing waited"))
    console.print(use_table(found.links, found.kinds))
    show_balance(console, found.balance, found.step_time)
    for peak in found.peaks:
        console.print(peak_sentence(peak))


def show_path(console: Console, found: Explanation) -> None:
    """The critical path: by what binds it, then where it runs."""
    path = found.path
    table = plain_table("critical path", ("seconds", "share"))
    said: dict[str, float] = {}  # both directions of a link have one name in words
    for reason, seconds in path.by_resource.items():
        said[words(reason)] = said.get(words(reason), 0.0) + seconds
    for reason, seconds in sorted(said.items(), key=lambda item: -item[1]):
        if seconds >= 5e-4 * path.length:
            table.add_row(reason, f"{seconds:.4g}", f"{seconds / path.length:.1%}")
    table.add_row("length, which is the step", f"{path.length:.4g}", "100.0%")
    console.print(table)
    console.print(f"  on streams: {_list(path.by_stream, path.length)}")
    if len(path.by_stage) > 1:
        console.print(f"  on pipeline ranks: {_list(path.by_stage, path.length)}; changes rank {path.moves} times")
    console.print(f"  ops: {_list(path.by_op, path.length, 6)}")


def words(kind: str) -> str:
    """A kind of resource, or a reason, in words."""
    return BOUND.get(kind, kind)


def _list(of: Mapping[str, float], total: float, most: int = 5) -> str:
    rows = [f"{name} {seconds / total:.1%}" for name, seconds in list(of.items())[:most]]
    return ", ".join(rows) + (f" and {len(of) - most} more" if len(of) > most else "")


def exposure_table(rows: Sequence[Exposure]) -> Table:
    """Per kind of communication: in flight, hidden under computing, exposed, and what the step pays for it."""
    table = plain_table("beside computing", ("in flight", "hidden", "exposed", "costs the step"))
    for row in rows:
        name = label(row.category).replace(" communication", "")
        table.add_row(name, _s(row.busy), _s(row.overlapped), _s(row.exposed), _s(row.costs))
    return table


def waits_table(rows: Sequence[Wait], title: str) -> Table:
    """Who waited on what, for how long."""
    table = plain_table(title, ("seconds", "times"), "waited on")
    for row in rows:
        table.add_row(label(row.category), f"{row.seconds:.4g}", f"{row.count:,.1f}", _waited_on(row))
    return table


def _waited_on(wait: Wait) -> str:
    if wait.on == "launch":
        return "its launch by the host"
    if wait.on == "peers":
        return "the last rank to come to the exchange"
    if wait.on == "contention":
        return f"nothing: slowed by others on {words(wait.whom)}"
    return f"{label(wait.whom)}{' (order of the stream)' if wait.on == 'stream' else ''}"


def use_table(links: Sequence[LinkUse], kinds: Mapping[str, float]) -> Table:
    """Utilisation by kind of resource: all of them, and the busiest one."""
    table = plain_table("utilisation", ("mean", "busiest one", "its peak", "of the path"), "busiest")
    for kind, mean in kinds.items():
        top = max((link for link in links if link.kind == kind), key=lambda link: link.mean)
        table.add_row(kind, f"{mean:.1%}", f"{top.mean:.1%}", f"{top.peak:.0%}", f"{top.path:.1%}", top.name)
    return table


def show_balance(console: Console, found: Balance, step: float) -> None:
    """Ranks against each other; nothing to say where all are alike."""
    if len(found.ranks) < 2:
        return
    busiest = max(found.ranks, key=lambda rank: rank.computing)
    console.print(
        f"ranks: the busiest ({busiest.name}, stage {busiest.stage}, {busiest.device}) computes "
        f"{_s(busiest.computing)}, {found.imbalance:.1%} more than the mean; ranks stand {_s(found.waiting)} "
        f"({found.waiting / step:.1%}) idle for the last one to come to an exchange",
        soft_wrap=True,
    )
    for number, seconds in found.late[:3]:
        rank = found.ranks[number]
        console.print(f"  {_s(seconds)} of that for {rank.name} (stage {rank.stage}, {rank.device})")


def peak_sentence(peak: MemoryPeak) -> str:
    """When and where memory is fullest, whose it is, what would lower it."""
    during = f" in {peak.during} ({peak.phase}, microbatch {peak.microbatch})" if peak.during else " from the beginning"
    owners = ", ".join(f"{owner} {quantity(size, 'bytes')}" for owner, size in list(peak.owners.items())[:4])
    first = next(iter(peak.owners), "")
    return (
        f"{PLACES[peak.where]}: fullest at {_s(peak.time)}{during} on stage {peak.stage}, {peak.device}: "
        f"{quantity(peak.peak, 'bytes')} of {quantity(peak.capacity, 'bytes')}; {owners}. "
        f"To lower it: {remedy(first, peak.where)}"
    )


def show_why(console: Console, why: Why) -> None:
    """What if one thing were faster; what to change; what lowers the peak."""
    bar = "█" if console.encoding.lower().startswith("utf") else "#"
    if why.what_if:
        console.print(what_if_table(why.what_if, bar))
    better = [row for row in why.suggestions if row.gain > 5e-4]
    if better:
        console.print(changes_table(better[:SHOWN], "change, simulated", "saves"))
    else:
        console.print("no change that was tried makes it faster and fits")
    lower = sorted((row for row in why.suggestions if row.gain <= 5e-4), key=lambda row: row.peak)
    if lower:
        console.print(changes_table(lower[:4], "for memory", "saves"))
    if why.refused:
        console.print(f"{len(why.refused)} more were tried and do not fit, are not possible or change nothing")


def what_if_table(rows: Sequence[WhatIf], bar: str) -> Table:
    """The tornado in letters: what each faster thing saves of the step."""
    table = plain_table("if this were faster", ("of the path", "10 % faster", "twice", "never binding"), "")
    for row in rows:
        saved = [f"{gain / row.base:.2%}" for gain in row.gains]
        table.add_row(row.says, f"{row.path:.2%}", *saved, bar * round(row.gains[2] / row.base * 24))
    return table


def changes_table(rows: Sequence[Suggestion], title: str, saves: str) -> Table:
    """Changes with what they save, their peak memory and how to make them."""
    table = plain_table(title, (saves, "step", "GPU peak"), "--set")
    for row in rows:
        table.add_row(row.says, f"{row.gain:+z.1%}", _s(row.step_time), quantity(row.peak, "bytes"), " ".join(row.sets))
    return table


def _s(seconds: float) -> str:
    return quantity(seconds, "seconds")
