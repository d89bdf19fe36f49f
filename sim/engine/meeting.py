"""Who meets at a rendezvous, and how: unnoticed, or in step.

Pure: read from the plan before anything runs.
"""

from __future__ import annotations

from sim.plan import Plan


def lazy_members(plan: Plan) -> list[tuple[int, ...]]:
    """By rendezvous, the ranks whose coming nobody notices until another comes whose host is always up to date.

    Such a rank only posts a receive: its ops there wait for nothing but their launch. While a chain of it is laid
    out, the host that would launch them is looked at when a member comes that has something to wait for.
    """
    free: list[dict[int, bool]] = [{} for _ in plan.group_sizes]
    for index, rank in enumerate(plan.ranks):
        for op in (op for block in rank.blocks for op in block if op.group >= 0):
            alone = not (op.deps or op.waits or op.sync)
            free[op.group][index] = free[op.group].get(index, True) and alone
    found = [tuple(rank for rank, is_free in of.items() if is_free) for of in free]
    return [lazy if len(lazy) < len(of) else () for lazy, of in zip(found, free, strict=True)]


def in_step(plan: Plan) -> frozenset[int]:
    """The rendezvous to which all members come by the same ops, such as those of tensor parallelism; messages are not.

    What is needed for a chain to go through them is only that members *may* be in step: whether they are is seen when
    they meet (``lockstep``).
    """
    comings: list[set[tuple[object, ...]]] = [set() for _ in plan.group_sizes]
    for rank in plan.ranks:
        mine: dict[int, list[tuple[object, ...]]] = {}
        for op in (op for block in rank.blocks for op in block if op.group >= 0):
            mine.setdefault(op.group, []).append((op.stream, op.sync, bool(op.deps), op.latency, op.duration))
        for group, ops in mine.items():
            comings[group].add(tuple(ops))
    return frozenset(group for group, ways in enumerate(comings) if len(ways) == 1)
