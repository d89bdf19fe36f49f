"""The timeline as a Chrome trace in the dialect of PyTorch's profiler (Kineto), for Perfetto and trace analysers.

One process a rank class: its CPU thread with the launches (``cuda_runtime``) and CPU work (``cpu_op``), one thread
for each stream with kernels and copies (``kernel``, ``gpu_memcpy``), tied to their launch by ``correlation``; a
counter of GPU memory. Times are microseconds with their decimals. The bytes depend on the timeline alone.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import msgspec

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
}
Event = dict[str, Any]


def write(timeline: Timeline, path: Path) -> None:
    """Write ``timeline`` to ``path`` (gzipped JSON)."""
    document = {
        "schemaVersion": 1,
        "deviceProperties": [
            {"id": number, "name": row.device, "totalGlobalMem": 0} for number, row in enumerate(timeline.rank_classes)
        ],
        "distributedInfo": {
            "backend": "nccl",
            "rank": timeline.rank_classes[0].representative if timeline.rank_classes else 0,
            "world_size": sum(row.members for row in timeline.rank_classes),
        },
        "displayTimeUnit": "ms",
        "traceEvents": events(timeline),
    }
    data = msgspec.json.encode(document)
    path.write_bytes(gzip.compress(data, compresslevel=6, mtime=0))


def events(timeline: Timeline) -> list[Event]:
    """Every event of the trace, in a fixed order."""
    found = _names(timeline)
    spans = timeline.spans
    columns = zip(
        spans.op.tolist(), spans.microbatch.tolist(), spans.launched.tolist(), spans.start.tolist(), spans.end.tolist(),
        strict=True,
    )  # fmt: skip
    for index, (op, microbatch, launched, start, end) in enumerate(columns):
        row = timeline.ops[op]
        if row.kind == "none":
            continue
        args = {"correlation": index + 1, "microbatch": microbatch, "phase": row.phase, "layer": row.layer}
        if row.kind in _CPU_KINDS:
            found.append(_slice("cpu_op", row.name, (row.rank_class, CPU_THREAD), (start, end), args))
            continue
        launch = "cudaMemcpyAsync" if row.kind in _COPIES else "cudaLaunchKernel"
        point = (launched, launched)
        found.append(_slice("cuda_runtime", launch, (row.rank_class, CPU_THREAD), point, {"correlation": index + 1}))
        found.append(_gpu_event(row, (start, end), args))
    found += _steps(timeline)
    return found


def _gpu_event(row: OpRow, when: tuple[float, float], args: Event) -> Event:
    stream = FIRST_STREAM + row.stream
    args = {"device": row.rank_class, "stream": stream, "op": row.name, "bytes": row.size, **args}
    if row.kind in _COPIES:
        return _slice("gpu_memcpy", _COPIES[row.kind], (row.rank_class, stream), when, args)
    name = _NCCL.get(row.kind, row.name)
    if row.kind not in _NCCL:
        args["flops"] = row.flops
    return _slice("kernel", name, (row.rank_class, stream), when, args)


def _slice(category: str, name: str, thread: tuple[int, int], when: tuple[float, float], args: Event) -> Event:
    (pid, tid), (start, end) = thread, when
    return {
        "ph": "X", "cat": category, "name": name, "pid": pid, "tid": tid, "ts": start * 1e6, "dur": (end - start) * 1e6,
        "args": args,
    }  # fmt: skip


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
    """The annotation by which analysers know a training step."""
    whole = (0.0, timeline.makespan)
    return [
        _slice("user_annotation", "ProfilerStep#0", (pid, CPU_THREAD + 1), whole, {})
        for pid in range(len(timeline.rank_classes))
    ]
