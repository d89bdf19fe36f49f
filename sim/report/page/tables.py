"""Tables of the page: columns of words and of numbers, aligned, with a caption for those who cannot see them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element

from sim.report.page.markup import Child, tag
from sim.report.theme import label

Row = Sequence[Child]


def table(
    caption: str, heads: Sequence[str], rows: Iterable[Row], *, id_: str | None = None, tall: bool = False
) -> Element:
    """Rows under heads. A head that begins with ``#`` is over numbers, one with ``|`` over drawings.

    A ``tall`` table scrolls in a box of its own, also with the keyboard.
    """
    kinds = ["num" if head.startswith("#") else "drawn" if head.startswith("|") else "said" for head in heads]
    names = [head.lstrip("#|") or tag("span", "drawn", class_="unseen") for head in heads]
    top = tag("tr", *(tag("th", name, scope="col", class_=kind) for name, kind in zip(names, kinds, strict=True)))
    body = tag("tbody")
    for row in rows:
        first, *rest = row
        cells = [tag("th", first, scope="row")]
        cells += [tag("td", cell, class_=kind) for cell, kind in zip(rest, kinds[1:], strict=True)]
        body.append(tag("tr", *cells))
    said = tag("caption", caption, class_="unseen")
    found = tag("table", said, tag("thead", top), body, id=id_)
    if tall:
        return tag("div", found, class_="table tall", tabindex="0", role="region", aria_label=caption)
    return tag("div", found, class_="table")


def swatch(category: str) -> Element:
    """The name of a category behind its colour."""
    square = tag("rect", width=11, height=11, rx=2, class_=f"c-{category}")
    return tag("span", tag("svg", square, class_="swatch", width=11, height=11, aria_hidden="true"), label(category))


def section(id_: str, title: str, *children: Child) -> Element:
    """A part of the page with a heading that the table of contents leads to."""
    return tag("section", tag("h2", title, id=id_), *children, aria_labelledby=id_)


def beside(children: Sequence[Child]) -> Element:
    """What belongs to each run, next to each other where there is room."""
    return tag("div", *children, class_="beside")


def note(*children: Child) -> Element:
    """A quiet sentence on how to read what stands above or below it."""
    return tag("p", *children, class_="note")


def more(summary: str, *children: Child, open_: bool = False) -> Element:
    """What is there on demand; it opens by itself when printed."""
    return tag("details", tag("summary", summary), *children, open="" if open_ else None)
