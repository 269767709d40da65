"""Strict configuration values: an unknown key or a wrong type is an error that names it.

The text under a field is its meaning in the recipe reference (tools/make_reference.py), and `Unit` and `Cited` in its
type are its unit and source there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Base of everything a recipe may say; lives beside the component it configures."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit of a numeric key, or what it counts; only for the reference."""

    name: str


@dataclass(frozen=True, slots=True)
class Cited:
    """The paper or page that a key comes from; only for the reference."""

    source: str


Seconds = Annotated[float, Unit("s")]
Seed = Annotated[int, Unit("seed")]


def rising(value: tuple[float, float]) -> tuple[float, float]:
    """For pydantic: a range from low to high. Raises ValueError."""
    if value[0] > value[1]:
        raise ValueError(f"{list(value)}: the lower bound must come first")
    return value
