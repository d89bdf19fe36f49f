"""Scenarios side by side: what they differ in, and what that does. Strings together ``api`` and ``differences``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sim.api import Step, resolved, run
from sim.errors import ScenarioError
from sim.study.differences import Difference, differences


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Simulated steps in the order they were named, and the keys in which their scenarios differ."""

    steps: tuple[Step, ...]
    differences: tuple[Difference, ...]

    @property
    def fits(self) -> bool:
        """Whether all of them fit."""
        return all(step.result.fits for step in self.steps)


def compare(sources: Sequence[str], overrides: Sequence[str] = ()) -> Comparison:
    """Load and simulate every scenario of ``sources`` with the same ``overrides``.

    Raises:
        ScenarioError: what is wrong with any of them, all at once.
    """
    problems, documents = [], []
    for source in sources:
        try:
            documents.append(resolved(source, overrides))
        except ScenarioError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise ScenarioError(problems)
    return Comparison(steps=tuple(run(source, overrides) for source in sources), differences=differences(documents))
