"""The meaning of a plan, as plainly as it can be put: an oracle for the engine that shares no code with it.

Every instant looks at every op; speeds come from bisection on the common level. Quadratic and slow, on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(eq=False)
class Item:
    """One op of one action of one rank."""

    op: object
    key: tuple[int, int]  # row, action
    before: list[Item] = field(default_factory=list)
    launched: float | None = None
    ready: float | None = None
    start: float | None = None
    end: float | None = None


@dataclass(eq=False)
class Activity:
    """What the members of a rendezvous (or one op) do together."""

    members: list[Item]
    begins: float
    left: float

    def __post_init__(self):
        self.op = self.members[0].op
        # kernels that wait for launches ask for as much in all, over the longer time
        thin = self.op.duration / self.left if self.left > self.op.duration else 1.0
        self.loads = [(r, load * thin) for r, load in self.op.loads if thin > 0.0]


def programs_of(plan):
    """Each rank's ops in the order of issue, with everything that each waits for."""
    programs = []
    for rank in plan.ranks:
        items, last, signalled = [], {}, {}
        for action, (block, _) in enumerate(rank.actions):
            first = len(items)
            for op in rank.blocks[block]:
                item = Item(op, (op.row, action))
                item.before += [last[op.stream]] if op.stream in last else []
                item.before += [items[first + d] for d in op.deps] + [signalled[t] for t in op.waits]
                last[op.stream] = item
                signalled.update(dict.fromkeys(op.signals, item))
                items.append(item)
        programs.append(items)
    return programs


def used(running, speeds):
    """Share of each resource that is taken."""
    total = {}
    for a, s in zip(running, speeds, strict=True):
        for r, load in a.loads:
            total[r] = total.get(r, 0.0) + load * s
    return total


def water(running):
    """Max-min speeds: raise one level by bisection, freeze whoever meets a full resource, go on with the others."""
    speeds = [None] * len(running)

    def at(level):
        return [min(1.0, a.op.weight * level) if s is None else s for a, s in zip(running, speeds, strict=True)]

    while None in speeds:
        low, high = 0.0, max(1.0 / a.op.weight for a in running)
        if all(total <= 1.0 + 1e-12 for total in used(running, at(high)).values()):
            return at(high)
        for _ in range(55):
            middle = (low + high) / 2
            fits = all(total <= 1.0 + 1e-12 for total in used(running, at(middle)).values())
            low, high = (middle, high) if fits else (low, middle)
        now = at(low)
        full = [r for r, total in used(running, now).items() if total >= 1.0 - 1e-9]
        for i, a in enumerate(running):
            if speeds[i] is None and any(r in full for r, _ in a.loads):
                speeds[i] = now[i]
    return speeds


class Reference:
    """Runs a plan; ``contended=False`` gives every activity full speed: the longest path of the program."""

    def __init__(self, plan, contended=True):
        self.plan, self.contended = plan, contended
        self.programs = programs_of(plan)
        self.clock = [0.0] * len(plan.ranks)  # when each host is free
        self.activities = []
        self.now = 0.0

    def run(self):
        """(row, action) -> (launched, ready, start, end)."""
        while True:
            while self._step():
                pass
            running = [a for a in self.activities if a.begins <= self.now]
            speeds = water(running) if self.contended else [1.0] * len(running)
            ends = [self.now + a.left / s for a, s in zip(running, speeds, strict=True)]
            issued = [i for items in self.programs for i in items if i.launched is not None]
            later = [a.begins for a in self.activities] + [i.launched for i in issued]
            nexts = ends + [t for t in later if t > self.now]
            if not nexts:
                break
            then = min(nexts)
            for a, s, end in zip(running, speeds, ends, strict=True):
                a.left = 0.0 if end <= then * (1 + 1e-14) else a.left - (then - self.now) * s
            self.now = then
        items = [i for items in self.programs for i in items]
        return {i.key: (i.launched, i.ready, i.start, i.end) for i in items}

    def _step(self):
        """Do whatever can be done at this instant; whether anything was."""
        issued = [self._issue(r) for r in range(len(self.programs))]
        return any([*issued, self._make_ready(), self._meet(), self._end()])

    def _issue(self, rank):
        items = self.programs[rank]
        issued = [i for i in items if i.launched is not None]
        unfinished = [i for i in issued if i.end is None]
        full = sum(i.op.kernels for i in unfinished) >= self.plan.launch_queue
        if len(issued) == len(items) or full or any(i.op.sync for i in unfinished):
            return False
        item = items[len(issued)]
        item.launched = max(self.clock[rank], self.now) + item.op.launch
        self.clock[rank] = item.launched + item.op.launch_rest
        return True

    def _make_ready(self):
        found = [
            i
            for items in self.programs
            for i in items
            if i.ready is None and i.launched is not None and i.launched <= self.now
            and all(b.end is not None for b in i.before)
        ]  # fmt: skip
        for i in found:
            i.ready = self.now
        return bool(found)

    def _meet(self):
        here = [i for items in self.programs for i in items if i.ready is not None and i.start is None]
        sets = [[i] for i in here if i.op.group < 0]
        for group, size in enumerate(self.plan.group_sizes):
            members = [i for i in here if i.op.group == group]
            sets += [members] if len(members) == size else []
        for members in sets:
            for i in members:
                i.start = self.now
            op, begins = members[0].op, self.now + members[0].op.latency
            pull = members[0].launched + op.reach - begins if op.reach else 0.0  # of the launches after the first
            self.activities.append(Activity(members, begins, max(op.duration, pull)))
        return bool(sets)

    def _end(self):
        done = [a for a in self.activities if a.begins <= self.now and a.left <= 0.0]
        for a in done:
            self.activities.remove(a)
            for i in a.members:
                i.end = self.now
        return bool(done)
