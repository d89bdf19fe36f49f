"""Chains: ops of a block that run one after another whatever happens, such as a layer's compute and its collectives.

Owns what of a program is a chain (``units``), and where a chain is in its life. Knows nothing of time or contention.

An op belongs to a chain with the one before it if it follows it in its stream or depends on it, waits for nothing
outside the chain, and no op outside the chain waits for an inner one. While nobody else uses its resources its times
are sums, and cost the engine one event together (``booking``). A chain may hold ops at which its rank class meets
others, all of one process group whose members do the same (``meeting``); the sums go on through those as long as all
members are in step (``lockstep``).
"""

from __future__ import annotations

from array import array
from collections.abc import Container, Iterable, Sequence
from itertools import accumulate, chain, pairwise
from typing import Any, NamedTuple

from sim.engine.state import FULL, Loads, Rank, Run
from sim.plan import PlanOp
from sim.timeline.columns import CAUSE_DEPENDENCY, CAUSE_STREAM

Same = dict[tuple[Any, ...], tuple[Any, ...]]
"""One object for equal sequences."""

SHORTEST = 3  # ops; two are not worth a chain


class Paces(NamedTuple):
    """What a guest does to each op of a chain, by place."""

    speeds: tuple[float, ...]  # 0..1]
    binders: tuple[int, ...]  # the resource that holds it to that; -1: none
    meets_unslowed: bool  # ops at which the chain meets others keep full speed


class Template:
    """The ops of a chain, and what is the same each time it runs. All sequences are by place in the chain.

    NOTE: where every rank is simulated hundreds of chains differ only in whose they are. Equal sequences are one
    object (``same``), which stays in the processor's cache.
    """

    __slots__ = (
        "causes", "cumulative", "footprint", "group", "index", "kernels", "kind", "kinds", "launch", "launches",
        "loads", "meetings", "ops", "others", "paces", "rest", "rows", "slack", "steps", "stream", "streams", "twin",
        "until", "used", "wide",
    )  # fmt: skip

    def __init__(self, ops: tuple[PlanOp, ...], index: int, loads: Sequence[Loads], same: Same) -> None:
        def one(values: Iterable[Any]) -> tuple[Any, ...]:
            found = tuple(values)
            return same.setdefault((*map(type, found[:1]), found), found)  # 0 and 0.0 are equal, and not the same

        self.ops = ops
        self.index = index  # of the last op in its block
        self.rows = array("i", [op.row for op in ops])
        self.launch = one(op.launch for op in ops)
        self.rest = one(op.launch_rest for op in ops)
        self.launches = one(seconds for op in ops for seconds in (op.launch, op.launch_rest))
        self.kernels = one(op.kernels for op in ops)
        self.cumulative = one(accumulate(self.kernels, initial=0))
        self.steps = one(seconds for op in ops for seconds in (op.latency, op.duration))
        self.loads = [loads[op.row] for op in ops]
        self.group = max(op.group for op in ops)  # that meets here; -1: none does
        own = [shares for op, shares in zip(ops, self.loads, strict=True) if op.group < 0]
        self.footprint = tuple(dict.fromkeys(r for shares in own for r, _ in shares))  # of ops that meet nobody
        others = dict.fromkeys(r for shares in self.loads for r, _ in shares if r not in self.footprint)
        self.wide = tuple(others)
        self.until = one(_next_meeting(ops))
        self.meetings = one(place for place, op in enumerate(ops) if op.group >= 0)
        kinds: dict[tuple[float, Loads], int] = {}
        self.kind = one(
            kinds.setdefault((op.weight, shares), len(kinds)) for op, shares in zip(ops, self.loads, strict=True)
        )
        self.kinds = tuple(kinds)  # weights and loads that differ; ``kind``: which of them
        self.twin = -1  # the same number for chains that are the same but for whose they are (``lockstep``)
        # how long after its launch an op may begin late enough for its kernels not to wait for their launches
        self.slack = max(op.reach - op.duration if op.reach > 0.0 else 0.0 for op in ops)
        self.stream = ops[-1].stream
        self.paces: dict[int, Paces | None] = {}  # by row of a guest (``beside``)
        last = {op.stream: place for place, op in enumerate(ops)}
        self.others = tuple((s, place) for s, place in last.items() if s != self.stream)
        self.streams = tuple(s for s in last if s != ops[0].stream)
        self.used = tuple(last)
        pairs = pairwise(ops)
        follows = (CAUSE_STREAM if a.stream == b.stream else CAUSE_DEPENDENCY for a, b in pairs)
        self.causes = one(chain((-1,), follows))


class Chain:
    """One run of a template: how far it was issued, how far it has come, and how it is laid out in time."""

    __slots__ = (
        "action", "at", "base", "cause", "cause_span", "ends", "event", "first", "guest", "held", "inner", "inner_at",
        "known", "last", "last_span", "launched", "lead", "microbatch", "odd", "paces", "rank", "ready", "resumed",
        "slowed", "template", "together", "waiting", "wake", "wide", "window",
    )  # fmt: skip
    base: int  # number of the span of the op at ``first``
    cause: int  # why the op at ``first`` was ready, and after which span
    cause_span: int
    ends: list[float]  # of the ops laid out, from place ``first`` to ``last`` (exclusive)
    event: object  # the timer that will end what is laid out; None: nothing is
    first: int
    guest: Run | None  # that is there and takes a part of its resources at full speed (``beside``)
    inner: object  # the timer at the end of an inner op that others wait for, the one at ``inner_at``
    inner_at: int  # beyond the end: there is none
    last: int
    last_span: int  # of the op before ``at``
    lead: int  # ``base`` of the first of the chains that are laid out together; -1: it is the first, or is alone
    odd: dict[int, float] | None  # place -> launch, of ops laid out that wait for their launch
    ready: float  # when the op at ``first`` was
    resumed: Run | None  # the op at ``first``, where it ran by itself before and has ``left`` to do from then on
    paces: Paces | None  # beside the last guest
    slowed: dict[int, tuple[int, float]] | None  # place -> (binder, seconds), where a guest was met
    together: tuple[Chain, ...]  # those that are laid out in step with it, itself included (``lockstep``)
    wide: Sequence[int]  # resources that only what they do together takes; the first of them has these
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
        self.inner_at = len(template.ops)
        self.event = self.wake = self.inner = self.resumed = self.guest = self.slowed = self.paces = None
        self.last_span = self.lead = -1
        self.together: tuple[Chain, ...] = ()
        self.wide: Sequence[int] = ()

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


def _next_meeting(ops: Sequence[PlanOp]) -> list[int]:
    """By place: the next one, itself included, at which others are met; after the last, the end."""
    found, following = [], len(ops)
    for place in reversed(range(len(ops))):
        if ops[place].group >= 0:
            following = place
        found.append(following)
    return found[::-1]


def units(
    block: tuple[PlanOp, ...], loads: Sequence[Loads], in_step: Container[int], same: Same
) -> tuple[PlanOp | Template, ...]:
    """A block as chains and the ops between them; ``loads`` by op row, on resources that can be full.

    ``in_step``: the rendezvous that chains may go through. ``same``: what other blocks have that is equal.
    """
    final = [-1] * len(block)  # the last op that depends on this one
    for index, op in enumerate(block):
        for dep in op.deps:
            final[dep] = index
    found: list[PlanOp | Template] = []
    begin = 0
    while begin < len(block):
        end = _end(block, begin, final, in_step)
        if end - begin >= SHORTEST:
            found.append(Template(block[begin:end], end - 1, loads, same))
        else:
            found.extend(block[begin:end])
        begin = end
    return tuple(found)


def _end(block: tuple[PlanOp, ...], begin: int, final: list[int], in_step: Container[int]) -> int:
    """Where a chain that begins here ends (exclusive): as far on as no op after it depends on an inner one."""
    end = begin + 1
    if block[begin].group >= 0 or not _simple(block[begin], 0, begin):
        return end
    needed = group = -1
    for index in range(begin + 1, len(block)):
        before, op = block[index - 1], block[index]
        follows = op.stream == before.stream or index - 1 in op.deps
        if before.signals or op.waits or not follows or not _simple(op, begin, index):
            break
        if op.group >= 0:
            if op.group not in in_step or group not in (-1, op.group):
                break
            group = op.group
        needed = max(needed, final[index - 1])
        if needed <= index:
            end = index + 1
    return end


def _simple(op: PlanOp, begin: int, index: int) -> bool:
    """Whether nothing but ops from ``begin`` to its own ``index``, its resources and peers decides when it runs."""
    alone = not op.sync and all(share <= FULL for _, share in op.loads)
    alone = alone and op.latency + op.duration > 0.0  # what takes no time has its order among events of one instant
    return alone and all(begin <= dep < index for dep in op.deps)
