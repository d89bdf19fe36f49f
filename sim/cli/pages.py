"""The command that writes a page: a step explained in one HTML file, or two beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.cli.common import Sets, console_of, folder_of, points_bar, progress_bar

if TYPE_CHECKING:
    from sim.report.page.shown import Shown
    from sim.study.opened import Opened


def report(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="DIR [DIR]", help="Folder of a run (stepline run --out), or a scenario to simulate."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The file; default: report.html in DIR, or in out/NAME for a scenario.")
    ] = None,
    recorded: Annotated[
        bool, typer.Option("--recorded", help="Only what the timeline says: simulate nothing again for what-if.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    overrides: Sets = None,
) -> None:
    """Write a page that explains a step: what limits it, what to change, timeline, memory, sources; or two runs."""
    from sim.errors import Problem, ScenarioError
    from sim.report.files import write_page
    from sim.report.page.page import page
    from sim.study.explain import compare
    from sim.study.opened import open_step

    if len(runs) > 2:
        what = f"{len(runs)} runs were named; a page shows one or two, stepline compare shows any number"
        raise ScenarioError([Problem("report", 0, 0, "", what)])
    console = console_of()
    with progress_bar(console) as progress:
        opened = [open_step(run, overrides or (), progress=progress) for run in runs]
    difference = compare(opened[0], opened[1]) if len(opened) == 2 else None
    text = page([_shown(one, recorded=recorded, jobs=jobs) for one in opened], difference)
    path = write_page(out or _place(opened), text)
    console.print(f"wrote {path} ({len(text) / 1e6:.1f} MB); open it in a browser", soft_wrap=True)
    if not all(one.step.result.fits for one in opened):
        raise typer.Exit(1)


def _place(opened: list[Opened]) -> Path:
    """Where the page goes: beside the run, or where stepline run would put it."""
    if len(opened) == 2:
        return Path("out") / "report.html"
    return (opened[0].folder or folder_of(opened[0].step.scenario.name)) / "report.html"


def _shown(opened: Opened, *, recorded: bool, jobs: int) -> Shown:
    """What the page shows of a step. What was simulated for its folder already is not simulated again."""
    from sim.report.explain_json import dumps, read_why
    from sim.report.files import write_explanation
    from sim.report.page.shown import Shown
    from sim.study.explain import ask, explain

    step, folder = opened.step, opened.folder
    explanation = explain(opened)
    why = read_why(folder, step.result.step_time) if folder is not None else None
    if why is None and not recorded:
        with points_bar(console_of(stderr=True)) as told:
            why = ask(opened, told, jobs=jobs)
        if folder is not None:
            write_explanation(folder, dumps(explanation, why), None)
    return Shown(
        result=step.result,
        timeline=step.timeline,
        explanation=explanation,
        settings=step.settings,
        described=str(step.document.get("description") or ""),
        why=why,
    )
