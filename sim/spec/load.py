"""A scenario file in, a frozen ``Scenario`` out, or every problem at once.

Owns the order of the steps: resolve files and overrides, validate blocks, run the cross-field checks, build. Also keeps
what reports need beside the scenario: the resolved document, where each key stands, and each number's source.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim import units
from sim.errors import Problem, ScenarioError
from sim.spec import checks
from sim.spec.beside import read_schedule
from sim.spec.build import build
from sim.spec.resolve import SET, resolve
from sim.spec.tree import Node, Place
from sim.spec.types import Scenario, ScheduleFile
from sim.spec.validate import WORDS, document, documented, place_of, positions, validate

_SOURCED = ("model", "cluster", "stack")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRow:
    """One number of the scenario: its key path, its text, what vouches for it (may be empty), and where it stands."""

    key: str
    value: str
    source: str
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A scenario and where it came from.

    ``document`` is the resolved file as plain YAML values: every name written out, overrides applied; it loads
    again to the same scenario (one that names a ``layout.schedule_file``: from the same folder); ``documented`` is the
    same with the sources of every mapping. ``positions`` maps
    key paths (``cluster.host.dram``; the whole: empty) to places. ``sources`` lists the numbers of model, cluster
    and stack in file order; overridden numbers have the source ``--set``. ``settings`` lists every value.
    """

    scenario: Scenario
    document: Mapping[str, Any]
    documented: Mapping[str, Any]
    positions: Mapping[str, Place]
    sources: tuple[SourceRow, ...]
    settings: tuple[SourceRow, ...]


def load(
    path_or_name: str,
    overrides: Sequence[str] = (),
    *,
    reader: Callable[[ScheduleFile], Sequence[Problem]] | None = None,
) -> Loaded:
    """Load a scenario by path (it has a ``/`` or ends in ``.yaml``) or shipped name.

    Args:
        path_or_name: the scenario.
        overrides: ``key.path=value`` each, applied in order to the resolved document, names expanded.
        reader: whoever knows the format of a schedule file says what is wrong with its text, so that this, too, is told
            with the rest.

    Raises:
        ScenarioError: every problem of every file it is made of, each with file, line, column and key.
    """
    resolved = resolve(path_or_name, overrides)
    draft, faults = validate(resolved.root, resolved.broken)
    places = positions(resolved.root)
    found = [place_of(places, key).problem(key, what) for key, what in checks.run(draft)]
    schedule, unread = read_schedule(resolved.root, resolved.paths)
    if schedule is not None and reader is not None:
        unread = [*reader(schedule)]
    problems = [*resolved.problems, *faults, *unread, *found]
    if problems:
        # the first thing said of a key at its place is the nearest to the cause
        raise ScenarioError(list({(p.file, p.line, p.column, p.key): p for p in reversed(problems)}.values()))
    return Loaded(
        scenario=build(draft, schedule),
        document=document(resolved.root),
        documented=documented(resolved.root),
        positions=places,
        sources=_sources(resolved.root),
        settings=tuple(_settings(resolved.root)),
    )


def _sources(root: Node) -> tuple[SourceRow, ...]:
    """Return a row for each number of the described hardware, model and software, and for each number set by hand."""
    rows = [
        SourceRow(key=".".join(path), value=str(node.value), source=node.source, place=node.place)
        for path, node in root.walk()
        if path and not set(path) & set(WORDS) and _is_number(node) and (path[0] in _SOURCED or node.source == SET)
    ]
    return tuple(rows)


def _settings(node: Node, path: tuple[str, ...] = ()) -> Iterator[SourceRow]:
    """Yield a row for each value, in file order; a list of plain values is one."""
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            if key not in WORDS:
                yield from _settings(child, (*path, key))
    elif isinstance(node.value, tuple) and any(isinstance(item.value, dict | tuple) for item in node.value):
        for index, item in enumerate(node.value):
            yield from _settings(item, (*path, str(index)))
    else:
        value = ", ".join(_text(item) for item in node.value) if isinstance(node.value, tuple) else _text(node)
        yield SourceRow(key=".".join(path), value=value, source=node.source, place=node.place)


def _text(node: Node) -> str:
    """Write a plain value as in a file."""
    return json.dumps(node.value) if isinstance(node.value, bool) or node.value is None else str(node.value)


def _is_number(node: Node) -> bool:
    if isinstance(node.value, str):
        return units.is_quantity(node.value)
    return isinstance(node.value, int | float) and not isinstance(node.value, bool)
