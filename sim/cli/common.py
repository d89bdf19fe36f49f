"""What commands share: their common arguments, the console, progress bars, files that are never overwritten."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

File = Annotated[str, typer.Argument(metavar="FILE", help="A scenario file, or the name of a shipped scenario.")]
Named = Annotated[
    str,
    typer.Argument(metavar="FILE|DIR", help="A scenario file or shipped scenario, or the folder that a run left."),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. cluster.host.dram_bandwidth=200GB/s."),
]


def folder_of(name: str) -> Path:
    """Where the files of a scenario go unless ``--out`` says: a name is any text, a folder below ``out`` is not."""
    return Path("out") / (re.sub(r"[^\w.-]+", "-", name).strip("-.") or "scenario")


def write_new(path: Path, text: str) -> None:
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


def console_of(*, stderr: bool = False) -> Console:
    """Where a command prints; markup in what it prints is only text."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False)


@contextmanager
def progress_bar(console: Console | None) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on a terminal, for runs of more than a moment; nothing elsewhere (None: there is none)."""
    if console is None or not console.is_terminal:
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
def points_bar(console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """Finished points: a bar on a terminal, lines elsewhere."""
    if not console.is_terminal:
        yield lambda done, of, said: console.print(f"{done} of {of}: {said}", soft_wrap=True)
        return
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("points", total=None)
        yield lambda done, of, said: bar.update(task, completed=done, total=of, description=said)
