"""Which words of a file vouch for which of its numbers.

Owns the keys ``source`` (a mapping and all below it) and ``sources`` (key by key). They are settled file by file,
before files are combined, so that an overridden number never borrows the source of the number it replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sim.errors import Problem
from sim.spec.tree import Node, Place, kind_of
from sim.spec.wording import choices, suggest

Where = tuple[str, ...]


def stamp(node: Node, place: Place) -> Node:
    """Give a whole tree one place, and that place as its source."""
    if isinstance(node.value, dict):
        return replace(node, place=place, source=place.file, value={k: stamp(c, place) for k, c in node.value.items()})
    if isinstance(node.value, tuple):
        return replace(node, place=place, source=place.file, value=tuple(stamp(c, place) for c in node.value))
    return replace(node, place=place, source=place.file)


def vouch(node: Node, source: str, problems: list[Problem], where: Where) -> Node:
    """Give every node of a file the nearest ``source`` above it, or its own in the mapping's ``sources``."""
    if isinstance(node.value, tuple):
        items = tuple(vouch(item, source, problems, (*where, str(i))) for i, item in enumerate(node.value))
        return replace(node, value=items, source=source)
    if not isinstance(node.value, dict):
        return replace(node, source=source)
    said = node.value.get("source")
    if said is not None:
        source = _words(said, problems, (*where, "source"))
    each = dict(_each_source(node, problems, where))
    children = {k: vouch(c, each.get(k, source), problems, (*where, k)) for k, c in node.value.items()}
    return replace(node, value=children, source=source)


def _each_source(node: Node, problems: list[Problem], where: Where) -> Iterator[tuple[str, str]]:
    """Yield the (key, source) pairs of a mapping's ``sources``, noting keys that are not there."""
    keys = node.value if isinstance(node.value, dict) else {}
    if "sources" not in keys:
        return
    table = keys["sources"]
    if not isinstance(table.value, dict):
        problems.append(table.place.problem(".".join((*where, "sources")), "must be a mapping of key to source"))
        return
    for key, said in table.value.items():
        here = (*where, "sources", key)
        if key not in keys:
            what = f"vouches for a key that is not beside it; {suggest(key, keys)}keys: {choices(keys)}"
            problems.append(said.place.problem(".".join(here), what))
        yield key, _words(said, problems, here)


def _words(node: Node, problems: list[Problem], where: Where) -> str:
    if isinstance(node.value, str):
        return " ".join(node.value.split())
    what = f"must be text that says where numbers come from, not {kind_of(node)}"
    problems.append(node.place.problem(".".join(where), what))
    return ""
