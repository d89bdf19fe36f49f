"""A full launch queue: which of the ops that end make room for which of those that the host has still to launch.

Pure; knows kernels and seconds of the host, and nothing of the engine's clock.
"""

from __future__ import annotations

from collections.abc import Sequence


class Turn:
    """Ops end in turn and free kernels in a full launch queue; others are issued as soon as there is room for them.

    ``freed``: kernels of those that end; ``asked``: (kernels, seconds of the launch, of the rest) of the others. An op
    is issued once fewer than ``limit`` kernels are outstanding, as CUDA's queue takes launches. It is over when all
    that asked are issued: ``ended`` have ended by then. ``issued``: of each op the place in ``freed`` of the one that
    made room, and how long after its end it is launched by a host that is idle then; ``busiest``: the longest that one
    end keeps the host, ``last``: the last one.
    """

    __slots__ = ("busiest", "ended", "issued", "last", "outstanding")

    def __init__(
        self, freed: Sequence[int], asked: Sequence[tuple[int, float, float]], outstanding: int, limit: int
    ) -> None:
        self.issued: list[tuple[int, float]] = []
        self.busiest = self.last = 0.0
        todo = iter(asked)
        left = len(asked)
        for index, kernels in enumerate(freed):
            outstanding -= kernels
            self.last = 0.0
            while outstanding < limit and left:
                more, launch, rest = next(todo)
                outstanding += more
                left -= 1
                self.issued.append((index, self.last + launch))
                self.last += launch + rest
            self.busiest = max(self.busiest, self.last)
            if not left:
                break
        self.ended = index + 1
        self.outstanding = outstanding
