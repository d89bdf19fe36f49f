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

from sim.timeline.columns import Spans

COLUMNS = ("number", "op", "action", "microbatch", "launched", "ready", "start", "end", "cause", "cause_span", "peer")
"""Order of the numbers of one span in the record. All are exact as doubles: counts stay far below 2^53."""

Column = NDArray[np.float64]


class Record:
    """What the engine writes down, span by span.

    A span has its number from the moment when its end is first known; a cause has a lower one than its effect. Of
    ``spans`` numbers some stay unused: those of spans whose ends were known too early.

    ``single`` has ``len(COLUMNS)`` doubles a span. ``of`` has (number of the first span, spans, action, microbatch)
    of several ops of a chain; ``rows``, ``launched`` and ``ends`` an entry a span of those. ``odd`` has (span, cause,
    span of the cause, ready) of spans that did not begin because the one written before them had ended.
    """

    __slots__ = ("ends", "launched", "odd", "of", "rows", "single", "spans")

    def __init__(self) -> None:
        self.spans = 0
        self.single = array("d")
        self.of = array("q")
        self.odd = array("d")
        self.rows = array("i")
        self.launched = array("d")
        self.ends = array("d")

    def chain(self, rows: array[int], launched: Sequence[float], ends: Sequence[float]) -> None:
        """Several ops one after another; their numbers, ``of`` and ``odd`` are the caller's."""
        self.rows.extend(rows)
        self.launched.extend(launched)
        self.ends.extend(ends)


def spans_from(record: Record, causes: Sequence[int]) -> tuple[Spans, NDArray[np.int64]]:
    """Columns in order of end, and each recorded number's place there. ``causes`` is by op: why in a chain it is ready.

    Spans that end at one instant stay in the order of their numbers, in which a cause is before its effect.
    """
    table = np.frombuffer(record.single, dtype=np.float64) if len(record.single) else np.zeros(0)
    table = table.reshape(-1, len(COLUMNS))
    numbers = table[:, 0].astype(np.int64)
    written = {name: table[:, index] for index, name in enumerate(COLUMNS)}
    chained, chain = _chained(record, np.array(causes, dtype=np.int8))
    count = len(numbers) + len(chained)
    end = np.full(record.spans, np.inf)  # a number that is not used comes last
    end[numbers], end[chained] = written["end"], chain["end"]
    order = np.argsort(end, kind="stable")[:count]
    place = np.full(record.spans, -1, dtype=np.int64)
    place[order] = np.arange(count)
    numbers, chained = place[numbers], place[chained]

    def column(name: str, kind: type) -> NDArray[Any]:
        values: NDArray[Any] = np.empty(count, dtype=kind)
        values[numbers], values[chained] = written[name], chain[name]
        return values

    return Spans(
        op=column("op", np.int32),
        action=column("action", np.int32),
        microbatch=column("microbatch", np.int32),
        launched=column("launched", np.float64),
        ready=column("ready", np.float64),
        start=column("start", np.float64),
        end=end[order],
        cause=column("cause", np.int8),
        cause_span=moved(column("cause_span", np.int64), place),
        peer=moved(column("peer", np.int64), place),
    ), place


def moved(numbers: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.int64]:
    """Recorded numbers as places; -1 stays."""
    return np.where(numbers >= 0, place[numbers], -1) if len(place) else numbers


def _chained(record: Record, causes: NDArray[np.int8]) -> tuple[NDArray[np.int64], dict[str, NDArray[np.generic]]]:
    """Numbers of the spans recorded as chains, and their columns."""
    first, count, action, microbatch = np.array(record.of, dtype=np.int64).reshape(-1, 4).T
    begins = np.cumsum(count) - count
    numbers = np.arange(len(record.ends)) + np.repeat(first - begins, count)
    op, end = np.array(record.rows, dtype=np.int32), np.array(record.ends)
    ready = np.concatenate([np.zeros(1), end])[: len(end)]  # when the one before ended
    cause = causes[op] if len(op) else np.zeros(0, dtype=np.int8)
    cause_span = numbers - 1
    span, why, after, when = np.array(record.odd).reshape(-1, 4).T
    by_number = np.argsort(first, kind="stable")
    of = by_number[np.searchsorted(first[by_number], span, side="right") - 1]
    entry = begins[of] + span.astype(np.int64) - first[of]
    ready[entry], cause[entry], cause_span[entry] = when, why, after
    return numbers, {
        "op": op,
        "action": np.repeat(action, count),
        "microbatch": np.repeat(microbatch, count),
        "launched": np.array(record.launched),
        "ready": ready,
        "start": ready,
        "end": end,
        "cause": cause,
        "cause_span": cause_span,
        "peer": np.full(len(end), -1),
    }
