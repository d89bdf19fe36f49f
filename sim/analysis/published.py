"""Published figures beside simulated ones. Pure: a result and exact counts in, comparisons out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sim.analysis.result import Comparison, MemoryUse


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted:
    """What a source says of a named figure: a value, or a range."""

    figure: str
    low: float
    high: float
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The parts of a simulated step that figures are made of: seconds, FLOPs over all ranks, bytes by place."""

    step: float
    ranks: int
    tokens: int
    model_flops: float
    hardware_flops: float
    peak_flops_per_s: float
    phases: Mapping[str, float]
    breakdown: Mapping[str, float]
    memory: tuple[MemoryUse, ...]


def simulated(measured: Measured) -> dict[str, float]:
    """Every named figure that follows from a simulated step."""
    gpu_seconds = measured.step * measured.ranks
    return {
        "step_time": measured.step,
        **{phase: measured.phases.get(phase, 0.0) for phase in ("forward", "backward", "optimizer")},
        "tokens_per_s_per_gpu": measured.tokens / gpu_seconds,
        "model_flops_per_gpu": measured.model_flops / gpu_seconds,
        "hardware_flops_per_gpu": measured.hardware_flops / gpu_seconds,
        "mfu": measured.model_flops / gpu_seconds / measured.peak_flops_per_s,
        "bubble": measured.breakdown.get("bubble", 0.0) / measured.step,
        "gpus": float(measured.ranks),
        "peak_memory": max((use.peak for use in measured.memory if use.where == "gpu"), default=0.0),
    }


def compare(quoted: tuple[Quoted, ...], figures: Mapping[str, float]) -> tuple[Comparison, ...]:
    """Each quotation beside the figure of that name; what ``figures`` lacks (before a simulation) is left out."""
    return tuple(
        Comparison(figure=q.figure, low=q.low, high=q.high, ours=figures[q.figure], source=q.source, note=q.note)
        for q in quoted
        if q.figure in figures
    )
