"""What the engine keeps of a running step: ops on their way, timers, hosts in their programs. No behaviour.

A ``Run`` is one op of one action of one rank class: the record of its life, and the SimPy event of its next step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sim.plan import PlanOp, RankPlan
from sim.timeline.columns import CAUSE_LAUNCH, CAUSE_NONE

if TYPE_CHECKING:
    from sim.engine.chains import Chain, Template

FULL = 1.0 + 1e-9  # loads above this oversubscribe a resource; below it the excess is rounding of equal shares
NORMAL, LAST = 1, 2  # SimPy priorities: solves come after everything else that happens at the same instant


Loads = tuple[tuple[int, float], ...]
"""Pairs of a resource and the share of it that is taken at full speed."""


Callbacks = Sequence[Callable[[Any], None]]
"""What SimPy calls when an event is due. One object for each purpose: it also says what an event is waiting for."""


class Run:
    """One op of one action of one rank class.

    NOTE: this is SimPy's event protocol (``callbacks``, ``_ok``) without ``simpy.Event``'s instance dictionary; the
    event is reused for launch, latency and end, which makes an uncontended op one allocation.
    """

    __slots__ = (
        "action", "binder", "bound", "callbacks", "cause", "cause_span", "chain", "dependents", "done", "end_event",
        "held_by", "hosts", "last", "launched", "left", "loads", "microbatch", "op", "peers", "pending", "place",
        "rank", "ready", "span", "speed", "start",
    )  # fmt: skip
    _ok = True
    callbacks: Any
    peers: tuple[Run, ...]
    bound: dict[int, float] | None  # resource -> seconds below full speed
    binder: int  # the resource that slows it now (-1: none)
    chain: Chain | None  # that it is an op of
    end_event: Run | Timer | None  # what will end it; anything else that claims to is stale
    hosts: tuple[Chain, ...]  # laid out beside it; stale where their guest is another by now
    held_by: int  # the span that the host last waited for before it launched this (-1: none)
    last: float  # when ``left`` was last brought up to date
    left: float  # seconds of demand left at full speed
    loads: tuple[tuple[int, float], ...]  # at full speed
    place: int  # in the chain
    ready: float
    span: int
    speed: float
    start: float

    def __init__(self, op: PlanOp, rank: Rank, launched: float) -> None:
        self.op = op
        self.loads = rank.loads[op.row]
        self.rank = rank
        self.launched = launched
        self.action = rank.action
        self.microbatch = rank.microbatch
        self.pending = 0
        self.dependents: list[Run] = []
        self.done = False
        self.held_by = self.cause_span = rank.released_by
        self.cause = CAUSE_LAUNCH if rank.released_by >= 0 else CAUSE_NONE
        self.callbacks = None
        self.peers = ()
        self.bound = None
        self.chain = None
        self.hosts = ()


class Timer:
    """The end of a contended run under its present speed, or an instant in a chain's life; stale once another holds."""

    __slots__ = ("callbacks", "of")
    _ok = True
    callbacks: Any

    def __init__(self, of: Any, callbacks: Callbacks) -> None:  # noqa: ANN401 - a run or a chain
        self.of = of
        self.callbacks = callbacks


class Rank:
    """Where the host of a rank class is in its program. ``units[block]``: ops, and chains of ops (``chains``)."""

    __slots__ = (
        "action", "block", "cursor", "filling", "holds", "host_time", "index", "issued", "issuing", "laid",
        "lazy", "loads", "microbatch", "outstanding", "plan", "released_by", "stalled", "tails", "tokens", "units",
    )  # fmt: skip

    def __init__(
        self, index: int, plan: RankPlan, units: Sequence[Sequence[PlanOp | Template]], loads: Sequence[Loads]
    ) -> None:
        self.index = index
        self.plan = plan
        self.units = units
        self.loads = loads  # by op row, on resources that can be full (``watched``)
        self.action = -1
        self.microbatch = 0
        self.block: Sequence[PlanOp | Template] = ()
        self.cursor = 0
        self.issued: list[Run | None] = []  # by place in the block; None inside a chain, for which nothing waits
        self.tails: list[Run | None] = [None] * plan.streams
        self.tokens: dict[int, Run] = {}
        self.host_time = 0.0
        self.outstanding = 0
        self.holds: Run | None = None  # the sync op the host waits for
        self.released_by = -1  # span that the host last waited for: a sync op, or one that left its launch queue
        self.stalled = False  # the launch queue is full
        self.issuing = False
        self.lazy: set[int] = set()  # rendezvous to which it comes unnoticed
        self.filling: Chain | None = None  # the chain whose ops the host is issuing
        self.laid: Chain | None = None  # the chain that is laid out in time

    def next_action(self) -> bool:
        """Go on to the next action that has ops; False at the end of the program."""
        while self.cursor >= len(self.block):
            self.action += 1
            if self.action >= len(self.plan.actions):
                return False
            block, self.microbatch = self.plan.actions[self.action]
            self.block = self.units[block]
            self.cursor = 0
            self.issued = []
        return True
