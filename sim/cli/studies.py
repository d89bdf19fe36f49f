"""Commands on several steps: side by side, over a grid of knobs, against published ones."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.cli.common import File, Sets, console_of, points_bar, progress_bar

if TYPE_CHECKING:
    from sim.validation.run import Scored


def compare(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Two or more scenarios, files or names.")],
    out: Annotated[Path, typer.Option(help="Directory for compare.json and the figure.")] = Path("out/compare"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
    overrides: Sets = None,
) -> None:
    """Simulate scenarios side by side: what they differ in, and what that does; their timelines on one axis."""
    from sim.errors import Problem, ScenarioError
    from sim.report import compare_text
    from sim.report.files import write_comparison
    from sim.study.compare import compare as study

    if len(files) < 2:
        what = "one scenario cannot be compared; name two or more, or use stepline run"
        raise ScenarioError([Problem("compare", 0, 0, "", what)])
    found, console = study(files, overrides or ()), console_of(stderr=as_json)
    text = compare_text.dumps(found)
    if as_json:
        sys.stdout.write(text + "\n")
    else:
        compare_text.show(console, found)
        paths = write_comparison(out, [(step.timeline, step.result) for step in found.steps], text)
        console.print("files: " + ", ".join(str(path) for path in paths), soft_wrap=True)
    if not found.fits:
        raise typer.Exit(1)


def sweep(  # noqa: PLR0917 - options of a command
    file: File,
    vary: Annotated[
        list[str], typer.Option("--vary", metavar="KEY=VALUES", help="1,2,4 or FROM:TO:COUNT or FROM:TO:COUNTlog.")
    ],
    out: Annotated[Path | None, typer.Option(help="Directory for tables, figure and journal.")] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0: one a core.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
    overrides: Sets = None,
) -> None:
    """Simulate a grid of knobs: step time against them, what binds where. A killed sweep goes on where it stopped."""
    from sim.report import sweep_plot, sweep_text
    from sim.report.files import write_sweep
    from sim.study.knobs import read
    from sim.study.sweep import Asked
    from sim.study.sweep import sweep as study

    where, knobs, console = out or Path("out") / f"sweep-{Path(file).stem}", read(vary), console_of(stderr=as_json)
    asked = Asked(source=file, overrides=tuple(overrides or ()), knobs=knobs, out=where, jobs=jobs)
    with points_bar(console) as told:
        found = study(asked, told)
    drawn = sweep_plot.sweep_figure(found) if len(knobs) <= sweep_plot.MOST_KNOBS else None
    text = sweep_text.to_json(found)
    paths = write_sweep(where, sweep_text.to_csv(found), text, drawn)
    if as_json:
        sys.stdout.write(text + "\n")
    else:
        sweep_text.show(console, found)
    if drawn is None:
        console.print(f"no figure: it shows one or two knobs, not {len(knobs)}; the table has all of them")
    if found.reused:
        console.print(f"{found.reused} of {len(found.rows)} points were there from an earlier run")
    console.print("files: " + ", ".join(str(path) for path in paths), soft_wrap=True)


def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE.csv...", help="Tables of published training steps.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the errors as JSON, as fractions.")] = False,
    out: Annotated[Path | None, typer.Option(help="Directory for scenarios, journal, errors, figures.")] = None,
    page: Annotated[
        Path | None, typer.Option(metavar="FILE.md", help="Write what was found into this page, between its marks.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Simulate published training steps and say how far off we are: errors, worst rows, which of two is faster."""
    from sim.report.files import marked, write_between
    from sim.study.journal import release
    from sim.validation.run import validate as study
    from sim.validation.scores import scores, to_json
    from sim.validation.text import show

    console = console_of(stderr=as_json)
    if page is not None:
        marked(page, PAGE_PART)  # hours of simulation later would be late
    with progress_bar(console) as progress:
        found = study(files, out, jobs, progress)
    scored = scores(found)
    paths = [] if out is None else _kept(out, found, to_json(scored))
    if page is not None:
        from sim.validation.page import page as written

        paths.append(write_between(page, PAGE_PART, written(scored, release())))
    if as_json:
        sys.stdout.write(to_json(scored) + "\n")
    else:
        show(console, scored)
    if paths:
        console.print("files: " + ", ".join(str(path) for path in paths), soft_wrap=True)


PAGE_PART = "validate"
"""What ``validate --page`` writes: name of the part between marks."""


def _kept(out: Path, found: Sequence[Scored], text: str) -> list[Path]:
    """The errors as JSON, and drawn."""
    from sim.report.files import write_errors
    from sim.report.validation_plot import figure_of
    from sim.validation.scores import points

    return write_errors(out, text, figure_of(points(found)))
