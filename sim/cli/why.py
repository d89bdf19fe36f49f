"""The command that explains a step."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.cli.common import Named, Sets, console_of, folder_of, points_bar, progress_bar

if TYPE_CHECKING:
    from rich.console import Console

    from sim.study.opened import Opened
    from sim.study.why import Why


def explain(  # noqa: PLR0917 - options of a command
    named: Named,
    category: Annotated[
        str | None, typer.Argument(metavar="[CATEGORY]", help="Only this part of the breakdown, in detail: dp, tp, ...")
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="FILE|DIR", help="Another step: where the seconds went from it to this one.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory for explain.json and the tornado; default: the run's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON and write no files.")] = False,
    recorded: Annotated[
        bool, typer.Option("--recorded", help="Only what the timeline says: simulate nothing again.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    overrides: Sets = None,
) -> None:
    """Why does the step take so long, what if something were faster, and what should be changed?"""
    if category is not None and against is not None:
        from sim.errors import Problem, ScenarioError

        what = "a category and another step cannot be asked for at once; leave one of them out"
        raise ScenarioError([Problem("explain", 0, 0, "--against", what)])
    console = console_of(stderr=as_json)
    opened = _opened(named, overrides or (), console)
    if against is not None or category is not None:
        _part(opened, category, against, console, as_json=as_json)
        return
    from sim.report import explain_json, explain_text
    from sim.study import explain as study

    explanation = study.explain(opened)
    if not as_json:
        explain_text.show(console, explanation)
    why = None
    if not recorded:
        with points_bar(console_of(stderr=True)) as told:
            why = study.ask(opened, told, jobs=jobs)
    text = explain_json.dumps(explanation, why)
    if as_json:
        sys.stdout.write(text)
    else:
        if why is not None:
            explain_text.show_why(console, why)
        paths = _written(opened, out, text, why)
        console.print("files: " + ", ".join(str(path) for path in paths), soft_wrap=True)
    if not opened.step.result.fits:
        raise typer.Exit(1)


def _opened(named: str, overrides: Sequence[str], console: Console) -> Opened:
    from sim.study.opened import open_step

    with progress_bar(console) as progress:
        return open_step(named, overrides, progress=progress)


def _part(opened: Opened, category: str | None, against: str | None, console: Console, *, as_json: bool) -> None:
    """One category in detail, or the difference to another step."""
    from sim.report import explain_json, explain_parts
    from sim.study import explain as study

    if against is not None:
        found = study.compare(_opened(against, (), console), opened)
        if not as_json:
            explain_parts.show_difference(console, found)
            return
        sys.stdout.write(explain_json.plain(found))
        return
    detail = study.category(opened, category or "")
    if as_json:
        sys.stdout.write(explain_json.plain(detail))
    else:
        explain_parts.show_detail(console, detail)


def _written(opened: Opened, out: Path | None, text: str, why: Why | None) -> list[Path]:
    """``explain.json`` and the tornado, in the run's folder; for a scenario the run's files as well."""
    from sim.api import kept
    from sim.report.files import write_all, write_explanation
    from sim.report.tornado_plot import tornado_figure

    step = opened.step
    folder = out or opened.folder or folder_of(step.scenario.name)
    paths = [] if folder == opened.folder else write_all(folder, step.timeline, step.result, kept(step))
    figure = tornado_figure(why.what_if, step.scenario.name) if why is not None and why.what_if else None
    return [*paths, *write_explanation(folder, text, figure)]
