"""Colours and labels: one table for every figure. Knows names of categories and of memory owners, no number.

Hues are those of Okabe and Ito (2008) and of Paul Tol's schemes (2021). Which goes to which category was searched for:
the closest two are as far apart as can be, seen normally and with protan-, deuter- and tritanopia (Machado et al.
2009), 13 or more in CIELAB; the test measures it. Compute is blue, green and purple, transfers warm, waiting grey.
"""

from __future__ import annotations

CATEGORIES: dict[str, tuple[str, str]] = {
    "forward": ("#332288", "forward"),
    "recompute": ("#56B4E9", "recompute"),
    "backward": ("#117733", "backward"),
    "optimizer": ("#AA4499", "optimizer (GPU)"),
    "tp": ("#999933", "tensor-parallel communication"),
    "cp": ("#99DDFF", "context-parallel communication"),
    "ep": ("#CCBB44", "expert communication"),
    "pp": ("#882255", "pipeline communication"),
    "dp": ("#D55E00", "gradient communication"),
    "param_gather": ("#F0E442", "parameter gather"),
    "h2d": ("#EE8866", "host to GPU"),
    "d2h": ("#EE99AA", "GPU to host"),
    "cpu_adam": ("#663333", "CPU optimizer"),
    "nvme": ("#000000", "NVMe"),
    "host_launch": ("#777777", "host launch"),
    "bubble": ("#DDDDDD", "bubble"),
}
"""Category -> (colour, label), in the order in which a stack of them is drawn."""

DARK: dict[str, str] = {
    "forward": "#6D4DF8",
    "backward": "#1C7D39",
    "optimizer": "#BC4FE6",
    "pp": "#E353B9",
    "cpu_adam": "#AE8176",
    "nvme": "#FFFFFF",
    "host_launch": "#707780",
    "bubble": "#2F353D",
}
"""Category -> colour on a dark ground, where it differs: found by the same search, each (but waiting) at a contrast of
3 or more with the ground (WCAG 2)."""

GROUND: dict[str, str] = {"light": "#FFFFFF", "dark": "#14181D"}
"""What charts of the page are drawn on."""

RESOURCES: dict[str, str] = {
    "sm": "#0077BB",
    "hbm": "#EE7733",
    "nvlink.tx": "#009988",
    "nvlink.rx": "#44BB99",
    "nic.tx": "#CC3311",
    "nic.rx": "#EE8866",
    "pcie.h2d": "#EE3377",
    "pcie.d2h": "#CC79A7",
    "pcie.duplex": "#FFAABB",
    "uplink.in": "#AA4499",
    "uplink.out": "#BB77BB",
    "dram": "#33BBEE",
    "cores": "#997700",
    "nvme.read": "#666633",
    "nvme.write": "#999933",
    "nvme.busy": "#BBCC33",
    "socket_link": "#DDCC77",
    "latency": "#999999",
}
"""Kind of resource -> colour (hues of Paul Tol's vibrant and light schemes), on either ground."""

OWNERS: dict[str, str] = {
    "parameters": "#77AADD",
    "parameters.gathered": "#99DDFF",
    "parameters.staging": "#0077BB",
    "optimizer states": "#FFAABB",
    "gradients": "#EE8866",
    "gradients.shard": "#CC6677",
    "activations.checkpoints": "#44BB99",
    "activations.attention": "#BBCC33",
    "activations.mlp": "#AAAA00",
    "activations.workspace": "#EEDD88",
    "activations.logits": "#225555",
    "activations.masks": "#DDCC77",
    "activations.norm": "#117733",
    "activations.embedding": "#6699CC",
    "activations.head": "#882255",
    "framework": "#BBBBBB",
    "allocator": "#888888",
    "other": "#DDDDDD",
}
"""Owner of memory -> colour: the same in every figure, whatever its rank in the stack."""

_SPARE = ("#332288", "#AA4499", "#999933", "#CC3311", "#009988", "#555555")
_NEUTRAL = "#BBBBBB"


def colour(category: str, *, dark: bool = False) -> str:
    """Colour of a category, on a light ground or a dark one; a neutral one for what the table does not know."""
    light = CATEGORIES.get(category, (_NEUTRAL, category))[0]
    return DARK.get(category, light) if dark else light


def label(category: str) -> str:
    """Words for a category."""
    return CATEGORIES.get(category, (_NEUTRAL, category))[1]


def owner_colours(owners: list[str]) -> dict[str, str]:
    """Owner -> colour; those that the table does not know take spare ones in the order given."""
    unknown = [owner for owner in owners if owner not in OWNERS]
    spare = {owner: _SPARE[i % len(_SPARE)] for i, owner in enumerate(unknown)}
    return {owner: OWNERS.get(owner) or spare[owner] for owner in owners}


def ink(category: str, *, dark: bool = False) -> str:
    """Black or white, whichever can be read on the category's colour (relative luminance, WCAG 2)."""
    red, green, blue = (int(colour(category, dark=dark)[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return "black" if 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 > 0.18 else "white"
