"""Traces of ranks: one file a rank as PyTorch's profiler writes them, or one file for Perfetto with everything on it.

Owns what surrounds the slices of ``sim.report.trace``. A rank that was folded into a class has that class's slices and
its own number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from sim.analysis.explanation import LinkUse
from sim.analysis.path import PathPiece
from sim.analysis.result import MemoryUse
from sim.export.ranks import Lives
from sim.report.trace import Event, counters, events, header, write_events
from sim.timeline.columns import Timeline

PATH_PROCESS = 1_000_000_000
"""Process of the critical path and of the utilisation counters: beyond any rank class."""


def write_ranks(timeline: Timeline, lives: Lives, out: Path) -> Iterator[Path]:
    """Write ``rank-N.json.gz`` for each rank: the folder that Holistic Trace Analysis opens."""
    for rank in lives.ranks:
        number = lives.class_of[rank]
        row = timeline.rank_classes[number]
        path = out / f"rank-{rank}.json.gz"
        head = header(timeline, rank, [{"id": number, "name": row.device, "like_rank": row.representative}])
        write_events(path, head, events(timeline, lives.spans[number]))
        yield path


def write_perfetto(
    timeline: Timeline, lives: Lives, out: Path, *, memory: Sequence[MemoryUse], path: Sequence[PathPiece],
    links: Sequence[LinkUse],
) -> Path:  # fmt: skip
    """Write ``perfetto.json.gz``: the classes of the ranks, memory, the critical path, how busy resources are."""
    shown = set(lives.spans)
    slices = chain.from_iterable(events(timeline, spans, causes=True) for spans in lives.spans.values())
    more = chain(
        counters([use for use in memory if use.rank_class in shown]), _path(timeline, path), _busy(timeline, links)
    )
    file = out / "perfetto.json.gz"
    first = min(lives.ranks)
    devices = [{"id": number, "name": timeline.rank_classes[number].device} for number in sorted(shown)]
    write_events(file, header(timeline, first, devices), chain(slices, more))
    return file


def _path(timeline: Timeline, pieces: Sequence[PathPiece]) -> Iterator[Event]:
    """The critical path as a thread of its own: whoever works, and what nobody works for."""
    named = {"ph": "M", "pid": PATH_PROCESS, "tid": 0, "ts": 0.0}
    yield {**named, "name": "process_name", "args": {"name": "the whole step"}}
    yield {**named, "name": "process_sort_index", "args": {"sort_index": -1}}
    yield {**named, "name": "thread_name", "args": {"name": "critical path"}}
    for piece in pieces:
        name, args = piece.reason, {}
        if piece.span >= 0:
            op = timeline.ops[int(timeline.spans.op[piece.span])]
            stream = timeline.stream_names[op.stream]
            name, args = op.name, {"rank": timeline.rank_classes[op.rank_class].representative, "stream": stream}
        yield {
            "ph": "X", "cat": "critical_path", "name": name, "pid": PATH_PROCESS, "tid": 0, "ts": piece.start * 1e6,
            "dur": (piece.end - piece.start) * 1e6, "args": args,
        }  # fmt: skip


def _busy(timeline: Timeline, links: Sequence[LinkUse]) -> Iterator[Event]:
    """Utilisation of each kind's busiest resource over time, in percent."""
    kinds: dict[str, LinkUse] = {}
    for link in links:  # busiest first
        kinds.setdefault(link.kind, link)
    for kind, link in kinds.items():
        width = timeline.makespan * 1e6 / len(link.over_time)
        for number, share in enumerate(link.over_time.tolist()):
            yield {
                "ph": "C", "name": f"{kind} in use ({link.name})", "pid": PATH_PROCESS, "ts": number * width,
                "args": {"percent": round(100.0 * share, 3)},
            }  # fmt: skip
