"""Commands on machines: look at one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim.cli.common import Sets, console_of


def topology_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A shipped cluster or node, or a path.")],
    out: Annotated[Path, typer.Option(help="Directory for the drawing.")] = Path("out/topology"),
    overrides: Sets = None,
) -> None:
    """Draw a machine and its network; print the bandwidth between any two devices and what they share."""
    from sim.api import network, topology
    from sim.report import network as between
    from sim.report import topology as report
    from sim.report.files import write_figure

    views, console = topology(name, overrides or ()), console_of()
    report.show(console, views)
    paths = [path for view in views for path in write_figure(out, view.name, report.topology_figure(view))]
    joined = network(name, overrides or ())
    if joined is not None:
        between.show(console, joined)
        figure = between.network_figure(joined)
        paths += write_figure(out, f"{joined.name}-network", figure) if figure is not None else ()
    console.print("files: " + ", ".join(str(path) for path in paths), soft_wrap=True)
