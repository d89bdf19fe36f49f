"""The files of a step: result.json, the figure as PNG and SVG, the trace, what opens the folder again.

The one place of this room that writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from sim.analysis.result import Result
from sim.errors import Problem, ScenarioError
from sim.report import explain_json, result_json, trace
from sim.report.figure import save, step_figure
from sim.timeline import pack
from sim.timeline.columns import Timeline

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_comparison(out: Path, steps: Sequence[tuple[Timeline, Result]], text: str) -> list[Path]:
    """Write compare.json and the figure of a comparison into ``out``. Raises ``ScenarioError`` where nothing can be."""
    from sim.report.compare_plot import compare_figure

    with _into(out):
        figure = compare_figure(steps)
        return [
            _atomic(out / "compare.json", lambda path: path.write_text(text + "\n", "utf-8")),
            _atomic(out / "compare.png", lambda path: save(figure, path, "png")),
            _atomic(out / "compare.svg", lambda path: save(figure, path, "svg")),
        ]


def write_sweep(out: Path, table: str, text: str, figure: Figure | None) -> list[Path]:
    """Write table.csv, table.json and the figure of a sweep into ``out``; ScenarioError where nothing can be."""
    with _into(out):
        files = [
            _atomic(out / "table.csv", lambda path: path.write_text(table, "utf-8")),
            _atomic(out / "table.json", lambda path: path.write_text(text + "\n", "utf-8")),
        ]
        if figure is not None:
            files.append(_atomic(out / "sweep.png", lambda path: save(figure, path, "png")))
            files.append(_atomic(out / "sweep.svg", lambda path: save(figure, path, "svg")))
        return files


def write_errors(out: Path, text: str, figure: Figure) -> list[Path]:
    """Write errors.json and the figure of ``validate`` into ``out``. Raises ``ScenarioError`` where nothing can be."""
    with _into(out):
        return [
            _atomic(out / "errors.json", lambda path: path.write_text(text + "\n", "utf-8")),
            _atomic(out / "errors.png", lambda path: save(figure, path, "png")),
            _atomic(out / "errors.svg", lambda path: save(figure, path, "svg")),
        ]


def write_explanation(out: Path, text: str, tornado: Figure | None) -> list[Path]:
    """Write explain.json and the figure of what-if into ``out``. Raises ``ScenarioError`` where nothing can be."""
    with _into(out):
        files = [_atomic(out / explain_json.NAME, partial(_write_text, text=text))]
        if tornado is not None:
            files.append(_atomic(out / "tornado.png", lambda path: save(tornado, path, "png")))
            files.append(_atomic(out / "tornado.svg", lambda path: save(tornado, path, "svg")))
        return files


def write_page(path: Path, text: str) -> Path:
    """Write a page, making its folder. Raises ``ScenarioError`` where it cannot be."""
    with _into(path.parent):
        return _atomic(path, partial(_write_text, text=text))


def marked(path: Path, name: str) -> tuple[str, str]:
    """What stands before and after the part ``name`` of a Markdown page, marks included; of no file yet: two marks.

    Raises:
        ScenarioError: the page cannot be read, or lacks the marks, or has them twice or in the wrong order.
    """
    first, last = (f"<!-- {edge}: {name} -->\n" for edge in ("begin", "end"))
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return first, last
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError([Problem(str(path), 0, 0, "", f"cannot be read: {error}")]) from error
    text += "" if text.endswith("\n") else "\n"
    before, _, rest = text.partition(first)
    _, found, after = rest.partition(last)
    if text.count(first) != 1 or text.count(last) != 1 or not found:
        what = f"needs the lines {first.strip()} and {last.strip()}, once each and in this order, to write between"
        raise ScenarioError([Problem(str(path), 0, 0, "", what)])
    return before + first, last + after


def write_between(path: Path, name: str, text: str) -> Path:
    """Replace the part ``name`` of a Markdown page; see ``marked``. Raises ``ScenarioError`` where it cannot be."""
    before, after = marked(path, name)
    return write_page(path, f"{before}\n{text.strip()}\n\n{after}")


def write_figure(out: Path, name: str, figure: Figure) -> list[Path]:
    """Write one figure as PNG and SVG into ``out``. Raises ``ScenarioError`` where nothing can be."""
    with _into(out):
        return [
            _atomic(out / f"{name}.png", lambda path: save(figure, path, "png")),
            _atomic(out / f"{name}.svg", lambda path: save(figure, path, "svg")),
        ]


@contextmanager
def _into(out: Path) -> Iterator[None]:
    """A directory to write into; what cannot be written is said in words."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}; choose another directory with --out"
        raise ScenarioError([Problem(str(out), 0, 0, "", what)]) from error


def write_all(
    out: Path, timeline: Timeline, result: Result, beside: Mapping[str, str] = MappingProxyType({})
) -> list[Path]:
    """Write every file of a step into ``out`` (made if need be) and return their paths.

    ``beside``: name -> text of further files, those by which the folder is opened again.

    Each file is written beside its place and then moved there: a killed run leaves whole files or none.
    Raises ``ScenarioError`` where nothing can be written.
    """
    with _into(out):
        figure = step_figure(timeline, result)
        return [
            _atomic(out / "result.json", lambda path: path.write_text(result_json.dumps(result) + "\n", "utf-8")),
            _atomic(out / "timeline.png", lambda path: save(figure, path, "png")),
            _atomic(out / "timeline.svg", lambda path: save(figure, path, "svg")),
            _atomic(out / "trace.json.gz", lambda path: trace.write(timeline, path, result.memory)),
            _atomic(out / "timeline.npz", lambda path: pack.write(timeline, path)),
            *(_atomic(out / name, partial(_write_text, text=text)) for name, text in beside.items()),
        ]


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")


def _atomic(path: Path, write: Callable[[Path], object]) -> Path:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path
