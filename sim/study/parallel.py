"""Many simulations at once, in processes. Owns the pool; knows nothing of what is simulated."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from sim.errors import SteplineError

T = TypeVar("T")
R = TypeVar("R")


def each(
    work: Callable[[T], R], tasks: Sequence[T], jobs: int = 0, *, called: Callable[[T], str] = str, remedy: str = ""
) -> Iterator[tuple[int, R]]:
    """(index of the task, its result) as each is done, by ``jobs`` processes (0: one a core; 1: in this one).

    ``work`` is a function of a module. Few tasks are handed out ahead, so that an interrupt ends soon. ``called`` names
    a task and ``remedy`` says what to do, in the message when a worker dies.

    Raises:
        SteplineError: a worker died; whatever ``work`` raises.
    """
    jobs = min(jobs or os.cpu_count() or 1, max(len(tasks), 1))
    if jobs == 1:
        for index, task in enumerate(tasks):
            yield index, work(task)
        return
    left = list(reversed(range(len(tasks))))
    with ProcessPoolExecutor(jobs) as pool:
        running: dict[Future[R], int] = {}
        try:
            while left or running:
                while left and len(running) < 2 * jobs:
                    index = left.pop()
                    running[pool.submit(work, tasks[index])] = index
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in sorted(finished, key=lambda one: running[one]):
                    yield running.pop(future), future.result()
        except BrokenProcessPool as error:
            lost = "; ".join(called(tasks[index]) for index in running.values())
            msg = (
                f"a worker died (out of memory, or killed) at one of: {lost}; {remedy or 'run it again with --jobs 1'}"
            )
            raise SteplineError(msg) from error
        finally:
            for future in running:
                future.cancel()
