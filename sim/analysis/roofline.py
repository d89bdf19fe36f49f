"""Kernels against the roofs of their device: FLOPs and bytes of each, and how fast it ran alone. Pure.

Williams, Waterman, Patterson, "Roofline" (CACM 52, 2009): a kernel of intensity I = FLOPs / bytes of memory traffic
reaches at most min(peak, I x bandwidth). Passes over memory (norms, activations, optimizer) carry no FLOPs here, for
their arithmetic is free beside their traffic: they are described by bytes a second alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sim.timeline.columns import Timeline


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelPoint:
    """One kernel, all its runs in a step together. ``flops``, ``size`` (bytes) and ``seconds`` (alone) are of one run.

    ``kernels`` is how many launched kernels a run stands for; ``share`` of all kernel seconds of the rank.
    """

    name: str
    kind: str
    category: str
    flops: float
    size: float
    seconds: float
    runs: int
    kernels: int
    share: float

    @property
    def intensity(self) -> float:
        """FLOPs for each byte of memory traffic."""
        return self.flops / self.size

    @property
    def flops_per_s(self) -> float:
        """FLOP/s while it runs alone."""
        return self.flops / self.seconds

    @property
    def bytes_per_s(self) -> float:
        """Memory traffic while it runs alone."""
        return self.size / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """Kernels of one rank class, and the roofs: ``bandwidth`` (bytes/s of HBM), dtype -> peak FLOP/s (dense)."""

    scenario: str
    rank: str
    device: str
    bandwidth: float
    peaks: dict[str, float]
    kernels: tuple[KernelPoint, ...]


def kernel_points(timeline: Timeline, rank_class: int = 0) -> tuple[KernelPoint, ...]:
    """Every kernel of a rank class that ran: those alike in name, phase and size are one point, largest share first."""
    found: dict[tuple[str, str, float, float, float], tuple[int, int]] = {}
    for number, runs in _runs(timeline, rank_class):
        op = timeline.ops[number]
        key = (op.name, op.category, op.flops, op.size, op.duration)
        found[key] = (number, found.get(key, (number, 0))[1] + runs)
    total = sum(timeline.ops[number].duration * runs for number, runs in found.values())
    points = [
        KernelPoint(
            name=(op := timeline.ops[number]).name,
            kind=op.kind,
            category=op.category,
            flops=op.flops,
            size=op.size,
            seconds=op.duration,
            runs=runs,
            kernels=op.kernels,
            share=op.duration * runs / total,
        )
        for number, runs in found.values()
    ]
    return tuple(sorted(points, key=lambda point: (-point.share, point.name, point.category)))


def _runs(timeline: Timeline, rank_class: int) -> Iterator[tuple[int, int]]:
    """(op, spans) of the ops of a rank class that use SMs and memory: its kernels."""
    counts = np.bincount(timeline.spans.op, minlength=len(timeline.ops))
    kinds = [row.kind for row in timeline.resources]
    for number, op in enumerate(timeline.ops):
        asks = {kinds[resource] for resource, amount in op.demands if amount > 0.0}
        if op.rank_class == rank_class and counts[number] and asks == {"sm", "hbm"} and op.group_size == 1:
            yield number, int(counts[number])


def bandwidth(timeline: Timeline, rank_class: int = 0) -> float:
    """Bytes/s of the memory that the kernels of a rank class use; 0 without kernels."""
    for number, _ in _runs(timeline, rank_class):
        for resource, _ in timeline.ops[number].demands:
            if timeline.resources[resource].kind == "hbm":
                return timeline.resources[resource].capacity
    return 0.0
