"""One step, or two beside each other, as one HTML file that needs nothing else: no network, no server, no other file.

Everything to be read is in the markup and needs no script; the script brings timeline, memory and pipeline to life.
What a scenario says reaches the page as text of elements (``markup``) or as JSON that no parser takes for markup, and a
content security policy lets only this page's own script and style run, by their hashes, and nothing be loaded.

What draws the charts was weighed by size, speed and what it needs. Line and area charts: uPlot (51 kB minified, MIT, no
dependency, draws a hundred thousand points in tens of milliseconds) is vendored in ``vendor/uplot``; Chart.js has four
times its size and a tenth of its speed, ECharts and Plotly have 1 and 4.5 MB, more than a page may have, D3 brings no
chart. Bars are SVG made here: they are to print and to be read aloud, and need no code on the page. Timelines:
flame-chart-js stacks what we have in lanes, vis-timeline makes an element a span, Perfetto is an application with a
server; none shows a pixel's share of many spans. So the lanes are our own, on canvas (``assets/lanes.js``).
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from importlib.resources import files
from typing import Any
from xml.etree.ElementTree import Element

from sim.analysis.explanation import RunDifference
from sim.report.memory_plot import stack
from sim.report.page import answer, facts, reasons, traffic
from sim.report.page.columns import timeline_data
from sim.report.page.markup import Child, json_text, render, tag
from sim.report.page.shown import Shown
from sim.report.page.tables import more, note, section
from sim.report.text import BOUND
from sim.report.theme import CATEGORIES, GROUND, RESOURCES, colour, ink, label, owner_colours

SCRIPTS = (
    "dom.js", "format.js", "colours.js", "window.js", "unpack.js", "paint.js", "spans.js", "lanes.js", "hands.js",
    "memory.js", "grid.js", "main.js",
)  # fmt: skip
"""Modules in an order in which each comes after those that it imports."""

KEYS = (
    ("drag, Shift + wheel, A D", "move"),
    ("Ctrl + wheel, + −, W S", "zoom"),
    ("Shift + drag", "zoom into a range"),
    ("click, ← → ↑ ↓", "choose a span"),
    ("double click, Enter", "zoom to it"),
    ("C", "go to what it waited for"),
    ("P", "critical path only"),
    ("E, click on ▶", "open or close ranks"),
    ("/", "search"),
    ("F", "whole step"),
)

_HOW = (
    "A lane for each stream of each kind of rank. Ctrl + wheel zooms, dragging moves, a click says all of a span. What "
    "is narrower than a pixel shares its column, each colour as high as its part of the time."
)

_ASSETS = files("sim.report.page")


def page(runs: Sequence[Shown], difference: RunDifference | None = None) -> str:
    """The whole file. ``runs``: one, or two with their ``difference``."""
    runs, style, script = _told_apart(runs), stylesheet(), javascript()
    title = " and ".join(run.result.scenario for run in runs)
    head = tag(
        "head", tag("meta", charset="utf-8"), _policy(style, script),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"), tag("meta", name="generator", content="Stepline"),
        tag("title", f"{title}: one training step, explained"), tag("style", style),
    )  # fmt: skip
    data = tag("script", json_text(_data(runs)), id="data", type="application/json")
    body = tag("body", *_content(runs, difference, title), data, tag("script", script))
    return f"<!DOCTYPE html>\n{render(tag('html', head, body, lang='en'))}\n"


def _told_apart(runs: Sequence[Shown]) -> Sequence[Shown]:
    """Two runs of one scenario, say with other overrides, are called (1) and (2)."""
    if len({run.result.scenario for run in runs}) == len(runs):
        return runs
    names = [f"{run.result.scenario} ({number})" for number, run in enumerate(runs, start=1)]
    return [replace(r, result=replace(r.result, scenario=n)) for r, n in zip(runs, names, strict=True)]


def _content(runs: Sequence[Shown], difference: RunDifference | None, title: str) -> list[Child]:
    sections = [
        answer.answers(runs),
        facts.differences(difference, [run.result.scenario for run in runs]),
        reasons.breakdown(runs),
        reasons.binds(runs),
        reasons.what_if(runs),
        _timeline(runs),
        _pipeline(runs),
        traffic.communication(runs),
        traffic.links(runs),
        traffic.ranks(runs),
        reasons.waits(runs),
        facts.memory(runs),
        facts.published(runs),
        facts.settings(runs),
        facts.words(runs),
    ]
    shown = [one for one in sections if one is not None]
    described = [tag("p", run.described, class_="described") for run in runs if run.described]
    top = tag("div", tag("h1", title), tag("button", "Light or dark", type="button", id="theme"), class_="top")
    skip = tag("a", "To the content", href="#answer", class_="skip")
    main = tag("main", answer.headline(runs), *shown)
    made = tag("footer", tag("p", "Simulated by Stepline. Every number here was computed from the recorded timeline."))
    return [skip, tag("header", top, *described, _contents(shown)), main, made]


def _contents(sections: Sequence[Element]) -> Element:
    heads = [one.find("h2") for one in sections]
    links = [tag("a", head.text or "", href=f"#{head.get('id')}") for head in heads if head is not None]
    return tag("nav", *links, aria_label="Sections")


def _timeline(runs: Sequence[Shown]) -> Element:
    places = [
        tag("div", reasons.named(run, runs), tag("div", _unscripted(), id=f"timeline-{number}", class_="timeline"))
        for number, run in enumerate(runs)
    ]
    keys = tag("dl", *(tag("div", tag("dt", key), tag("dd", what)) for key, what in KEYS), class_="keys", id="keys")
    chosen = tag("div", note("Choose a span to read all that is recorded of it."), id="chosen", aria_live="polite")
    tools = tag("div", id="tools", class_="tools")
    legend = tag("div", id="colours", class_="legend")
    more_keys = more("Keys and gestures", keys)
    return section("timeline", "Timeline", note(_HOW), tools, legend, *places, chosen, more_keys)


def _unscripted() -> Element:
    return tag("noscript", "The timeline is drawn by a script, which is switched off here.")


def _pipeline(runs: Sequence[Shown]) -> Element | None:
    if all(len(run.timeline.rank_classes) < 2 for run in runs):
        return None
    places = [
        tag("div", reasons.named(run, runs), tag("div", _unscripted(), id=f"grid-{number}"))
        for number, run in enumerate(runs)
        if len(run.timeline.rank_classes) > 1
    ]
    said = (
        "A row a class of ranks, a box an action, from its first to its last kernel, with the number and colour of its "
        "microbatch: forward light, backward dark. Empty is waiting. It moves with the timeline."
    )
    return section("pipeline", "Pipeline", *places, note(said))


def _data(runs: Sequence[Shown]) -> dict[str, Any]:
    """What the script reads: tables of words and colours, and the columns of each run."""
    owners = {owner: None for run in runs for use in run.result.memory for owner, _ in stack(use)}
    named = {op.category: None for run in runs for op in run.timeline.ops}
    categories = list(dict.fromkeys([*CATEGORIES, *named]))
    return {
        "tables": {
            "labels": {category: label(category) for category in categories},
            "bound": BOUND,
            "kinds": RESOURCES,
            "owners": owner_colours(list(owners)),
            "ground": GROUND,
            "categories": {
                "light": {category: colour(category) for category in categories},
                "dark": {category: colour(category, dark=True) for category in categories},
            },
        },
        "runs": [{"name": run.result.scenario, **timeline_data(run.timeline, run.result.memory)} for run in runs],
    }


def javascript() -> str:
    """The vendored library and our modules as one script: imports are left out, since all share one scope."""
    ours = "\n".join(_joined(_read(f"assets/{name}")) for name in SCRIPTS)
    return f'{_read("vendor/uplot/uPlot.iife.min.js")}\n(() => {{\n"use strict";\n{ours}\n}})();\n'


def _joined(module: str) -> str:
    without = re.sub(r"^import [^;]*;\n", "", module, flags=re.MULTILINE)
    return re.sub(r"^export (?=(async )?(function|class|const) )", "", without, flags=re.MULTILINE)


def stylesheet() -> str:
    """The vendored style, ours, and the colours of the theme."""
    return "\n".join([_read("vendor/uplot/uPlot.min.css"), _colours(), _read("assets/page.css")])


def _colours() -> str:
    """A class a category: its colour, and black or white for words on it; and those for a dark ground."""
    light = "\n".join(_rules(category, dark=False) for category in CATEGORIES)
    dark = "\n".join(_rules(category, dark=True, under=':root[data-theme="dark"] ') for category in CATEGORIES)
    auto = "\n".join(_rules(category, dark=True, under=':root:not([data-theme="light"]) ') for category in CATEGORIES)
    return f"{light}\n@media screen {{\n{dark}\n}}\n@media screen and (prefers-color-scheme: dark) {{\n{auto}\n}}"


def _rules(category: str, *, dark: bool, under: str = "") -> str:
    return (
        f"{under}.c-{category} {{ fill: {colour(category, dark=dark)}; }} "
        f"{under}.on-c-{category} {{ fill: {ink(category, dark=dark)}; }}"
    )


def _read(name: str) -> str:
    return _ASSETS.joinpath(name).read_text("utf-8")


def _policy(style: str, script: str) -> Element:
    """Nothing is loaded and nothing runs but what stands here."""
    hashes = [b64encode(sha256(text.encode()).digest()).decode() for text in (script, style)]
    own = f"script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'"
    rules = f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'"
    return tag("meta", http_equiv="Content-Security-Policy", content=rules)
