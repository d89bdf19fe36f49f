"""Several steps for one figure: scenarios, each at every point of the knobs. Owns the running and the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sim.api import Step, run
from sim.study.knobs import Knob, points


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A simulated step, the scenario it is of, and a label that tells it from the others."""

    source: str
    label: str
    step: Step


def several(sources: Sequence[str], overrides: Sequence[str], knobs: Sequence[Knob] = ()) -> tuple[Shown, ...]:
    """Simulate every scenario of ``sources`` at every combination of ``knobs``, the last one changing fastest.

    Raises ``ScenarioError`` at the first that is bad.
    """
    found = []
    for source in sources:
        for values in points(knobs):
            said = [f"{knob.key}={value}" for knob, value in zip(knobs, values, strict=True)]
            step = run(source, [*overrides, *said])
            label = ", ".join([step.scenario.name] * (len(sources) > 1 or not said) + said)
            found.append(Shown(source=step.scenario.name, label=label, step=step))
    return tuple(found)
