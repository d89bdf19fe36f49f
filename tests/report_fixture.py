"""A hand-made ZeRO-Offload-like step, 3,000 spans on five streams, and a result with made-up but round numbers.

Numpy only: neither the engine nor the analyses are asked, so what is shown can be checked against what was put in.
Forward 3 s, backward and recompute in turn 6 s, copies down meanwhile, CPU Adam 2 s, copy up 1 s: 12 s.
"""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import numpy as np

from sim.analysis.result import MemoryUse, Result, TransferUse
from sim.timeline.columns import Contended, OpRow, RankClassRow, ResourceRow, Spans, Timeline

STREAMS = ("compute", "dp", "h2d", "d2h", "cpu")
STEP = 12.0
MEMBERS = 4
LAUNCH = 1e-5  # how long before its start everything is launched

NOTHING = Contended(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def op(name, kind, category, phase, stream, *, rank_class=0, size=1e6):
    return OpRow(
        name=name, kind=kind, category=category, phase=phase, rank_class=rank_class, stream=STREAMS.index(stream),
        layer=0, flops=1e9, size=size, latency=0.0, duration=1.0, bound_by=-1, demands=(), memory=(),
        group_size=MEMBERS if kind in ("all_reduce", "reduce_scatter") else 1,
    )  # fmt: skip


OPS = (
    op("mlp.up", "gemm", "forward", "F", "compute"),
    op("mlp.up.again", "gemm", "recompute", "R", "compute"),
    op("mlp.up.grad", "gemm", "backward", "B", "compute"),
    op("grads.reduce", "reduce_scatter", "dp", "B", "dp"),
    op("grads.down", "d2h", "d2h", "B", "d2h"),
    op("adam", "adam", "cpu_adam", "O", "cpu"),
    op("params.up", "h2d", "h2d", "O", "h2d"),
)
NUMBER = {row.name: i for i, row in enumerate(OPS)}


def _even(name, action, count, *, begin, end, fill=1.0):
    """``count`` spans of one op, evenly from ``begin`` to ``end``, each filling ``fill`` of its slot."""
    edges = np.linspace(begin, end, count + 1)
    return [(NUMBER[name], action, s, s + fill * (e - s)) for s, e in pairwise(edges)]


def rows():
    """(op, action, start, end) of every span: 1400 + 1400 on the GPU, 100 + 98 for gradients, one Adam, one copy up."""
    turns = np.linspace(3.0, 9.0, 1401)
    names = ("mlp.up.again", "mlp.up.grad")
    back = [(NUMBER[names[i % 2]], 1, turns[i], turns[i + 1]) for i in range(1400)]
    return [
        *_even("mlp.up", 0, 1400, begin=0.0, end=3.0),
        *back,
        *_even("grads.reduce", 1, 100, begin=3.0, end=9.0, fill=0.5),
        *_even("grads.down", 1, 98, begin=3.1, end=9.0, fill=0.25),
        (NUMBER["adam"], 2, 9.0, 11.0),
        (NUMBER["params.up"], 2, 11.0, 12.0),
    ]


def timeline(spans=None, ops=OPS, makespan=STEP):
    table = sorted(spans if spans is not None else rows(), key=lambda row: row[3])
    number, action, start, end = (np.array(column) for column in zip(*table, strict=True))
    shown = {
        "op": number.astype(np.int32), "action": action.astype(np.int32), "microbatch": np.zeros(len(table), np.int32),
        "launched": np.maximum(start - LAUNCH, 0.0), "start": start.astype(float), "end": end.astype(float),
    }  # fmt: skip
    unread = {field.name: np.full(len(table), -1) for field in fields(Spans) if field.name not in shown}
    return Timeline(
        spans=Spans(**shown, **unread),  # causes and the like: the report shows none of them
        contended=NOTHING, ops=ops,
        rank_classes=(
            RankClassRow(
                name="rank 0", members=MEMBERS, representative=0, device="n0.gpu0",
                resident_gpu=(("parameters", 20e9),), resident_host=(("optimizer states", 120e9),),
            ),
        ),
        resources=(ResourceRow(name="n0.pcie", kind="pcie.h2d", capacity=12e9, unit="B/s", members=1),),
        stream_names=STREAMS, makespan=makespan, events=len(table), solves=0,
    )  # fmt: skip


def memory(capacity=32e9, **owners):
    """GPU memory at 0, 3, 9 and 12 s; ``owners`` are rows of bytes in GB."""
    table = {
        "parameters": [20, 20, 20, 20],
        "activations.checkpoints": [0, 8, 2, 0],
        "gradients": [0, 1, 3, 0],
        "allocator": [0.1, 0.1, 0.1, 0.1],
        **owners,
    }
    by_owner = {name.replace("__", "."): np.array(values) * 1e9 for name, values in table.items()}
    total = np.sum(list(by_owner.values()), axis=0)
    top = int(np.argmax(total))
    return MemoryUse(
        rank_class=0, where="gpu", times=np.array([0.0, 3.0, 9.0, 12.0]), by_owner=by_owner, peak=float(total[top]),
        peak_time=[0.0, 3.0, 9.0, 12.0][top], capacity=capacity,
        at_peak={name: float(v[top]) for name, v in sorted(by_owner.items(), key=lambda kv: -kv[1][top]) if v[top] > 0},
    )  # fmt: skip


def host(capacity=1.5e12):
    return MemoryUse(
        rank_class=0, where="host", times=np.array([0.0]), by_owner={"optimizer states": np.array([120e9])}, peak=120e9,
        peak_time=0.0, at_peak={"optimizer states": 120e9}, capacity=capacity,
    )  # fmt: skip


def result(*uses, wall=0.5, transfers=None, scenario="made-up"):
    moved = TransferUse(
        category="h2d",
        bytes=12e9,
        most=12e9,
        count=3.0,
        busy=1.0,
        exposed=1.0,
        alone=13e9,
        achieved=12e9,
        bound_by="n0.switch0.uplink.in",
    )
    return Result(
        scenario=scenario, step_time=STEP, tokens_per_s_per_gpu=1234.5, mfu=0.25, hfu=0.333, fits=True,
        breakdown={"forward": 3.0, "backward": 3.0, "recompute": 3.0, "cpu_adam": 2.0, "h2d": 1.0},
        phases={"forward": 3.0, "backward": 6.0, "optimizer": 3.0},
        bound_by={"sm": 0.75, "cores": 0.17, "pcie.h2d": 0.08}, memory=uses or (memory(), host()),
        transfers=(moved,) if transfers is None else transfers, published=(), utilisation={"n0.pcie": 0.1},
        ranks=MEMBERS, rank_classes=1, ops=3000, events=3000, wall=wall,
    )  # fmt: skip
