"""Commands that draw: one figure of one step, or of several."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sim.cli.common import Sets, console_of


class Kind(StrEnum):
    """What ``stepline plot`` can draw: the table of ``sim.report.plots``, which is imported late."""

    timeline = "timeline"
    pipeline = "pipeline"
    breakdown = "breakdown"
    memory = "memory"
    peak = "peak"
    roofline = "roofline"
    volume = "volume"
    scaling = "scaling"


def plot(
    kind: Annotated[Kind, typer.Argument(help="What to draw.")],
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Scenarios, files or names.")],
    vary: Annotated[
        list[str] | None, typer.Option("--vary", metavar="KEY=VALUES", help="Draw each scenario at each of these.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory for the figure.")] = Path("out/plots"),
    overrides: Sets = None,
) -> None:
    """Draw one figure, as PNG and SVG: lanes, pipeline grid, breakdowns, memory, peaks, roofline, volume, scaling."""
    from sim.errors import Problem, ScenarioError
    from sim.report.files import write_figure
    from sim.report.plots import PLOTS
    from sim.study.knobs import read
    from sim.study.several import several

    knobs, chosen = read(vary or ()), PLOTS[kind.value]
    if not chosen.several and (len(files) > 1 or knobs):
        many = ", ".join(name for name, one in PLOTS.items() if one.several)
        what = f"shows one step; name one scenario and set its keys with --set, or draw one of: {many}"
        raise ScenarioError([Problem(f"plot {kind.value}", 0, 0, "", what)])
    steps = several(files, overrides or (), knobs)
    name = f"{kind.value}-{steps[0].source}" + ("-and-others" if len(files) > 1 else "")
    paths = write_figure(out, name, chosen.make(steps))
    console_of().print("files: " + ", ".join(str(path) for path in paths), soft_wrap=True)
