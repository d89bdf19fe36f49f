"""Refusals of a schedule's sizes, each with the rule and the remedy. Knows no order of actions."""

from __future__ import annotations

from typing import NoReturn

from sim.errors import Problem, ScenarioError


def refuse(name: str, p: int, m: int, what: str) -> NoReturn:
    """Raise the ScenarioError of schedule ``name`` on ``p`` pipeline ranks and ``m`` microbatches."""
    raise ScenarioError([Problem(f"schedule {name} (p = {p}, m = {m})", 0, 0, "", what)])


def require_sizes(name: str, p: int, m: int, v: int, *, only: int | None = None) -> None:
    """Refuse p, m or v below 1, and v other than ``only`` (the stages a rank holds in this schedule).

    Raises:
        ScenarioError: naming the rule and what to set instead.
    """
    for label, value in (("p pipeline ranks", p), ("m microbatches", m), ("v stages a rank", v)):
        if value < 1:
            refuse(name, p, m, f"{label} = {value}; at least 1 is needed")
    if only is not None and v != only:
        plural = "s" if only > 1 else ""
        refuse(name, p, m, f"each rank holds v = {only} stage{plural} of a copy, not {v}; set v to {only}")
