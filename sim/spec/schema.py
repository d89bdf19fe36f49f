"""The JSON Schema of a scenario file as users write it, for editors.

Owns the difference between a resolved document (``blocks``) and a file: blocks that may be names, ``extends``, and
words that document numbers. No key is required here, for any may come from the file that is extended.
"""

from __future__ import annotations

from typing import Any

from sim.spec import catalogue
from sim.spec.blocks import ClusterFile, DeviceFile, ModelFile, ScenarioFile, StackFile
from sim.spec.quantities import UNITS_KEY

_REFERENCES = {
    "model": ("models",),
    "cluster": ("clusters", "nodes"),
    "node": ("nodes",),
    "stack": ("stacks",),
    "device": ("devices",),
}
_WORDS = {"precision": ["fp16", "bf16", "fp32", "tf32"], "offload": ["none"]}
_EXTENDABLE = tuple(kind.__name__ for kind in (ScenarioFile, ModelFile, ClusterFile, DeviceFile, StackFile))
_TEXT = {"type": "string"}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a scenario file; units stand in the descriptions of quantities."""
    schema = ScenarioFile.model_json_schema()
    for block in (schema, *schema["$defs"].values()):
        properties: dict[str, Any] = block["properties"]
        block.pop("required", None)
        for key, said in properties.items():
            properties[key] = _with_units(_with_words(key, said))
        if block["title"] in _EXTENDABLE:
            properties["extends"] = {**_TEXT, "description": "shipped name or path of a file whose keys are inherited"}
        properties.setdefault("description", {**_TEXT, "description": "free words"})
        properties.setdefault("source", {**_TEXT, "description": "where the numbers here and below are from"})
        table = {"type": "object", "additionalProperties": _TEXT}
        properties.setdefault("sources", {**table, "description": "key to where its number is from"})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Stepline scenario"}


def _with_words(key: str, said: dict[str, Any]) -> dict[str, Any]:
    """Let a block that may be called by a name be a string as well."""
    if "$ref" not in said:
        return said
    if key in _REFERENCES:
        known = [name for kind in _REFERENCES[key] for name in catalogue.names(kind)]
        word: dict[str, Any] = {**_TEXT, "examples": known}
    elif key in _WORDS:
        word = {"enum": _WORDS[key]}
    else:
        return said
    return {"anyOf": [word, {"$ref": said["$ref"]}], "description": said.get("description", "")}


def _with_units(said: dict[str, Any]) -> dict[str, Any]:
    """Say the units of a quantity where an editor shows them."""
    forms = [said, *said.get("anyOf", [])]
    known = next((form[UNITS_KEY] for form in forms if UNITS_KEY in form), None)
    return said if known is None else {**said, "description": f"{said['description']} (units: {', '.join(known)})"}
