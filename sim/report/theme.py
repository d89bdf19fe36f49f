"""Colours and labels: one table for every figure.

Hues are Paul Tol's "bright", "muted" and "light" schemes (colour-blind-safe), compute in blues and greens, transfers in
warm colours, waiting in greys.
"""

from __future__ import annotations

CATEGORIES: dict[str, tuple[str, str]] = {
    "forward": ("#4477AA", "forward"),
    "recompute": ("#99BBDD", "recompute"),
    "backward": ("#228833", "backward"),
    "optimizer": ("#AA3377", "optimizer (GPU)"),
    "tp": ("#EE8866", "tensor-parallel communication"),
    "cp": ("#FFAABB", "context-parallel communication"),
    "ep": ("#EEDD88", "expert communication"),
    "pp": ("#BBCC33", "pipeline communication"),
    "dp": ("#EE7733", "gradient communication"),
    "param_gather": ("#CCBB44", "parameter gather"),
    "h2d": ("#CC3311", "host to GPU"),
    "d2h": ("#EE99AA", "GPU to host"),
    "cpu_adam": ("#882255", "CPU optimizer"),
    "nvme": ("#44AA99", "NVMe"),
    "host_launch": ("#777777", "host launch"),
    "bubble": ("#DDDDDD", "bubble"),
}
"""Category -> (colour, label), in the order in which a stack of them is drawn."""

OWNERS = (
    "#4477AA", "#88CCEE", "#228833", "#CCBB44", "#EE7733", "#AA3377", "#66CCEE", "#999933", "#EE99AA", "#BBBBBB",
)  # fmt: skip
"""Colours of memory owners from the bottom of the stack up; the last one is for all the others together."""


def colour(category: str) -> str:
    """Colour of a category; a neutral one for what the table does not know."""
    return CATEGORIES.get(category, ("#BBBBBB", category))[0]


def label(category: str) -> str:
    """Words for a category."""
    return CATEGORIES.get(category, ("#BBBBBB", category))[1]


def ink(category: str) -> str:
    """Black or white, whichever can be read on the category's colour (relative luminance, WCAG 2)."""
    red, green, blue = (int(colour(category)[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return "black" if 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 > 0.18 else "white"
