"""Published figures in a scenario: read by the kind of the figure, checked, never used in a simulation.

Owns the reading of one quoted value and the check of all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic_core import PydanticCustomError

from sim.figures import FIGURES
from sim.spec.quantities import Number, Quantity
from sim.spec.rule import Check, Finding
from sim.spec.validate import Draft
from sim.spec.wording import choices, suggest


def read_figure(figure: str, value: object) -> float:
    """A quoted value in SI units. Raises PydanticCustomError in words for people."""
    kind = FIGURES[figure].kind
    if kind == "count":
        return Number(above=0).read(value)
    if kind == "fraction":
        return Number(above=0, most=1).read(value)
    return Quantity(kind).read(value)


def _figures(d: Draft) -> Iterator[Finding]:
    for number, said in enumerate(d.blocks["published"] or ()):
        key = f"published.{number}"
        if said.figure not in FIGURES:
            what = f"unknown figure '{said.figure}'; {suggest(said.figure, FIGURES)}choices: {choices(FIGURES)}"
            yield f"{key}.figure", what
            continue
        for end, value in (("value", said.value), ("to", said.to)):
            if end == "value" or value is not None:
                try:
                    read_figure(said.figure, value)
                except PydanticCustomError as error:
                    yield f"{key}.{end}", error.message()


CHECKS = (Check("published figures", ("published",), _figures),)
"""The rule of quotations."""
