"""Chains of several ranks laid out together: members of a process group that are in step.

Owns when they are (``_lay_together``) and what becomes of them when somebody asks for a resource of one (``_part``).

When members of a group end an op together, and each goes on with the same ops until they next meet, they will come
there at the same instant, and so on until the chain ends: all their times are one sum. So it is with tensor parallelism
when every rank is simulated. The times are compared, not assumed: ranks of different speeds, or with an unlike message
under way, have one event after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappush

from sim.engine.beside import NEVER, ends_beside, paces
from sim.engine.booking import Booking
from sim.engine.chains import Chain, Template
from sim.engine.ends import free_ends, in_time
from sim.engine.state import LAST, NORMAL, Callbacks, Rank, Run, Timer
from sim.plan import Plan


class Lockstep(Booking):
    """Chains laid out together and parted."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.heads: list[list[Run]] = [[] for _ in plan.group_sizes]  # chains about to be launched, by whom they meet
        self.hosts: dict[object, Chain] = {}  # one of those that got guests at this instant, by the end they share
        self.wide: dict[tuple[Template, ...], tuple[int, ...] | None] = {}  # by the chains that go together
        self.on_head: Callbacks = (self._head,)
        self.on_guests: Callbacks = (self._guests_came,)

    @staticmethod
    def _find_twins(ranks: Sequence[Rank]) -> None:
        """Give the same number to chains of ranks that meet if all their steps are the same."""
        twins: dict[tuple[object, ...], int] = {}
        for unit in (unit for rank in ranks for block in rank.units for unit in block):
            if isinstance(unit, Template) and unit.group >= 0:
                reach = tuple([op.reach for op in unit.ops])
                unit.twin = twins.setdefault((unit.group, tuple(unit.until), tuple(unit.steps), reach), len(twins))

    def _set_off_together(self, head: Run, now: float) -> None:
        """A chain is about to be launched: with the others of its group, if they are at the same instant."""
        group = head.chain.template.group if head.chain else -1
        heads = [other for other in self.heads[group] if other.launched == head.launched and other.rank.laid is None]
        self.heads[group] = heads
        heads.append(head)
        if len(heads) == self.plan.group_sizes[group]:
            heads_of = [run.chain for run in heads]
            self.heads[group] = []
            chains = [chain for chain in heads_of if chain is not None]
            if len(chains) == len(heads) and self._lay_together(chains, head.launched):
                for run in heads:
                    run.end_event = None  # what would have launched it is stale
                for chain in chains[:-1]:  # its own host, the last, looks for itself
                    self._plan_wake(chain)
                return
        head.end_event = timer = Timer(head, self.on_head)
        heappush(self.queue, (head.launched, NORMAL, next(self.eid), timer))

    def _head(self, timer: Timer) -> None:
        run: Run = timer.of
        if run.end_event is timer:
            run.end_event = None
            self._launched(run)

    def _lay_together(self, chains: Sequence[Chain], now: float) -> bool:
        """Lay out what is issued of chains whose members have just ended an op together, or are about to be launched.

        ``now``: when all are ready. False where they may not go on together.
        """
        lead = chains[0]
        first, twin = lead.at, lead.template.twin
        if any(c.template.twin != twin or c.at != first or c.rank.laid is not None for c in chains):
            return False
        last = min([len(chain.launched) for chain in chains])
        wide = self._wide(chains)
        if last == first or wide is None or any(self.users[r] or self.owner[r] for r in wide):
            return False
        lead.resumed = None
        ends = free_ends(lead, first, last, now)
        guests: list[Run] = []
        for chain in chains:
            chain.resumed = None
            there = self._guests(chain, None)
            if there is None or chain.launched[first] > now or not in_time(chain, first, ends, now):
                return False
            guests += there
        if guests and not (len(guests) == len(chains) and self._go_beside(chains, guests, ends, now)):
            return False
        for chain in chains:
            head = chain.known[0] if first == 0 else None
            chain.ready, chain.cause, chain.cause_span = now, chain.template.causes[first], chain.last_span
            if head is not None:
                chain.cause, chain.cause_span = head.cause, head.cause_span
        self._set_out(chains, ends, guests, (now, None), wide)
        return True

    def _wide(self, chains: Sequence[Chain]) -> tuple[int, ...] | None:
        """Resources that none of the chains takes but what they do together; None if two take one, and may contend."""
        templates = tuple([chain.template for chain in chains])
        if templates not in self.wide:
            own = [r for template in templates for r in template.footprint]
            others = dict.fromkeys(r for template in templates for r in template.wide if r not in own)
            self.wide[templates] = tuple(others) if len(set(own)) == len(own) else None
        return self.wide[templates]

    def _go_beside(self, chains: Sequence[Chain], guests: Sequence[Run], ends: list[float], now: float) -> bool:
        """Whether each chain may be beside its guest, all in the same way."""
        there = zip(chains, guests, strict=True)
        return _alike(chains, guests) and all(self._may_be_beside(chain, guest, ends, now) for chain, guest in there)

    def _set_out(
        self, chains: Sequence[Chain], ends: list[float], guests: Sequence[Run], start: tuple[float, float | None],
        wide: Sequence[int],
    ) -> None:  # fmt: skip
        """All go on, each beside its guest if there are any, with one event at the end of all.

        ``start``: when the op they are at is ready, and None; or the present and what is left of it.
        """
        first, last, lead = chains[0].at, chains[0].at + len(ends), chains[0]
        slowed, window = None, NEVER
        pace = paces(lead.template, guests[0]) if guests else None
        if pace is not None:
            window = guests[0].last, guests[0].last + guests[0].left
            ends, slowed = ends_beside(lead.template, pace, (first, last), start, window)
        timer = Timer(lead, self.on_chain_end)
        together = tuple(chains)
        for number, chain in enumerate(chains):
            chain.odd, chain.window, chain.slowed = None, window, None
            if slowed is not None:
                guest = chain.guest = guests[number]
                chain.paces = pace = paces(chain.template, guest)
                assert pace is not None, "a guest that would itself be slowed"
                chain.slowed = {place: (pace.binders[place], seconds) for place, (_, seconds) in slowed.items()}
                guest.hosts = (*guest.hosts, chain)
            chain.event, chain.together = timer, together
            self._occupy(chain, first, ends)
            if number:
                chain.lead = lead.base
        lead.wide = wide
        for r in wide:
            self.owner[r] = lead
        heappush(self.queue, (ends[-1], NORMAL, next(self.eid), timer))
        for chain in chains:
            self._plan_inner(chain)

    # -- guests come ------------------------------------------------------------------------------------------------

    def _await_guests(self, chain: Chain, run: Run, now: float) -> None:
        """One of the chains has a guest. At the end of this instant it will be known whether each has one."""
        chain.guest = run
        run.hosts = (*run.hosts, chain)
        if not self.hosts:
            heappush(self.queue, (now, LAST, next(self.eid), Timer(run, self.on_guests)))
        self.hosts[chain.event] = chain

    def _guests_came(self, _: Timer) -> None:
        hosts, now = self.hosts, self.env._now
        self.hosts = {}
        for event, chain in hosts.items():
            if chain.event is event and not self._go_on_beside(chain, now) and chain.event is event:
                self._part(chain, now)

    def _go_on_beside(self, chain: Chain, now: float) -> bool:
        """Chains that are laid out together go on so beside their guests; False where not all have the like."""
        event, members = chain.event, chain.together
        guests = [one.guest for one in members if one.guest is not None]
        if len(guests) < len(members) or not _alike(members, guests):
            return False
        for one in members:
            self._settle_all(one, now)
            if one.event is not event:
                return False
        lead, wide, last = members[0], members[0].wide, chain.last
        for one in members:
            self._pause(one, now)
            self._lift(one)
        ready = lead.ready if lead.resumed is None else now
        left = None if lead.resumed is None else lead.resumed.left
        ends = lead.ends[lead.at - lead.first :]
        assert len(ends) == last - lead.at
        self._set_out(members, ends, guests, (ready, left), wide)
        for one in members:
            self._plan_wake(one)
        return True

    def _settle_all(self, chain: Chain, now: float) -> None:
        """As ``_settle``, and past what others wait for if that has ended: members have to be at one place."""
        event = chain.event
        self._settle(chain, now, chain.last - 1)
        while chain.event is event and chain.inner is not None and chain.ends[chain.inner_at - chain.first] <= now:
            self._inner_ended(chain, now)
            if chain.event is event:
                self._settle(chain, now, chain.last - 1)

    # -- somebody asks ----------------------------------------------------------------------------------------------

    def _part(self, chain: Chain, now: float) -> None:
        """Each goes on by itself to where they next meet; an op that they do together goes on as one run."""
        event, members = chain.event, chain.together
        for one in members:
            self._settle_all(one, now)
            if one.event is not event:  # the host's catching up had somebody else ask for it
                return
        place = chain.at
        if chain.template.ops[place].group >= 0:
            self._meet_again(members, place, now)
            return
        for one in members:
            guest = one.guest
            self._pause(one, now)
            self._lift(one)
            self._lay_out(one, place, now if one.resumed is not None else one.ready, guest)
        for one in members:
            if one.event is not None:
                self._plan_wake(one)

    def _meet_again(self, members: Sequence[Chain], place: int, now: float) -> None:
        """The op that is under way, of all members, is a run of its own again."""
        runs = []
        end = members[0].ends[place - members[0].first]
        resumed = members[0].resumed if place == members[0].first else None
        for chain in members:
            cause, span, ready = self._why(chain, place)
            self._record_ops(chain)
            self._lift(chain)
            run = chain.run_at(place)
            run.cause, run.cause_span = cause, span
            run.ready = run.start = ready
            runs.append(run)
        lead = runs[0]
        lead.peers = tuple(runs[1:])
        if resumed is None:
            begin = lead.ready + lead.op.latency
            if begin > now:
                lead.callbacks = self.on_demand
                heappush(self.queue, (begin, NORMAL, next(self.eid), lead))
                return
            lead.left, lead.last = lead.op.duration, begin
        self._take(lead, end, now)


def _alike(chains: Sequence[Chain], guests: Sequence[Run]) -> bool:
    """Whether guests have the same times and take the same of their chains, and nothing of what these do together."""
    if any(guest.last != guests[0].last or guest.left != guests[0].left for guest in guests):
        return False
    found = [paces(chain.template, guest) for chain, guest in zip(chains, guests, strict=True)]
    first = found[0]
    if first is None or not first.meets_unslowed:
        return False
    return all(pace is not None and pace.speeds == first.speeds for pace in found)
