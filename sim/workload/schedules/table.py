"""The table of schedules: the seam for a new one. A name, a line that describes it, a function of (p, m, v)."""

from __future__ import annotations

from collections.abc import Callable

from sim.workload.schedules.dualpipe import dualpipe, dualpipev
from sim.workload.schedules.one_way import gpipe, interleaved, one_f_one_b
from sim.workload.schedules.refuse import refuse
from sim.workload.schedules.types import Schedule
from sim.workload.schedules.zero_bubble import zb_h1, zb_v

SCHEDULES: dict[str, tuple[str, Callable[[int, int, int], Schedule]]] = {
    "gpipe": ("all forwards, then all backwards", gpipe),
    "1f1b": ("one forward, one backward; p - s microbatches in flight", one_f_one_b),
    "interleaved": ("1F1B over v stages a rank: the bubble divided by v", interleaved),
    "zb-h1": ("1F1B with weight gradients put off into the bubble", zb_h1),
    "zb-v": ("two stages a rank, down and up again (v = 2): hardly a bubble with the memory of 1F1B", zb_v),
    "dualpipe": ("two copies in opposite directions, forwards overlapped with backwards", dualpipe),
    "dualpipev": ("DualPipe with one copy: two stages a rank, down and up again (v = 2)", dualpipev),
}


def make(name: str, p: int, m: int, v: int) -> Schedule:
    """The schedule ``name`` for p pipeline ranks, m microbatches and v stages a rank.

    Raises:
        ScenarioError: no such schedule, or sizes that it cannot serve, with the rule and the remedy.
    """
    if name not in SCHEDULES:
        refuse(name, p, m, f"no such schedule; there are {', '.join(SCHEDULES)}")
    return SCHEDULES[name][1](p, m, v)
