"""Memory at its peak, published figures, what differs, the scenario with its sources, words: the parts to look up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from xml.etree.ElementTree import Element

from sim.analysis.explanation import Delta, MemoryPeak, RunDifference
from sim.figures import FIGURES
from sim.report.page.bars import single
from sim.report.page.markup import Child, tag
from sim.report.page.reasons import named
from sim.report.page.shown import Shown
from sim.report.page.tables import beside, note, section, table
from sim.report.text import BOUND, PLACES, figure_text, remedy
from sim.units import Dimension
from sim.units import format as quantity

_SMALL = 0.002  # of the peak


def memory(runs: Sequence[Shown]) -> Element:
    """Each place at its fullest: when, during what, who holds it, what would lower it."""
    parts = [tag("div", named(run, runs), *(_peak(peak) for peak in run.explanation.peaks)) for run in runs]
    said = "The largest owners first, on the rank that is nearest to its capacity. Over time: under the timeline."
    return section("memory", "Memory at its peak", tag("div", *parts), note(said))


def _peak(peak: MemoryPeak) -> Element:
    place = PLACES[peak.where]
    verdict = "fits" if peak.peak <= peak.capacity else "DOES NOT FIT"
    during = f" during {peak.during}" if peak.during else ""
    during += f" of microbatch {peak.microbatch}" if peak.during and peak.microbatch >= 0 else ""
    said = (
        f"{place}: {quantity(peak.peak, 'bytes')} of {quantity(peak.capacity, 'bytes')} ({verdict}), at "
        f"{quantity(peak.time, 'seconds')}{during}, stage {peak.stage}, {peak.device}"
    )
    rows: list[list[Child]] = []
    for owner, size in peak.owners.items():
        if size >= _SMALL * peak.peak:
            share = size / peak.capacity if peak.capacity else 1.0
            rows.append(
                [owner, quantity(size, "bytes"), f"{share:.1%}", single(share, "used", ""), remedy(owner, peak.where)]
            )
    heads = ["owner", "#bytes", "#of the capacity", "|", "what would lower it"]
    return tag("div", tag("p", said), table(f"{place} by owner", heads, rows))


def published(runs: Sequence[Shown]) -> Element | None:
    """What sources say, beside what is simulated."""
    if not any(run.result.published for run in runs):
        return None
    parts = []
    for run in runs:
        rows: list[list[Child]] = []
        for one in run.result.published:
            said = figure_text(one.figure, one.low)
            said += f" to {figure_text(one.figure, one.high)}" if one.high != one.low else ""
            source = f"{one.source}; {one.note}" if one.note else one.source
            rows.append(
                [FIGURES[one.figure].says, said, figure_text(one.figure, one.ours), f"{one.difference:+z.1%}", source]
            )
        heads = ["figure", "#published", "#here", "#difference", "source"]
        parts.append(tag("div", named(run, runs), table("Published figures", heads, rows)))
    return section("published", "Against what is published", *parts)


def differences(found: RunDifference | None, names: Sequence[str]) -> Element | None:
    """The keys in which two scenarios differ, and what that does to the critical path and to memory."""
    if found is None:
        return None
    found = replace(found, a=names[0], b=names[1])
    rows: list[list[Child]] = [[tag("code", key), a or "–", b or "–"] for key, a, b in found.keys]
    keys = table("Keys that differ", ["key", found.a, found.b], rows or [["nothing", "", ""]])
    path = _deltas("On the critical path", found.path, "seconds", found)
    memory_ = _deltas("Memory at the peak", found.memory, "bytes", found)
    how = "longer" if found.step.change > 0 else "less"
    said = f"{found.b} takes {quantity(abs(found.step.change), 'seconds')} {how} than {found.a}. Where they went:"
    return section("differences", "What differs", keys, tag("p", said), beside([path, memory_]))


def _deltas(title: str, deltas: Sequence[Delta], kind: Dimension, found: RunDifference) -> Element:
    """Figures of both runs and their change, the largest first; what hardly changes is left out."""
    most = max((abs(one.change) for one in deltas), default=0.0)
    rows: list[list[Child]] = [
        [
            BOUND.get(one.name) or PLACES.get(one.name, one.name),
            quantity(one.a, kind),
            quantity(one.b, kind),
            _signed(one, kind),
        ]
        for one in deltas
        if abs(one.change) > 0.002 * most
    ]
    return table(
        title, [title.lower(), f"#{found.a}", f"#{found.b}", "#change"], rows or [["nothing changes", "", "", ""]]
    )


def _signed(one: Delta, kind: Dimension) -> str:
    return f"{'+' if one.change > 0 else ''}{quantity(one.change, kind)}"


def settings(runs: Sequence[Shown]) -> Element:
    """Every value of the resolved scenario and what vouches for it."""
    box = tag("input", id="filter", type="search", placeholder="filter, e.g. nvlink or estimate")
    search = tag("label", "Show rows with ", box, class_="filter")
    rows: list[list[Child]] = []
    for run in runs:
        for key, value, source in run.settings:
            who: list[Child] = [run.result.scenario] if len(runs) > 1 else []
            rows.append([tag("code", key), value, source, *who])
    heads = ["key", "value", "source", *(["run"] if len(runs) > 1 else [])]
    found = table("The scenario as resolved", heads, rows, id_="settings", tall=True)
    said = "Names are written out, overrides applied. Choices (layout, batch, precision) need no source; numbers do."
    return section("scenario", "The scenario, with its sources", search, found, note(said))


WORDS = (
    ("step", "one optimizer step: forward and backward of all microbatches, reductions, the update"),
    ("critical path", "the chain of causes, each recorded, that ends with the step; its length is that of the step"),
    ("MFU, HFU", "FLOPs of the model (with recomputation: HFU) over what all GPUs could do in the time of the step"),
    ("bubble", "time in which a rank waits for other pipeline stages"),
    ("exposed", "communication or copying that computing waits for; the opposite is hidden, or overlapped"),
    ("host launch", "time in which the GPU waits for the CPU thread that launches kernels"),
    ("rank class", "ranks that live the same life: one of them is simulated for all (×N), exactly"),
    ("GB, GiB", "1e9 and 2^30 bytes"),
)


def words(runs: Sequence[Shown]) -> Element:
    """What the words mean, and what was done to know."""
    said = [tag("div", tag("dt", word), tag("dd", meaning)) for word, meaning in WORDS]
    did = [
        tag("p", f"{run.result.scenario}: {run.result.ranks:,} ranks as {run.result.rank_classes:,} classes, "
            f"{run.result.ops:,} spans, {run.result.events:,} events. Devices of ranks: {run.result.placement}.")
        for run in runs
    ]  # fmt: skip
    return section("words", "Words", tag("dl", *said, class_="words"), *did)
