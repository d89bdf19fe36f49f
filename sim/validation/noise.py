"""How right any simulator could be: rows of one table that ask for the same scenario and were not equally fast.

Owns that bound. Two runs of one configuration differ (days, releases, machines), and what they differ in is not in the
table; whoever foretells them by what is must give one number for both. The one with the least mean error stands for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any


def floor(asked: Sequence[tuple[Hashable, float]]) -> dict[str, Any]:
    """Least mean absolute error that is possible, of (what was asked, seconds) of each row of a table.

    ``rows``: how many share their scenario with another one; ``spread``: their largest slowest over fastest, less one;
    ``mape``: the bound over those rows; ``all``: over all rows, the others taken to be foretold exactly.
    """
    groups: dict[Hashable, list[float]] = defaultdict(list)
    for what, seconds in asked:
        groups[what].append(seconds)
    repeated = [sorted(times) for times in groups.values() if len(times) > 1]
    rows = sum(map(len, repeated))
    lost = sum(_least(times) for times in repeated)
    return {
        "rows": rows,
        "scenarios": len(repeated),
        "spread": max((times[-1] / times[0] - 1 for times in repeated), default=None),
        "mape": lost / rows if rows else None,
        "all": lost / len(asked) if asked else None,
    }


def _least(times: Sequence[float]) -> float:
    """Sum of |t / measured - 1| for the best t, which is one of the times: the sum is linear between them."""
    return min(sum(abs(t / measured - 1) for measured in times) for t in times)
