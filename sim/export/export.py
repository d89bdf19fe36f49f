"""The formats in which a step leaves for other tools: one table, and the one place of this room that decides on files.

A new format is a function and a line in ``FORMATS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from sim.analysis.links import links
from sim.analysis.path import critical_path
from sim.analysis.result import Result
from sim.errors import Problem, ScenarioError
from sim.export import chakra, kineto, memory_snapshot, table
from sim.export.ranks import Lives
from sim.timeline.columns import Timeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What is exported: a step, the ranks that were chosen, and how to get at their programs, where a format asks."""

    timeline: Timeline
    result: Result
    lives: Lives
    program: Callable[[], chakra.Program]


@dataclass(frozen=True, slots=True)
class Format:
    """``says`` what is written, in words; ``write`` does so, into a folder."""

    says: str
    write: Callable[[Exported, Path], Iterator[Path]]


def _kineto(what: Exported, out: Path) -> Iterator[Path]:
    return kineto.write_ranks(what.timeline, what.lives, out)


def _perfetto(what: Exported, out: Path) -> Iterator[Path]:
    yield kineto.write_perfetto(
        what.timeline,
        what.lives,
        out,
        memory=what.result.memory,
        path=critical_path(what.timeline),
        links=links(what.timeline, what.result.bound_by),
    )


def _chakra(what: Exported, out: Path) -> Iterator[Path]:
    return chakra.write_traces(what.program(), what.lives.ranks, out)


def _memory(what: Exported, out: Path) -> Iterator[Path]:
    yield memory_snapshot.write_snapshot(what.timeline, what.lives, out)


def _csv(what: Exported, out: Path) -> Iterator[Path]:
    yield table.write_spans(what.timeline, what.lives, out)
    yield table.write_memory(what.result.memory, what.lives, out)


FORMATS: Mapping[str, Format] = {
    "kineto": Format("a trace a rank as PyTorch's profiler writes it (rank-N.json.gz)", _kineto),
    "perfetto": Format("one trace with memory, utilisation and the critical path (perfetto.json.gz)", _perfetto),
    "chakra": Format("an MLCommons Chakra execution trace a rank (chakra.N.et, comm_groups.json)", _chakra),
    "memory": Format("GPU memory as PyTorch's allocator would snapshot it (memory.pickle)", _memory),
    "csv": Format("spans and memory as tables (spans.csv, memory.csv)", _csv),
}


def export(what: Exported, name: str, out: Path) -> list[Path]:
    """Write a step in the format ``name`` into ``out``; files are put in place when they are whole.

    Raises ``ScenarioError`` where nothing can be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".export-", dir=out) as part:
            return [path.replace(out / path.name) for path in FORMATS[name].write(what, Path(part))]
    except OSError as error:
        wrong = f"cannot be written: {error.strerror or error}; choose another directory with --out"
        raise ScenarioError([Problem(str(out), 0, 0, "", wrong)]) from error
