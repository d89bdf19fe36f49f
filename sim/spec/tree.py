"""YAML text to a tree of nodes that know where they stand.

Owns what a file may look like before anything is known of its meaning: YAML 1.2 core schema, one document, no tags,
no duplicate keys, and limits on size, depth and on the number of nodes once aliases are written out. The tree is built
from ruamel.yaml's event stream, so no object of a file's choosing is ever constructed. Knows no key's meaning.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from sim.errors import Problem, ScenarioError
from sim.spec.wording import shown

MAX_BYTES = 1 << 20
MAX_NODES = 20_000
MAX_DEPTH = 64

_INT = re.compile(r"[-+]?[0-9]{1,18}")
_RADIX = re.compile(r"0o[0-7]{1,20}|0x[0-9a-fA-F]{1,15}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | float | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
    ".nan": math.nan, ".NaN": math.nan, ".NAN": math.nan,
    ".inf": math.inf, ".Inf": math.inf, ".INF": math.inf,
    "+.inf": math.inf, "+.Inf": math.inf, "+.INF": math.inf, "-.inf": -math.inf, "-.Inf": -math.inf, "-.INF": -math.inf,
}  # fmt: skip

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a key stands: file as the user knows it, line and column from 1 (0: no line, as for ``--set``)."""

    file: str
    line: int = 0
    column: int = 0

    def problem(self, key: str, what: str) -> Problem:
        """Say what is wrong with a key here."""
        return Problem(self.file, self.line, self.column, key, what)


@dataclass(frozen=True, slots=True)
class Node:
    """A scalar, a mapping or a sequence; ``place`` is that of its key, ``source`` what vouches for its value."""

    value: Scalar | dict[str, Node] | tuple[Node, ...]
    place: Place
    source: str = ""
    size: int = 1
    depth: int = 0

    def plain(self) -> object:
        """Return the value as built-in dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, tuple):
            return [child.plain() for child in self.value]
        return self.value

    def walk(self, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Node]]:
        """Yield every node with its path, parents first, in file order."""
        yield path, self
        if isinstance(self.value, dict):
            for key, child in self.value.items():
                yield from child.walk((*path, key))
        elif isinstance(self.value, tuple):
            for index, child in enumerate(self.value):
                yield from child.walk((*path, str(index)))


def read_file(path: Path, label: str) -> Node:
    """Read one YAML file; ``label`` is its name in messages.

    Raises:
        ScenarioError: missing or unreadable file, too large, not UTF-8, or anything ``read_text`` refuses.
    """
    here = Place(label)
    try:
        if not path.is_file():
            raise ScenarioError([here.problem("", "there is no such file")])
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ScenarioError([here.problem("", f"is not UTF-8 text (byte {error.start})")]) from error
    except (OSError, ValueError) as error:
        raise ScenarioError([here.problem("", f"cannot be read: {error.__class__.__name__}")]) from error
    if len(raw) > MAX_BYTES:
        raise ScenarioError([here.problem("", f"is larger than {MAX_BYTES} bytes, the most that a file may have")])
    return read_text(text, label)


def read_text(text: str, label: str) -> Node:
    """Build the tree of a YAML text.

    Raises:
        ScenarioError: syntax errors, tags, duplicate keys, more than one document, or a limit exceeded.
    """
    builder = _Builder(label)
    try:
        for event in YAML(typ="rt", pure=True).parse(text):
            builder.take(event)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(label, mark.line + 1, mark.column + 1) if mark else Place(label)
        what = str(error.problem or error.context or "cannot be parsed").split("\n", 1)[0]
        raise ScenarioError([*builder.problems, place.problem("", f"YAML syntax: {what}")]) from error
    except YAMLError as error:
        what = str(error).strip().split("\n", 1)[0]
        raise ScenarioError([Place(label).problem("", f"YAML syntax: {what}")]) from error
    except (ValueError, TypeError, AttributeError, LookupError, AssertionError, NotImplementedError) as error:
        # NOTE the parser itself trips over some malformed directives and escapes; that is the file's fault, not ours
        raise ScenarioError([Place(label).problem("", "YAML syntax: cannot be parsed")]) from error
    if builder.problems:
        raise ScenarioError(builder.problems)
    if builder.root is None:
        raise ScenarioError([Place(label).problem("", "is empty; a mapping of keys is expected")])
    return builder.root


def kind_of(node: Node) -> str:
    """Name what a node holds, for messages."""
    if isinstance(node.value, dict):
        return "a mapping"
    return "a list" if isinstance(node.value, tuple) else shown(node.value)


def scalar(text: str) -> Scalar:
    """Read a plain (unquoted) scalar by the YAML 1.2 core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _RADIX.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text


@dataclass(slots=True)
class _Frame:
    """A collection whose end has not been seen yet."""

    place: Place
    anchor: str | None
    mapping: bool
    children: dict[str, Node] = field(default_factory=dict)
    items: list[Node] = field(default_factory=list)
    key: str | None = None
    key_place: Place | None = None


class _Builder:
    """Turns events into nodes with an explicit stack, so that depth is a limit of ours and not of Python's."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.problems: list[Problem] = []
        self.root: Node | None = None
        self.frames: list[_Frame] = []
        self.anchors: dict[str, Node] = {}
        self.documents = 0
        self.nodes = 0

    def take(self, event: Event) -> None:
        place = Place(self.label, event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                self._stop(place, "a second YAML document begins here; one document a file")
        elif isinstance(event, ScalarEvent):
            self._refuse_tag(event, place)
            if _SURROGATE.search(event.value):
                self._stop(place, "holds half of a surrogate pair, which is no character; write the character itself")
            # NOTE the parser marks where a folded text was broken, for those who write it again
            text = event.value.replace("\a", "") if event.style == ">" else event.value
            self._add(Node(text if event.style else scalar(text), place), place, event.anchor, text=text)
        elif isinstance(event, AliasEvent):
            self._alias(str(event.anchor), place)
        elif isinstance(event, MappingStartEvent | SequenceStartEvent):
            self._refuse_tag(event, place)
            if len(self.frames) >= MAX_DEPTH:
                self._stop(place, f"is nested more than {MAX_DEPTH} deep")
            self.frames.append(_Frame(place, event.anchor, isinstance(event, MappingStartEvent)))
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            self._close()

    def _close(self) -> None:
        frame = self.frames.pop()
        children = list(frame.children.values()) if frame.mapping else frame.items
        size = 1 + sum(child.size for child in children)
        depth = 1 + max((child.depth for child in children), default=0)
        value = frame.children if frame.mapping else tuple(frame.items)
        self._add(Node(value, frame.place, size=size, depth=depth), frame.place, frame.anchor, text=None)

    def _alias(self, anchor: str, place: Place) -> None:
        known = self.anchors.get(anchor)
        if known is None:
            self._stop(place, f"alias *{anchor} has no anchor before it")
            return
        if known.depth + len(self.frames) > MAX_DEPTH:
            self._stop(place, f"is nested more than {MAX_DEPTH} deep once aliases are written out")
        self.nodes += known.size - 1
        text = known.value if isinstance(known.value, str) else None
        self._add(replace(known, place=place), place, None, text=text)

    def _add(self, node: Node, place: Place, anchor: str | None, text: str | None) -> None:
        """Put a finished node where it belongs: root, sequence item, key or value."""
        self.nodes += 1
        if self.nodes > 2 * MAX_NODES or node.size > MAX_NODES:
            self._stop(place, f"has more than {MAX_NODES} nodes once aliases are written out")
        if anchor is not None:
            self.anchors[anchor] = node
        if not self.frames:
            self.root = node
            return
        frame = self.frames[-1]
        if not frame.mapping:
            frame.items.append(node)
        elif frame.key is None:
            self._key(frame, text, place)
        else:
            frame.children[frame.key] = replace(node, place=frame.key_place or place)
            frame.key = None

    def _key(self, frame: _Frame, text: str | None, place: Place) -> None:
        if text is None:
            self._stop(place, "a key must be a plain word")
            return
        if text in frame.children:
            first = frame.children[text].place
            self.problems.append(place.problem(text, f"duplicate key; line {first.line} has it already, keep one"))
        frame.key, frame.key_place = text, place

    def _refuse_tag(self, event: ScalarEvent | MappingStartEvent | SequenceStartEvent, place: Place) -> None:
        if event.tag is not None:
            self.problems.append(place.problem("", f"YAML tag {event.tag} is not accepted; write plain values"))

    def _stop(self, place: Place, what: str) -> None:
        raise ScenarioError([*self.problems, place.problem("", what)])
