"""Chains laid out in time: while a chain has its resources to itself, all its times are known at once.

Owns laying out a chain (``_lay``), reading from it what has happened by now (``_settle``), and taking it up again when
somebody else asks for one of its resources (``_take_up``): what has ended stays, what runs becomes a run with what is
left of it, the rest waits for its turn. Spans are those of one event after another.

The host goes on issuing while a chain is laid out, each time an op of it ends and makes room in the launch queue. That
is made up for whenever somebody looks (``_settle``). Nothing is late: an op that the host will issue meanwhile and that
may begin before the chain ends has an event of its own (``_plan_wake``); all others wait for the chain's end.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from heapq import heappush

from sim.engine.beside import NEVER, ends_beside, left_at, paces
from sim.engine.chains import Chain
from sim.engine.ends import ends_with_launches, free_ends, in_time
from sim.engine.sharing import Sharing
from sim.engine.state import FULL, NORMAL, Callbacks, Rank, Run, Timer
from sim.engine.wake import wake_place
from sim.plan import Plan
from sim.timeline.columns import CAUSE_LAUNCH
from sim.timeline.record import Record


class Booking(Sharing):
    """Chains, laid out and taken up."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.owner: list[Chain | None] = [None] * len(plan.resources)  # the chain laid out on a resource
        self.arrived: list[list[Run]] = [[] for _ in plan.group_sizes]
        self.record = Record()
        self.last_end = 0.0  # the clock may run on over stale timers
        self.deferring = False  # ops that could begin at once wait for an event of this instant
        self.on_launched: Callbacks = (self._launched,)
        self.on_demand: Callbacks = (self._demand_event,)
        self.on_end: Callbacks = (self._end,)
        self.on_chain_end: Callbacks = (self._chain_end,)
        self.on_inner: Callbacks = (self._inner_event,)
        self.on_wake: Callbacks = (self._wake,)

    @staticmethod
    def _stretched(run: Run, begin: float) -> float:
        """Seconds of several kernels from ``begin`` on: their own, or at less load until the last is launched."""
        op, loads = run.op, run.rank.loads[run.op.row]
        duration = run.launched + op.reach - begin
        if duration <= op.duration:
            run.loads = loads
            return op.duration
        thin = op.duration / duration
        run.loads = tuple([(r, share * thin) for r, share in loads]) if thin else ()
        return duration

    def _launched(self, run: Run) -> None:
        raise NotImplementedError

    def _demand_event(self, run: Run) -> None:
        raise NotImplementedError

    def _end(self, run: Run) -> None:
        raise NotImplementedError

    def _launch(self, run: Run, now: float) -> None:
        raise NotImplementedError

    def _issue(self, rank: Rank, now: float) -> None:
        raise NotImplementedError

    @staticmethod
    def _filled(rank: Rank, chain: Chain) -> None:
        raise NotImplementedError

    def _go_on_together(self, ended: Sequence[tuple[Run | None, Chain]], now: float) -> None:
        raise NotImplementedError

    def _pass_on(self, run: Run, now: float) -> None:
        raise NotImplementedError

    def _await_guests(self, chain: Chain, run: Run, now: float) -> None:
        raise NotImplementedError

    def _part(self, chain: Chain, now: float) -> None:
        raise NotImplementedError

    # -- laying out -------------------------------------------------------------------------------------------------

    def _lay(self, run: Run, now: float) -> bool:
        """Lay out what is issued of a chain from this op on, which is ready now; False where there is no room."""
        return self._laid(run, now, resumed=False)

    def _resume(self, run: Run, now: float) -> bool:
        """Lay out a chain again whose op was slowed and now runs at full speed; False where there is no room."""
        if not self._laid(run, now, resumed=True):
            return False
        chain = run.rank.laid
        assert chain is not None
        self._plan_wake(chain)
        return True

    def _laid(self, run: Run, now: float, *, resumed: bool) -> bool:
        chain, rank, first = run.chain, run.rank, run.place
        assert chain is not None
        last = self._until(chain, first)
        if last <= first or rank.laid is not None or rank.issuing:
            return False
        guests = self._guests(chain, run)
        if guests is None:
            return False
        chain.resumed = run if resumed else None
        for guest in guests:
            if not self._may_be_beside(chain, guest, free_ends(chain, first, last, now), now):
                return False
        if resumed:
            self._leave(run)
        chain.ready, chain.cause, chain.cause_span = run.ready, run.cause, run.cause_span
        self._lay_out(chain, first, now, guests[0] if guests else None)
        return True

    @staticmethod
    def _until(chain: Chain, first: int) -> int:
        """Until which place (exclusive) a chain may be laid out by itself: to where it meets others."""
        last: int = chain.template.until[first]
        return min(len(chain.launched), last)

    def _guests(self, chain: Chain, run: Run | None) -> tuple[Run, ...] | None:
        """Who uses its resources, but for ``run``, its own: nobody or one; None where there is no room for it."""
        users, owner, guest = self.users, self.owner, None
        for r in chain.template.footprint:
            if owner[r] is not None:
                return None
            for user in users[r]:
                if user is not run and user is not guest:
                    if guest is not None:
                        return None
                    guest = user
        return () if guest is None else (guest,)

    @staticmethod
    def _may_be_beside(chain: Chain, guest: Run, ends: list[float], now: float) -> bool:
        """Whether a run at full speed keeps it beside a chain that waits for no launch."""
        steady = guest.speed == 1.0 and guest.op.reach == 0.0 and guest.end_event is not None
        return steady and paces(chain.template, guest) is not None and in_time(chain, chain.at, ends, now)

    def _leave(self, run: Run) -> None:
        """A run gives its resources back without having ended."""
        load, users = self.load, self.users
        for r, share in run.loads:
            del users[r][run]
            load[r] = load[r] - share if users[r] else 0.0
        run.end_event = None

    def _lay_out(self, chain: Chain, first: int, now: float, guest: Run | None) -> None:
        """All times from place ``first`` on, and one event at the end of them.

        ``now``: when the op there is ready; where it runs already (``chain.resumed``), the present.
        """
        template = chain.template
        ends = free_ends(chain, first, self._until(chain, first), now)
        launched = in_time(chain, first, ends, now)
        chain.odd = chain.slowed = None
        chain.guest, chain.window = guest, NEVER
        if guest is not None:
            if not launched:  # then those that were laid out before are
                del ends[chain.last - first :]
            last = first + len(ends)
            pace = chain.paces = paces(template, guest)
            assert pace is not None, "a guest that would itself be slowed"
            chain.window = guest.last, guest.last + guest.left
            guest.hosts = (*guest.hosts, chain)
            left = None if chain.resumed is None else chain.resumed.left
            ends, chain.slowed = ends_beside(template, pace, (first, last), (now, left), chain.window)
        elif not launched:
            ends, chain.odd = ends_with_launches(chain, first, first + len(ends), now)
        chain.event = timer = Timer(chain, self.on_chain_end)
        self._occupy(chain, first, ends)
        heappush(self.queue, (ends[-1], NORMAL, next(self.eid), timer))
        self._plan_inner(chain)

    def _occupy(self, chain: Chain, first: int, ends: list[float]) -> None:
        """Its ops from place ``first`` on end so; its resources are its own until then, or until somebody asks."""
        owner = self.owner
        for r in chain.template.footprint:
            owner[r] = chain
        chain.rank.laid = chain
        chain.ends = ends
        chain.first, chain.last, chain.at = first, first + len(ends), first
        chain.base = self.record.spans
        self.record.spans += len(ends)

    # -- a guest comes ----------------------------------------------------------------------------------------------

    def _welcome(self, run: Run, now: float) -> list[Chain] | None:
        """The chains beside which a run may begin its latency now, at full speed throughout; None: it may not."""
        load, owner, hosts = self.load, self.owner, []
        if run.op.reach > 0.0:
            return None
        for r, share in run.loads:
            if load[r] + share > FULL:
                return None
            chain = owner[r]
            if chain is not None and chain not in hosts:
                pace = paces(chain.template, run)
                if chain.guest is not None or chain.odd is not None or pace is None:
                    return None
                if chain.together and not pace.meets_unslowed:
                    return None
                hosts.append(chain)
        for chain in hosts:
            self._settle(chain, now, chain.last - 1)
        return hosts if all(chain.event is not None for chain in hosts) else None

    def _be_guest(self, run: Run, hosts: Sequence[Chain], now: float) -> None:
        """A run has taken its resources; chains that are laid out on them go on beside it."""
        for chain in hosts:
            if chain.together:
                self._await_guests(chain, run, now)
                continue
            self._pause(chain, now)
            place, resumed = chain.at, chain.resumed
            self._lift(chain)
            self._lay_out(chain, place, now if resumed is not None else chain.ready, run)
            self._plan_wake(chain)

    def _pause(self, chain: Chain, now: float) -> None:
        """Make the op under way the first laid out; it is ``chain.resumed``, up to date, where its demand has begun."""
        place = chain.at
        cause, span, ready = self._why(chain, place)
        resumed = chain.resumed if place == chain.first else None
        begin = ready + chain.template.steps[2 * place] if resumed is None else resumed.last
        if begin <= now:
            run = chain.run_at(place)
            if resumed is None:
                run.cause, run.cause_span = cause, span
                run.ready = run.start = ready
                run.left = run.op.duration
            self._bring_up(chain, run, begin, now)
            resumed = run
        self._record_ops(chain)
        chain.resumed = resumed
        chain.cause, chain.cause_span, chain.ready = cause, span, ready

    @staticmethod
    def _bring_up(chain: Chain, run: Run, begin: float, now: float) -> None:
        """What is left now of a run that began its demand at ``begin``, and what slowed it until now."""
        pace = chain.paces if chain.slowed is not None else None
        speed = 1.0 if pace is None else pace.speeds[run.place]
        run.left, slow = left_at(now, begin, run.left, speed, chain.window)
        run.last = now
        if pace is not None and slow > 0.0:
            if run.bound is None:
                run.bound = {}
            binder = pace.binders[run.place]
            run.bound[binder] = run.bound.get(binder, 0.0) + slow

    def _lift(self, chain: Chain) -> None:
        """The resources are free again."""
        for r in chain.template.footprint:
            self.owner[r] = None
        for r in chain.wide:
            self.owner[r] = None
        chain.rank.laid = None
        chain.event = chain.wake = chain.guest = chain.inner = None
        chain.inner_at = len(chain.template.ops)
        chain.lead = -1
        chain.together = chain.wide = ()

    # -- what has happened by now -----------------------------------------------------------------------------------

    def _settle(self, chain: Chain, now: float, until: int) -> None:
        """Let the host issue what ops that ended by now, before place ``until``, made room for."""
        at, first = chain.at, chain.first
        place = min(first + bisect_right(chain.ends, now, at - first), until, chain.inner_at)
        if place > at:
            chain.at = place
            if chain.known:
                self._inner_done(chain, place)
            self._host_catches_up(chain, at, place)

    @staticmethod
    def _inner_done(chain: Chain, place: int) -> None:
        """Ops before ``place`` that are runs of their own have ended."""
        for known in [k for k in chain.known if k < place and k < chain.last - 1]:
            run = chain.known.pop(known)
            run.done, run.span, run.chain = True, chain.number(known), None

    def _record_ops(self, chain: Chain) -> None:
        """Write the spans of the ops that have ended since the chain was laid out, one after another."""
        first, at, base, record = chain.first, chain.at, chain.base, self.record
        if at == first:
            return
        record.chain(chain.template.rows[first:at], chain.launched[first:at], chain.ends[: at - first])
        record.of.extend((base, at - first, chain.action, chain.microbatch, chain.lead))
        record.odd.extend((base, chain.cause, chain.cause_span, chain.ready))
        for place in chain.odd or ():
            if first < place < at:
                record.odd.extend((chain.number(place), CAUSE_LAUNCH, chain.held[place], chain.launched[place]))
        if chain.resumed is not None and chain.resumed.bound:
            for r, seconds in chain.resumed.bound.items():
                record.slowed.extend((base, r, seconds))
        if chain.slowed:
            for place, (r, seconds) in chain.slowed.items():
                if place < at:
                    record.slowed.extend((chain.number(place), r, seconds))
        chain.last_span = chain.number(at - 1)

    @staticmethod
    def _why(chain: Chain, place: int) -> tuple[int, int, float]:
        """Cause, its span, and when: why the op at this place, which is the next to end, was ready."""
        if place == chain.first:
            return chain.cause, chain.cause_span, chain.ready
        if chain.odd and place in chain.odd:
            return CAUSE_LAUNCH, chain.held[place], chain.launched[place]
        return chain.template.causes[place], chain.number(place - 1), chain.ends[place - 1 - chain.first]

    def _host_catches_up(self, chain: Chain, at: int, place: int) -> None:
        """Ops from ``at`` to ``place`` ended in turn, and each made room in the launch queue."""
        rank, kernels, limit = chain.rank, chain.template.kernels, self.plan.launch_queue
        if not rank.stalled:
            rank.outstanding -= sum(kernels[at:place])
            return
        deferred, self.deferring = self.deferring, True
        ends, first = chain.ends, chain.first
        while at < place:
            if rank.stalled and rank.filling is not None and not rank.filling.waiting:
                at = self._refill(chain, rank.filling, at, place)
                continue
            rank.outstanding -= kernels[at]
            if rank.stalled:
                end = ends[at - first]
                if end >= rank.host_time:
                    rank.released_by = chain.number(at)
                if rank.outstanding < limit:
                    rank.stalled = False
                    self._issue(rank, end)
            at += 1
        self.deferring = deferred

    def _refill(self, chain: Chain, filling: Chain, at: int, place: int) -> int:
        """As ops from ``at`` on end, the stalled host issues more of the chain that it is filling; the next place.

        NOTE: as ``_issue`` and ``_fill`` op by op; in large steps nearly every op is issued here.
        """
        rank, kernels, ends, first = chain.rank, chain.template.kernels, chain.ends, chain.first
        shift = chain.base - first
        limit, clock, outstanding, by = self.plan.launch_queue, rank.host_time, rank.outstanding, rank.released_by
        launched, held, template = filling.launched, filling.held, filling.template
        launch, rest, more = template.launch, template.rest, template.kernels
        number, count, end = len(launched), len(launch), 0.0
        ended = zip(kernels[at:place], ends[at - first : place - first], strict=True)
        for freed, end in ended:
            outstanding -= freed
            if end >= clock:
                by, clock = at + shift, end
            at += 1
            while outstanding < limit and number < count:
                clock += launch[number]
                launched.append(clock)
                held.append(by)
                clock += rest[number]
                outstanding += more[number]
                number += 1
            if number == count:
                break
        rank.host_time, rank.outstanding, rank.released_by = clock, outstanding, by
        if number == count:
            rank.stalled = False
            self._filled(rank, filling)
            self._issue(rank, end)
        return at

    # -- the end, or somebody asks ----------------------------------------------------------------------------------

    def _chain_end(self, timer: Timer) -> None:
        """All that was laid out has ended."""
        chain: Chain = timer.of
        if chain.event is not timer:
            return
        now = self.last_end = self.env._now
        members = chain.together or (chain,)
        for one in members:
            if one.inner is not None:  # what others wait for ends at this very instant
                self._inner_ended(one, now)
        if chain.event is not timer:  # one of those asked for what it has
            return
        ended = [(one, one.at) for one in members]
        for one, _ in ended:
            one.at = one.last
            self._inner_done(one, one.last)
            self._record_ops(one)
            self._lift(one)
        for one, at in ended:
            if one.last - 1 > at:
                self._host_catches_up(one, at, one.last - 1)
        self._go_on_together([(self._last_run(one), one) for one, _ in ended], now)

    @staticmethod
    def _last_run(chain: Chain) -> Run | None:
        """The last op that was laid out, if it is a run of its own; it has ended."""
        run = chain.known.pop(chain.last - 1, None)
        if run is not None:
            run.done, run.span = True, chain.last_span
        return run

    def _take_up(self, chain: Chain, now: float) -> None:
        """Somebody asks for a resource of a chain: the op under way goes on as a run of its own."""
        if chain.together:
            self._part(chain, now)
        if chain.event is not None:
            self._settle(chain, now, chain.last - 1)
        if chain.event is None:  # it met others, or the host's catching up had somebody else ask for it
            return
        place = chain.at
        cause, span, ready = self._why(chain, place)
        end = chain.ends[place - chain.first]
        resumed = chain.resumed if place == chain.first else None
        beside = chain.slowed is not None
        self._record_ops(chain)
        self._lift(chain)
        run = chain.run_at(place)
        if resumed is None:
            run.cause, run.cause_span = cause, span
            run.ready = run.start = ready
            begin = ready + run.op.latency
            if ready > now:  # it still waits for its launch
                run.callbacks = self.on_launched
                heappush(self.queue, (ready, NORMAL, next(self.eid), run))
                return
            if begin > now:
                run.callbacks = self.on_demand
                heappush(self.queue, (begin, NORMAL, next(self.eid), run))
                return
            run.left = self._stretched(run, begin) if run.op.reach > 0.0 else run.op.duration
            run.last = begin
        if beside:
            self._bring_up(chain, run, run.last, now)
        self._take(run, end, now)

    def _take(self, run: Run, end: float, now: float) -> None:
        """A run takes its resources until ``end``, or until a solve says otherwise; its ``left`` is the caller's."""
        run.speed, run.binder = 1.0, -1
        run.end_event = timer = Timer(run, self.on_timer)
        for r, share in run.loads:
            self.load[r] += share
            self.users[r][run] = share
            if self.load[r] > FULL:
                self.dirty[r] = None
                run.end_event = None
        if run.end_event is None:
            self._want_solve(run, now)
        else:
            heappush(self.queue, (end, NORMAL, next(self.eid), timer))

    # -- others that wait for an inner op ----------------------------------------------------------------------------

    def _plan_inner(self, chain: Chain) -> None:
        """Have an event at the end of the next op, but for the last, that others wait for."""
        place = min([k for k, run in chain.known.items() if run.dependents and k >= chain.at], default=chain.last)
        if place < chain.last - 1 and (chain.inner is None or place < chain.inner_at):
            chain.inner_at = place
            chain.inner = timer = Timer(chain, self.on_inner)
            heappush(self.queue, (chain.ends[place - chain.first], NORMAL, next(self.eid), timer))

    def _inner_event(self, timer: Timer) -> None:
        chain: Chain = timer.of
        if chain.inner is timer:
            self._inner_ended(chain, self.env._now)
            if chain.event is not None:
                self._plan_wake(chain)

    def _inner_ended(self, chain: Chain, now: float) -> None:
        """Those that waited for it go; the chain goes on."""
        run = chain.known[chain.inner_at]
        place = chain.inner_at
        chain.inner, chain.inner_at = None, len(chain.template.ops)
        self._settle(chain, now, place + 1)
        self._pass_on(run, now)
        if chain.event is not None:
            self._plan_inner(chain)

    # -- ops that cannot wait for the chain's end -------------------------------------------------------------------

    def _plan_wake(self, chain: Chain) -> None:
        """Have an event where the host will issue an op that may begin before the chain ends."""
        place = wake_place(chain, self.plan.launch_queue, self.arrived)
        chain.wake = None
        if place >= 0:
            chain.wake = timer = Timer(chain, self.on_wake)
            heappush(self.queue, (chain.ends[place - chain.first], NORMAL, next(self.eid), timer))

    def _wake(self, timer: Timer) -> None:
        chain: Chain = timer.of
        if chain.wake is timer:
            self._settle(chain, self.env._now, chain.last - 1)
            if chain.event is not None:
                self._plan_wake(chain)
