"""When the host launched the ops of a chain, and a full launch queue: which ops that end let which be launched.

Owns the arithmetic and the memory of it; knows kernels and seconds of the host, and nothing of the engine's clock. In
large steps the queue is always full, so that launches are remembered as "so long after that span's end", many at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Turn:
    """Ops end in turn and free kernels in a full launch queue; others are issued as soon as there is room for them.

    ``freed``: kernels of those that end; ``asked``: (kernels, seconds of the launch, of the rest) of the others. An op
    is issued once fewer than ``limit`` kernels are outstanding, as CUDA's queue takes launches. It is over when all
    that asked are issued: ``ended`` have ended by then. ``issued``: of each op the place in ``freed`` of the one that
    made room, and how long after its end it is launched by a host that is idle then; ``busiest``: the longest that one
    end keeps the host, ``last``: the last one.
    """

    __slots__ = ("begin", "busiest", "ended", "issued", "last", "outstanding")
    begin: int  # of its rows in the record's table

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


class Piece(NamedTuple):
    """Launches of ops from place ``begin`` to ``end`` (exclusive).

    Those of a turn are so long after ``times`` as it says, and were made room for by spans numbered from ``number`` on.
    Without a turn ``times`` are the launches themselves, and ``held`` the spans that the host had waited for.
    """

    begin: int
    end: int
    times: Sequence[float]
    turn: Turn | None = None
    number: int = 0
    held: Sequence[int] = ()

    def at(self, place: int) -> tuple[float, int]:
        """When the op was launched, and the span that the host last waited for before (-1: none)."""
        if self.turn is None:
            return self.times[place - self.begin], self.held[place - self.begin]
        index, after = self.turn.issued[place - self.begin]
        return self.times[index] + after, self.number + index


class Launches:
    """Of the ops of a chain: ``count`` are launched, the last at ``last`` seconds."""

    __slots__ = ("count", "last", "pieces")

    def __init__(self, launched: float, held: int) -> None:
        self.count = 1
        self.last = launched
        self.pieces = [Piece(0, 1, (launched,), held=(held,))]

    def add(self, launched: Sequence[float], held: Sequence[int]) -> None:
        """Ops launched one by one."""
        if launched:
            self.pieces.append(Piece(self.count, self.count + len(launched), launched, held=held))
            self.count += len(launched)
            self.last = launched[-1]

    def add_turn(self, turn: Turn, ends: Sequence[float], number: int) -> None:
        """Ops launched as others ended: at ``ends``, spans numbered from ``number`` on."""
        if turn.issued:
            self.pieces.append(Piece(self.count, self.count + len(turn.issued), ends, turn, number))
            self.count += len(turn.issued)
            self.last = self.pieces[-1].at(self.count - 1)[0]

    def at(self, place: int) -> tuple[float, int]:
        """When an op was launched, and the span that the host last waited for before (-1: none)."""
        return next(piece for piece in self.pieces if place < piece.end).at(place)

    def between(self, first: int, last: int) -> Iterator[tuple[Piece, int, int]]:
        """Pieces with ops from place ``first`` to ``last`` (exclusive), and from where to where."""
        for piece in self.pieces:
            begin, end = max(first, piece.begin), min(last, piece.end)
            if begin < end:
                yield piece, begin, end
