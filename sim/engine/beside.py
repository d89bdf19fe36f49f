"""A chain beside one guest: a message that takes a known part of the chain's resources for a known time.

Owns the arithmetic, pure: how much slower each op of a chain is beside the guest (``paces``), when its ops then end
(``ends_beside``), and how much of an op is left at an instant (``left_at``). Who is whose guest is ``booking``'s.

Theory. A copy or a collective outweighs compute kernels (``cost.lower``): where it and an op ask for more of a resource
than there is, max-min fairness (``fluid``) gives the guest its full speed as long as ``W y + w x <= W`` (weights W of
the guest and w of the op, loads y and x), and the op the rest: ``(1 - y) / x`` of its speed, the least over the
resources that they share. So the guest's end is known when it begins, and so are all times of the chain.
"""

from __future__ import annotations

from itertools import accumulate

from sim.engine.chains import Paces, Template
from sim.engine.fluid import SLACK
from sim.engine.state import FULL, Run

NEVER = (float("inf"), float("-inf"))
"""From when until when a guest is there that is not."""


def paces(template: Template, guest: Run) -> Paces | None:
    """The pace of each op of a chain beside a guest; None where the guest itself would be slowed."""
    row = guest.op.row
    if row not in template.paces:
        template.paces[row] = _paces(template, guest)
    return template.paces[row]


def _paces(template: Template, guest: Run) -> Paces | None:
    """Layers repeat: worked out once for ops of equal weight and loads."""
    shares, weight = dict(guest.loads), guest.op.weight
    speeds, binders = [], []
    for own_weight, loads in template.kinds:
        speed, binder = 1.0, -1
        for r, load in loads:
            share = shares.get(r, 0.0)
            if share <= 0.0 or load + share <= FULL:
                continue
            if own_weight > weight or weight * share + own_weight * load > weight:
                return None
            rest = (1.0 - share) / load
            if rest < min(speed, 1.0 - SLACK):
                speed, binder = rest, r
        speeds.append(speed)
        binders.append(binder)
    kind = template.kind
    unslowed = all(speeds[kind[place]] == 1.0 for place in template.meetings)
    return Paces(tuple([speeds[k] for k in kind]), tuple([binders[k] for k in kind]), unslowed)


def ends_beside(
    template: Template, pace: Paces, places: tuple[int, int], start: tuple[float, float | None],
    window: tuple[float, float],
) -> tuple[list[float], dict[int, tuple[int, float]]]:  # fmt: skip
    """Ends of the ops at ``places`` (first, last exclusive), and by place (binder, seconds below full speed).

    ``start``: when the first op is ready, and None; or the present and what is left of it. ``window``: from when until
    when the guest takes its part.
    """
    steps, (first, last), (end, left), (begin, until) = template.steps, places, start, window
    ends: list[float] = []
    slowed: dict[int, tuple[int, float]] = {}
    for place in range(first, last):
        if left is None:
            at, todo = end + steps[2 * place], steps[2 * place + 1]
        else:
            at, todo, left = end, left, None
        if at >= until:  # as without a guest from here on
            ends.extend(list(accumulate(steps[2 * place + 2 : 2 * last], initial=at + todo))[::2])
            break
        speed = pace.speeds[place]
        if speed < 1.0 and at + todo > begin:
            if at < begin:
                todo -= begin - at
                at = begin
            room = until - at
            took = min(todo / speed, room)
            slowed[place] = pace.binders[place], took
            end = at + took if took < room else until + (todo - speed * room)
        else:
            end = at + todo
        ends.append(end)
    return ends, slowed


def left_at(now: float, begin: float, todo: float, speed: float, window: tuple[float, float]) -> tuple[float, float]:
    """What is left at ``now`` of ``todo`` seconds of an op that began at ``begin``; seconds below full speed so far."""
    slow = max(min(now, window[1]) - max(begin, window[0]), 0.0) if speed < 1.0 else 0.0
    return max(todo - (now - begin - slow) - speed * slow, 0.0), slow
