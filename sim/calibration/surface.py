"""Seconds of rows over several keys, from a few simulations along each: what stands for simulating while fitting.

Owns the approximation. The logarithm of a row's time is the one at a point where it was simulated plus, for each key,
what that key alone changed: exact along each axis at the points simulated, straight in logarithms between and beyond
them, and blind to how two keys act together until it is simulated at where a fit ended (``moved``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sim.calibration.least_squares import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """``grids``: key -> logarithms of its points, rising; ``curves``: key -> (rows, points) logarithms of seconds.

    ``at``: the values of the reference point, where the logarithms of seconds are ``seconds`` (rows,).
    """

    grids: Mapping[str, Floats]
    curves: Mapping[str, Floats]
    at: Mapping[str, float]
    seconds: Floats

    def __call__(self, values: Mapping[str, float]) -> Floats:
        """Seconds (rows,) at named values."""
        log = self.seconds
        for key in self.grids:
            log = log + self._along(key, values[key]) - self._along(key, self.at[key])
        seconds: Floats = np.exp(log)
        return seconds

    def moved(self, values: Mapping[str, float], seconds: Sequence[float]) -> Surface:
        """The same with another reference point, at which rows take so many seconds."""
        return replace(self, at=dict(values), seconds=np.log(np.array(seconds)))

    def _along(self, key: str, value: float) -> Floats:
        grid, curve = self.grids[key], self.curves[key]
        left = int(np.clip(np.searchsorted(grid, np.log(value)) - 1, 0, len(grid) - 2))
        part = (np.log(value) - grid[left]) / (grid[left + 1] - grid[left])
        log: Floats = curve[:, left] * (1 - part) + curve[:, left + 1] * part
        return log


def surface(
    points: Mapping[str, Sequence[float]], along: Mapping[str, Sequence[Sequence[float]]],
    reference: tuple[Mapping[str, float], Sequence[float]] | None,
) -> Surface:  # fmt: skip
    """From simulations of every row at the points of each axis, the other keys as shipped.

    ``reference``: what is shipped, the same for all rows, and their seconds there. None: the middle of the first axis
    stands for it, which with several axes is right only after ``moved``.
    """
    grids = {key: np.log(np.array(values, dtype=np.float64)) for key, values in points.items()}
    curves = {key: np.log(np.array(times, dtype=np.float64)) for key, times in along.items()}
    if reference is not None:
        return Surface(grids=grids, curves=curves, at=dict(reference[0]), seconds=np.log(np.array(reference[1])))
    first = next(iter(points))
    at = {key: values[len(values) // 2] for key, values in points.items()}
    return Surface(grids=grids, curves=curves, at=at, seconds=curves[first][:, len(points[first]) // 2])
