"""The timeline as a Chrome trace in the dialect of PyTorch's profiler (Kineto), for Perfetto and trace analysers.

One process a rank class: its CPU thread with the launches (``cuda_runtime``) and CPU work (``cpu_op``), one thread
for each stream with kernels and copies (``kernel``, ``gpu_memcpy``), tied to their launch by ``correlation``; a
counter of GPU memory. Times are microseconds with their decimals. The bytes depend on the timeline alone.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from sim.analysis.result import MemoryUse
from sim.timeline.columns import CAUSE_NAMES, OpRow, Timeline

CPU_THREAD = 1
DRIVE_THREAD = 2
FIRST_STREAM = 7  # what PyTorch's default stream is called in its traces
_CPU_KINDS = ("adam", "stream")
_DRIVE_KINDS = ("nvme_read", "nvme_write")
_COPIES = {"h2d": "Memcpy HtoD (Pinned -> Device)", "d2h": "Memcpy DtoH (Device -> Pinned)"}
_NCCL = {
    "all_reduce": "ncclDevKernel_AllReduce_Sum_RING",
    "all_gather": "ncclDevKernel_AllGather_RING",
    "reduce_scatter": "ncclDevKernel_ReduceScatter_Sum_RING",
    "broadcast": "ncclDevKernel_Broadcast_RING",
    "all_to_all": "ncclDevKernel_SendRecv",
    "send_recv": "ncclDevKernel_SendRecv",
    "ring_step": "ncclDevKernel_SendRecv",
}
_CALLED = {
    "all_reduce": "allreduce", "all_gather": "_allgather_base", "reduce_scatter": "_reduce_scatter_base",
    "broadcast": "broadcast", "all_to_all": "all_to_all", "send_recv": "send_recv", "ring_step": "send_recv",
}  # fmt: skip
"""What PyTorch's profiler calls a collective in a kernel's ``args``."""
Event = dict[str, Any]
Head = tuple[Event, Event, Event | None]
CHUNK = 4096
"""Events that are encoded at a time: a trace of millions never lies in memory."""


def write(timeline: Timeline, path: Path, memory: Sequence[MemoryUse] = ()) -> None:
    """Write ``timeline`` to ``path`` (gzipped JSON), with a counter for each GPU memory in ``memory``.

    The world size is the sum of the members of all rank classes.
    """
    first = timeline.rank_classes[0].representative if timeline.rank_classes else 0
    devices = [{"id": number, "name": row.device} for number, row in enumerate(timeline.rank_classes)]
    write_events(path, header(timeline, first, devices), chain(events(timeline), counters(memory)))


def header(timeline: Timeline, rank: int, devices: Sequence[Event]) -> Event:
    """What precedes the events: the schema, devices, and who wrote the trace."""
    world = sum(row.members for row in timeline.rank_classes)
    return {
        "schemaVersion": 1,
        "deviceProperties": [*devices],
        "distributedInfo": {"backend": "nccl", "rank": rank, "world_size": world},
        "displayTimeUnit": "ms",
    }


def write_events(path: Path, head: Event, found: Iterable[Event]) -> None:
    """Write a trace piece by piece. The bytes depend on what is written alone."""
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=3, fileobj=raw, mtime=0) as file:
        file.write(msgspec.json.encode(head)[:-1] + b',"traceEvents":[')  # level 6: a fifth smaller, 2.5 times as long
        comma, left = b"", iter(found)
        while piece := list(islice(left, CHUNK)):
            file.write(comma + msgspec.json.encode(piece)[1:-1])
            comma = b","
        file.write(b"]}")


def events(timeline: Timeline, chosen: NDArray[np.int64] | None = None, *, causes: bool = False) -> Iterator[Event]:
    """Every slice of the trace with its names, in a fixed order; of the ``chosen`` spans (ascending), or of all.

    With ``causes`` each says what it waited on.
    """
    numbers = range(len(timeline.ops)) if chosen is None else np.unique(timeline.spans.op[chosen]).tolist()
    shown = sorted({timeline.ops[number].rank_class for number in numbers})
    if chosen is None:
        shown = list(range(len(timeline.rank_classes)))
    yield from _names(timeline, shown)
    yield from _steps(timeline, shown)
    heads = [_head(row) for row in timeline.ops]
    count = len(timeline.spans.op)
    for begin in range(0, count if chosen is None else len(chosen), CHUNK):
        some = np.arange(begin, min(begin + CHUNK, count)) if chosen is None else chosen[begin : begin + CHUNK]
        yield from _slices(timeline, some, heads, causes=causes)


def _slices(
    timeline: Timeline, some: NDArray[np.int64], heads: Sequence[Head | None], *, causes: bool
) -> Iterator[Event]:
    """The slices of some spans, each after its launch."""
    spans = timeline.spans
    columns = zip(
        some.tolist(), spans.op[some].tolist(), spans.microbatch[some].tolist(), (spans.launched[some] * 1e6).tolist(),
        (spans.start[some] * 1e6).tolist(), (spans.end[some] * 1e6).tolist(), strict=True,
    )  # fmt: skip
    for number, op, microbatch, launched, start, end in columns:
        head = heads[op]
        if head is None:
            continue
        slice_, constant, launch = head
        correlation = number + 1
        if launch is not None:
            yield {**launch, "ts": launched, "dur": 0.0, "args": {"correlation": correlation}}
        args = {**constant, "correlation": correlation, "microbatch": microbatch}
        if causes:
            args["waited on"] = _cause(timeline, number)
        yield {**slice_, "ts": start, "dur": end - start, "args": args}


def _cause(timeline: Timeline, span: int) -> str:
    """What made a span ready, and who came last to its exchange."""
    spans, peer = timeline.spans, int(timeline.spans.peer[span])
    said, blocker = CAUSE_NAMES[int(spans.cause[span])], int(spans.cause_span[span])
    if blocker >= 0:
        said += f": {timeline.ops[int(spans.op[blocker])].name}"
    if peer >= 0:
        said += f"; {timeline.rank_classes[timeline.ops[int(spans.op[peer])].rank_class].name} came last"
    return said


def _head(row: OpRow) -> Head | None:
    """What all spans of an op share: the slice, its args, its launch (CPU work has none). ``None``: not drawn.

    Written once an op, because a trace has a hundred times as many spans.
    """
    if row.kind == "none":
        return None
    common = {"phase": row.phase, "layer": row.layer}
    if row.kind in _CPU_KINDS:
        return _slice("cpu_op", row.name, row.rank_class, CPU_THREAD), common, None
    if row.kind in _DRIVE_KINDS:
        return _slice("cpu_op", row.name, row.rank_class, DRIVE_THREAD), {**common, "bytes": row.size}, None
    call = "cudaMemcpyAsync" if row.kind in _COPIES else "cudaLaunchKernel"
    launch = _slice("cuda_runtime", call, row.rank_class, CPU_THREAD)
    stream = FIRST_STREAM + row.stream
    args = {"device": row.rank_class, "stream": stream, "op": row.name, "bytes": row.size, **common}
    if row.kind in _COPIES:
        return _slice("gpu_memcpy", _COPIES[row.kind], row.rank_class, stream), args, launch
    if row.kind not in _NCCL:
        args["flops"] = row.flops
    else:
        args |= {"Collective name": _CALLED[row.kind], "Group size": row.group_size, "dtype": "Byte"}
        args["In msg nelems"] = row.size
    return _slice("kernel", _NCCL.get(row.kind, row.name), row.rank_class, stream), args, launch


def _slice(category: str, name: str, pid: int, tid: int) -> Event:
    return {"ph": "X", "cat": category, "name": name, "pid": pid, "tid": tid}


def counters(memory: Sequence[MemoryUse]) -> list[Event]:
    """GPU memory of each rank class over time, in bytes: all owners together, as the analysis found them."""
    found: list[Event] = []
    for use in memory:
        if use.where == "gpu" and use.by_owner:
            total = np.sum(list(use.by_owner.values()), axis=0)
            found += [
                {"ph": "C", "name": "GPU memory", "pid": use.rank_class, "ts": at, "args": {"bytes": size}}
                for at, size in zip((use.times * 1e6).tolist(), total.tolist(), strict=True)
            ]
    return found


def _names(timeline: Timeline, shown: Sequence[int]) -> list[Event]:
    """Processes and threads by name, in the order in which a reader wants them."""
    found: list[Event] = []
    drives = any(row.kind in _DRIVE_KINDS for row in timeline.ops)
    for pid in shown:
        row = timeline.rank_classes[pid]
        name = f"{row.name} on {row.device}" + (f" (stands for {row.members})" if row.members > 1 else "")
        found.append(_meta("process_name", pid, 0, {"name": name}))
        found.append(_meta("process_sort_index", pid, 0, {"sort_index": pid}))
        threads = [(CPU_THREAD, "CPU: launches and host work"), *([(DRIVE_THREAD, "drives")] if drives else [])]
        threads += [(FIRST_STREAM + i, f"stream {FIRST_STREAM + i}: {s}") for i, s in enumerate(timeline.stream_names)]
        for order, (tid, label) in enumerate(threads):
            found.append(_meta("thread_name", pid, tid, {"name": label}))
            found.append(_meta("thread_sort_index", pid, tid, {"sort_index": order}))
    return found


def _meta(name: str, pid: int, tid: int, args: Event) -> Event:
    return {"ph": "M", "name": name, "pid": pid, "tid": tid, "ts": 0.0, "args": args}


def _steps(timeline: Timeline, shown: Sequence[int]) -> list[Event]:
    """The annotation by which analysers know a training step, on the thread that launches, around all of it."""
    return [
        {
            **_slice("user_annotation", "ProfilerStep#0", pid, CPU_THREAD), "ts": 0.0, "dur": timeline.makespan * 1e6,
            "args": {},
        }
        for pid in shown
    ]  # fmt: skip
