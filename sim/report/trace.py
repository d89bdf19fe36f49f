"""The timeline as a Chrome trace in the dialect of PyTorch's profiler (Kineto), for Perfetto and trace analysers.

One process a rank class: its CPU thread with the launches (``cuda_runtime``) and CPU work (``cpu_op``), one thread
for each stream with kernels and copies (``kernel``, ``gpu_memcpy``), tied to their launch by ``correlation``; a
counter of GPU memory. Times are microseconds with their decimals. The bytes depend on the timeline alone.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from sim.analysis.result import MemoryUse
from sim.timeline.columns import OpRow, Timeline

CPU_THREAD = 1
FIRST_STREAM = 7  # what PyTorch's default stream is called in its traces
_CPU_KINDS = ("adam", "stream")
_COPIES = {"h2d": "Memcpy HtoD (Pinned -> Device)", "d2h": "Memcpy DtoH (Device -> Pinned)"}
_NCCL = {
    "all_reduce": "ncclDevKernel_AllReduce_Sum_RING",
    "all_gather": "ncclDevKernel_AllGather_RING",
    "reduce_scatter": "ncclDevKernel_ReduceScatter_Sum_RING",
    "broadcast": "ncclDevKernel_Broadcast_RING",
    "send_recv": "ncclDevKernel_SendRecv",
    "ring_step": "ncclDevKernel_SendRecv",
}
Event = dict[str, Any]


def write(timeline: Timeline, path: Path, memory: Sequence[MemoryUse] = ()) -> None:
    """Write ``timeline`` to ``path`` (gzipped JSON), with a counter for each GPU memory in ``memory``.

    The world size is the sum of the members of all rank classes.
    """
    document = {
        "schemaVersion": 1,
        "deviceProperties": [{"id": number, "name": row.device} for number, row in enumerate(timeline.rank_classes)],
        "distributedInfo": {
            "backend": "nccl",
            "rank": timeline.rank_classes[0].representative if timeline.rank_classes else 0,
            "world_size": sum(row.members for row in timeline.rank_classes),
        },
        "displayTimeUnit": "ms",
        "traceEvents": [*events(timeline), *counters(memory)],
    }
    data = msgspec.json.encode(document)
    path.write_bytes(gzip.compress(data, compresslevel=3, mtime=0))  # level 6: a fifth smaller, 2.5 times as long


def events(timeline: Timeline) -> list[Event]:
    """Every slice of the trace with its names, in a fixed order."""
    found = _names(timeline) + _steps(timeline)
    spans = timeline.spans
    columns = zip(
        spans.op.tolist(), spans.microbatch.tolist(), (spans.launched * 1e6).tolist(), (spans.start * 1e6).tolist(),
        (spans.end * 1e6).tolist(), strict=True,
    )  # fmt: skip
    heads = [_head(row) for row in timeline.ops]
    for correlation, (op, microbatch, launched, start, end) in enumerate(columns, start=1):
        head = heads[op]
        if head is None:
            continue
        slice_, constant, launch = head
        if launch is not None:
            args = {"correlation": correlation}
            found.append({**launch, "ts": launched, "dur": 0.0, "args": args})
        args = {**constant, "correlation": correlation, "microbatch": microbatch}
        found.append({**slice_, "ts": start, "dur": end - start, "args": args})
    return found


def _head(row: OpRow) -> tuple[Event, Event, Event | None] | None:
    """What all spans of an op share: the slice, its args, its launch (CPU work has none). ``None``: not drawn.

    Written once an op, because a trace has a hundred times as many spans.
    """
    if row.kind == "none":
        return None
    common = {"phase": row.phase, "layer": row.layer}
    if row.kind in _CPU_KINDS:
        return _slice("cpu_op", row.name, row.rank_class, CPU_THREAD), common, None
    call = "cudaMemcpyAsync" if row.kind in _COPIES else "cudaLaunchKernel"
    launch = _slice("cuda_runtime", call, row.rank_class, CPU_THREAD)
    stream = FIRST_STREAM + row.stream
    args = {"device": row.rank_class, "stream": stream, "op": row.name, "bytes": row.size, **common}
    if row.kind in _COPIES:
        return _slice("gpu_memcpy", _COPIES[row.kind], row.rank_class, stream), args, launch
    if row.kind not in _NCCL:
        args["flops"] = row.flops
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


def _names(timeline: Timeline) -> list[Event]:
    """Processes and threads by name, in the order in which a reader wants them."""
    found: list[Event] = []
    for pid, row in enumerate(timeline.rank_classes):
        name = f"{row.name} on {row.device}" + (f" (stands for {row.members})" if row.members > 1 else "")
        found.append(_meta("process_name", pid, 0, {"name": name}))
        found.append(_meta("process_sort_index", pid, 0, {"sort_index": pid}))
        threads = [(CPU_THREAD, "CPU: launches and host work")]
        threads += [(FIRST_STREAM + i, f"stream {FIRST_STREAM + i}: {s}") for i, s in enumerate(timeline.stream_names)]
        for order, (tid, label) in enumerate(threads):
            found.append(_meta("thread_name", pid, tid, {"name": label}))
            found.append(_meta("thread_sort_index", pid, tid, {"sort_index": order}))
    return found


def _meta(name: str, pid: int, tid: int, args: Event) -> Event:
    return {"ph": "M", "name": name, "pid": pid, "tid": tid, "ts": 0.0, "args": args}


def _steps(timeline: Timeline) -> list[Event]:
    """The annotation by which analysers know a training step, on the thread that launches, around all of it."""
    return [
        {
            **_slice("user_annotation", "ProfilerStep#0", pid, CPU_THREAD), "ts": 0.0, "dur": timeline.makespan * 1e6,
            "args": {},
        }
        for pid in range(len(timeline.rank_classes))
    ]  # fmt: skip
