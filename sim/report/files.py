"""The files of a step: result.json, the figure as PNG and SVG, the trace. The one place of this room that writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from sim.analysis.result import Result
from sim.errors import Problem, ScenarioError
from sim.report import result_json, trace
from sim.report.figure import save, step_figure
from sim.timeline.columns import Timeline


def write_all(out: Path, timeline: Timeline, result: Result) -> list[Path]:
    """Write every file of a step into ``out`` (made if need be) and return their paths.

    Each file is written beside its place and then moved there: a killed run leaves whole files or none.
    Raises ``ScenarioError`` where nothing can be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        figure = step_figure(timeline, result)
        return [
            _atomic(out / "result.json", lambda path: path.write_text(result_json.dumps(result) + "\n", "utf-8")),
            _atomic(out / "timeline.png", lambda path: save(figure, path, "png")),
            _atomic(out / "timeline.svg", lambda path: save(figure, path, "svg")),
            _atomic(out / "trace.json.gz", lambda path: trace.write(timeline, path, result.memory)),
        ]
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}; choose another directory with --out"
        raise ScenarioError([Problem(str(out), 0, 0, "", what)]) from error


def _atomic(path: Path, write: Callable[[Path], object]) -> Path:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path
