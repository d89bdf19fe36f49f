"""From the resolved tree to validated blocks, each fault told in our words and at its place.

Owns the meeting of the tree (positions) and the schema (``blocks``). Blocks are validated one by one, so that a
fault in one leaves the rules between the others checkable. Knows no rule that spans keys.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Union, cast, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from sim import units
from sim.errors import Problem
from sim.spec.block import Block
from sim.spec.blocks import (
    BatchFile,
    ClusterFile,
    LayoutFile,
    ModelFile,
    OffloadFile,
    PrecisionFile,
    ScenarioFile,
    StackFile,
)
from sim.spec.quantities import RULE, Quantity
from sim.spec.refusals import KEYS, VALUES
from sim.spec.resolve import REFERENCES, Where
from sim.spec.tree import Node, Place
from sim.spec.wording import choices, shown, suggest

WORDS = ("description", "source", "sources")
"""Keys that any mapping may have; they document it and are not part of what is validated."""

_KEPT = {("description",), ("model", "source"), ("cluster", "source"), ("stack", "source")}


@dataclass(frozen=True, slots=True)
class Draft:
    """The blocks that are valid on their own. Ask ``has`` before reading one."""

    blocks: Mapping[str, Any]

    def has(self, names: Sequence[str]) -> bool:
        """Tell whether all these blocks are valid."""
        return all(name in self.blocks for name in names)

    @property
    def name(self) -> str:
        """Name of the scenario."""
        return cast(str, self.blocks["name"])

    @property
    def model(self) -> ModelFile:
        """The model block."""
        return cast(ModelFile, self.blocks["model"])

    @property
    def cluster(self) -> ClusterFile:
        """The cluster block."""
        return cast(ClusterFile, self.blocks["cluster"])

    @property
    def machines(self) -> list[tuple[str, ClusterFile, int]]:
        """Each type of node with the key path that describes it and how many there are: the cluster's own first."""
        others = enumerate(self.cluster.others or ())
        first = ("cluster", self.cluster, self.cluster.nodes)
        return [first, *((f"cluster.others.{i}.node", group.node, group.count) for i, group in others)]

    @property
    def gpus(self) -> int:
        """GPUs of all nodes of the cluster."""
        return sum(node.gpus_per_host * count for _, node, count in self.machines)

    @property
    def layout(self) -> LayoutFile:
        """The layout block."""
        return cast(LayoutFile, self.blocks["layout"])

    @property
    def batch(self) -> BatchFile:
        """The batch block."""
        return cast(BatchFile, self.blocks["batch"])

    @property
    def precision(self) -> PrecisionFile:
        """The precision block."""
        return cast(PrecisionFile, self.blocks["precision"])

    @property
    def offload(self) -> OffloadFile:
        """The offload block."""
        return cast(OffloadFile, self.blocks["offload"])

    @property
    def stack(self) -> StackFile:
        """The stack block."""
        return cast(StackFile, self.blocks["stack"])


def document(node: Node, path: Where = ()) -> Any:  # noqa: ANN401 - plain YAML values
    """Return the tree as plain values, without the words that document numbers."""
    if isinstance(node.value, dict):
        pairs = node.value.items()
        return {k: document(c, (*path, k)) for k, c in pairs if k not in WORDS or (*path, k) in _KEPT}
    if isinstance(node.value, tuple):
        return [document(item, (*path, str(index))) for index, item in enumerate(node.value)]
    return node.value


def documented(node: Node, path: Where = ()) -> Any:  # noqa: ANN401 - plain YAML values
    """Return the same values with a ``sources`` in every mapping, so that each key keeps what vouches for it."""
    if isinstance(node.value, tuple):
        return [documented(item, (*path, str(index))) for index, item in enumerate(node.value)]
    if not isinstance(node.value, dict):
        return node.value
    kept = {k: c for k, c in node.value.items() if k not in WORDS or (*path, k) in _KEPT}
    found = {k: documented(c, (*path, k)) for k, c in kept.items()}
    said = {k: c.source for k, c in kept.items() if c.source and k not in WORDS and not isinstance(c.value, dict)}
    return {**found, "sources": said} if said else found


def positions(root: Node) -> dict[str, Place]:
    """Return where each key path of a tree stands; the document itself under the empty path."""
    return {".".join(path): node.place for path, node in root.walk()}


def place_of(places: Mapping[str, Place], key: str) -> Place:
    """Return where a key stands, or where the nearest mapping around it does."""
    while key not in places and key:
        key = key.rpartition(".")[0]
    return places[key]


def validate(root: Node, broken: Sequence[Where]) -> tuple[Draft, list[Problem]]:
    """Validate each block; ``broken`` are paths whose referenced file is lost, so that nothing is missing there."""
    plain = document(root)
    places = positions(root)
    fields = ScenarioFile.model_fields
    found: list[tuple[Where, str]] = [((key,), _unknown((key,), list(fields))) for key in plain if key not in fields]
    blocks: dict[str, Any] = {}
    for key, field in fields.items():
        if key in plain:
            try:
                blocks[key] = _adapter(key).validate_python(plain[key])
            except ValidationError as error:
                found += [_told(key, detail, broken) for detail in error.errors(include_url=False)]
        elif not field.is_required():
            blocks[key] = field.get_default()
        elif not _lost((key,), broken):
            found.append(((key,), _missing((key,))))
    faults = [(".".join(where), what) for where, what in found if what]
    return Draft(blocks), [place_of(places, key).problem(key, what) for key, what in faults]


@cache
def _adapter(key: str) -> TypeAdapter[Any]:
    annotation: Any = ScenarioFile.model_fields[key].annotation
    return TypeAdapter(annotation)


def _lost(where: Where, broken: Sequence[Where]) -> bool:
    return any(where[: len(path)] == path for path in broken)


def _told(block: str, detail: ErrorDetails, broken: Sequence[Where]) -> tuple[Where, str]:
    """Return the path and our words for one fault that Pydantic found; no words for what a lost file would hold."""
    where = (block, *(str(part) for part in detail["loc"]))
    kind, value = detail["type"], detail["input"]
    if kind == "missing":
        return where, "" if _lost(where, broken) else _missing(where)
    if kind == RULE:
        return where, detail["msg"]
    if kind == "extra_forbidden":
        return where, _unknown(where, _keys(where[:-1]))
    if kind == "literal_error":
        return where, _not_one_of(where, value)
    wanted = {
        "model_type": _mapping_of(where),
        "dict_type": "a mapping of names to numbers",
        "list_type": "a list",
        "tuple_type": "a list",
        "string_type": "text (in quotes when it looks like a number)",
        "bool_type": "true or false",
    }
    return where, f"must be {wanted[kind]}, not {_held(value)}" if kind in wanted else detail["msg"]


def _mapping_of(where: Where) -> str:
    """Say what a block may be; the keys of one that has a name are better looked up than listed."""
    named = any(where[-1] in keys for keys in REFERENCES.values())
    return "a shipped name, a path or a mapping" if named else f"a mapping with the keys {choices(_keys(where))}"


def _unknown(where: Where, keys: Sequence[str]) -> str:
    refused = KEYS.get(".".join(where))
    return refused or f"unknown key; {suggest(where[-1], keys)}keys here: {choices(keys)}"


def _not_one_of(where: Where, value: object) -> str:
    refused = VALUES.get((".".join(where), str(value)))
    known = [str(choice) for choice in _literal(_annotation(where))]
    return refused or f"{_held(value)} is not one of the choices; {suggest(str(value), known)}choices: {choices(known)}"


def _missing(where: Where) -> str:
    """Say what a required key is for, with an example when it is a quantity."""
    holder = _model(_annotation(where[:-1]))
    field = None if holder is None else holder.model_fields.get(where[-1])
    if field is None:
        return "is required"
    dimension = next((m.dimension for m in field.metadata if isinstance(m, Quantity)), None)
    example = f', such as "{units.EXAMPLES[dimension]}"' if dimension else ""
    return f"is required: {field.description}{example}"


def _keys(where: Where) -> list[str]:
    model = _model(_annotation(where))
    return [] if model is None else list(model.model_fields)


def _annotation(where: Where) -> Any:  # noqa: ANN401 - typing constructs have no common type
    """Return the type that the schema gives to a path."""
    here: Any = ScenarioFile
    for part in where:
        model = _model(here)
        if model is not None:
            field = model.model_fields.get(part)
            here = None if field is None else field.annotation
        else:
            here = _item(here)
    return here


def _item(annotation: Any) -> Any:  # noqa: ANN401
    """Return the type of the items of a list, a tuple or a mapping, optional or not."""
    if get_origin(annotation) in (list, dict):
        return get_args(annotation)[-1]
    if get_origin(annotation) is tuple:
        return get_args(annotation)[0]
    if get_origin(annotation) in (Annotated, Union, types.UnionType):
        return next((item for arg in get_args(annotation) if (item := _item(arg)) is not None), None)
    return None


def _model(annotation: Any) -> type[Block] | None:  # noqa: ANN401
    """Return the block inside an optional or annotated type."""
    if isinstance(annotation, type) and issubclass(annotation, Block):
        return annotation
    if get_origin(annotation) in (Annotated, Union, types.UnionType):
        return next((model for arg in get_args(annotation) if (model := _model(arg)) is not None), None)
    return None


def _literal(annotation: Any) -> tuple[Any, ...]:  # noqa: ANN401
    """Return the choices of a literal, optional or not."""
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(choice for arg in get_args(annotation) for choice in _literal(arg))
    return get_args(annotation)


def _held(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else shown(value)
