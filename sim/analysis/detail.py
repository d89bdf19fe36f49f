"""One category of the breakdown in detail: its ops, its stages, who waits for whom. Pure: timeline in, numbers out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.analysis.breakdown import averaged, breakdowns
from sim.analysis.explanation import Detail, OpDetail
from sim.analysis.path import critical_path
from sim.analysis.transfers import sent_bytes
from sim.analysis.waits import waits
from sim.timeline.columns import Timeline


def detail(timeline: Timeline, category: str) -> Detail:
    """Everything about one category; one that the timeline does not have is all zeros."""
    parts = breakdowns(timeline)
    seconds = averaged(timeline, parts).get(category, 0.0)
    stages: dict[int, list[tuple[float, int]]] = {}
    for row, part in zip(timeline.rank_classes, parts, strict=True):
        stages.setdefault(row.stage, []).append((part.get(category, 0.0), row.members))
    waiting = waits(timeline)
    return Detail(
        category=category,
        seconds=seconds,
        share=seconds / timeline.makespan if timeline.makespan > 0.0 else 0.0,
        by_stage={
            stage: sum(s * n for s, n in rows) / sum(n for _, n in rows) for stage, rows in sorted(stages.items())
        },
        ops=_ops(timeline, category),
        its_waits=tuple(wait for wait in waiting if wait.category == category),
        waiting_for_it=tuple(wait for wait in waiting if wait.whom == category and wait.category != category),
    )


@dataclass(slots=True)
class _Sum:
    """What the ops of one name add up to, over ranks."""

    kind: str
    stream: str
    bound_by: str
    count: float = 0.0
    seconds: float = 0.0
    alone: float = 0.0
    waited: float = 0.0
    bytes: float = 0.0
    flops: float = 0.0
    on_path: float = 0.0


def _ops(timeline: Timeline, category: str) -> tuple[OpDetail, ...]:
    spans, ops = timeline.spans, timeline.ops
    ranks = sum(row.members for row in timeline.rank_classes)
    count = np.bincount(spans.op, minlength=len(ops))
    ran = np.bincount(spans.op, weights=spans.end - spans.start, minlength=len(ops))
    late = np.bincount(spans.op, weights=spans.start - spans.ready, minlength=len(ops))
    on_path = np.zeros(len(ops))
    for piece in critical_path(timeline):
        if piece.span >= 0:
            on_path[int(spans.op[piece.span])] += piece.end - piece.start
    found: dict[str, _Sum] = {}
    for number, op in enumerate(ops):
        if op.category != category or not count[number]:
            continue
        bound = timeline.resources[op.bound_by].kind if op.bound_by >= 0 else "latency"
        row = found.setdefault(op.name, _Sum(op.kind, timeline.stream_names[op.stream], bound))
        weight = timeline.rank_classes[op.rank_class].members / ranks
        row.count += count[number] * weight
        row.seconds += ran[number] * weight
        row.alone += count[number] * (op.latency + max(op.duration, op.reach)) * weight
        row.waited += late[number] * weight
        row.bytes += count[number] * (sent_bytes(op) or op.size) * weight
        row.flops += count[number] * op.flops * weight
        row.on_path += on_path[number]
    rows = [
        OpDetail(
            name=name, kind=row.kind, stream=row.stream, count=float(row.count), seconds=float(row.seconds),
            alone=float(row.alone), waited=float(row.waited), bytes=float(row.bytes), flops=float(row.flops),
            on_path=float(row.on_path), bound_by=row.bound_by,
        )
        for name, row in found.items()
    ]  # fmt: skip
    return tuple(sorted(rows, key=lambda row: (-row.seconds, row.name)))
