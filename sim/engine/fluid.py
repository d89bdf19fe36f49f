"""Weighted max-min fair speeds of activities that share full resources.

Owns one pure function. Knows neither time nor simpy: who runs when is ``core``'s business.

Theory (design §2): every running activity i has a normalised speed s_i in 0..1, and takes ``load[i][r] * s_i`` of
resource r, whose capacity is 1. Raise a common level x, with s_i = min(1, weight_i * x); when a resource fills, freeze
the activities that use it; go on with the others (progressive filling; Bertsekas and Gallager, Data Networks, 6.5.2).
The result is the only allocation in which every activity below full speed crosses a full resource on which no
other has a larger s/weight: the max-min certificate that the tests check.
"""

from __future__ import annotations

from collections.abc import Sequence

Loads = Sequence[tuple[int, float]]

SLACK = 1e-12  # levels this close are the same instant: float sums of equal shares miss each other by a few ulp


def max_min(loads: Sequence[Loads], weights: Sequence[float]) -> tuple[list[float], list[int]]:
    """Speeds (0..1] and, for each activity, the resource that froze it (-1: it runs at full speed).

    ``loads[i]`` lists (resource, load at full speed), load > 0. Cost is (rounds x loads); rounds are at most the
    number of activities.
    """
    count = len(loads)
    if count <= 2 and max(map(len, loads)) <= 1:
        shared = [row[0] for row in loads if row]
        if not shared:
            return [1.0] * count, [-1] * count
        if len({r for r, _ in shared}) == 1 and len(shared) == count:
            return _on_one(shared[0][0], [load for _, load in shared], weights)
    speeds = [0.0] * count
    binders = [-1] * count
    users: dict[int, list[tuple[int, float]]] = {}
    for i, row in enumerate(loads):
        for r, load in row:
            users.setdefault(r, []).append((i, load))
    free = dict.fromkeys(users, 1.0)
    growth = {r: sum(weights[i] * load for i, load in rows) for r, rows in users.items()}
    growing = {r: len(rows) for r, rows in users.items()}
    open_ = dict.fromkeys(range(count))
    level = 0.0
    while open_:
        level, binder = _next_level(level, [weights[i] for i in open_], free, growth)
        frozen = [i for i in open_ if weights[i] * level >= 1.0 - SLACK] if binder < 0 else []
        if binder >= 0:
            frozen = [i for i, _ in users[binder] if i in open_]
        for i in frozen:
            speeds[i] = min(1.0, weights[i] * level) if binder >= 0 else 1.0
            binders[i] = binder
            del open_[i]
            for r, load in loads[i]:
                free[r] -= load * speeds[i]
                growth[r] -= load * weights[i]
                growing[r] -= 1
                if not growing[r]:  # by count: what is left of the sum is rounding, and would fill it once more
                    del growth[r]
    return speeds, binders


def _on_one(r: int, loads: Sequence[float], weights: Sequence[float]) -> tuple[list[float], list[int]]:
    """One or two activities on one full resource, as nearly always: the same algebra without the search.

    The heavier reaches its full speed first, if the resource has room for both until then; the other gets the rest.
    """
    growth = [weight * load for weight, load in zip(weights, loads, strict=True)]
    top = max(weights)
    level, rate = 1.0 / top, sum(growth)
    if 1.0 / rate < level * (1.0 - SLACK):
        level = 1.0 / rate
        return [min(1.0, weight * level) for weight in weights], [r] * len(loads)
    if len(loads) == 1 or weights[0] == weights[1]:
        return [1.0] * len(loads), [-1] * len(loads)
    heavy = 0 if weights[0] == top else 1
    light = 1 - heavy
    speeds, binders = [1.0, 1.0], [-1, -1]
    rest = (1.0 - loads[heavy]) / loads[light]
    if rest < 1.0 - SLACK:
        speeds[light], binders[light] = rest, r
    return speeds, binders


def _next_level(
    reached: float, weights: Sequence[float], free: dict[int, float], growth: dict[int, float]
) -> tuple[float, int]:
    """The level at which the next activity stops growing, and the resource that stops it (-1: its own full speed).

    ``weights`` are those of the growing activities. The level never falls below the one ``reached``: a resource that
    fills together with the one before it would otherwise go by the rounding of what that one left free.
    """
    level = 1.0 / max(weights)
    binder = -1
    for r, rate in growth.items():
        if rate <= 0.0:  # its last users are too small to be seen beside those that are frozen
            continue
        fill = max(free[r] / rate, reached)
        if fill < level * (1.0 - SLACK):
            level, binder = fill, r
    return level, binder
