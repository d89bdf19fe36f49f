"""Spans and memory as CSV, written row by row. Times in seconds, sizes in bytes; a header says so."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from sim.analysis.result import MemoryUse
from sim.export.ranks import Lives
from sim.timeline.columns import CAUSE_NAMES, Timeline

SPANS = (
    "span", "rank", "device", "stage", "stream", "op", "kind", "category", "phase", "layer", "microbatch", "launched_s",
    "ready_s", "start_s", "end_s", "waited_on", "waited_on_span", "last_member_span", "bound_by", "bytes", "flops",
)  # fmt: skip
MEMORY = ("rank", "where", "time_s", "owner", "bytes")


def write_spans(timeline: Timeline, lives: Lives, out: Path) -> Path:
    """Write ``spans.csv``: a row a span and rank, by rank, then by end. ``span`` numbers are the timeline's."""
    path = out / "spans.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(SPANS)
        for rank in lives.ranks:
            rows.writerows(_rows(timeline, lives, rank))
    return path


def _rows(timeline: Timeline, lives: Lives, rank: int) -> Iterator[tuple[object, ...]]:
    spans, number = timeline.spans, lives.class_of[rank]
    row = timeline.rank_classes[number]
    for span in lives.spans[number].tolist():
        op = timeline.ops[int(spans.op[span])]
        yield (
            span, rank, row.device, row.stage, timeline.stream_names[op.stream], op.name, op.kind, op.category,
            op.phase, op.layer, int(spans.microbatch[span]), repr(float(spans.launched[span])),
            repr(float(spans.ready[span])), repr(float(spans.start[span])), repr(float(spans.end[span])),
            CAUSE_NAMES[int(spans.cause[span])], _number(int(spans.cause_span[span])), _number(int(spans.peer[span])),
            timeline.resources[op.bound_by].kind if op.bound_by >= 0 else "", op.size, op.flops,
        )  # fmt: skip


def _number(span: int) -> int | str:
    return span if span >= 0 else ""


def write_memory(memory: Sequence[MemoryUse], lives: Lives, out: Path) -> Path:
    """Write ``memory.csv``: a row for each owner and time at which it changes, of each rank and place."""
    path = out / "memory.csv"
    by_class = {number: [use for use in memory if use.rank_class == number] for number in lives.spans}
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(MEMORY)
        for rank in lives.ranks:
            for use in by_class[lives.class_of[rank]]:
                rows.writerows((rank, *row) for row in _changes(use))
    return path


def _changes(use: MemoryUse) -> Iterator[tuple[str, str, str, float]]:
    for owner, sizes in use.by_owner.items():
        before = None
        for time, size in zip(use.times.tolist(), sizes.tolist(), strict=True):
            if size != before:
                yield use.where, repr(time), owner, size
            before = size
