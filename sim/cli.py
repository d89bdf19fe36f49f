"""The command ``stepline``: words in, words and files out. Computes nothing.

Exit codes: 0 the scenario fits, 1 it does not, 2 bad input, 3 a fault of ours. Rooms are imported inside the commands
that need them, so that ``stepline --help`` answers at once.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="stepline",
    help="How long does a training step take on this cluster, and why? Simulated, op by op.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

File = Annotated[str, typer.Argument(metavar="FILE", help="A scenario file, or the name of a shipped scenario.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. cluster.host.dram_bandwidth=200GB/s."),
]


class Kind(StrEnum):
    """What ``stepline list`` can list."""

    models = "models"
    devices = "devices"
    clusters = "clusters"
    stacks = "stacks"
    scenarios = "scenarios"


@app.command()
def run(
    file: File,
    out: Annotated[Path | None, typer.Option(help="Directory for result.json, figures and trace.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    overrides: Sets = None,
    no_fold: Annotated[bool, typer.Option("--no-fold", help="Simulate every rank, not one of each kind.")] = False,
) -> None:
    """Simulate one step: step time, breakdown, memory, what it is bound by; figures and a trace as files."""
    from sim.api import run as simulate_file
    from sim.report import result_json, text

    console = _console(stderr=as_json)
    with _progress(console) as progress:
        step = simulate_file(file, overrides or (), fold=not no_fold, progress=progress)
    if as_json:
        sys.stdout.write(result_json.dumps(step.result) + "\n")
    else:
        text.show(console, step.result)
    if out is not None or not as_json:
        from sim.report.files import write_all

        where = out or Path("out") / step.scenario.name
        paths = write_all(where, step.timeline, step.result)
        console.print("files: " + ", ".join(str(path) for path in paths), soft_wrap=True)
    if not step.result.fits:
        text.show_remedies(console, step.result)
        raise typer.Exit(1)


@app.command()
def check(file: File, overrides: Sets = None) -> None:
    """Validate a scenario and say whether it fits in memory, without simulating it."""
    from sim.api import check as weigh
    from sim.report.verdict_text import show_verdict

    verdict = weigh(file, overrides or ())
    show_verdict(_console(), verdict)
    if not verdict.fits:
        raise typer.Exit(1)


@app.command()
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
    found, console = study(files, overrides or ()), _console(stderr=as_json)
    text = compare_text.dumps(found)
    if as_json:
        sys.stdout.write(text + "\n")
    else:
        compare_text.show(console, found)
        paths = write_comparison(out, [(step.timeline, step.result) for step in found.steps], text)
        console.print("files: " + ", ".join(str(path) for path in paths), soft_wrap=True)
    if not found.fits:
        raise typer.Exit(1)


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE.csv...", help="Tables of published training steps.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the errors as JSON, as fractions.")] = False,
    out: Annotated[Path | None, typer.Option(help="Directory for scenarios, journal and errors.json.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
) -> None:
    """Simulate published training steps and say how far off we are: by file, with the worst rows."""
    from sim.validation import run as validation
    from sim.validation.text import show

    console = _console(stderr=as_json)
    with _progress(console) as progress:
        found = validation.validate(files, out, jobs, progress)
    if out is not None:
        (out / "errors.json").write_text(validation.to_json(found), encoding="utf-8")
    if as_json:
        sys.stdout.write(validation.to_json(found) + "\n")
    else:
        show(console, validation.scores(found))


@app.command()
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

    where, knobs, console = out or Path("out") / f"sweep-{Path(file).stem}", read(vary), _console(stderr=as_json)
    asked = Asked(source=file, overrides=tuple(overrides or ()), knobs=knobs, out=where, jobs=jobs)
    with _points(console) as told:
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


topologies = typer.Typer(help="Machines: look at one.", no_args_is_help=True)
app.add_typer(topologies, name="topology")


@topologies.command("show")
def topology_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A shipped cluster or node, or a path.")],
    out: Annotated[Path, typer.Option(help="Directory for the drawing.")] = Path("out/topology"),
    overrides: Sets = None,
) -> None:
    """Draw a machine and print the bandwidth between any two devices and what they share."""
    from sim.api import topology
    from sim.report import topology as report
    from sim.report.files import write_figure

    views, console = topology(name, overrides or ()), _console()
    report.show(console, views)
    paths = [path for view in views for path in write_figure(out, view.name, report.topology_figure(view))]
    console.print("files: " + ", ".join(str(path) for path in paths), soft_wrap=True)


@app.command("list")
def list_(kind: Annotated[Kind, typer.Argument(help="What to list.")]) -> None:
    """List what is shipped: models, devices, clusters (and nodes), software stacks, scenarios."""
    from sim.report.verdict_text import show_list
    from sim.spec.catalogue import summary

    kinds = ("nodes", "clusters") if kind is Kind.clusters else (kind.value,)
    rows = [row for k in kinds for row in summary(k)]
    show_list(_console(), [(r.name, r.description, ", ".join(" ".join(fact) for fact in r.facts)) for r in rows])


@app.command()
def init(name: Annotated[str, typer.Argument(help="Name of the new scenario; writes NAME.yaml here.")]) -> None:
    """Write a commented scenario to start from."""
    from sim.spec.template import scenario_template

    path = Path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    _write_new(path, scenario_template(path.stem))
    typer.echo(f"wrote {path}; next: stepline run {path}")


@app.command()
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

    console = _console()
    order = order_of(file, overrides or (), width=width or (console.width if console.is_terminal else 0))
    show_schedule(console, order)
    if csv is not None:
        _write_new(csv, order.csv)
        console.print(f"wrote {csv}; a scenario takes it as layout.schedule_file", soft_wrap=True)


@app.command()
def schema() -> None:
    """Print the JSON Schema of scenario files, for editors."""
    import json

    from sim.spec.schema import json_schema

    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")


def _write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet."""
    from sim.errors import Problem, ScenarioError

    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        what = "it exists already and is left alone; choose another name"
        raise ScenarioError([Problem(str(path), 0, 0, "", what)]) from None
    except OSError as error:
        what = f"cannot be written: {error.strerror}; choose a place you may write to"
        raise ScenarioError([Problem(str(path), 0, 0, "", what)]) from None


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on a terminal, for runs of more than a moment; nothing elsewhere."""
    if not console.is_terminal:
        yield None
        return
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("simulating", total=None)
        shown = 0

        def show(done: int, total: int) -> None:
            nonlocal shown
            if done - shown > total / 200:
                shown = done
                bar.update(task, completed=done, total=total)

        yield show


@contextmanager
def _points(console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """Finished points: a bar on a terminal, lines elsewhere."""
    if not console.is_terminal:
        yield lambda done, of, said: console.print(f"{done} of {of}: {said}", soft_wrap=True)
        return
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("points", total=None)
        yield lambda done, of, said: bar.update(task, completed=done, total=of, description=said)


def main() -> None:
    """Run the command; turn every failure into words and an exit code."""
    from sim.errors import SteplineError

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a letter shows "?" instead of failing
    try:
        app()
    except SteplineError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output went away: not our failure
        sys.stderr.close()
        sys.exit(0)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except Exception as error:
        sys.stderr.write(
            f"internal error: {type(error).__name__}: {error}\nThis is a fault of Stepline, not of your scenario; "
            "please report it with the scenario. STEPLINE_DEBUG=1 shows where it happened.\n"
        )
        import os

        if os.environ.get("STEPLINE_DEBUG"):
            raise
        sys.exit(3)
