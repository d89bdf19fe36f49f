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
from collections.abc import Callable, Iterator, Sequence
from heapq import heappush
from itertools import accumulate, repeat

import numpy as np
from numpy.typing import NDArray

from sim.engine.booking import Booking
from sim.engine.chains import Chain, Template, units
from sim.engine.deadlock import explain_blocked, explain_two_streams, explain_unsignalled
from sim.engine.state import FULL, NORMAL, Callbacks, Rank, Run, Timer
from sim.engine.watched import watched
from sim.errors import DeadlockError
from sim.plan import Plan
from sim.timeline.columns import CAUSE_DEPENDENCY, CAUSE_LAUNCH, CAUSE_STREAM, Timeline
from sim.timeline.record import spans_from

PROGRESS_EVERY = 1000  # spans: a terminal's progress bar costs as much as several ops


class Engine(Booking):
    """One step on its way."""

    def __init__(self, plan: Plan, progress: Callable[[int], None] | None) -> None:
        super().__init__(plan)
        self.progress = progress
        loads = watched(plan)
        self.ranks = [Rank(i, r, [units(b, loads) for b in r.blocks], loads) for i, r in enumerate(plan.ranks)]
        self.lazy = self._lazy_members()
        self.told = 0  # number of finished spans at which progress is next told
        self.on_ready: Callbacks = (self._ready_event,)

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
        spans, place = spans_from(self.record, self._chain_causes())
        return Timeline(
            spans=spans,
            contended=tuple(self._contended(place)),
            ops=self.plan.ops,
            rank_classes=self.plan.rank_classes,
            resources=self.plan.resources,
            stream_names=self.plan.stream_names,
            makespan=self.last_end,
            events=events,
            solves=self.solves,
        )

    def _lazy_members(self) -> list[tuple[Rank, ...]]:
        """By rendezvous, the ranks whose coming nobody notices until another comes whose host is always up to date.

        Such a rank only posts a receive: its ops there wait for nothing but their launch. While a chain of it is laid
        out, the host that would launch them is looked at when a member comes that has something to wait for.
        """
        free: list[dict[int, bool]] = [{} for _ in self.arrived]
        for rank in self.ranks:
            for op in (op for block in rank.plan.blocks for op in block if op.group >= 0):
                alone = not (op.deps or op.waits or op.sync)
                free[op.group][rank.index] = free[op.group].get(rank.index, True) and alone
        found = [tuple(self.ranks[r] for r, is_free in of.items() if is_free) for of in free]
        found = [lazy if len(lazy) < len(of) else () for lazy, of in zip(found, free, strict=True)]
        for group, lazy in enumerate(found):
            for rank in lazy:
                rank.lazy.add(group)
        return found

    def _contended(self, place: NDArray[np.int64]) -> Iterator[tuple[int, int, float]]:
        """Seconds below full speed, by spans as places in the timeline."""
        if not self.contended:
            return iter(())
        spans, resources, seconds = zip(*self.contended, strict=True)
        return zip(place[list(spans)].tolist(), resources, seconds, strict=True)

    def _chain_causes(self) -> list[int]:
        """By op: what makes it ready when the op before it in its chain has ended."""
        causes = [-1] * len(self.plan.ops)
        for rank in self.ranks:
            for block in rank.units:
                for unit in block:
                    if isinstance(unit, Template):
                        for row, cause in zip(unit.rows, unit.causes, strict=True):
                            causes[row] = cause
        return causes

    # -- the host ---------------------------------------------------------------------------------------------------

    def _issue(self, rank: Rank, now: float) -> None:
        """Let the host issue ops until it has to wait: for a sync op, for its launch queue, or for nothing more."""
        clock = rank.host_time if rank.host_time > now else now
        limit = self.plan.launch_queue
        rank.issuing = True
        while rank.filling is not None or rank.cursor < len(rank.block) or rank.next_action():
            if rank.outstanding >= limit:
                rank.stalled = True
                break
            if rank.filling is not None:
                clock = self._fill(rank, rank.filling, clock, now)
                continue
            unit = rank.block[rank.cursor]
            rank.cursor += 1
            if isinstance(unit, Template):
                if not _in_turn(rank, unit):  # one by one then
                    rank.block, rank.cursor = (*unit.ops, *rank.block[rank.cursor :]), 0
                    continue
                op = unit.ops[0]
            else:
                op = unit
            clock += op.launch
            run = Run(op, rank, clock)
            clock += op.launch_rest
            rank.outstanding += op.kernels
            if isinstance(unit, Template):
                self._follow(run, rank)
                run.place = 0
                run.chain = rank.filling = Chain(unit, run)
            else:
                rank.issued.append(run)  # before its dependencies are looked at: it may name itself
                self._follow(run, rank)
                for token in op.signals:
                    rank.tokens[token] = run
            if not run.pending:
                self._launch(run, now)
            if op.sync and not run.done:
                rank.holds = run
                break
        rank.issuing = False
        rank.host_time = clock
        if self.progress is not None and self.record.spans >= self.told:
            self.told = self.record.spans + PROGRESS_EVERY
            self.progress(self.record.spans)

    def _fill(self, rank: Rank, chain: Chain, clock: float, now: float) -> float:
        """Issue more of a chain, as the launch queue has room; the time when the host is done."""
        template, launched, held = chain.template, chain.launched, chain.held
        launch, rest, kernels = template.launch, template.rest, template.kernels
        outstanding, limit, span = rank.outstanding, self.plan.launch_queue, rank.released_by
        place, count = len(launched), len(launch)
        ahead = outstanding + template.cumulative[-1] - template.cumulative[place]
        if ahead - kernels[-1] < limit:  # there is room for all of them
            times = list(accumulate(template.launches[2 * place :], initial=clock))
            launched.extend(times[1::2])
            held.extend(repeat(span, count - place))
            clock, outstanding, place = times[-1], ahead, count
        while place < count and outstanding < limit:
            clock += launch[place]
            launched.append(clock)
            held.append(span)
            clock += rest[place]
            outstanding += kernels[place]
            place += 1
        rank.outstanding = outstanding
        if place == count:
            self._filled(rank, chain)
        if chain.waiting:
            chain.waiting = False
            self._launch(chain.run_at(chain.at), now)
        return clock

    @staticmethod
    def _filled(rank: Rank, chain: Chain) -> None:
        """All of a chain is issued: from now on others may follow its last op, and the last in its other streams."""
        rank.filling = None
        template = chain.template
        last = len(template.ops) - 1
        tail = chain.run_at(last)
        rank.tails[template.stream] = tail
        for stream, place in template.others:
            rank.tails[stream] = chain.run_at(place) if chain.at <= place else None
        rank.issued.extend(repeat(None, last))
        rank.issued.append(tail)
        for token in template.ops[last].signals:
            rank.tokens[token] = tail

    def _follow(self, run: Run, rank: Rank) -> None:
        """What a newly issued op has to wait for: the op before it in its stream, its dependencies, its tokens."""
        op, tails = run.op, rank.tails
        tail = tails[op.stream]
        tails[op.stream] = run
        if tail is not None and not tail.done:
            self._wait_for(tail, run)
        for index in op.deps:
            other = rank.issued[index]
            assert other is not None, "an op depends on an inner op of a chain"
            if not other.done:
                self._wait_for(other, run)
        for token in op.waits:
            signalled = rank.tokens.get(token)
            if signalled is None:
                raise DeadlockError(explain_unsignalled(self.plan, run, token))
            if not signalled.done:
                self._wait_for(signalled, run)

    def _wait_for(self, other: Run, run: Run) -> None:
        chain = other.chain
        if chain is not None and chain.event is not None and other.place < chain.last - 1:
            self._take_up(chain, self.env._now)  # the instant at which an inner op ends matters now
        other.dependents.append(run)
        run.pending += 1

    def _launch(self, run: Run, now: float) -> None:
        """Dependencies and stream are done: go, or wait for the host to launch it."""
        if self.deferring and run.op.group in run.rank.lazy and max(run.launched, now) <= self.env._now:
            if run.launched > now:
                run.cause, run.cause_span = CAUSE_LAUNCH, run.held_by
            self._ready(run, max(run.launched, now))  # it has been there for a while, and nobody noticed
        elif run.launched > now:
            run.callbacks = self.on_launched
            heappush(self.queue, (run.launched, NORMAL, next(self.eid), run))
        elif self.deferring:
            run.callbacks = self.on_ready
            heappush(self.queue, (now, NORMAL, next(self.eid), run))
        else:
            self._ready(run, now)

    def _launched(self, run: Run) -> None:
        run.cause = CAUSE_LAUNCH
        run.cause_span = run.held_by
        self._ready_event(run)

    def _ready_event(self, run: Run) -> None:
        self._ready(run, self.env._now)
        if run.rank.laid is not None and run.chain is run.rank.laid:
            self._plan_wake(run.rank.laid)

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
            self.contended.extend((run.span, r, seconds) for r, seconds in run.bound.items())

    def _release(self, run: Run, now: float) -> None:
        rank, chain = run.rank, run.chain
        if chain is not None:
            del chain.known[run.place]
            chain.at = run.place + 1
            chain.last_span = run.span
        self._go_on(rank, run, chain, now)

    def _go_on(self, rank: Rank, run: Run | None, chain: Chain | None, now: float) -> None:
        """An op ended, as a run of its own or as the last that was laid out of a chain: whoever waited for it goes."""
        if run is not None:
            stream, span, kernels = run.op.stream, run.span, run.op.kernels
            for other in run.dependents:
                other.pending -= 1
                if not other.pending:
                    other.cause = CAUSE_STREAM if other.op.stream == stream else CAUSE_DEPENDENCY
                    other.cause_span = span
                    self._launch(other, now)
            run.dependents = []
            run.chain = None
        if chain is not None:
            span, kernels = chain.last_span, chain.template.kernels[chain.at - 1]
            self._next(chain, now)
        rank.outstanding -= kernels
        if rank.holds is not None and rank.holds is run:
            rank.holds = None
            rank.released_by = span
            self._issue(rank, now)
        elif rank.stalled:
            # NOTE: one op at a time. Refilled in batches, an op of a stream that has run dry would start later.
            rank.stalled = False
            if now >= rank.host_time:  # else it was busy launching all the while, and waited for nobody
                rank.released_by = span
            self._issue(rank, now)
        if rank.laid is not None:
            self._plan_wake(rank.laid)

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


def _in_turn(rank: Rank, template: Template) -> bool:
    """Whether the inner ops of a chain find their streams done when its first op begins.

    So it is where the stream's last op is done, or belongs to a chain that ends in the stream of the first op.
    """
    head = template.ops[0].stream
    for stream in template.streams:
        tail = rank.tails[stream]
        if tail is not None and not tail.done and (tail.chain is None or tail.chain.template.stream != head):
            return False
    return True


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
