"""Which loads the engine has to watch: those on resources that can be asked for more than they have.

Pure: a plan in, loads by op out. Ops of one stream of a rank never run at the same time, nor do those of one
rendezvous; so the most that is ever asked of a resource is the sum, over streams and rendezvous, of the largest load of
each. Where that is no more than there is, as on an NVLink port that only tensor parallelism uses, nobody is ever
slowed, and nothing changes if nobody looks.
"""

from __future__ import annotations

from sim.engine.state import FULL, Loads
from sim.plan import Plan


def watched(plan: Plan) -> list[Loads]:
    """By op row: its loads on resources that may be oversubscribed."""
    most: list[dict[int, float]] = [{} for _ in plan.resources]  # by resource: slot -> largest load
    seen: set[tuple[int, int]] = set()
    rows = [
        (op, -1 - op.group if op.group >= 0 else number * rank.streams + op.stream)
        for number, rank in enumerate(plan.ranks)
        for block in rank.blocks
        for op in block
    ]
    for op, slot in rows:
        if (id(op.loads), slot) in seen:
            continue
        seen.add((id(op.loads), slot))
        for r, share in op.loads:
            if share > most[r].get(slot, 0.0):
                most[r][slot] = share
    full = [sum(shares.values()) > FULL for shares in most]
    short: dict[int, Loads] = {}
    same: dict[Loads, Loads] = {}  # one object for equal loads: fewer to keep, and told apart at a glance
    found: list[Loads] = [()] * len(plan.ops)
    for op, _ in rows:
        if id(op.loads) not in short:
            loads = tuple([load for load in op.loads if full[load[0]]])
            short[id(op.loads)] = same.setdefault(loads, loads)
        found[op.row] = short[id(op.loads)]
    return found
