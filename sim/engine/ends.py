"""When the ops of a chain end that has its resources to itself.

Pure. Mostly the host is far ahead and the ends are sums (``free_ends``); where it is not (``in_time``), ops wait for
their launches (``ends_with_launches``).
"""

from __future__ import annotations

from itertools import accumulate
from operator import sub

from sim.engine.chains import Chain


def free_ends(chain: Chain, first: int, last: int, now: float) -> list[float]:
    """Ends of the ops from place ``first`` to ``last`` (exclusive) if none waits for its launch.

    ``now``: when the first is ready; or the present, where it runs already (``chain.resumed``).
    """
    steps = chain.template.steps
    if chain.resumed is None:
        return list(accumulate(steps[2 * first : 2 * last], initial=now))[2::2]
    return list(accumulate(steps[2 * first + 2 : 2 * last], initial=now + chain.resumed.left))[::2]


def in_time(chain: Chain, first: int, ends: list[float], now: float) -> bool:
    """Whether ops that would end so are all launched before they are ready, and their kernels before they may run."""
    launched, slack, last = chain.launched, chain.template.slack, first + len(ends)
    if chain.resumed is not None and chain.resumed.loads is not chain.template.loads[first]:
        return False  # it began before its last kernel was launched, at less load
    if launched[last - 1] + slack <= now:
        return True
    op = chain.template.ops[first]
    head = chain.resumed is not None or op.reach == 0.0 or launched[first] + op.reach <= now + op.latency + op.duration
    return head and min(map(sub, ends, launched[first + 1 : last]), default=slack) >= slack


def ends_with_launches(chain: Chain, first: int, last: int, now: float) -> tuple[list[float], dict[int, float]]:
    """Ends of ops some of which may wait for their launches; and by place the launches of those that do."""
    ends, odd = [], {}
    end = now
    if chain.resumed is not None:
        end = now + chain.resumed.left
        ends.append(end)
    for place in range(first + len(ends), last):
        op, launched = chain.template.ops[place], chain.launched[place]
        if launched > end:
            odd[place] = end = launched
        begin = end + op.latency
        end = begin + max(op.duration, launched + op.reach - begin if op.reach > 0.0 else 0.0)
        ends.append(end)
    return ends, odd
