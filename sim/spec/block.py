"""What every block of the door is, and how a key says what it is for.

Owns the base class of blocks and the three ways of writing a field: required, with a default, a list.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def says(description: str) -> Any:  # noqa: ANN401 - pydantic types Field as Any too
    """Return a field that must be there."""
    return Field(description=description)


def defaults(default: object, description: str) -> Any:  # noqa: ANN401
    """Return a field that may be left out."""
    return Field(default=default, description=description)


def listed(description: str) -> Any:  # noqa: ANN401 - a YAML list becomes a tuple
    """Return a field that holds a list, or nothing."""
    return Field(default=None, strict=False, description=description)


class Block(BaseModel):
    """A mapping of a file: unknown keys are refused, values are not coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)
