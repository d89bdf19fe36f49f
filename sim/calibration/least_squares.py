"""Least squares of a few positive numbers: which of them the data decide, how well, and how well others are foretold.

Owns the method. Sum of squared logarithms of predicted over measured, so that an error is a share, plus for each
parameter the square of the logarithm of its change over a width that it is expected to have: what the data do not
decide stays where it was instead of wandering off along with another (a Gaussian prior; the least-squares form of
Tikhonov's regularisation). Minimised by Levenberg-Marquardt on logarithms within bounds, derivatives by differences,
from several starts because models have kinks. Knows no model and no file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Model: TypeAlias = Callable[[Mapping[str, float]], Floats]
"""Parameters by name -> predicted seconds, one a row."""

Data: TypeAlias = tuple[Floats, Floats, NDArray[np.int64]]
"""Measured seconds, weights, groups, (rows,) each."""

FOLDS = 5
NOISE = 0.05
"""Error of a row, as a share, that the widths are weighed against at first: what repeated runs differ by."""
_LEAST_NOISE = 0.005
_KNOWN = 0.5
"""Part of its width that the standard error of a parameter must come down to, to be decided by the data."""
_STARTS = (1.0, 0.4, 2.5)
_STEPS, _SHORTER = 25, 8
_ENOUGH = 1e-8
"""Gain below which descent ends: a hundredth of a per cent on one row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A number to fit: where it starts, the least and most that it may be, by what share it is expected to be off.

    ``rest``: its value where the data do not decide it; None: ``start``. What is 0 until fitted starts elsewhere.
    """

    name: str
    start: float
    least: float
    most: float
    width: float
    rest: float | None = None

    @property
    def shipped(self) -> float:
        """Its value before any fit."""
        return self.start if self.rest is None else self.rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Fitted values; the standard error of each that the data decide, as a share; the others, held where they were.

    ``errors`` (rows,): predicted over measured, less one. ``noise``: what rows are off by, as a share.
    """

    values: Mapping[str, float]
    spread: Mapping[str, float]
    held: tuple[str, ...]
    errors: Floats
    noise: float


def fit(parameters: Sequence[Parameter], model: Model, measured: Floats, weights: Floats) -> Fit:
    """Fit all parameters, hold those that the data do not decide, fit the others again.

    Last, what rows were found to be off by, instead of ``NOISE``, is weighed against the widths.
    """
    free = list(parameters)
    problem = _Problem(parameters, free, model, measured, weights)
    found = problem.solved(_STARTS)
    while True:
        spread = problem.spread(found)
        decided = [p for p in free if spread[p.name] < _KNOWN * p.width]
        if len(decided) == len(free):
            break
        near, free = problem.named(found), decided
        problem = _Problem(parameters, free, model, measured, weights)
        found = problem.descend(problem.at(near))
    noise = problem.left(found)
    problem = _Problem(parameters, free, model, measured, weights, noise)
    found = problem.descend(found)
    spread, values = problem.spread(found), problem.named(found)
    held = tuple(p.name for p in parameters if p.name not in spread)
    return Fit(values=values, spread=spread, held=held, errors=model(values) / measured - 1.0, noise=noise)


def cross_validated(fitted: Fit, parameters: Sequence[Parameter], model: Model, data: Data) -> Floats:
    """Error of each row, predicted with the parameters of a fit that never saw its group.

    ``fitted`` says which parameters the data decide, and their noise; ``data``: measured, weights, groups (rows,).
    """
    errors = np.array(fitted.errors)
    for group, values in without_each(fitted, parameters, model, data).items():
        out = data[2] == group
        errors[out] = (model(values) / data[0] - 1.0)[out]
    return errors


def without_each(
    fitted: Fit, parameters: Sequence[Parameter], model: Model, data: Data
) -> dict[int, Mapping[str, float]]:
    """Group -> the parameters of a fit that never saw it; empty where the data decide none."""
    measured, weights, groups = data
    free = [p for p in parameters if p.name not in fitted.held]
    found: dict[int, Mapping[str, float]] = {}
    for group in np.unique(groups).tolist() if free else ():
        seen = np.where(groups == group, 0.0, weights)
        problem = _Problem(parameters, free, model, measured, seen, fitted.noise)
        found[group] = problem.named(problem.descend(problem.at(fitted.values)))
    return found


def folds(count: int) -> NDArray[np.int64]:
    """Every fifth row in one group: with rows in order of size, none is far from what is seen."""
    return np.arange(count, dtype=np.int64) % min(FOLDS, count)


class _Problem:
    """One set of free parameters against one set of rows."""

    def __init__(  # noqa: PLR0917
        self, every: Sequence[Parameter], free: Sequence[Parameter], model: Model, measured: Floats, weights: Floats,
        noise: float = NOISE,
    ) -> None:  # fmt: skip
        self.every = {p.name: p.shipped for p in every}
        self.free, self.model = free, model
        self.measured, self.root = np.log(measured), np.sqrt(weights)
        self.low, self.high = np.log([p.least for p in free]), np.log([p.most for p in free])
        self.begin, self.pull = np.log([p.start for p in free]), np.array([noise / p.width for p in free])
        self.noise = noise

    def named(self, theta: Floats) -> dict[str, float]:
        values = np.exp(theta).tolist()
        return {**self.every, **{p.name: v for p, v in zip(self.free, values, strict=True)}}

    def _residuals(self, theta: Floats) -> Floats:
        rows = self.root * (np.log(self.model(self.named(theta))) - self.measured)
        return np.concatenate([rows, self.pull * (theta - self.begin)])

    def _jacobian(self, theta: Floats, at: Floats) -> Floats:
        columns = np.empty((len(at), len(theta)))
        for j in range(len(theta)):
            step = 1e-3 if theta[j] + 1e-3 <= self.high[j] else -1e-3
            moved = theta.copy()
            moved[j] += step
            columns[:, j] = (self._residuals(moved) - at) / step
        return columns

    def left(self, theta: Floats) -> float:
        """What rows are off by, as a share: the root of their weighted mean square, less what was fitted."""
        rows, count = self._residuals(theta)[: len(self.measured)], int((self.root > 0).sum())
        mean = float((rows**2).sum()) / max(1, count - len(theta)) / max(float((self.root**2).mean()), 1e-12)
        return min(max(float(np.sqrt(mean)), _LEAST_NOISE), 1.0)

    def spread(self, theta: Floats) -> dict[str, float]:
        """Standard errors as shares, if rows are off by what was found, or by ``noise`` where that is less."""
        jacobian = self._jacobian(theta, self._residuals(theta))
        sizes = np.sqrt(np.diag(np.linalg.inv(jacobian.T @ jacobian))) * max(self.noise, self.left(theta))
        return {p.name: float(size) for p, size in zip(self.free, sizes, strict=True)}

    def at(self, values: Mapping[str, float]) -> Floats:
        """The point of named values."""
        return np.log([values[p.name] for p in self.free])

    def solved(self, starts: Sequence[float]) -> Floats:
        """The best end of several descents, that begin at so many times where the parameters start."""
        ends = [self.descend(self.begin + np.log(factor)) for factor in starts]
        return min(ends, key=lambda end: float((self._residuals(end) ** 2).sum()))

    def descend(self, theta: Floats) -> Floats:
        """Levenberg-Marquardt inside the bounds: a step that does not help is shortened."""
        if not self.free:
            return theta
        theta = np.clip(theta, self.low, self.high)
        damping, at = 1e-2, self._residuals(theta)
        loss = float(at @ at)
        for _ in range(_STEPS):
            jacobian = self._jacobian(theta, at)
            normal, slope, before = jacobian.T @ jacobian, jacobian.T @ at, loss
            for _ in range(_SHORTER):
                step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -slope)
                trial = np.clip(theta + np.clip(step, -1.0, 1.0), self.low, self.high)
                there = self._residuals(trial)
                if float(there @ there) < loss:
                    theta, at, loss, damping = trial, there, float(there @ there), damping / 5
                    break
                damping *= 5
            if before - loss <= 1e-6 * before + _ENOUGH:
                break
        return theta
