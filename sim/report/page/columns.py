"""A timeline as columns in a page: small, quick to read, and exact to a four-billionth of the step.

Owns the form in which numbers travel; ``assets/unpack.js`` reads it. Columns, not objects: a hundred thousand spans as
JSON objects are 20 MB and half a second of parsing, as columns under a megabyte and a few milliseconds. Each column has
its bytes sorted by significance (as HDF5's shuffle filter does), then all are deflated together and written in base64.
Times are whole ticks of ``makespan / TICKS``; what repeats is written as a difference, so that it deflates to nothing.
"""

from __future__ import annotations

import gzip
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.analysis.path import PathPiece, critical_path
from sim.analysis.result import MemoryUse
from sim.report.memory_plot import stack
from sim.report.timeline_plot import lane_label
from sim.timeline.columns import CAUSE_NAMES, OpRow, Timeline

TICKS = 4_000_000_000  # of a step: below 2^32
PHASES = "FBIWRO"
_PARTED = 1 / 500  # of the step: an action that waits for longer is drawn in parts
_OP_NUMBERS = ("layer", "flops", "size", "latency", "duration", "bound_by", "group_size", "kernels")
_OP_WORDS = ("name", "kind", "category", "phase")
Array = NDArray[Any]


class Blob:
    """Named columns in one compressed text."""

    def __init__(self) -> None:
        self.header: list[tuple[str, str, int]] = []
        self.parts: list[bytes] = []

    def add(self, name: str, values: Array) -> None:
        """Append a column; its type on the page is its type here (little-endian)."""
        flat = np.ascontiguousarray(values).ravel()
        flat = flat.astype(flat.dtype.newbyteorder("<"))
        self.header.append((name, f"{flat.dtype.kind}{flat.dtype.itemsize}", len(flat)))
        self.parts.append(flat.view(np.uint8).reshape(len(flat), flat.dtype.itemsize).T.tobytes())

    def text(self) -> str:
        """All columns, deflated, in base64."""
        return b64encode(gzip.compress(b"".join(self.parts), compresslevel=6, mtime=0)).decode()


@dataclass(frozen=True, slots=True)
class _Clock:
    """Seconds as ticks."""

    makespan: float

    def ticks(self, seconds: Array | Sequence[float]) -> NDArray[np.uint32]:
        """Whole ticks since the step began."""
        scaled = np.asarray(seconds, dtype=np.float64) * (TICKS / self.makespan if self.makespan else 0.0)
        return np.clip(np.rint(scaled), 0, TICKS).astype(np.uint32)


def timeline_data(timeline: Timeline, memory: Sequence[MemoryUse]) -> dict[str, Any]:
    """What the page's script needs of a step, as plain values: tables of words, and one blob of columns."""
    blob, clock = Blob(), _Clock(timeline.makespan)
    order, lanes = _lanes(timeline)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    _add_spans(blob, clock, timeline, order, place)
    reasons = _add_path(blob, clock, critical_path(timeline), place)
    words = _add_ops(blob, timeline.ops)
    _add_blocks(blob, clock, timeline)
    return {
        "makespan": timeline.makespan,
        "ticks": TICKS,
        "lanes": lanes,
        "streams": [lane_label(name) for name in timeline.stream_names],
        "classes": [{"name": row.name, "members": row.members, "device": row.device} for row in timeline.rank_classes],
        "resources": [{"name": row.name, "kind": row.kind} for row in timeline.resources],
        "causes": list(CAUSE_NAMES),
        "phases": PHASES,
        "reasons": reasons,
        "words": words,
        "memory": [_add_memory(blob, clock, number, use) for number, use in enumerate(memory)],
        "columns": blob.header,
        "blob": blob.text(),
    }


def _of_ops(timeline: Timeline, name: str) -> NDArray[np.int64]:
    """A number of each span's op."""
    return np.array([getattr(op, name) for op in timeline.ops], dtype=np.int64)[timeline.spans.op]


def _lanes(timeline: Timeline) -> tuple[NDArray[np.int64], list[tuple[int, int, int]]]:
    """Spans in order of lane and start; (rank class, stream, spans) of each lane."""
    rank, stream = _of_ops(timeline, "rank_class"), _of_ops(timeline, "stream")
    lane = rank * len(timeline.stream_names) + stream
    order = np.lexsort((timeline.spans.end, timeline.spans.start, lane))
    found, counts = np.unique(lane, return_counts=True)
    streams = len(timeline.stream_names)
    rows = zip(found.tolist(), counts.tolist(), strict=True)
    return order, [(number // streams, number % streams, count) for number, count in rows]


def _add_spans(blob: Blob, clock: _Clock, timeline: Timeline, order: Array, place: Array) -> None:
    spans = timeline.spans
    start, end, ready = (clock.ticks(column[order]) for column in (spans.start, spans.end, spans.ready))
    before = np.concatenate([np.zeros(1, dtype=np.uint32), end])[: len(end)]
    blob.add("op", spans.op[order].astype(np.uint32))
    blob.add("microbatch", spans.microbatch[order].astype(np.int32))
    blob.add("gap", start - before)  # wraps where a lane begins: the reader adds in the same arithmetic
    blob.add("length", end - start)
    blob.add("wait", start - ready)
    blob.add("cause", spans.cause[order].astype(np.uint8))
    blob.add("cause_span", _relative(spans.cause_span[order], place))
    blob.add("peer", _relative(spans.peer[order], place))
    of = np.array([(place[span], resource, seconds) for span, resource, seconds in timeline.contended]).reshape(-1, 3)
    blob.add("slow_span", of[:, 0].astype(np.uint32))
    blob.add("slow_resource", of[:, 1].astype(np.uint16))
    blob.add("slow_seconds", of[:, 2].astype(np.float32))


def _relative(numbers: Array, place: Array) -> NDArray[np.int32]:
    """Places of other spans, from one's own; 0: none."""
    if not len(numbers):
        return numbers.astype(np.int32)
    there = place[np.maximum(numbers, 0)] - np.arange(len(numbers))
    return np.where(numbers >= 0, there, 0).astype(np.int32)


def _add_path(blob: Blob, clock: _Clock, path: Sequence[PathPiece], place: Array) -> list[str]:
    reasons = list(dict.fromkeys(piece.reason for piece in path))
    blob.add("path_span", np.array([place[p.span] if p.span >= 0 else -1 for p in path], dtype=np.int32))
    blob.add("path_start", clock.ticks([p.start for p in path]))
    blob.add("path_end", clock.ticks([p.end for p in path]))
    blob.add("path_reason", np.array([reasons.index(p.reason) for p in path], dtype=np.uint8))
    return reasons


def _add_ops(blob: Blob, ops: Sequence[OpRow]) -> dict[str, list[str]]:
    """Numbers of every op; its words as numbers of the tables that are returned."""
    for name in _OP_NUMBERS:
        values = np.array([getattr(op, name) for op in ops])
        blob.add(f"op_{name}", values.astype(np.float64 if values.dtype.kind == "f" else np.int32))
    tables = {}
    for name in _OP_WORDS:
        words = [getattr(op, name) for op in ops]
        tables[name] = list(dict.fromkeys(words))
        numbers = {word: number for number, word in enumerate(tables[name])}
        blob.add(f"op_{name}", np.array([numbers[word] for word in words], dtype=np.uint32))
    return tables


def _add_blocks(blob: Blob, clock: _Clock, timeline: Timeline) -> None:
    """Each action of each rank class on its compute stream, in order of time: parted where it waits for long."""
    spans = timeline.spans
    mine = np.flatnonzero((_of_ops(timeline, "stream") == 0) & (spans.end > spans.start))
    rank = _of_ops(timeline, "rank_class")[mine]
    mine = mine[np.lexsort((spans.start[mine], rank))]
    rank, action = _of_ops(timeline, "rank_class")[mine], spans.action[mine]
    waits = spans.start[mine][1:] - spans.end[mine][:-1] > timeline.makespan * _PARTED
    new = (rank[1:] != rank[:-1]) | (action[1:] != action[:-1]) | waits
    first = np.flatnonzero(np.concatenate([[True], new])[: len(mine)])
    last = np.concatenate([first[1:], [len(mine)]])[: len(first)] - 1
    start, end = clock.ticks(spans.start[mine[first]]), clock.ticks(spans.end[mine[last]])
    phase = np.array([PHASES.index(op.phase) for op in timeline.ops], dtype=np.uint8)
    blob.add("block_class", rank[first].astype(np.uint16))
    blob.add("block_microbatch", spans.microbatch[mine[first]].astype(np.int32))
    blob.add("block_phase", phase[spans.op[mine[first]]])
    blob.add("block_start", start)
    blob.add("block_length", end - start)


def _add_memory(blob: Blob, clock: _Clock, number: int, use: MemoryUse) -> dict[str, Any]:
    """Owners from the bottom of the stack up; small ones are together."""
    rows = stack(use)
    blob.add(f"memory{number}_time", clock.ticks(use.times))
    blob.add(f"memory{number}_bytes", np.array([values for _, values in rows], dtype=np.float32))
    return {
        "class": use.rank_class,
        "where": use.where,
        "capacity": use.capacity,
        "peak": use.peak,
        "peak_time": use.peak_time,
        "owners": [owner for owner, _ in rows],
    }
