"""Shapes of what more simulations say about a step: what if a resource were faster, and what to change.

Owns no computation (see ``whatif`` and ``suggest``). Seconds and bytes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf:
    """The step, simulated again with one thing faster everywhere.

    ``resource`` is a name of ``whatif.AXES`` (``sm``, ``hbm``, ``nvlink``, ...). ``path`` is its share of the critical
    path of the step as it is. ``step_times`` are of 10 % faster, twice as fast, and so fast that it never binds
    (``FACTORS`` in order); ``gains`` what each saves of ``base``, in seconds.
    """

    resource: str
    says: str
    path: float
    base: float
    step_times: tuple[float, float, float]

    @property
    def gains(self) -> tuple[float, float, float]:
        """Seconds saved: 10 % faster, twice as fast, never binding."""
        tenth, twice, never = self.step_times
        return self.base - tenth, self.base - twice, self.base - never


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """One change of the scenario that fits in memory, simulated: as many tokens a step as before.

    ``sets`` are the ``--set`` texts that make it; ``gain`` is the share of the step that it saves (negative: it costs),
    ``peak`` and ``capacity`` bytes of the fullest GPU.
    """

    kind: str
    says: str
    sets: tuple[str, ...]
    step_time: float
    gain: float
    peak: float
    capacity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """What a run's folder keeps of the simulated answers: ``explain.json`` is this and the ``Explanation``.

    ``suggestions`` by gain, largest first; ``refused`` counts the changes that were tried and do not fit or are not
    possible here, by the reason in one line.
    """

    what_if: tuple[WhatIf, ...]
    suggestions: tuple[Suggestion, ...]
    refused: tuple[tuple[str, str], ...] = ()
