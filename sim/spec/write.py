"""Files of the catalogue's form as text: what people read, and what ``load`` reads again.

Owns the layout of written YAML. Knows no key but ``sources``, which comes last in its mapping. Writes no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from ruamel.yaml import YAML

_WIDTH = 118
_NULL = "tag:yaml.org,2002:null"


def to_yaml(document: Mapping[str, Any], comment: Sequence[str] = ()) -> str:
    """YAML of a document under lines of comment; mappings keep their order, with ``sources`` last."""
    yaml = YAML(typ="rt", pure=True)
    yaml.width = _WIDTH
    yaml.default_flow_style = False
    yaml.representer.add_representer(type(None), lambda dumper, _: dumper.represent_scalar(_NULL, "null"))
    stream = StringIO()
    yaml.dump(_ordered(document), stream)
    return "".join(f"# {line}\n" for line in comment) + stream.getvalue()


def _ordered(value: Any) -> Any:  # noqa: ANN401 - whatever YAML holds
    if isinstance(value, Mapping):
        last = [key for key in value if key == "sources"]
        return {key: _ordered(value[key]) for key in (*(k for k in value if k != "sources"), *last)}
    return [_ordered(item) for item in value] if isinstance(value, list | tuple) else value
