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
from collections.abc import Callable, Sequence
from heapq import heappush
from typing import Any

from sim.engine.chains import Chain, Template, units
from sim.engine.deadlock import explain_blocked, explain_two_streams
from sim.engine.host import Host
from sim.engine.meeting import in_step, lazy_members
from sim.engine.state import FULL, NORMAL, Rank, Run, Timer
from sim.engine.watched import watched
from sim.errors import DeadlockError
from sim.plan import Plan
from sim.timeline.columns import CAUSE_DEPENDENCY, CAUSE_STREAM, Timeline
from sim.timeline.record import Record, contended_from, spans_from


class Engine(Host):
    """One step on its way."""

    def __init__(self, plan: Plan, progress: Callable[[int], None] | None) -> None:
        super().__init__(plan, progress)
        loads, lazy = watched(plan), lazy_members(plan)
        through, same = in_step(plan), dict[tuple[Any, ...], tuple[Any, ...]]()
        programs = [[units(block, loads, through, same) for block in rank.blocks] for rank in plan.ranks]
        self.ranks = [Rank(i, rank, programs[i], loads) for i, rank in enumerate(plan.ranks)]
        self._find_twins(self.ranks)
        self.lazy = [tuple(self.ranks[index] for index in of) for of in lazy]
        for group, of in enumerate(self.lazy):
            for rank in of:
                rank.lazy.add(group)

    def run(self) -> Timeline:
        """Run the plan to its end."""
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
        record, self.record = self.record, Record()  # not kept by what of the engine waits for the collector
        spans, place = spans_from(record, *self._chained_ops())
        return Timeline(
            spans=spans,
            contended=contended_from(record, place),
            ops=self.plan.ops,
            rank_classes=self.plan.rank_classes,
            resources=self.plan.resources,
            stream_names=self.plan.stream_names,
            makespan=self.last_end,
            events=events,
            solves=self.solves,
        )

    def _chained_ops(self) -> tuple[list[int], list[bool]]:
        """By op: what makes it ready when the op before it in its chain has ended; whether it meets others there."""
        causes, meets = [-1] * len(self.plan.ops), [False] * len(self.plan.ops)
        for rank in self.ranks:
            for block in rank.units:
                for unit in block:
                    if isinstance(unit, Template):
                        for op, cause in zip(unit.ops, unit.causes, strict=True):
                            causes[op.row], meets[op.row] = cause, op.group >= 0
        return causes, meets

    # -- activities -------------------------------------------------------------------------------------------------

    def _ready(self, run: Run, now: float) -> None:
        """Meet the other members of the process group, if any; then begin with the latency."""
        run.ready = now
        op = run.op
        if run.chain is not None and self._lay(run, now):
            return
        if op.group >= 0:
            arrived = self.arrived[op.group]
            lazy = self.lazy[op.group] if op.group not in run.rank.lazy else ()
            for rank in lazy:
                if rank.laid is not None:
                    self._settle(rank.laid, now, rank.laid.last - 1)
            if lazy and arrived:
                self._not_launched(op.group, now)
            arrived.append(run)
            if len(arrived) < self.plan.group_sizes[op.group]:
                for rank in lazy:
                    if rank.laid is not None:
                        self._plan_wake(rank.laid)
                return
            arrived.pop()
            run.peers = tuple(arrived)
            for peer in arrived:
                peer.start = now
            arrived.clear()
        run.start = now
        (self._latency if op.latency > 0.0 else self._demand)(run, now)

    def _latency(self, run: Run, now: float) -> None:
        """Wait out the latency, then take the resources.

        NOTE: where there is room now, the room is booked from now on and the end scheduled at once: one event instead
        of two. Whoever asks for that room before the latency is over has the booking undone (``_unbook``), so that
        times are those of two events.
        """
        op, load, owner = run.op, self.load, self.owner
        begin = now + op.latency
        duration = self._stretched(run, begin) if op.reach > 0.0 else op.duration
        owned = False
        for r, share in run.loads:
            if owner[r] is not None:
                owned = True
            elif load[r] + share > FULL:
                run.callbacks = self.on_demand
                heappush(self.queue, (begin, NORMAL, next(self.eid), run))
                return
        hosts = self._welcome(run, now) if owned else ()
        if hosts is None:
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
        if hosts:
            self._be_guest(run, hosts, now)

    def _demand_event(self, run: Run) -> None:
        self._demand(run, self.env._now)

    def _demand(self, run: Run, now: float) -> None:
        """Take the resources. If all of them have room the end is known; if not, a solve at this instant decides."""
        op = run.op
        duration = self._stretched(run, now) if op.reach > 0.0 else op.duration
        full = False
        load, users, owner = self.load, self.users, self.owner
        hosts: Sequence[Chain] | None = ()
        for r, _ in run.loads:
            if owner[r] is not None:
                hosts = self._welcome(run, now)
                break
        if hosts is None:
            for r, _ in run.loads:
                chain = owner[r]
                if chain is not None:
                    self._take_up(chain, now)
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
                run.end_event = timer = Timer(run, self.on_timer)
                heappush(self.queue, (now + duration, NORMAL, next(self.eid), timer))
            else:
                run.end_event = run
                run.callbacks = self.on_end
                heappush(self.queue, (now + duration, NORMAL, next(self.eid), run))
            if hosts:
                self._be_guest(run, hosts, now)

    def _end(self, run: Run) -> None:
        if run.end_event is not run:  # it was slowed down meanwhile: a timer ends it
            return
        self._finish(run)

    def _finish(self, run: Run) -> None:
        """Give the resources back, record the spans, and release whoever waited."""
        now = self.env._now
        for one in (run, *run.peers):  # what their hosts issued until now waits for them
            laid = one.rank.laid
            if laid is not None:
                self._settle(laid, now, laid.last - 1)
        load, users = self.load, self.users
        for r, share in run.loads:
            del users[r][run]
            total = load[r]
            load[r] = total - share if users[r] else 0.0
            if total > FULL and users[r]:
                self.dirty[r] = None
                self._want_solve(run, now)
        for chain in run.hosts:
            if chain.guest is run:
                chain.guest = None
        self.last_end = now
        self._write(run, now, -1)
        for peer in run.peers:
            peer.bound = run.bound
            self._write(peer, now, run.span)
        if run.peers and run.chain is not None:
            self._release_together((run, *run.peers), now)
            return
        self._release(run, now)
        for peer in run.peers:
            self._release(peer, now)

    def _write(self, run: Run, now: float, peer: int) -> None:
        record = self.record
        run.span = record.spans
        run.done = True
        run.end_event = None
        record.spans += 1
        record.single.extend(
            (
                run.span, run.op.row, run.action, run.microbatch, run.launched, run.ready, run.start, now, run.cause,
                run.cause_span, peer,
            )
        )  # fmt: skip
        if run.bound:
            for r, seconds in run.bound.items():
                record.slowed.extend((run.span, r, seconds))

    def _release(self, run: Run, now: float) -> None:
        chain = run.chain
        if chain is not None:
            self._step(run, chain)
        self._go_on(run, chain, now)

    @staticmethod
    def _step(run: Run, chain: Chain) -> None:
        """An op of a chain that was a run of its own has ended."""
        del chain.known[run.place]
        chain.at = run.place + 1
        chain.last_span = run.span

    def _release_together(self, runs: Sequence[Run], now: float) -> None:
        """As ``_release``, of members that ended an op together: they may go on together."""
        chains = [run.chain for run in runs if run.chain is not None]
        if len(chains) < len(runs):
            for run in runs:
                self._release(run, now)
            return
        for run, chain in zip(runs, chains, strict=True):
            self._step(run, chain)
        self._go_on_together(list(zip(runs, chains, strict=True)), now)

    def _go_on_together(self, ended: Sequence[tuple[Run | None, Chain]], now: float) -> None:
        """As ``_go_on``, of chains of which something has ended, each with its last op if that is a run of its own."""
        freed = [(chain.last_span, chain.template.kernels[chain.at - 1]) for _, chain in ended]
        for run, _ in ended:
            if run is not None:
                self._pass_on(run, now)
        if len(ended) == 1 or not self._lay_together([chain for _, chain in ended], now):
            for _, chain in ended:
                self._next(chain, now)
        for (run, chain), (span, kernels) in zip(ended, freed, strict=True):
            self._make_room(chain.rank, run, span, kernels, now)

    def _go_on(self, run: Run, chain: Chain | None, now: float) -> None:
        """An op ended that was a run of its own: whoever waited for it goes."""
        self._pass_on(run, now)
        if chain is not None:
            self._next(chain, now)
        self._make_room(run.rank, run, run.span, run.op.kernels, now)

    def _pass_on(self, run: Run, now: float) -> None:
        """Those that wait for this op no longer do."""
        stream, span = run.op.stream, run.span
        for other in run.dependents:
            other.pending -= 1
            if not other.pending:
                other.cause = CAUSE_STREAM if other.op.stream == stream else CAUSE_DEPENDENCY
                other.cause_span = span
                self._launch(other, now)
        run.dependents = []
        run.chain = None

    def _next(self, chain: Chain, now: float) -> None:
        """The next op of a chain has its turn."""
        place = chain.at
        if place == len(chain.template.ops):
            return
        if place == len(chain.launched):
            chain.waiting = True
            return
        run = chain.run_at(place)
        run.cause, run.cause_span = chain.template.causes[place], chain.last_span
        self._launch(run, now)


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
    return Engine(plan, progress).run()
