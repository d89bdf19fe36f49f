"""When the host of a chain that is laid out has to be looked at: before it issues an op that cannot wait.

Pure. The host goes on issuing while a chain is laid out, as its ops end and make room in the launch queue. That is made
up for later, unless an op that it will issue may begin before the chain has ended. Most may not: they are in its own
stream or depend on what is, or are receives that nobody waits for yet.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from sim.engine.chains import Chain, Template
from sim.engine.state import Run
from sim.plan import PlanOp


def wake_place(chain: Chain, limit: int, arrived: Sequence[Sequence[Run]]) -> int:
    """The place in the chain whose end lets the host issue an op that may begin before the chain ends; -1: none."""
    rank, template, at = chain.rank, chain.template, chain.at
    if not rank.stalled:  # it waits for something else, or has issued its whole program
        return -1
    cumulative = template.cumulative
    target = cumulative[at] + rank.outstanding - limit  # room for the next op once more kernels than this have ended
    most = cumulative[chain.last - 1]
    filling = rank.filling
    if filling is not None and not filling.waiting:
        target += filling.template.cumulative[-1] - filling.template.cumulative[len(filling.launched)]
    if filling is None or not filling.waiting:
        action, block, cursor = rank.action, rank.block, rank.cursor
        while target < most:
            while cursor >= len(block):
                action += 1
                if action >= len(rank.plan.actions):
                    return -1
                block, cursor = rank.units[rank.plan.actions[action][0]], 0
            unit = block[cursor]
            cursor += 1
            if isinstance(unit, PlanOp):
                if not _unnoticed(chain, unit, arrived) and not _behind(chain, unit, action):
                    break
                target += unit.kernels
            else:
                if not _behind(chain, unit, action):
                    break
                target += unit.cumulative[-1]
    return bisect_right(cumulative, target, at) - 1 if target < most else -1


def _unnoticed(chain: Chain, op: PlanOp, arrived: Sequence[Sequence[Run]]) -> bool:
    """Whether nobody would notice if a rendezvous were come to later than it is: those who wait there are itself."""
    if op.group not in chain.rank.lazy or op.stream in chain.template.used:
        return False
    return all(run.rank is chain.rank for run in arrived[op.group])


def _behind(chain: Chain, unit: PlanOp | Template, action: int) -> bool:
    """Whether something not issued yet cannot begin before the chain has ended: in its stream, or after what is."""
    stream = chain.template.stream
    op = unit if isinstance(unit, PlanOp) else unit.ops[0]
    if op.stream == stream:
        return True
    if not op.deps:
        return False
    rank = chain.rank
    block = rank.plan.blocks[rank.plan.actions[action][0]]
    here = action == chain.action
    return any(block[dep].stream == stream and (not here or dep >= chain.template.index) for dep in op.deps)
