"""Chains: ops of a block that run one after another whatever happens, such as a layer's compute and its collectives.

Owns what of a program is a chain (``units``), and where a chain is in its life. Knows nothing of time or contention.

An op belongs to a chain with the one before it if it follows it in its stream or depends on it, waits for nothing
outside the chain, meets no other rank class, and no op outside the chain waits for an inner one. While nobody else
uses its resources its times are sums, and cost the engine one event together (``booking``).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate, pairwise

from sim.engine.state import FULL, Loads, Rank, Run
from sim.plan import PlanOp
from sim.timeline.columns import CAUSE_DEPENDENCY, CAUSE_STREAM

SHORTEST = 3  # ops; two are not worth a chain


class Template:
    """The ops of a chain, and what is the same each time it runs. All lists are by place in the chain."""

    __slots__ = (
        "causes", "cumulative", "footprint", "index", "kernels", "launch", "launches", "loads", "ops", "others", "paces", "rest",
        "rows", "slack", "steps", "stream", "streams", "used",
    )  # fmt: skip

    def __init__(self, ops: tuple[PlanOp, ...], index: int, loads: Sequence[Loads]) -> None:
        self.ops = ops
        self.index = index  # of the last op in its block
        self.rows = array("i", [op.row for op in ops])
        self.launch = [op.launch for op in ops]
        self.rest = [op.launch_rest for op in ops]
        self.launches = [seconds for op in ops for seconds in (op.launch, op.launch_rest)]
        self.kernels = [op.kernels for op in ops]
        self.cumulative = [0, *accumulate(self.kernels)]
        self.steps = [seconds for op in ops for seconds in (op.latency, op.duration)]
        self.loads = [loads[op.row] for op in ops]
        self.footprint = tuple(dict.fromkeys(r for shares in self.loads for r, _ in shares))
        # how long after its launch an op may begin late enough for its kernels not to wait for their launches
        self.slack = max(op.reach - op.duration if op.reach > 0.0 else 0.0 for op in ops)
        self.stream = ops[-1].stream
        self.paces: dict[int, Sequence[tuple[float, int]]] = {}  # by row of a guest (``beside``)
        last = {op.stream: place for place, op in enumerate(ops)}
        self.others = tuple((s, place) for s, place in last.items() if s != self.stream)
        self.streams = tuple(s for s in last if s != ops[0].stream)
        self.used = tuple(last)
        pairs = pairwise(ops)
        self.causes = [-1, *(CAUSE_STREAM if a.stream == b.stream else CAUSE_DEPENDENCY for a, b in pairs)]


class Chain:
    """One run of a template: how far it was issued, how far it has come, and how it is laid out in time."""

    __slots__ = (
        "action", "at", "base", "cause", "cause_span", "ends", "event", "first", "guest", "held", "known", "last",
        "last_span", "launched", "microbatch", "odd", "paces", "rank", "ready", "resumed", "slowed", "template",
        "waiting", "wake", "window",
    )  # fmt: skip
    base: int  # number of the span of the op at ``first``
    cause: int  # why the op at ``first`` was ready, and after which span
    cause_span: int
    ends: list[float]  # of the ops laid out, from place ``first`` to ``last`` (exclusive)
    event: object  # the timer that will end what is laid out; None: nothing is
    first: int
    guest: Run | None  # that is there and takes a part of its resources at full speed (``beside``)
    last: int
    last_span: int  # of the op before ``at``
    odd: dict[int, float] | None  # place -> launch, of ops laid out that wait for their launch
    ready: float  # when the op at ``first`` was
    resumed: Run | None  # the op at ``first``, where it ran by itself before and has ``left`` to do from then on
    paces: Sequence[tuple[float, int]]  # beside the last guest
    slowed: dict[int, tuple[int, float]] | None  # place -> (binder, seconds), where a guest was met
    window: tuple[float, float]  # of the last guest
    wake: object  # the timer that will let the host go on before the end

    def __init__(self, template: Template, head: Run) -> None:
        self.template = template
        self.rank: Rank = head.rank
        self.action = head.action
        self.microbatch = head.microbatch
        self.launched = [head.launched]  # of the ops that the host has issued
        self.held = [head.held_by]
        self.at = 0  # the place that has not ended
        self.waiting = False  # its turn has come, but the host has not issued it
        self.known = {0: head}  # ops that are runs of their own: others may wait for them, or they run by themselves
        self.event = self.wake = self.resumed = self.guest = self.slowed = None
        self.last_span = -1

    def number(self, place: int) -> int:
        """Of the span of an op that is laid out."""
        return self.base + place - self.first

    def run_at(self, place: int) -> Run:
        """The op as a run of its own."""
        run = self.known.get(place)
        if run is None:
            run = self.known[place] = Run(self.template.ops[place], self.rank, self.launched[place])
            run.action, run.microbatch = self.action, self.microbatch
            run.held_by = run.cause_span = self.held[place]
            run.chain = self
            run.place = place
        return run


def units(block: tuple[PlanOp, ...], loads: Sequence[Loads]) -> tuple[PlanOp | Template, ...]:
    """A block as chains and the ops between them; ``loads`` by op row, on resources that can be full."""
    final = [-1] * len(block)  # the last op that depends on this one
    for index, op in enumerate(block):
        for dep in op.deps:
            final[dep] = index
    found: list[PlanOp | Template] = []
    begin = 0
    while begin < len(block):
        end = _end(block, begin, final)
        if end - begin >= SHORTEST:
            found.append(Template(block[begin:end], end - 1, loads))
        else:
            found.extend(block[begin:end])
        begin = end
    return tuple(found)


def _end(block: tuple[PlanOp, ...], begin: int, final: list[int]) -> int:
    """Where a chain that begins here ends (exclusive): as far on as no op after it depends on an inner one."""
    end = begin + 1
    if not _simple(block[begin], 0, begin):
        return end
    needed = -1
    for index in range(begin + 1, len(block)):
        before, op = block[index - 1], block[index]
        follows = op.stream == before.stream or index - 1 in op.deps
        if before.signals or op.waits or not follows or not _simple(op, begin, index):
            break
        needed = max(needed, final[index - 1])
        if needed <= index:
            end = index + 1
    return end


def _simple(op: PlanOp, begin: int, index: int) -> bool:
    """Whether nothing but ops from ``begin`` to its own ``index`` and its resources decides when it runs."""
    alone = op.group < 0 and not op.sync and all(share <= FULL for _, share in op.loads)
    alone = alone and op.latency + op.duration > 0.0  # what takes no time has its order among events of one instant
    return alone and all(begin <= dep < index for dep in op.deps)
