"""A timeline as one file, ``timeline.npz``, and back: what a run keeps so that it can be explained and exported later.

Owns the format: an npz (a zip of numpy arrays) with one array a column, plus the tables as MessagePack bytes in an
array ``tables``. Arrays of objects (pickles) are neither written nor read; whatever a file claims is checked before it
is believed. The bytes depend on the timeline alone.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sim.timeline.columns import Contended, OpRow, RankClassRow, ResourceRow, Spans, Timeline

FORMAT = 1
PHASES = "FBIWRO"
MOST_EMPTY = 1_000_000
"""Actions without a span (of an empty stage) that are believed."""
MOST_BYTES = 8 << 30
"""Of an unpacked file: beyond it a file is taken for a trap (a step of 100 million spans has 6 GB)."""

_TYPES = {
    "op": np.int32, "action": np.int32, "microbatch": np.int32, "launched": np.float64, "ready": np.float64,
    "start": np.float64, "end": np.float64, "cause": np.int8, "cause_span": np.int64, "peer": np.int64,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tables:
    format: int
    ops: tuple[OpRow, ...]
    rank_classes: tuple[RankClassRow, ...]
    resources: tuple[ResourceRow, ...]
    stream_names: tuple[str, ...]
    makespan: float
    events: int
    solves: int


def write(timeline: Timeline, path: Path) -> None:
    """Write ``timeline`` to ``path``. Raises ``OSError``."""
    tables = _Tables(
        format=FORMAT,
        ops=timeline.ops,
        rank_classes=timeline.rank_classes,
        resources=timeline.resources,
        stream_names=timeline.stream_names,
        makespan=timeline.makespan,
        events=timeline.events,
        solves=timeline.solves,
    )
    arrays: dict[str, NDArray[Any]] = {
        "tables": np.frombuffer(msgspec.msgpack.encode(tables), dtype=np.uint8),
        **{field.name: getattr(timeline.spans, field.name) for field in fields(Spans)},
        "contended_span": timeline.contended.span,
        "contended_resource": timeline.contended.resource,
        "contended_seconds": timeline.contended.seconds,
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, array in arrays.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, np.ascontiguousarray(array), allow_pickle=False)
            # times have few bits to spare: packing them takes seconds of a large step and saves little
            how = zipfile.ZIP_STORED if array.dtype == np.float64 else zipfile.ZIP_DEFLATED
            file.writestr(zipfile.ZipInfo(f"{name}.npy"), data.getvalue(), how)


def read(path: Path) -> Timeline:
    """Read what ``write`` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a timeline of this format, or not a whole one; says what is wrong.
    """
    try:
        with zipfile.ZipFile(path) as file:
            if sum(member.file_size for member in file.infolist()) > MOST_BYTES:
                msg = f"unpacks to more than {MOST_BYTES} bytes"
                raise ValueError(msg)
            found = {name.removesuffix(".npy"): _array(file, name) for name in file.namelist()}
        tables = msgspec.msgpack.decode(found["tables"].tobytes(), type=_Tables)
        timeline = _timeline(found, tables)
    except KeyError as error:
        msg = f"has no {error.args[0]}"
        raise ValueError(msg) from error
    except (zipfile.BadZipFile, msgspec.MsgspecError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(str(error) or error.__class__.__name__) from error
    wrong = _wrong(timeline)
    if wrong:
        raise ValueError(wrong)
    return timeline


def _array(file: zipfile.ZipFile, name: str) -> NDArray[Any]:
    data = io.BytesIO(file.read(name))
    array: NDArray[Any] = np.lib.format.read_array(data, allow_pickle=False)
    return array


def _timeline(found: dict[str, NDArray[Any]], tables: _Tables) -> Timeline:
    if tables.format != FORMAT:
        msg = f"has format {tables.format}, not {FORMAT}"
        raise ValueError(msg)
    columns = {name: _column(found[name], name, kind) for name, kind in _TYPES.items()}
    contended = Contended(
        _column(found["contended_span"], "contended_span", np.int64),
        _column(found["contended_resource"], "contended_resource", np.int64),
        _column(found["contended_seconds"], "contended_seconds", np.float64),
    )
    return Timeline(
        spans=Spans(**columns),
        contended=contended,
        ops=tables.ops,
        rank_classes=tables.rank_classes,
        resources=tables.resources,
        stream_names=tables.stream_names,
        makespan=tables.makespan,
        events=tables.events,
        solves=tables.solves,
    )


def _column(array: NDArray[Any], name: str, kind: type) -> NDArray[Any]:
    if array.dtype != np.dtype(kind) or array.ndim != 1:
        msg = f"{name} is {array.ndim}-dimensional {array.dtype}, not a column of {np.dtype(kind)}"
        raise ValueError(msg)
    return array


def _wrong(timeline: Timeline) -> str:
    """What in a timeline points nowhere or is no time; empty: nothing."""
    spans, contended, count = timeline.spans, timeline.contended, len(timeline.spans.end)
    lengths = {len(column) for column in (contended.span, contended.resource, contended.seconds)}
    if len(lengths) > 1 or any(len(getattr(spans, field.name)) != count for field in fields(Spans)):
        return "its columns are not of one length"
    tied = [row for op in timeline.ops for row, _ in (*op.demands, *op.parts)] + [op.bound_by for op in timeline.ops]
    ranges = (
        ("op", spans.op, 0, len(timeline.ops)),
        ("action", spans.action, 0, count + MOST_EMPTY),
        ("cause", spans.cause, 0, 4),
        ("cause_span", spans.cause_span, -1, count),
        ("peer", spans.peer, -1, count),
        ("contended_span", contended.span, 0, count),
        ("contended_resource", contended.resource, 0, len(timeline.resources)),
        ("rank_class", np.array([op.rank_class for op in timeline.ops]), 0, len(timeline.rank_classes)),
        ("stream", np.array([op.stream for op in timeline.ops]), 0, len(timeline.stream_names)),
        ("resource of an op", np.array(tied), -1, len(timeline.resources)),
    )
    for name, values, low, high in ranges:
        if len(values) and not (low <= values.min() and values.max() < high):
            return f"{name} is out of its range {low} to {high - 1}"
    numbers = np.arange(count)
    if (spans.cause_span >= numbers).any() or (spans.peer >= numbers).any():
        return "a span waited on itself or on a later one"
    tables = _wrong_tables(timeline)
    if tables:
        return tables
    times = (spans.launched, spans.ready, spans.start, spans.end)
    if not all(np.isfinite(values).all() and (values >= 0.0).all() for values in times):
        return "a time is not a number of seconds"
    return "" if np.isfinite(timeline.makespan) else "its length is not a number of seconds"


def _wrong_tables(timeline: Timeline) -> str:
    """What in the tables makes no sense; empty: nothing."""
    phases = sorted({op.phase for op in timeline.ops} - set(PHASES))
    if phases:
        return f"there is no phase {phases[0]!r}"
    ranks, resources = timeline.rank_classes, timeline.resources
    nobody = any(row.members < 1 for row in ranks) or any(row.members < 1 for row in resources)
    if not ranks or nobody or any(row.representative < 0 for row in ranks):
        return "a rank class or a resource stands for nobody"
    amounts = [row.capacity for row in timeline.resources] + [amount for op in timeline.ops for _, amount in op.demands]
    if not all(np.isfinite(amounts)) or any(row.capacity <= 0.0 for row in timeline.resources):
        return "a capacity or a demand is not an amount"
    return ""
