"""Sharing of resources: who uses what, and how fast each goes when a resource is asked for more than it has.

Knows runs and resources; nothing of programs, hosts or streams. Alone on its resources a run's end is known at once;
only the runs around an oversubscribed resource are solved for max-min fair speeds (``fluid``), once an instant.
"""

from __future__ import annotations

from heapq import heappush
from typing import TYPE_CHECKING, Any

import simpy

from sim.engine.fluid import max_min
from sim.engine.state import FULL, LAST, NORMAL, Callbacks, Run, Timer
from sim.plan import Plan

if TYPE_CHECKING:
    from sim.engine.chains import Chain


class Sharing:
    """The loads on every resource, and the SimPy environment in which they change."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.env = simpy.Environment()
        self.queue: list[Any] = self.env._queue
        self.eid = self.env._eid
        self.load = [0.0] * len(plan.resources)
        self.users: list[dict[Run, float]] = [{} for _ in plan.resources]
        self.dirty: dict[int, None] = {}
        self.solve_wanted = False
        self.solves = 0
        self.on_late: Callbacks = (self._late,)
        self.on_timer: Callbacks = (self._timer,)
        self.on_solve: Callbacks = (self._solve,)

    def _demand(self, run: Run, now: float) -> None:
        raise NotImplementedError

    def _finish(self, run: Run) -> None:
        raise NotImplementedError

    def _take_up(self, chain: Chain, now: float) -> None:
        raise NotImplementedError

    def _resume(self, run: Run, now: float) -> bool:
        raise NotImplementedError

    def _timer(self, timer: Timer) -> None:
        run = timer.of
        if run.end_event is timer:
            self._progress_run(run, self.env._now)
            self._finish(run)

    def _unbook(self, run: Run) -> None:
        """Give back what was booked through a latency that is not over; the demand comes when it is."""
        for r, share in run.loads:
            del self.users[r][run]
            self.load[r] = self.load[r] - share if self.users[r] else 0.0
        run.end_event = None
        heappush(self.queue, (run.last, NORMAL, next(self.eid), Timer(run, self.on_late)))

    def _late(self, timer: Timer) -> None:
        self._demand(timer.of, self.env._now)

    def _want_solve(self, run: Run, now: float) -> None:
        if not self.solve_wanted:
            self.solve_wanted = True
            heappush(self.queue, (now, LAST, next(self.eid), Timer(run, self.on_solve)))

    def _solve(self, _: Timer) -> None:
        """Re-share the full resources that changed at this instant, and those they are connected to."""
        self.solve_wanted = False
        now = self.env._now
        parts = self._components()
        while hosts := [chain for part in parts for run in part for chain in run.hosts if chain.guest is run]:
            for chain in hosts:  # their guest may not keep its speed
                self._take_up(chain, now)
            parts = self._components()
        booked = [run for part in parts for run in part if run.last > now]
        if booked:
            for run in booked:
                self._unbook(run)
            parts = [[run for run in part if run.last <= now] for part in self._components()]
        self.dirty.clear()
        free: list[tuple[Run, Timer]] = []
        for part in parts:
            if part:
                self._share(part, now, free)
        for run, timer in free:  # now that all speeds are known
            if not self._resume(run, now):
                heappush(self.queue, (now + run.left, NORMAL, next(self.eid), timer))

    def _share(self, runs: list[Run], now: float, free: list[tuple[Run, Timer]]) -> None:
        """New speeds of runs that share full resources; ops of chains that are at full speed again go to ``free``."""
        load = self.load
        self.solves += 1
        loads = [[(r, share) for r, share in run.loads if load[r] > FULL and share > 0.0] for run in runs]
        speeds, binders = max_min(loads, [run.op.weight for run in runs])
        for run, speed, binder in zip(runs, speeds, binders, strict=True):
            if speed == run.speed and run.end_event is not None:
                if binder != run.binder:  # as fast as before, but for another reason: the seconds so far are not its
                    self._progress_run(run, now)
                    run.binder = binder
                continue
            self._progress_run(run, now)
            run.speed, run.binder = speed, binder
            run.end_event = timer = Timer(run, self.on_timer)
            if speed == 1.0 and run.chain is not None:
                free.append((run, timer))
            else:
                heappush(self.queue, (now + run.left / speed, NORMAL, next(self.eid), timer))

    def _components(self) -> list[list[Run]]:
        """Runs that share a full resource with a changed one, directly or through others; each component by itself."""
        found: dict[Run, None] = {}
        seen: dict[int, None] = {}
        parts = []
        for changed in self.dirty:
            if changed in seen:
                continue
            part, todo = [], [changed]
            seen[changed] = None
            while todo:
                for run in self.users[todo.pop()]:
                    if run in found:
                        continue
                    found[run] = None
                    part.append(run)
                    for r, _ in run.loads:
                        if r not in seen and self.load[r] > FULL:
                            seen[r] = None
                            todo.append(r)
            parts.append(part)
        return parts

    @staticmethod
    def _progress_run(run: Run, now: float) -> None:
        """Account for the time since the run's speed last changed."""
        elapsed = now - run.last
        run.left = max(run.left - elapsed * run.speed, 0.0)
        run.last = now
        if run.binder >= 0 and elapsed > 0.0:
            if run.bound is None:
                run.bound = {}
            run.bound[run.binder] = run.bound.get(run.binder, 0.0) + elapsed
