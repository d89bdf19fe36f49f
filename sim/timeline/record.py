"""From the engine's flat record to columns: the one place that knows the order of a recorded row."""

from __future__ import annotations

from array import array

import numpy as np

from sim.timeline.columns import Spans

COLUMNS = ("op", "action", "microbatch", "launched", "ready", "start", "end", "cause", "cause_span", "peer")
"""Order of the numbers of one span in the record. All are exact as doubles: counts stay far below 2^53."""


def spans_from(rows: array[float]) -> Spans:
    """Columns from rows recorded one after another, ``len(COLUMNS)`` doubles a span."""
    table = np.frombuffer(rows, dtype=np.float64) if len(rows) else np.zeros(0)
    table = table.reshape(-1, len(COLUMNS))

    def column(name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.ascontiguousarray(table[:, COLUMNS.index(name)])

    return Spans(
        op=column("op").astype(np.int32),
        action=column("action").astype(np.int32),
        microbatch=column("microbatch").astype(np.int32),
        launched=column("launched"),
        ready=column("ready"),
        start=column("start"),
        end=column("end"),
        cause=column("cause").astype(np.int8),
        cause_span=column("cause_span").astype(np.int64),
        peer=column("peer").astype(np.int64),
    )
