"""What scenarios differ in, key by key. Owns the walk over resolved documents; must not know what a key means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_WORDS = ("source", "sources", "description", "name", "published")  # what nothing is simulated from


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One key path and its value in each scenario, as written; a key that a scenario lacks is empty there."""

    key: str
    values: tuple[str, ...]


def differences(documents: Sequence[Mapping[str, Any]]) -> tuple[Difference, ...]:
    """Every key whose value is not the same in all resolved ``documents``, in the order of the first that has it."""
    leaves = [dict(_leaves(document)) for document in documents]
    keys = dict.fromkeys(key for one in leaves for key in one)
    rows = [Difference(key=key, values=tuple(one.get(key, "") for one in leaves)) for key in keys]
    return tuple(row for row in rows if len(set(row.values)) > 1)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:  # noqa: ANN401 - plain YAML values
    if isinstance(value, Mapping):
        for key, below in value.items():
            if str(key) not in _WORDS:
                yield from _leaves(below, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping | list | tuple) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}.{index}")
    elif isinstance(value, list | tuple):
        yield path, ", ".join(_text(item) for item in value)
    else:
        yield path, _text(value)


def _text(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
