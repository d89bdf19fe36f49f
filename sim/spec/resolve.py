"""From a file that names others to one document: references, ``extends`` and ``--set``.

Owns how files combine. A reference (``model``, ``cluster``, ``stack``, a cluster's ``device``) is a shipped name, a
path relative to the file that says it, or a mapping; a mapping may ``extends`` one of these and override its keys. A
key of ``LISTS`` may be the path of a file that holds its list.
Mappings merge key by key, anything else replaces, ``null`` included. Every node keeps the place and the source that it
came from, so an error in an inherited key names the inherited file. Knows which keys refer, and no key's meaning.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sim.errors import Problem, ScenarioError
from sim.spec import catalogue
from sim.spec.sources import stamp, vouch
from sim.spec.tree import MAX_DEPTH, Node, Place, kind_of, read_file, read_text
from sim.spec.wording import choices, shown, suggest

Where = tuple[str, ...]

CATALOGUES: Mapping[str, tuple[str, ...]] = {
    "scenario": ("scenarios",),
    "model": ("models",),
    "cluster": ("clusters", "nodes"),
    "device": ("devices",),
    "stack": ("stacks",),
}
"""What a reference is to -> the kinds of shipped file that may answer, in order."""

REFERENCES: Mapping[str, Mapping[str, str]] = {
    "scenario": {"model": "model", "cluster": "cluster", "stack": "stack"},
    "cluster": {"device": "device", "others": "nodes"},
    "group": {"node": "cluster"},
}
"""Where a key is a reference, and to what."""

ITEMS: Mapping[str, str] = {"nodes": "group"}
"""What the items are of a list that may hold references. No file answers to these kinds."""

SHORTHAND: Mapping[str, tuple[str, ...]] = {"precision": ("compute",), "offload": ("optimizer", "gradients")}
"""Scenario keys that may be one word: it stands for these keys of the mapping."""

LISTS: tuple[Where, ...] = (("layout", "placement"),)
"""Keys of the scenario that may be the path of a YAML file with a list."""

SET = "--set"
_LONGEST_CHAIN = 16


@dataclass(frozen=True, slots=True)
class _At:
    """Where expansion stands: what is being expanded, its path in the document, the files it came through."""

    kind: str
    where: Where = ()
    chain: tuple[str, ...] = ()

    def below(self, key: str, kind: str = "") -> _At:
        return _At(kind, (*self.where, key), self.chain)


@dataclass(slots=True)
class Resolved:
    """The document as one tree, what went wrong on the way, and paths under which keys may be missing for that.

    ``paths`` are the files that it came from, by their names in messages.
    """

    root: Node
    problems: list[Problem] = field(default_factory=list)
    broken: list[Where] = field(default_factory=list)
    paths: Mapping[str, Path] = field(default_factory=dict)


def resolve(reference: str, overrides: Sequence[str] = ()) -> Resolved:
    """Read a scenario (shipped name or path), write out all it refers to, then apply ``key.path=value`` overrides.

    Problems of referenced files are collected; what they would have said is left out of the tree.

    Raises:
        ScenarioError: the scenario itself cannot be found or parsed.
    """
    resolver = _Resolver()
    found = resolver.open(reference, Place(""), _At("scenario"))
    if found is None:
        raise ScenarioError(resolver.problems)
    for override in overrides:
        found = resolver.override(found, override)
    return Resolved(found, resolver.problems, resolver.broken, resolver.paths)


def resolve_cluster(reference: str) -> Node:
    """Read a cluster or node (shipped name or path) and write out all that it refers to; checks no value.

    Raises:
        ScenarioError: it, or a file that it refers to, cannot be found or parsed.
    """
    resolver = _Resolver()
    found = resolver.open(reference, Place(""), _At("cluster"))
    if found is None or resolver.problems:
        raise ScenarioError(resolver.problems)
    return found


class _Resolver:
    """Carries the problems found, and each file read, from one reference to the next."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.broken: list[Where] = []
        self.paths: dict[str, Path] = {}
        self.trees: dict[Path, Node | None] = {}

    # -- finding and reading

    def open(self, name: str, place: Place, at: _At) -> Node | None:
        """Return the document that a reference stands for, or None after noting why not."""
        found = self._tree(name, place, at)
        if found is None:
            self.broken.append(at.where)
            return None
        tree, label = found
        return self.expand(tree, replace(at, chain=(*at.chain, label)))

    def _tree(self, name: str, place: Place, at: _At) -> tuple[Node, str] | None:
        """Return the file a reference names, unexpanded, and its label."""
        found = self._locate(name, place, at)
        if found is None:
            return None
        path, label = found
        if label in at.chain or len(at.chain) >= _LONGEST_CHAIN:
            rule = "a file cannot extend itself" if label in at.chain else f"at most {_LONGEST_CHAIN} files in a chain"
            self._note(place, at.where, f"{' -> '.join([*at.chain, label])}: {rule}; break the chain")
            return None
        if not path.is_file():
            self._note(place, at.where, f"{label}: there is no such file")
            return None
        tree = self._read(path, label, at.kind)
        if tree is not None and not isinstance(tree.value, dict):
            self.problems.append(tree.place.problem("", f"a mapping of keys is expected, not {kind_of(tree)}"))
            return None
        return None if tree is None else (tree, label)

    def _locate(self, name: str, place: Place, at: _At) -> tuple[Path, str] | None:
        if catalogue.is_path(name):
            base = self.paths[place.file].parent if place.file in self.paths else Path()
            folder = posixpath.dirname(place.file) if place.file in self.paths else ""
            label = posixpath.normpath(posixpath.join(folder, name))
            return base / name, label
        for shelf in CATALOGUES[at.kind]:
            if name in catalogue.names(shelf):
                return catalogue.path_of(shelf, name), catalogue.label_of(shelf, name)
        known = [known for shelf in CATALOGUES[at.kind] for known in catalogue.names(shelf)]
        hint = f"{suggest(name, known)}choices: {choices(known, name)}, or a path ending in .yaml"
        self._note(place, at.where, f"unknown {at.kind} {shown(name)}; {hint}")
        return None

    def _read(self, path: Path, label: str, kind: str) -> Node | None:
        """Read a file once; its own problems are noted once, however often it is referred to."""
        if path not in self.trees:
            self.paths[label] = path
            try:
                tree = read_file(path, label)
                if kind == "scenario" and isinstance(tree.value, dict) and "name" not in tree.value:
                    name = Node(path.stem, tree.place)
                    tree = replace(tree, value={"name": name, **tree.value})
                self.trees[path] = vouch(tree, "", self.problems, ())
            except ScenarioError as error:
                self.problems.extend(error.problems)
                self.trees[path] = None
        return self.trees[path]

    def _note(self, place: Place, where: Where, what: str) -> None:
        here = place if place.file else Place("scenario")  # a name given on the command line stands in no file
        self.problems.append(here.problem(".".join(where), what))

    # -- combining

    def expand(self, node: Node, at: _At, base: Node | None = None) -> Node | None:
        """Write out a reference to ``at.kind``; a mapping that does not say ``extends`` overrides ``base``."""
        if isinstance(node.value, str) and at.kind in CATALOGUES:
            return self.open(node.value, node.place, at)
        if isinstance(node.value, tuple) and at.kind in ITEMS:
            expanded = [self.expand(item, at.below(str(i), ITEMS[at.kind])) for i, item in enumerate(node.value)]
            return replace(node, value=tuple(item for item in expanded if item is not None))
        if not isinstance(node.value, dict):
            return node
        own = dict(node.value)
        parent = own.pop("extends", None) if at.kind in CATALOGUES else None
        if parent is not None:
            base = self._base(parent, at)
        merged = dict(base.value) if base is not None and isinstance(base.value, dict) else {}
        if parent is not None and at.kind == "scenario":
            merged.pop("name", None)  # the base's name and words describe the base
            merged.pop("description", None)
        for key, child in own.items():
            _put(merged, key, self.combine(merged.get(key), key, child, at))
        return replace(node, value=merged)

    def _base(self, parent: Node, at: _At) -> Node | None:
        if isinstance(parent.value, str):
            return self.open(parent.value, parent.place, at)
        self._note(parent.place, (*at.where, "extends"), f"must be a shipped name or a path, not {kind_of(parent)}")
        self.broken.append(at.where)
        return None

    def combine(self, old: Node | None, key: str, new: Node, at: _At) -> Node | None:
        """Lay the value of one key of ``at`` over what it had."""
        target = REFERENCES.get(at.kind, {}).get(key)
        if target is not None:
            return self.expand(new, at.below(key, target), base=old)
        if at.kind == "scenario" and key in SHORTHAND and isinstance(new.value, str):
            return replace(new, value=dict.fromkeys(SHORTHAND[key], new))
        return merge(old, self._with_lists(new, (*at.where, key)))

    def _with_lists(self, node: Node, where: Where) -> Node:
        """Write out the files that stand for lists, in a value or in the keys of a block."""
        if where in LISTS and isinstance(node.value, str) and catalogue.is_path(node.value):
            return self._list(node, node.value, where)
        if isinstance(node.value, dict) and any(where == path[:-1] for path in LISTS):
            return replace(node, value={k: self._with_lists(c, (*where, k)) for k, c in node.value.items()})
        return node

    def _list(self, node: Node, name: str, where: Where) -> Node:
        found = self._locate(name, node.place, _At("list", where))
        if found is None or not found[0].is_file():
            self._note(node.place, where, f"{name}: there is no such file")
            return node
        tree = self._read(*found, "list")
        if tree is not None and not isinstance(tree.value, tuple):
            self.problems.append(tree.place.problem(".".join(where), f"a list is expected, not {kind_of(tree)}"))
        return node if tree is None or not isinstance(tree.value, tuple) else tree

    # -- overriding

    def override(self, root: Node, text: str) -> Node:
        """Apply one ``key.path=value``; the value is one YAML scalar or flow collection."""
        path, equals, value = text.partition("=")
        place = Place(SET)
        parts = tuple(part.strip() for part in path.split("."))
        if not equals or not all(parts):
            self.problems.append(place.problem("", f"{shown(text)} is not of the form key.path=value"))
            return root
        if len(parts) > MAX_DEPTH or "extends" in parts:
            what = "extends is settled when files are read; set the key it would change, or cluster=NAME and the like"
            self.problems.append(place.problem(path, what if "extends" in parts else f"is more than {MAX_DEPTH} deep"))
            return root
        try:
            tree = read_text(value, SET) if value.strip() else Node(None, place)
        except ScenarioError as error:
            whats = [Problem(SET, 0, 0, path, f"{shown(value)} is not a value: {p.what}") for p in error.problems]
            self.problems.extend(whats)
            return root
        self.paths[SET] = Path(SET)
        return self._set(root, parts, stamp(tree, place), _At("scenario"))

    def _set(self, node: Node, parts: Where, value: Node, at: _At) -> Node:
        """Return the node with one path below it changed; absent mappings on the way are made."""
        if isinstance(node.value, tuple):
            return self._set_item(node, node.value, parts, value, at)
        if not isinstance(node.value, dict) and node.value is not None:
            what = f"{'.'.join(at.where)} is {shown(node.value)}, which has no key {shown(parts[0])}"
            self._note(value.place, (*at.where, *parts), what)
            return node
        children = dict(node.value) if isinstance(node.value, dict) else {}
        # a key may itself hold dots (device names do): the longest that is there wins
        taken = next((n for n in range(len(parts), 1, -1) if ".".join(parts[:n]) in children), 1)
        key, rest = ".".join(parts[:taken]), parts[taken:]
        old = children.get(key)
        if rest:
            inner = REFERENCES.get(at.kind, {}).get(key, "")
            _put(children, key, self._set(old or Node({}, value.place), rest, value, at.below(key, inner)))
        else:
            _put(children, key, self.combine(old, key, value, at))
        return replace(node, value=children, place=value.place if node.value is None else node.place)

    def _set_item(self, node: Node, items: tuple[Node, ...], parts: Where, value: Node, at: _At) -> Node:
        index = int(parts[0]) if parts[0].isascii() and parts[0].isdigit() and len(parts[0]) < 6 else -1
        if not 0 <= index < len(items):
            what = f"{'.'.join(at.where)} is a list of {len(items)}; {shown(parts[0])} is not an index into it"
            self._note(value.place, (*at.where, *parts), what)
            return node
        old = items[index]
        here = at.below(parts[0], ITEMS.get(at.kind, ""))
        if parts[1:]:
            new = self._set(old, parts[1:], value, here)
        else:
            new = (self.expand(value, here, base=old) or old) if here.kind else merge(old, value)
        return replace(node, value=(*items[:index], new, *items[index + 1 :]))


def _put(children: dict[str, Node], key: str, node: Node | None) -> None:
    """Set a key, or drop it when there is nothing to set."""
    if node is None:
        children.pop(key, None)
    else:
        children[key] = node


def merge(old: Node | None, new: Node) -> Node:
    """Lay a node over another: mappings key by key, anything else by replacing."""
    if old is None or not isinstance(old.value, dict) or not isinstance(new.value, dict):
        return new
    merged = dict(old.value)
    for key, child in new.value.items():
        merged[key] = merge(merged.get(key), child)
    return replace(new, value=merged)
