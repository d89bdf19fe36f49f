"""A ``Result`` as JSON: the contract with whoever reads result.json."""

from __future__ import annotations

from typing import Any

import msgspec

from sim.analysis.result import MemoryUse, Result


def to_dict(result: Result) -> dict[str, Any]:
    """Plain values in SI units; ``wall_s`` alone differs from one run to the next.

    ``memory`` and ``host_memory`` are bytes by owner at the peak, of the rank that needs most.
    """
    gpu, host = largest(result, "gpu"), largest(result, "host")
    return {
        "scenario": result.scenario,
        "step_time_s": result.step_time,
        "tokens_per_s_per_gpu": result.tokens_per_s_per_gpu,
        "mfu": result.mfu,
        "hfu": result.hfu,
        "fits": result.fits,
        "peak_memory_bytes": gpu.peak if gpu else 0.0,
        "memory_capacity_bytes": gpu.capacity if gpu else 0.0,
        "memory": dict(gpu.at_peak) if gpu else {},
        "peak_host_memory_bytes": host.peak if host else 0.0,
        "host_memory_capacity_bytes": host.capacity if host else 0.0,
        "host_memory": dict(host.at_peak) if host else {},
        "breakdown": dict(result.breakdown),
        "phases": dict(result.phases),
        "bound_by": dict(result.bound_by),
        "transfers": [msgspec.to_builtins(t) for t in result.transfers],
        "published": [{**msgspec.to_builtins(c), "difference": c.difference} for c in result.published],
        "utilisation": dict(result.utilisation),
        "ranks": result.ranks,
        "rank_classes": result.rank_classes,
        "placement": result.placement,
        "ops": result.ops,
        "events": result.events,
        "wall_s": result.wall,
    }


def dumps(result: Result) -> str:
    """Indented JSON, keys in a fixed order."""
    return msgspec.json.format(msgspec.json.encode(to_dict(result)), indent=2).decode()


def largest(result: Result, where: str) -> MemoryUse | None:
    """Memory in one place of the rank class that comes nearest to its capacity, or exceeds it most."""
    uses = [use for use in result.memory if use.where == where]
    return max(uses, key=lambda use: (use.peak / use.capacity, use.peak)) if uses else None
