"""Bars, drawn as SVG so that they print, need no script and no style of their own. Lengths are given, never computed.

A bar's colours are attributes; a category that has another colour on a dark ground carries a class for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from sim.report.page.markup import tag

Part = tuple[str, float, str]
"""(class of the colour, share of the width from 0 to 1, words for it)."""

_WRITTEN = 20  # pixels of height from which on words fit
_ROOM = 0.045  # share of the width that the words in a part need


def stacked(parts: Sequence[Part], label: str, *, height: int = 30) -> Element:
    """Parts one after another; what is wide enough is written into."""
    svg = tag("svg", class_="bar", width="100%", height=height, **_spoken(label))
    left = 0.0
    for colour, share, words in parts:
        box = tag(
            "rect",
            tag("title", words) if words else None,
            x=_percent(left),
            width=_percent(share),
            y=0,
            height="100%",
            class_=colour,
        )
        svg.append(box)
        if share >= _ROOM and height >= _WRITTEN:
            middle = _percent(left + share / 2)
            said = words.rsplit(" ", 1)[-1]
            svg.append(tag("text", said, x=middle, y="50%", dy="0.35em", text_anchor="middle", class_=f"on-{colour}"))
        left += share
    return svg


def single(share: float, colour: str, label: str, *, of: float = 0.0) -> Element:
    """One bar in a cell, before a quiet one of length ``of``. Lengths beyond the cell are cut. No label: decoration."""
    svg = tag("svg", class_="cell-bar", width="100%", height=14, **_spoken(label))
    if of:
        svg.append(tag("rect", x=0, y=1, width=_percent(of), height=12, class_="track"))
    svg.append(tag("rect", x=0, y=1, width=_percent(min(max(share, 0.0), 1.0)), height=12, class_=colour))
    return svg


def nested(shares: Sequence[float], colours: Sequence[str], label: str) -> Element:
    """Bars from one line, the longest behind: what a little, more and all of something does."""
    svg = tag("svg", class_="cell-bar", width="100%", height=16, role="img", aria_label=label)
    for share, colour in sorted(zip(shares, colours, strict=True), reverse=True):
        svg.append(tag("rect", x=0, y=1, width=_percent(min(max(share, 0.0), 1.0)), height=14, class_=colour))
    return svg


def strip(values: NDArray[np.float64], label: str) -> Element:
    """A share from 0 to 1 over equal slices of time, as an area."""
    steps = "".join(f"V{100 - 100 * min(float(value), 1.0):.1f}h1" for value in values)
    shape = tag("path", d=f"M0 100{steps}V100Z", class_="area")
    return tag(
        "svg", shape, class_="strip", width="100%", height=22, viewBox=f"0 0 {len(values)} 100",
        preserveAspectRatio="none", role="img", aria_label=label,
    )  # fmt: skip


def _spoken(label: str) -> dict[str, str]:
    """What a screen reader says of a drawing; nothing where the numbers stand beside it."""
    return {"role": "img", "aria_label": label} if label else {"aria_hidden": "true"}


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"
