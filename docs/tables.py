"""The tables of docs/formats.md, written from the source: ``python docs/tables.py`` (``--check``: only says).

Keys, defaults, units and meanings of files are those of the schema (``sim/spec/blocks.py``); the keys of result.json
are those of a result, with the words of ``MEANINGS``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sim.api import run
from sim.report.result_json import to_dict
from sim.spec.blocks import ScenarioFile
from sim.workload.schedules.table import SCHEDULES

PAGE = Path(__file__).parent / "formats.md"
TABLE = re.compile(r"<!-- table: (?P<name>[\w.]+) -->\n.*?<!-- end -->", re.DOTALL)
TRANSFERS = (
    "bytes that a rank sends, in how many exchanges, seconds in flight and exposed, bytes/s alone and reached, the "
    "resource that holds it and who else used that"
)
SECTIONS = {
    "ModelFile": "a-model", "ClusterFile": "a-node-or-cluster", "DeviceFile": "a-device", "StackFile": "a-stack",
    "LayoutFile": "layout", "BatchFile": "batch", "PrecisionFile": "precision", "OffloadFile": "offload",
    "PublishedFile": "published", "GemmTable": "gemm", "GemmFile": "gemmdtype", "FlashTable": "flash",
    "FlashFile": "flashkernel-a-list", "HostFile": "host", "HostLinkFile": "host_link", "NvlinkFile": "nvlink",
    "NicFile": "nics", "NvmeFile": "nvme", "FabricFile": "fabric", "DimensionFile": "fabricdimensions-a-list",
    "CollectivesFile": "collectives", "NodeGroupFile": "others-a-list", "VariationFile": "variations-a-list",
    "GradTypes": "grads-grad_comm",
}  # fmt: skip
"""A kind of mapping -> the heading of its table."""

MEANINGS = {
    "scenario": "name",
    "step_time_s": "step time (s)",
    "tokens_per_s_per_gpu": "tokens a second and GPU",
    "mfu": "model FLOPs over peak FLOPs",
    "hfu": "FLOPs over peak FLOPs, recompute included",
    "fits": "whether everything fits in memory",
    "peak_memory_bytes": "peak of the GPU that comes nearest to its capacity",
    "memory_capacity_bytes": "its capacity",
    "memory": "owner: bytes at that peak",
    "peak_host_memory_bytes": "a rank's part of host memory at the peak; 0 where nothing lives there",
    "host_memory_capacity_bytes": "its capacity",
    "host_memory": "owner: bytes at that peak",
    "breakdown": "category: seconds; they sum to the step time, averaged over ranks",
    "phases": "forward, backward, optimizer: seconds as a log with synchronising timers has them",
    "bound_by": "resource or cause: share of the critical path",
    "transfers": TRANSFERS,
    "published": "published figures beside ours",
    "utilisation": "resource: share of its capacity used over the step",
    "ranks": "ranks",
    "rank_classes": "kinds of ranks that were simulated",
    "placement": "which device each rank has",
    "ops": "spans recorded",
    "events": "events of the engine",
    "wall_s": "seconds that the simulation took: alone of all keys not the same in two runs",
}


def tables() -> dict[str, str]:
    """Name of a table -> its Markdown."""
    schema = ScenarioFile.model_json_schema()
    found = {name: _keys(block) for name, block in schema["$defs"].items()}
    found["ScenarioFile"] = _keys(schema)
    result = to_dict(run("quickstart").result)
    unsaid = [key for key in result if key not in MEANINGS]
    if unsaid:
        msg = f"docs/tables.py: say in MEANINGS what these keys of result.json are: {', '.join(unsaid)}"
        raise KeyError(msg)
    rows = [f"| `{key}` | {_json_kind(value)} | {MEANINGS[key]} |" for key, value in result.items()]
    found["result.json"] = "\n".join(["| key | | meaning |", "|---|---|---|", *rows])
    rows = [f"| `{name}` | {says} |" for name, (says, _) in SCHEDULES.items()]
    found["schedules"] = "\n".join(["| schedule | |", "|---|---|", *rows])
    return found


def _keys(block: Mapping[str, Any]) -> str:
    needed = block.get("required", [])
    rows = []
    for key, said in block["properties"].items():
        needs = key in needed and "default:" not in said.get("description", "")
        default = "needed" if needs else _default(said.get("default"))
        rows.append(f"| `{key}` | {_kind(said)} | {default} | {_words(said.get('description', ''))} |")
    return "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows])


def _kind(said: Mapping[str, Any]) -> str:  # noqa: PLR0911 - a case each
    """What may stand there, in words."""
    if "anyOf" in said:
        kinds = [_kind(form) for form in said["anyOf"] if form.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "$ref" in said:
        name = said["$ref"].rsplit("/", 1)[-1]
        return f"[mapping](#{SECTIONS[name]})"
    if "x-units" in said:
        return f'quantity, as "{said["examples"][0]}"'
    if "enum" in said:
        return ", ".join(f"`{word}`" for word in said["enum"])
    kind = said.get("type")
    if kind == "array":
        return f"list of {_kind(said['items'])}" if "items" in said else "list"
    if kind == "object":
        return "mapping"
    if kind in ("integer", "number"):
        return ("whole number" if kind == "integer" else "number") + _bounds(said)
    return {"string": "text", "boolean": "true, false", None: "value"}[kind]


def _bounds(said: Mapping[str, Any]) -> str:
    low = said.get("minimum", said.get("exclusiveMinimum"))
    high = said.get("maximum", said.get("exclusiveMaximum"))
    parts = []
    if low is not None:
        parts.append(f"{'above' if 'exclusiveMinimum' in said else 'from'} {low:g}")
    if high is not None and high < 1e9:
        parts.append(f"{'below' if 'exclusiveMaximum' in said else 'to'} {high:g}")
    return ", " + " ".join(parts) if parts else ""


def _default(value: object) -> str:
    """A default; nothing where the meaning says what happens."""
    if value is None or value == "" or isinstance(value, dict | list):
        return ""
    return f"`{json.dumps(value).strip(chr(34))}`"


def _json_kind(value: object) -> str:
    kinds = {bool: "true, false", str: "text", int: "count", float: "number", dict: "mapping", list: "list"}
    return kinds[type(value)]


def _words(text: str) -> str:
    return text.replace("|", "\\|")


def written(text: str) -> str:
    """The page with every table as it is now."""
    now = tables()
    return TABLE.sub(lambda m: f"<!-- table: {m['name']} -->\n{now[m['name']]}\n<!-- end -->", text)


if __name__ == "__main__":
    before = PAGE.read_text("utf-8")
    after = written(before)
    if "--check" not in sys.argv:
        PAGE.write_text(after, "utf-8")
    print("the tables are up to date" if before == after else f"{PAGE}: tables changed")
    sys.exit(1 if "--check" in sys.argv and before != after else 0)
