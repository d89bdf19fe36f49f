"""From the engine's record to columns: the one place that knows the order of a recorded row.

Spans come one by one, or as several ops of a chain at once: of those only ends and launches are written, since each
begins when the one before it ends. What differs from that is ``odd``.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.timeline.columns import Contended, Spans

COLUMNS = ("number", "op", "action", "microbatch", "launched", "ready", "start", "end", "cause", "cause_span", "peer")
"""Order of the numbers of one span in the record. All are exact as doubles: counts stay far below 2^53."""

Numbers = NDArray[np.int32]


class Record:
    """What the engine writes down, span by span.

    A span has its number from the moment when its end is first known; a cause has a lower one than its effect. Of
    ``spans`` numbers some stay unused: those of spans whose ends were known too early.

    ``single`` has ``len(COLUMNS)`` doubles a span. ``of`` has (number of the first span, spans, action, microbatch,
    number of the first span of the chain that leads those it goes together with, or -1) of several ops of a chain;
    ``rows``, ``launched`` and ``ends`` an entry a span of those. ``odd`` has (span, cause, span of the cause, ready) of
    spans that did not begin because the one written before them had ended. ``slowed`` has (span, resource, seconds
    below full speed).
    """

    __slots__ = ("ends", "launched", "odd", "of", "rows", "single", "slowed", "spans")

    def __init__(self) -> None:
        self.spans = 0
        self.single = array("d")
        self.of = array("q")
        self.odd = array("d")
        self.slowed = array("d")
        self.rows = array("i")
        self.launched = array("d")
        self.ends = array("d")

    def chain(self, rows: array[int], launched: Sequence[float], ends: Sequence[float]) -> None:
        """Several ops one after another; their numbers, ``of`` and ``odd`` are the caller's."""
        self.rows.extend(rows)
        self.launched.extend(launched)
        self.ends.extend(ends)


def spans_from(record: Record, causes: Sequence[int], meets: Sequence[bool]) -> tuple[Spans, Numbers]:
    """Columns in order of end, and each recorded number's place there.

    ``causes`` and ``meets`` are by op: why in a chain it is ready, and whether others are met there.

    Spans that end at one instant stay in the order of their numbers, in which a cause is before its effect.
    NOTE: one column after another, each freed when it is in its place: where every rank is simulated there are tens of
    millions of spans, and the step's memory is highest here.
    """
    table = _table(record.single, np.float64, len(COLUMNS))
    single = table[:, 0].astype(np.int32)
    chained = _Chained(record, np.array(causes, dtype=np.int8), np.array(meets, dtype=bool))
    end = np.full(record.spans, np.inf)  # a number that is not used comes last
    end[single], end[chained.numbers] = table[:, COLUMNS.index("end")], chained.end
    count = len(single) + len(chained.numbers)
    order = np.argsort(end, kind="stable")[:count]
    place = np.full(record.spans, -1, dtype=np.int32)
    place[order] = np.arange(count, dtype=np.int32)
    end = end[order]
    del order
    single, to = place[single], place[chained.numbers]

    def column(name: str, kind: type) -> NDArray[Any]:
        values: NDArray[Any] = np.empty(count, dtype=kind)
        values[single], values[to] = table[:, COLUMNS.index(name)], getattr(chained, name)()
        return values

    def moved(name: str) -> NDArray[np.int64]:  # recorded numbers as places; -1 stays
        numbers = column(name, np.int64)
        return np.where(numbers >= 0, place[numbers], -1).astype(np.int64) if count else numbers

    return Spans(
        peer=moved("peer"),
        cause=column("cause", np.int8),
        cause_span=moved("cause_span"),
        op=column("op", np.int32),
        action=column("action", np.int32),
        microbatch=column("microbatch", np.int32),
        launched=column("launched", np.float64),
        ready=column("ready", np.float64),
        start=column("start", np.float64),
        end=end,
    ), place


class _Chained:
    """The spans recorded as chains: their numbers and ends, and a method for each other column."""

    def __init__(self, record: Record, causes: NDArray[np.int8], meets: NDArray[np.bool_]) -> None:
        self.record = record
        self.causes, self.meets = causes, meets
        of = _table(record.of, np.int64, 5)
        self.first, self.count, self.actions, self.microbatches, self.lead = of.T
        begins = np.cumsum(self.count) - self.count
        self.end = _table(record.ends, np.float64)
        self.numbers = np.arange(len(self.end), dtype=np.int32)
        self.numbers += np.repeat((self.first - begins).astype(np.int32), self.count)
        span, self.why, self.after, self.when = _table(record.odd, np.float64, 4).T
        by_number = np.argsort(self.first, kind="stable")
        chain = by_number[np.searchsorted(self.first[by_number], span, side="right") - 1]
        self.odd = begins[chain] + span.astype(np.int64) - self.first[chain]

    def op(self) -> NDArray[np.int32]:
        return _table(self.record.rows, np.int32)

    def action(self) -> NDArray[np.int64]:
        return np.repeat(self.actions, self.count)

    def microbatch(self) -> NDArray[np.int64]:
        return np.repeat(self.microbatches, self.count)

    def launched(self) -> NDArray[np.float64]:
        return _table(self.record.launched, np.float64)

    def ready(self) -> NDArray[np.float64]:
        """When the one before ended, or as recorded."""
        ready = np.empty_like(self.end)
        ready[1:] = self.end[:-1]
        ready[self.odd] = self.when
        return ready

    def start(self) -> NDArray[np.float64]:
        return self.ready()

    def cause(self) -> NDArray[np.int8]:
        cause = self.causes[self.op()] if len(self.end) else np.zeros(0, dtype=np.int8)
        cause[self.odd] = self.why
        return cause

    def cause_span(self) -> NDArray[np.int32]:
        span = self.numbers - np.int32(1)
        span[self.odd] = self.after
        return span

    def peer(self) -> NDArray[np.int32]:
        """Numbers of the spans of those who came last where others were met; -1 where none were, or it was itself."""
        shift = np.repeat(np.where(self.lead < 0, 0, self.lead - self.first).astype(np.int32), self.count)
        meets = self.meets[self.op()] if len(self.end) else np.zeros(0, dtype=bool)
        return np.where(meets & (shift != 0), self.numbers + shift, np.int32(-1))


def _table(values: array[Any], kind: type, width: int = 0) -> NDArray[Any]:
    """Recorded numbers as they lie there; ``width`` columns, or one."""
    found: NDArray[Any] = np.frombuffer(values, dtype=kind) if len(values) else np.zeros(0, dtype=kind)
    return found.reshape(-1, width) if width else found


def contended_from(record: Record, place: Numbers) -> Contended:
    """What slowed spans, by their places in the timeline."""
    span, resource, seconds = _table(record.slowed, np.float64, 3).T
    return Contended(
        place[span.astype(np.int64)].astype(np.int64), resource.astype(np.int64), np.ascontiguousarray(seconds)
    )
