"""The host of each rank: it issues ops in program order, as far ahead of its device as the launch queue has room.

Owns issuing (``_issue``), what an issued op waits for, and when it is launched.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappush
from itertools import accumulate, repeat

from sim.engine.chains import Chain, Template
from sim.engine.deadlock import explain_unsignalled
from sim.engine.lockstep import Lockstep
from sim.engine.state import NORMAL, Callbacks, Rank, Run
from sim.errors import DeadlockError
from sim.plan import Plan
from sim.timeline.columns import CAUSE_LAUNCH

PROGRESS_EVERY = 1000  # spans: a terminal's progress bar costs as much as several ops


class Host(Lockstep):
    """Hosts in their programs."""

    def __init__(self, plan: Plan, progress: Callable[[int], None] | None) -> None:
        super().__init__(plan)
        self.progress = progress
        self.told = 0  # number of finished spans at which progress is next told
        self.on_ready: Callbacks = (self._ready_event,)

    def _ready(self, run: Run, now: float) -> None:
        raise NotImplementedError

    def _issue(self, rank: Rank, now: float) -> None:
        """Let the host issue ops until it has to wait: for a sync op, for its launch queue, or for nothing more."""
        clock = rank.host_time if rank.host_time > now else now
        limit = self.plan.launch_queue
        rank.issuing = True
        head: Run | None = None
        while rank.filling is not None or rank.cursor < len(rank.block) or rank.next_action():
            if rank.outstanding >= limit:
                rank.stalled = True
                break
            if rank.filling is not None:
                clock = self._fill(rank, rank.filling, clock, now)
                continue
            run = self._next_unit(rank, clock)
            op = run.op
            clock = run.launched + op.launch_rest
            if not run.pending:
                if run.chain is None or head is not None:
                    self._launch(run, now)
                else:
                    head = run
            if op.sync and not run.done:
                rank.holds = run
                break
        rank.issuing = False
        rank.host_time = clock
        if head is not None:
            self._set_off(head, now)
        if self.progress is not None and self.record.spans >= self.told:
            self.told = self.record.spans + PROGRESS_EVERY
            self.progress(self.record.spans)

    def _next_unit(self, rank: Rank, clock: float) -> Run:
        """Issue the next op of the program, or the first op of a chain that is then to be filled."""
        unit = rank.block[rank.cursor]
        rank.cursor += 1
        if isinstance(unit, Template) and not _in_turn(rank, unit):  # one by one then
            rank.block, rank.cursor = (*unit.ops, *rank.block[rank.cursor :]), 1
            unit = unit.ops[0]
        if isinstance(unit, Template):
            op = unit.ops[0]
            run = Run(op, rank, clock + op.launch)
            self._follow(run, rank)
            run.place = 0
            run.chain = rank.filling = Chain(unit, run)
        else:
            op = unit
            run = Run(op, rank, clock + op.launch)
            rank.issued.append(run)  # before its dependencies are looked at: it may name itself
            self._follow(run, rank)
            for token in op.signals:
                rank.tokens[token] = run
        rank.outstanding += op.kernels
        return run

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
        other.dependents.append(run)
        run.pending += 1
        if chain is not None and chain.event is not None:
            self._plan_inner(chain)  # the instant at which an inner op ends matters now

    def _launch(self, run: Run, now: float) -> None:
        """Dependencies and stream are done: go, or wait for the host to launch it."""
        if self.deferring and run.op.group in run.rank.lazy and max(run.launched, now) <= self.env._now:
            if run.launched > now:
                run.cause, run.cause_span = CAUSE_LAUNCH, run.held_by
            self._ready(run, max(run.launched, now))  # it has been there for a while, and nobody noticed
        elif run.launched > now:
            if not self._post(run):
                run.callbacks = self.on_launched
                heappush(self.queue, (run.launched, NORMAL, next(self.eid), run))
        elif self.deferring:
            run.callbacks = self.on_ready
            heappush(self.queue, (now, NORMAL, next(self.eid), run))
        else:
            self._ready(run, now)

    def _post(self, run: Run) -> bool:
        """A receive is there from its launch on, and no event is needed to see it come, unless somebody waits."""
        group = run.op.group
        if group not in run.rank.lazy or len(self.arrived[group]) + 1 == self.plan.group_sizes[group]:
            return False
        run.ready = run.launched
        run.cause, run.cause_span = CAUSE_LAUNCH, run.held_by
        self.arrived[group].append(run)
        return True

    def _not_launched(self, group: int, now: float) -> None:
        """Of what was posted at a rendezvous, what is not launched yet comes when it is."""
        arrived = self.arrived[group]
        for run in [run for run in arrived if run.ready > now]:
            arrived.remove(run)
            run.callbacks = self.on_launched
            heappush(self.queue, (run.ready, NORMAL, next(self.eid), run))

    def _set_off(self, head: Run, now: float) -> None:
        """The first op of a chain waits for nothing but its launch: lay it out from then on if there is room."""
        chain = head.chain
        assert chain is not None
        if head.launched <= now or self.deferring:
            self._launch(head, now)
        else:
            head.cause, head.cause_span, head.ready = CAUSE_LAUNCH, head.held_by, head.launched
            if chain.template.group >= 0:
                self._set_off_together(head, now)
            elif not self._lay(head, head.launched):
                self._launch(head, now)
        if head.rank.laid is chain:
            self._plan_wake(chain)

    def _launched(self, run: Run) -> None:
        run.cause = CAUSE_LAUNCH
        run.cause_span = run.held_by
        self._ready_event(run)

    def _ready_event(self, run: Run) -> None:
        self._ready(run, self.env._now)
        if run.rank.laid is not None and run.chain is run.rank.laid:
            self._plan_wake(run.rank.laid)

    def _make_room(self, rank: Rank, run: Run | None, span: int, kernels: int, now: float) -> None:
        """The host's launch queue has room again, or what it waited for has ended."""
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
