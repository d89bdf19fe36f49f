"""A step by whatever names it: a scenario file, a shipped scenario, or the folder that a run left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sim.api import SCENARIO, TIMELINE, Step, reopen, run
from sim.errors import Problem, ScenarioError


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """``step``, the ``source`` and ``overrides`` from which its scenario is made again, its folder, if it has one."""

    step: Step
    source: str
    overrides: tuple[str, ...] = ()
    folder: Path | None = None


def open_step(
    named: str,
    overrides: Sequence[str] = (),
    *,
    fold: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Opened:
    """The step of a run's folder, or of a scenario, which is simulated.

    Raises ``ScenarioError`` for bad input, and for overrides of a run that is over.
    """
    folder = Path(named)
    if not is_folder(named):
        return Opened(
            step=run(named, overrides, fold=fold, progress=progress), source=named, overrides=tuple(overrides)
        )
    if overrides:
        what = (
            f"is a finished run, which --set cannot change; name {folder / SCENARIO} to simulate it with other values"
        )
        raise ScenarioError([Problem(named, 0, 0, "", what)])
    return Opened(step=reopen(folder), source=str(folder / SCENARIO), folder=folder)


def is_folder(named: str) -> bool:
    """Whether a name is a folder with (parts of) a run, or any folder by a path: a bare name may be a shipped one."""
    folder = Path(named)
    return folder.is_dir() and ("/" in named or any((folder / name).exists() for name in (SCENARIO, TIMELINE)))
