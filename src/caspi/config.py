"""Strict configuration values: an unknown key or a wrong type is an error that names it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Base of everything a recipe may say; lives beside the component it configures."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def rising(value: tuple[float, float]) -> tuple[float, float]:
    """For pydantic: a range from low to high. Raises ValueError."""
    if value[0] > value[1]:
        raise ValueError(f"{list(value)}: the lower bound must come first")
    return value
