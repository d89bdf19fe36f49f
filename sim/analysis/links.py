"""How busy every resource is, over the step and over time. Pure: timeline in, numbers out.

What an op asks of a resource is spread evenly over its span after the latency: an activity moves at one speed but for
the times at which it was slowed. Where that would fill a slice of time beyond what the resource has, because spans were
slowed for a part of their time only, the rest goes to the next slices that have room.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sim.analysis.explanation import LinkUse
from sim.timeline.columns import Timeline

SLICES = 240
"""Equal slices of a step's time: the width of a figure in a report."""


def links(timeline: Timeline, shares: Mapping[str, float]) -> tuple[LinkUse, ...]:
    """One row for each resource class that was used, busiest first; ``shares`` of the path by kind of resource."""
    edges = np.linspace(0.0, timeline.makespan, SLICES + 1)
    asked = _asked(timeline)
    rows = []
    for number, resource in enumerate(timeline.resources):
        if number not in asked or timeline.makespan <= 0.0:
            continue
        begin, end, amount = asked[number]
        done = np.diff(_integral(begin, end, amount, edges))
        over_time = _filled(done * SLICES / (resource.members * resource.capacity * timeline.makespan))
        rows.append(
            LinkUse(
                name=resource.name,
                kind=resource.kind,
                members=resource.members,
                mean=float(over_time.mean()),
                peak=float(over_time.max()),
                path=shares.get(resource.kind, 0.0),
                over_time=over_time,
            )
        )
    return tuple(sorted(rows, key=lambda row: (-row.mean, row.name)))


def _filled(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same work with no slice more than full: what is too much goes on to later slices, then to earlier ones."""
    if shares.max(initial=0.0) <= 1.0:
        return shares
    found, left = shares.copy(), 0.0
    for order in (range(len(found)), reversed(range(len(found)))):
        for i in order:
            wanted = float(found[i]) + left
            found[i] = min(wanted, 1.0)
            left = wanted - float(found[i])
    return found


def by_kind(timeline: Timeline, used: tuple[LinkUse, ...]) -> dict[str, float]:
    """Kind of resource -> mean utilisation of all those that were used, weighed by their capacity; busiest first."""
    total: dict[str, list[float]] = {}
    capacity = {row.name: row.capacity * row.members for row in timeline.resources}
    for row in used:
        kind = total.setdefault(row.kind, [0.0, 0.0])
        kind[0] += row.mean * capacity[row.name]
        kind[1] += capacity[row.name]
    means = {kind: did / could for kind, (did, could) in total.items()}
    return dict(sorted(means.items(), key=lambda item: (-item[1], item[0])))


Column = NDArray[np.float64]


def _asked(timeline: Timeline) -> dict[int, tuple[Column, Column, Column]]:
    """Resource -> (begins, ends, amounts) of all that members of all rank classes ask of the whole resource class."""
    spans = timeline.spans
    order = np.argsort(spans.op, kind="stable")
    begins = np.searchsorted(spans.op[order], np.arange(len(timeline.ops) + 1)).tolist()
    parts: dict[int, list[tuple[Column, Column, Column]]] = {}
    for number, op in enumerate(timeline.ops):
        mine = order[begins[number] : begins[number + 1]]
        if not len(mine):
            continue
        end = spans.end[mine]
        begin = np.minimum(spans.start[mine] + op.latency, end)
        members = timeline.rank_classes[op.rank_class].members
        for resource, amount in op.demands:
            if amount > 0.0:
                parts.setdefault(resource, []).append((begin, end, np.full(len(mine), amount * members)))
    return {
        resource: (
            np.concatenate([row[0] for row in rows]),
            np.concatenate([row[1] for row in rows]),
            np.concatenate([row[2] for row in rows]),
        )
        for resource, rows in parts.items()
    }


def _integral(begin: Column, end: Column, amount: Column, at: Column) -> Column:
    """What has been done by each time of ``at``, if each amount is done evenly between its begin and its end."""
    sudden = end <= begin
    rate = np.where(sudden, 0.0, amount / np.where(sudden, 1.0, end - begin))
    when = np.concatenate([begin, end])
    order = np.argsort(when, kind="stable")
    when, change = when[order], np.concatenate([rate, -rate])[order]
    speed = np.cumsum(change)
    done = np.concatenate([np.zeros(1), np.cumsum(speed[:-1] * np.diff(when))])
    result: Column = np.interp(at, when, done)
    if sudden.any():
        order = np.argsort(end[sudden])
        steps = np.concatenate([np.zeros(1), np.cumsum(amount[sudden][order])])
        result = result + steps[np.searchsorted(end[sudden][order], at, side="right")]
    return result
