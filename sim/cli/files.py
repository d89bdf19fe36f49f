"""Commands on files: what is shipped, a scenario to start from, the schema."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sim.cli.common import console_of, write_new


class Kind(StrEnum):
    """What ``stepline list`` can list."""

    models = "models"
    devices = "devices"
    clusters = "clusters"
    stacks = "stacks"
    scenarios = "scenarios"


def list_(kind: Annotated[Kind, typer.Argument(help="What to list.")]) -> None:
    """List what is shipped: models, devices, clusters (and nodes), software stacks, scenarios."""
    from sim.report.verdict_text import show_list
    from sim.spec.catalogue import summary

    kinds = ("nodes", "clusters") if kind is Kind.clusters else (kind.value,)
    rows = [row for k in kinds for row in summary(k)]
    show_list(console_of(), [(r.name, r.description, ", ".join(" ".join(fact) for fact in r.facts)) for r in rows])


def init(name: Annotated[str, typer.Argument(help="Name of the new scenario; writes NAME.yaml here.")]) -> None:
    """Write a commented scenario to start from."""
    from sim.spec.template import scenario_template

    path = Path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    write_new(path, scenario_template(path.stem))
    typer.echo(f"wrote {path}; next: stepline run {path}")


def schema() -> None:
    """Print the JSON Schema of scenario files, for editors."""
    import json

    from sim.spec.schema import json_schema

    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
