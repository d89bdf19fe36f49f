"""What a step that cannot go on is waiting for, and why a plan cannot begin, in words.

Reads the engine's state and plan, changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.plan import Plan

if TYPE_CHECKING:
    from sim.engine.core import Engine
    from sim.engine.state import Rank, Run


def explain_unsignalled(plan: Plan, run: Run, token: int) -> str:
    """An op waits for a name that nothing before it in its program gives: a fault of whoever wrote the program."""
    name, what = plan.ops[run.op.row].name, plan.token_names[token]
    return f"{_place(plan, run)}: {name} waits for {what!r}, which no op before it signals"


def explain_two_streams(plan: Plan) -> str:
    """The first op by which a rank class comes to a rendezvous from a second stream; empty when there is none.

    Ops of two streams may be there at once, and would pass for each other's peers.
    """
    for rank, rank_class in zip(plan.ranks, plan.rank_classes, strict=True):
        streams: dict[int, int] = {}
        for block in rank.blocks:
            for op in block:
                if op.group >= 0 and streams.setdefault(op.group, op.stream) != op.stream:
                    there, here = plan.stream_names[streams[op.group]], plan.stream_names[op.stream]
                    name = f"{rank_class.name}: {plan.ops[op.row].name}"
                    rule = "give each stream a rendezvous of its own"
                    return f"{name} comes to a rendezvous from stream {here}, others before from {there}; {rule}"
    return ""


def explain_blocked(engine: Engine) -> str:
    """One line for each blocked op and what it waits for; empty when every program has ended."""
    plan = engine.plan
    lines = []
    for group, arrived in enumerate(engine.arrived):
        if not arrived:  # nobody waits here: who might join it is a long search, and no news
            continue
        here = [run.rank.index for run in arrived]
        missing = [r for r in engine.ranks if r.index not in here and _joins(r, group)]
        peers = "; ".join(_whereabouts(engine, r, group) for r in missing) or "none is left"
        lines += [f"{_place(plan, run)}: {_name(plan, run)} waits for its peers: {peers}" for run in arrived]
    for rank in engine.ranks:
        if rank.holds is not None:
            lines.append(f"{plan.rank_classes[rank.index].name}: the host waits for {_name(plan, rank.holds)}")
        elif rank.stalled:
            lines.append(f"{plan.rank_classes[rank.index].name}: the host waits for room in its launch queue")
    lines = lines or [_never_ready(plan, run) for rank in engine.ranks for run in rank.tails if run and not run.done]
    return "the step cannot go on; blocked:\n  " + "\n  ".join(lines) if lines else ""


def _never_ready(plan: Plan, run: Run) -> str:
    """Nobody waits at a rendezvous, and yet an op never ran: it, or one before it, depends on what follows it."""
    return f"{_place(plan, run)}: {_name(plan, run)} waits for an op that is not before it in its program"


def _joins(rank: Rank, group: int) -> bool:
    return any(op.group == group for block in rank.plan.blocks for op in block)


def _whereabouts(engine: Engine, rank: Rank, group: int) -> str:
    """Where the op is by which a rank would join a rendezvous: behind a blocked one, not issued yet, or nowhere."""
    plan = engine.plan
    name = plan.rank_classes[rank.index].name
    heads = [run for arrived in engine.arrived for run in arrived if run.rank is rank]
    behind = ", ".join(_name(plan, run) for run in heads)
    for run in _waiting_for(heads):
        following = () if run.chain is None else run.chain.template.ops[run.place + 1 :]
        for op in (run.op, *following):
            if op.group == group:
                return f"{name} has yet to do {plan.ops[op.row].name}, behind {behind}"
    if rank.holds is not None or rank.stalled:
        return f"the host of {name} is held, behind {behind}"
    if heads:
        return f"{name} has no more op for it, and is itself blocked at {behind}"
    return f"{name} has ended its program"


def _waiting_for(runs: list[Run]) -> list[Run]:
    """The issued ops that wait for these, directly or through others; every blocked op waits for a rendezvous."""
    found = dict.fromkeys(runs)
    todo = list(runs)
    while todo:
        for other in _after(todo.pop(0)):
            if other not in found:
                found[other] = None
                todo.append(other)
    return list(found)


def _after(run: Run) -> list[Run]:
    """What waits for an op: its dependents, and of its chain what is known to come later."""
    later = [] if run.chain is None else [known for place, known in run.chain.known.items() if place > run.place]
    return [*run.dependents, *later]


def _name(plan: Plan, run: Run) -> str:
    return plan.ops[run.op.row].name


def _place(plan: Plan, run: Run) -> str:
    name = plan.rank_classes[run.rank.index].name
    return f"{name}, stream {plan.stream_names[run.op.stream]}, microbatch {run.microbatch}"
