"""Memory over time by owner, its peak, and who held it then. Pure: timeline in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sim.analysis.result import MemoryUse
from sim.analysis.split import grouped
from sim.timeline.columns import MemoryRow, Timeline

Capacity = float | Sequence[float]
"""Bytes: of every rank class, or of each."""


def memory_use(
    timeline: Timeline, *, gpu_capacity: Capacity, host_capacity: Capacity, nvme_capacity: Capacity = 0.0
) -> tuple[MemoryUse, ...]:
    """One entry for each rank class and place (GPU; host and drives, where anything lives there).

    ``gpu_capacity`` is bytes of one GPU, ``host_capacity`` and ``nvme_capacity`` one rank's part of its node's.
    """
    uses = []
    changes, spans = _changes(timeline), _OfOps(timeline)
    for number, row in enumerate(timeline.rank_classes):
        for where, resident, capacity in (
            ("gpu", dict(row.resident_gpu), _of(gpu_capacity, number)),
            ("host", dict(row.resident_host), _of(host_capacity, number)),
            ("nvme", dict(row.resident_nvme), _of(nvme_capacity, number)),
        ):
            use = _use(changes.get((number, where), Changes()), resident, (number, where, capacity), spans)
            if where == "gpu" or use.peak > 0.0:
                uses.append(use)
    return tuple(uses)


def _of(capacity: Capacity, number: int) -> float:
    return float(capacity) if isinstance(capacity, float | int) else capacity[number]


class Changes:
    """What changes in one place of one rank class: moments (starts or ends of an op's spans) and what happens there."""

    def __init__(self) -> None:
        self.moments: dict[tuple[int, bool], int] = {}  # (op, at its end) -> number
        self.owners: dict[str, list[tuple[int, float]]] = {}  # owner -> (moment, bytes taken or given back)

    def add(self, op: int, effect: MemoryRow) -> None:
        """Note that spans of ``op`` have this effect."""
        moment = self.moments.setdefault((op, effect.at_end), len(self.moments))
        self.owners.setdefault(effect.owner, []).append((moment, effect.size))


def _use(changes: Changes, resident: dict[str, float], place: tuple[int, str, float], spans: _OfOps) -> MemoryUse:
    rank_class, where, capacity = place
    when = [spans.times(op, at_end=at_end) for op, at_end in changes.moments]
    times, which = np.unique(np.concatenate([np.zeros(1), *when]), return_inverse=True)
    places = np.split(which[1:], np.cumsum([len(one) for one in when])[:-1]) if when else []
    by_owner = {owner: np.full(len(times), size) for owner, size in resident.items()}
    for owner, rows in changes.owners.items():
        at = [places[moment] for moment, _ in rows]
        steps = np.zeros(len(times))
        np.add.at(steps, np.concatenate(at), np.repeat([size for _, size in rows], [len(one) for one in at]))
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


class _OfOps:
    """Spans by op, of the ops that take or free memory."""

    def __init__(self, timeline: Timeline) -> None:
        self.spans = timeline.spans
        moves = np.array([bool(op.memory) for op in timeline.ops], dtype=bool)
        there = np.flatnonzero(moves[self.spans.op])
        order, begins = grouped(self.spans.op[there], len(timeline.ops))
        self.mine, self.begins = there[order], begins.tolist()

    def times(self, op: int, *, at_end: bool) -> NDArray[np.float64]:
        """When the spans of an op start, or end."""
        mine = self.mine[self.begins[op] : self.begins[op + 1]]
        return (self.spans.end if at_end else self.spans.start)[mine]


def _changes(timeline: Timeline) -> dict[tuple[int, str], Changes]:
    """(Rank class, place) -> what changes. What happens at one instant counts together."""
    found: dict[tuple[int, str], Changes] = {}
    for number, op in enumerate(timeline.ops):
        for effect in op.memory:
            key = (op.rank_class, effect.where)
            if key not in found:
                found[key] = Changes()
            found[key].add(number, effect)
    return found
