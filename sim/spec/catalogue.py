"""The files that ship with Stepline, found by kind and name.

Owns where they lie: in a checkout beside the package, in an installed wheel inside it (``sim/shipped``). A name is a
file's stem. Knows nothing of what the files say beyond the few words that a listing shows; imports no validator, so
that listing is quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sim.errors import ScenarioError
from sim.spec.tree import Node, Place, read_file
from sim.spec.wording import choices, suggest

FOLDERS: Mapping[str, str] = {
    "devices": "topologies/devices",
    "nodes": "topologies/nodes",
    "clusters": "topologies/clusters",
    "stacks": "topologies/stacks",
    "models": "scenarios/models",
    "scenarios": "scenarios",
}
"""Kind -> folder below the root."""

FACTS: Mapping[str, tuple[str, ...]] = {
    "devices": ("memory", "hbm_bandwidth"),
    "nodes": ("gpus_per_host", "device"),
    "clusters": ("nodes", "gpus_per_host", "device"),
    "stacks": ("attention",),
    "models": ("kind", "layers", "hidden", "heads"),
    "scenarios": ("model", "cluster", "stack"),
}
"""Kind -> keys that a listing shows."""

_LONGEST_CHAIN = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One row of a listing: ``facts`` are (key, text) pairs as written in the file or the file it extends."""

    kind: str
    name: str
    description: str
    facts: tuple[tuple[str, str], ...]


def root() -> Path:
    """Return the folder that holds ``topologies`` and ``scenarios``."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "shipped"
    return shipped if shipped.is_dir() else package.parent


def names(kind: str) -> tuple[str, ...]:
    """Return the names of a kind (a key of ``FOLDERS``), sorted."""
    return tuple(sorted(path.stem for path in (root() / FOLDERS[kind]).glob("*.yaml")))


def path_of(kind: str, name: str) -> Path:
    """Return the file of a shipped name.

    Raises:
        ScenarioError: no such name; the message lists those there are.
    """
    known = names(kind)
    if name not in known:
        what = f"unknown name '{name}'; {suggest(name, known)}choices: {choices(known, name)}"
        raise ScenarioError([Place(FOLDERS[kind]).problem("", what)])
    return root() / FOLDERS[kind] / f"{name}.yaml"


def label_of(kind: str, name: str) -> str:
    """Return what messages call a shipped file: its path below the root, the same on every machine."""
    return f"{FOLDERS[kind]}/{name}.yaml"


def is_path(reference: str) -> bool:
    """Tell a path (it has a ``/`` or ends in ``.yaml``) from a shipped name."""
    return "/" in reference or reference.endswith((".yaml", ".yml"))


def summary(kind: str) -> tuple[Summary, ...]:
    """Return one row for each shipped file of a kind, sorted by name.

    Raises:
        ScenarioError: a file cannot be read.
    """
    return tuple(_row(kind, name) for name in names(kind))


def _row(kind: str, name: str) -> Summary:
    keys = _top(kind, name, _LONGEST_CHAIN)
    facts = tuple((key, _text(keys[key])) for key in FACTS[kind] if key in keys and _text(keys[key]))
    own = _read(kind, name)
    described = own.get("description") or own.get("source")
    return Summary(kind=kind, name=name, description=_text(described) if described else "", facts=facts)


def _read(kind: str, name: str) -> dict[str, Node]:
    value = read_file(path_of(kind, name), label_of(kind, name)).value
    return value if isinstance(value, dict) else {}


def _top(kind: str, name: str, left: int) -> dict[str, Node]:
    """Return a file's top keys over those of the shipped file it extends."""
    own = _read(kind, name)
    base = own["extends"].value if "extends" in own else None
    for other in ("nodes", "clusters") if kind in ("nodes", "clusters") else (kind,):
        if left and isinstance(base, str) and base in names(other):
            return {**_top(other, base, left - 1), **own}
    return own


def _text(node: Node) -> str:
    """Write a scalar on one line; a mapping is called by its ``name`` or by what it extends."""
    if isinstance(node.value, dict):
        called = node.value.get("name") or node.value.get("extends")
        return _text(called) if called else ""
    return "" if isinstance(node.value, tuple) or node.value is None else " ".join(str(node.value).split())
