"""WHEN it happens: the discrete-event engine, a thin layer over SimPy.

Owns simulated time: streams in order, host launches, rendezvous of process groups, and sharing of resources. Reads
a ``Plan`` and writes a ``Timeline``; knows no model, no device and no unit but the second.

How a step runs. The host of each rank class issues its ops in program order, each costing ``launch`` seconds of
host time; a ``sync`` op holds the host until it ends. An op is *ready* when it is launched, its dependencies have
ended and so has the op before it in its stream. A member of a process group then waits for the others. The activity
begins: first its latency, then its demand. Alone on its resources (nearly always) its end is known at once and costs
one event; only when a resource is asked for more than it has are the activities around it solved for max-min fair
speeds, once an instant.

Everything is deterministic: ties are broken by (time, priority, sequence of scheduling), and nothing iterates a set.
"""

from __future__ import annotations

import gc
from array import array
from collections.abc import Callable
from heapq import heappush
from typing import Any

import simpy

from sim.engine.deadlock import explain_blocked, explain_two_streams, explain_unsignalled
from sim.engine.fluid import max_min
from sim.errors import DeadlockError
from sim.plan import Plan, PlanOp, RankPlan
from sim.timeline.columns import (
    CAUSE_DEPENDENCY,
    CAUSE_LAUNCH,
    CAUSE_NONE,
    CAUSE_STREAM,
    Timeline,
)
from sim.timeline.record import spans_from

FULL = 1.0 + 1e-9  # loads above this oversubscribe a resource; below it the excess is rounding of equal shares
PROGRESS_EVERY = 1000  # spans: a terminal's progress bar costs as much as several ops
NORMAL, LAST = 1, 2  # SimPy priorities: solves come after everything else that happens at the same instant


class _Run:
    """One op of one action of one rank class: the record of its life, and the SimPy event of its next step.

    NOTE: this is SimPy's event protocol (``callbacks``, ``_ok``) without ``simpy.Event``'s instance dictionary; the
    event is reused for launch, latency and end, which makes an uncontended op one allocation.
    """

    __slots__ = (
        "action", "binder", "bound", "callbacks", "cause", "cause_span", "dependents", "done", "end_event",
        "held_by", "last", "launched", "left", "loads", "microbatch", "op", "peers", "pending", "rank", "ready", "span",
        "speed", "start",
    )  # fmt: skip
    _ok = True
    callbacks: Any
    peers: tuple[_Run, ...]
    bound: dict[int, float] | None  # resource -> seconds below full speed
    binder: int  # the resource that slows it now (-1: none)
    end_event: _Run | _Timer | None  # what will end it; anything else that claims to is stale
    last: float  # when ``left`` was last brought up to date
    left: float  # seconds of demand left at full speed
    loads: tuple[tuple[int, float], ...]  # at full speed
    ready: float
    span: int
    speed: float
    start: float

    def __init__(self, op: PlanOp, rank: _Rank, launched: float) -> None:
        self.op = op
        self.loads = op.loads
        self.rank = rank
        self.launched = launched
        self.action = rank.action
        self.microbatch = rank.microbatch
        self.pending = 0
        self.dependents: list[_Run] = []
        self.done = False
        self.held_by = self.cause_span = rank.released_by
        self.cause = CAUSE_LAUNCH if rank.released_by >= 0 else CAUSE_NONE
        self.callbacks = None
        self.peers = ()
        self.bound = None


class _Timer:
    """The end of a contended run under its present speed; stale once the run holds another one."""

    __slots__ = ("callbacks", "run")
    _ok = True
    callbacks: Any

    def __init__(self, run: _Run, callbacks: tuple[Callable[[_Timer], None]]) -> None:
        self.run = run
        self.callbacks = callbacks


class _Rank:
    """Where the host of a rank class is in its program."""

    __slots__ = (
        "action", "block", "cursor", "holds", "host_time", "index", "issued", "microbatch", "outstanding", "plan",
        "released_by", "stalled", "tails", "tokens",
    )  # fmt: skip

    def __init__(self, index: int, plan: RankPlan) -> None:
        self.index = index
        self.plan = plan
        self.action = -1
        self.microbatch = 0
        self.block: tuple[PlanOp, ...] = ()
        self.cursor = 0
        self.issued: list[_Run] = []
        self.tails: list[_Run | None] = [None] * plan.streams
        self.tokens: dict[int, _Run] = {}
        self.host_time = 0.0
        self.outstanding = 0
        self.holds: _Run | None = None  # the sync op the host waits for
        self.released_by = -1  # span that the host last waited for: a sync op, or one that left its launch queue
        self.stalled = False  # the launch queue is full

    def next_action(self) -> bool:
        """Go on to the next action that has ops; False at the end of the program."""
        while self.cursor >= len(self.block):
            self.action += 1
            if self.action >= len(self.plan.actions):
                return False
            block, self.microbatch = self.plan.actions[self.action]
            self.block = self.plan.blocks[block]
            self.cursor = 0
            self.issued = []
        return True


class _Engine:
    def __init__(self, plan: Plan, progress: Callable[[int], None] | None) -> None:
        self.plan = plan
        self.progress = progress
        self.env = simpy.Environment()
        self.queue: list[Any] = self.env._queue
        self.eid = self.env._eid
        self.ranks = [_Rank(i, r) for i, r in enumerate(plan.ranks)]
        self.arrived: list[list[_Run]] = [[] for _ in plan.group_sizes]
        self.load = [0.0] * len(plan.resources)
        self.users: list[dict[_Run, float]] = [{} for _ in plan.resources]
        self.dirty: dict[int, None] = {}
        self.solve_wanted = False
        self.solves = 0
        self.finished = 0
        self.told = 0  # number of finished spans at which progress is next told
        self.last_end = 0.0  # the clock may run on over stale timers
        self.rows = array("d")
        self.contended: list[tuple[int, int, float]] = []
        self.on_launched = (self._launched,)
        self.on_demand = (self._demand_event,)
        self.on_late = (self._late,)
        self.on_end = (self._end,)
        self.on_timer = (self._timer,)
        self.on_solve = (self._solve,)

    def run(self) -> Timeline:
        for rank in self.ranks:
            self._issue(rank, 0.0)
        # NOTE: without cyclic garbage collection a step runs a third faster; a finished run is in no reference cycle.
        collecting = gc.isenabled()
        gc.disable()
        try:
            self.env.run()
        finally:
            if collecting:
                gc.enable()
        blocked = explain_blocked(self)
        if blocked:
            raise DeadlockError(blocked)
        events = next(self.eid)
        return Timeline(
            spans=spans_from(self.rows),
            contended=tuple(self.contended),
            ops=self.plan.ops,
            rank_classes=self.plan.rank_classes,
            resources=self.plan.resources,
            stream_names=self.plan.stream_names,
            makespan=self.last_end,
            events=events,
            solves=self.solves,
        )

    # -- the host ---------------------------------------------------------------------------------------------------

    def _issue(self, rank: _Rank, now: float) -> None:
        """Let the host issue ops until it has to wait: for a sync op, for its launch queue, or for nothing more."""
        clock = rank.host_time if rank.host_time > now else now
        limit = self.plan.launch_queue
        tails = rank.tails
        while rank.cursor < len(rank.block) or rank.next_action():
            if rank.outstanding >= limit:
                rank.stalled = True
                break
            op = rank.block[rank.cursor]
            rank.cursor += 1
            clock += op.launch
            run = _Run(op, rank, clock)
            clock += op.launch_rest
            rank.issued.append(run)
            rank.outstanding += op.kernels
            tail = tails[op.stream]
            tails[op.stream] = run
            if tail is not None and not tail.done:
                tail.dependents.append(run)
                run.pending = 1
            if op.deps or op.waits:
                self._depend(run, rank)
            for token in op.signals:
                rank.tokens[token] = run
            if not run.pending:
                self._launch(run, now)
            if op.sync and not run.done:
                rank.holds = run
                break
        rank.host_time = clock
        if self.progress is not None and self.finished >= self.told:
            self.told = self.finished + PROGRESS_EVERY
            self.progress(self.finished)

    def _depend(self, run: _Run, rank: _Rank) -> None:
        for index in run.op.deps:
            other = rank.issued[index]
            if not other.done:
                other.dependents.append(run)
                run.pending += 1
        for token in run.op.waits:
            signalled = rank.tokens.get(token)
            if signalled is None:
                raise DeadlockError(explain_unsignalled(self.plan, run, token))
            if not signalled.done:
                signalled.dependents.append(run)
                run.pending += 1

    def _launch(self, run: _Run, now: float) -> None:
        """Dependencies and stream are done: go, or wait for the host to launch it."""
        if run.launched > now:
            run.callbacks = self.on_launched
            heappush(self.queue, (run.launched, NORMAL, next(self.eid), run))
        else:
            self._ready(run, now)

    def _launched(self, run: _Run) -> None:
        run.cause = CAUSE_LAUNCH
        run.cause_span = run.held_by
        self._ready(run, self.env._now)

    # -- activities -------------------------------------------------------------------------------------------------

    def _ready(self, run: _Run, now: float) -> None:
        """Meet the other members of the process group, if any; then begin with the latency."""
        run.ready = now
        op = run.op
        if op.group >= 0:
            arrived = self.arrived[op.group]
            arrived.append(run)
            if len(arrived) < self.plan.group_sizes[op.group]:
                return
            arrived.pop()
            run.peers = tuple(arrived)
            for peer in arrived:
                peer.start = now
            arrived.clear()
        run.start = now
        (self._latency if op.latency > 0.0 else self._demand)(run, now)

    def _latency(self, run: _Run, now: float) -> None:
        """Wait out the latency, then take the resources.

        NOTE: where there is room now, the room is booked from now on and the end scheduled at once: one event instead
        of two. Whoever asks for that room before the latency is over has the booking undone (``_unbook``), so that
        times are those of two events.
        """
        op, load = run.op, self.load
        begin = now + op.latency
        duration = self._stretched(run, begin) if op.reach > 0.0 else op.duration
        for r, share in run.loads:
            if load[r] + share > FULL:
                run.callbacks = self.on_demand
                heappush(self.queue, (begin, NORMAL, next(self.eid), run))
                return
        for r, share in run.loads:
            load[r] += share
            self.users[r][run] = share
        run.left = duration
        run.last = begin
        run.speed = 1.0
        run.binder = -1
        run.end_event = run
        run.callbacks = self.on_end
        heappush(self.queue, (begin + duration, NORMAL, next(self.eid), run))

    @staticmethod
    def _stretched(run: _Run, begin: float) -> float:
        """Seconds of several kernels from ``begin`` on: their own, or at less load until the last is launched."""
        op = run.op
        duration = run.launched + op.reach - begin
        if duration <= op.duration:
            run.loads = op.loads
            return op.duration
        thin = op.duration / duration
        run.loads = tuple([(r, share * thin) for r, share in op.loads]) if thin else ()
        return duration

    def _unbook(self, run: _Run) -> None:
        """Give back what was booked through a latency that is not over; the demand comes when it is."""
        for r, share in run.loads:
            del self.users[r][run]
            self.load[r] = self.load[r] - share if self.users[r] else 0.0
        run.end_event = None
        heappush(self.queue, (run.last, NORMAL, next(self.eid), _Timer(run, self.on_late)))

    def _late(self, timer: _Timer) -> None:
        self._demand(timer.run, self.env._now)

    def _demand_event(self, run: _Run) -> None:
        self._demand(run, self.env._now)

    def _demand(self, run: _Run, now: float) -> None:
        """Take the resources. If all of them have room the end is known; if not, a solve at this instant decides."""
        op = run.op
        duration = self._stretched(run, now) if op.reach > 0.0 else op.duration
        full = False
        load, users = self.load, self.users
        for r, share in run.loads:
            total = load[r] + share
            load[r] = total
            users[r][run] = share
            if total > FULL:
                full = True
                self.dirty[r] = None
        run.left = duration
        run.last = now
        if full:
            run.speed = 0.0
            run.binder = -1
            run.end_event = None
            self._want_solve(run, now)
        else:
            run.speed = 1.0
            run.binder = -1
            if run.callbacks is self.on_end:  # it was booked before: its first end is still in the queue, and stale
                run.end_event = timer = _Timer(run, self.on_timer)
                heappush(self.queue, (now + duration, NORMAL, next(self.eid), timer))
                return
            run.end_event = run
            run.callbacks = self.on_end
            heappush(self.queue, (now + duration, NORMAL, next(self.eid), run))

    def _end(self, run: _Run) -> None:
        if run.end_event is not run:  # it was slowed down meanwhile: a timer ends it
            return
        self._finish(run)

    def _timer(self, timer: _Timer) -> None:
        run = timer.run
        if run.end_event is timer:
            self._progress_run(run, self.env._now)
            self._finish(run)

    def _finish(self, run: _Run) -> None:
        """Give the resources back, record the spans, and release whoever waited."""
        now = self.env._now
        load, users = self.load, self.users
        for r, share in run.loads:
            del users[r][run]
            total = load[r]
            load[r] = total - share if users[r] else 0.0
            if total > FULL and users[r]:
                self.dirty[r] = None
                self._want_solve(run, now)
        self.last_end = now
        self._record(run, now, -1)
        for peer in run.peers:
            peer.bound = run.bound
            self._record(peer, now, run.span)
        self._release(run, now)
        for peer in run.peers:
            self._release(peer, now)

    def _record(self, run: _Run, now: float, peer: int) -> None:
        rows = self.rows
        run.span = self.finished
        run.done = True
        run.end_event = None
        self.finished += 1
        rows.extend(
            (
                run.op.row, run.action, run.microbatch, run.launched, run.ready, run.start, now, run.cause,
                run.cause_span, peer,
            )
        )  # fmt: skip
        if run.bound:
            self.contended.extend((run.span, r, seconds) for r, seconds in run.bound.items())

    def _release(self, run: _Run, now: float) -> None:
        stream, span = run.op.stream, run.span
        rank = run.rank
        for other in run.dependents:
            other.pending -= 1
            if not other.pending:
                other.cause = CAUSE_STREAM if other.op.stream == stream else CAUSE_DEPENDENCY
                other.cause_span = span
                self._launch(other, now)
        run.dependents = []
        rank.outstanding -= run.op.kernels
        if rank.holds is run:
            rank.holds = None
            rank.released_by = span
            self._issue(rank, now)
        elif rank.stalled:
            # NOTE: one op at a time. Refilled in batches, an op of a stream that has run dry would start later.
            rank.stalled = False
            if now >= rank.host_time:  # else it was busy launching all the while, and waited for nobody
                rank.released_by = span
            self._issue(rank, now)

    # -- sharing ----------------------------------------------------------------------------------------------------

    def _want_solve(self, run: _Run, now: float) -> None:
        if not self.solve_wanted:
            self.solve_wanted = True
            heappush(self.queue, (now, LAST, next(self.eid), _Timer(run, self.on_solve)))

    def _solve(self, _: _Timer) -> None:
        """Re-share the full resources that changed at this instant, and those they are connected to."""
        self.solve_wanted = False
        now = self.env._now
        runs = self._component()
        booked = [run for run in runs if run.last > now]
        if booked:
            for run in booked:
                self._unbook(run)
            runs = [run for run in self._component() if run.last <= now]
        self.dirty.clear()
        if not runs:
            return
        self.solves += 1
        loads = [[(r, share) for r, share in run.loads if self.load[r] > FULL and share > 0.0] for run in runs]
        speeds, binders = max_min(loads, [run.op.weight for run in runs])
        for run, speed, binder in zip(runs, speeds, binders, strict=True):
            if speed == run.speed and run.end_event is not None:
                if binder != run.binder:  # as fast as before, but for another reason: the seconds so far are not its
                    self._progress_run(run, now)
                    run.binder = binder
                continue
            self._progress_run(run, now)
            run.speed, run.binder = speed, binder
            timer = _Timer(run, self.on_timer)
            run.end_event = timer
            heappush(self.queue, (now + run.left / speed, NORMAL, next(self.eid), timer))

    def _component(self) -> list[_Run]:
        """Runs that share a full resource with a changed one, directly or through others."""
        found: dict[_Run, None] = {}
        seen = dict.fromkeys(self.dirty)
        todo = list(self.dirty)
        while todo:
            for run in self.users[todo.pop()]:
                if run in found:
                    continue
                found[run] = None
                for r, _ in run.loads:
                    if r not in seen and self.load[r] > FULL:
                        seen[r] = None
                        todo.append(r)
        return list(found)

    @staticmethod
    def _progress_run(run: _Run, now: float) -> None:
        """Account for the time since the run's speed last changed."""
        elapsed = now - run.last
        run.left = max(run.left - elapsed * run.speed, 0.0)
        run.last = now
        if run.binder >= 0 and elapsed > 0.0:
            if run.bound is None:
                run.bound = {}
            run.bound[run.binder] = run.bound.get(run.binder, 0.0) + elapsed


def simulate(plan: Plan, progress: Callable[[int], None] | None = None) -> Timeline:
    """Run a plan to its end and return what happened.

    ``progress`` is called now and then with the number of spans so far. Raises ``DeadlockError``, naming the blocked
    ops and what each waits for, when the plan cannot end; ``ValueError`` when no host may launch anything, or when a
    rank class comes to one rendezvous from two streams.
    """
    if plan.launch_queue < 1:
        msg = f"launch_queue = {plan.launch_queue}: a host that may be ahead by no op launches none; give 1 or more"
        raise ValueError(msg)
    if wrong := explain_two_streams(plan):
        raise ValueError(wrong)
    return _Engine(plan, progress).run()
