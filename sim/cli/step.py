"""Commands on one scenario: simulate it, weigh it, draw its schedule."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sim.cli.common import File, Sets, console_of, folder_of, progress_bar, write_new


def run(
    file: File,
    out: Annotated[Path | None, typer.Option(help="Directory for result.json, figures and trace.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    overrides: Sets = None,
    no_fold: Annotated[bool, typer.Option("--no-fold", help="Simulate every rank, not one of each kind.")] = False,
) -> None:
    """Simulate one step: step time, breakdown, memory, what it is bound by; figures and a trace as files."""
    from sim.api import kept
    from sim.api import run as simulate_file
    from sim.report import result_json

    # NOTE: where JSON is all that is printed, the library of tables and bars is not even imported: 30 ms.
    bare = as_json and not sys.stderr.isatty()
    with progress_bar(None if bare else console_of(stderr=as_json)) as progress:
        step = simulate_file(file, overrides or (), fold=not no_fold, progress=progress)
    if as_json:
        sys.stdout.write(result_json.dumps(step.result) + "\n")
    if as_json and out is None and step.result.fits:
        return
    from sim.report import text

    console = console_of(stderr=as_json)
    if not as_json:
        text.show(console, step.result)
    if out is not None or not as_json:
        from sim.report.files import write_all

        where = out or folder_of(step.scenario.name)
        paths = write_all(where, step.timeline, step.result, kept(step))
        console.print("files: " + ", ".join(str(path) for path in paths), soft_wrap=True)
    if not step.result.fits:
        text.show_remedies(console, step.result)
        raise typer.Exit(1)


def check(file: File, overrides: Sets = None) -> None:
    """Validate a scenario and say whether it fits in memory, without simulating it."""
    from sim.api import check as weigh
    from sim.report.verdict_text import show_verdict

    verdict = weigh(file, overrides or ())
    show_verdict(console_of(), verdict)
    if not verdict.fits:
        raise typer.Exit(1)


def schedule(
    file: File,
    csv: Annotated[Path | None, typer.Option(help="Write it as a CSV file, in the format of torch pipelining.")] = None,
    width: Annotated[
        int, typer.Option(min=0, help="Characters of a line; default: the terminal's, or all where there is none.")
    ] = 0,
    overrides: Sets = None,
) -> None:
    """Draw the pipeline schedule of a scenario: which rank does what, in which order."""
    from sim.api import schedule as order_of
    from sim.report.schedule_text import show_schedule

    console = console_of()
    order = order_of(file, overrides or (), width=width or (console.width if console.is_terminal else 0))
    show_schedule(console, order)
    if csv is not None:
        write_new(csv, order.csv)
        console.print(f"wrote {csv}; a scenario takes it as layout.schedule_file", soft_wrap=True)
