"""The kinds of failure that a user can meet, each with its exit code.

0 the scenario fits, 1 it does not (``InfeasibleError``), 2 bad input (``ScenarioError``), 3 a fault of ours.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with an input file: where, which key, what is wrong, what would mend it."""

    file: str
    line: int
    column: int
    key: str
    what: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.key}: {self.what}" if self.key else f"{place}: {self.what}"


class SteplineError(Exception):
    """Base of every error that is meant for the user; ``exit_code`` is what the command returns."""

    exit_code = 3


class ScenarioError(SteplineError):
    """Bad input. Carries every problem found, not only the first."""

    exit_code = 2

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class InfeasibleError(SteplineError):
    """The scenario is well-formed but cannot run: no route, no memory. In a sweep this is a result, not a failure."""

    exit_code = 1


class DeadlockError(SteplineError):
    """The program cannot go on: lists each blocked op and what it waits for."""

    exit_code = 3
