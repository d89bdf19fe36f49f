"""Memory over time by owner, its peak, and who held it then. Pure: timeline in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sim.analysis.result import MemoryUse
from sim.analysis.split import grouped
from sim.timeline.columns import Timeline

Capacity = float | Sequence[float]
"""Bytes: of every rank class, or of each."""


def memory_use(
    timeline: Timeline, *, gpu_capacity: Capacity, host_capacity: Capacity, nvme_capacity: Capacity = 0.0
) -> tuple[MemoryUse, ...]:
    """One entry for each rank class and place (GPU; host and drives, where anything lives there).

    ``gpu_capacity`` is bytes of one GPU, ``host_capacity`` and ``nvme_capacity`` one rank's part of its node's.
    """
    uses = []
    changes = _changes(timeline)
    for number, row in enumerate(timeline.rank_classes):
        for where, resident, capacity in (
            ("gpu", dict(row.resident_gpu), _of(gpu_capacity, number)),
            ("host", dict(row.resident_host), _of(host_capacity, number)),
            ("nvme", dict(row.resident_nvme), _of(nvme_capacity, number)),
        ):
            use = _use(changes.get((number, where), {}), resident, (number, where, capacity))
            if where == "gpu" or use.peak > 0.0:
                uses.append(use)
    return tuple(uses)


def _of(capacity: Capacity, number: int) -> float:
    return float(capacity) if isinstance(capacity, float | int) else capacity[number]


Changes = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Owner -> (times, bytes taken or given back)."""


def _use(changes: Changes, resident: dict[str, float], place: tuple[int, str, float]) -> MemoryUse:
    rank_class, where, capacity = place
    times = np.unique(np.concatenate([np.zeros(1), *(t for t, _ in changes.values())]))
    by_owner = {owner: np.full(len(times), size) for owner, size in resident.items()}
    for owner, (when, delta) in changes.items():
        steps = np.zeros(len(times))
        np.add.at(steps, np.searchsorted(times, when), delta)
        by_owner[owner] = by_owner.get(owner, 0.0) + np.cumsum(steps)
    total = np.sum(list(by_owner.values()), axis=0) if by_owner else np.zeros(len(times))
    top = int(np.argmax(total))
    at_peak = {owner: float(values[top]) for owner, values in by_owner.items() if values[top] > 0.5}
    return MemoryUse(
        rank_class=rank_class,
        where=where,
        times=times,
        by_owner=by_owner,
        peak=float(total[top]),
        peak_time=float(times[top]),
        at_peak=dict(sorted(at_peak.items(), key=lambda item: (-item[1], item[0]))),
        capacity=capacity,
    )


def _changes(timeline: Timeline) -> dict[tuple[int, str], Changes]:
    """(Rank class, place) -> what changes. What happens at one instant counts together."""
    spans = timeline.spans
    order, first = grouped(spans.op, len(timeline.ops))
    begins = first.tolist()
    parts: dict[tuple[int, str], dict[str, list[tuple[NDArray[np.float64], float]]]] = {}
    for number, op in enumerate(timeline.ops):
        if not op.memory:
            continue
        mine = order[begins[number] : begins[number + 1]]
        for effect in op.memory:
            owners = parts.setdefault((op.rank_class, effect.where), {})
            when = (spans.end if effect.at_end else spans.start)[mine]
            owners.setdefault(effect.owner, []).append((when, effect.size))
    return {
        place: {
            owner: (
                np.concatenate([when for when, _ in rows]),
                np.concatenate([np.full(len(when), size) for when, size in rows]),
            )
            for owner, rows in owners.items()
        }
        for place, owners in parts.items()
    }
