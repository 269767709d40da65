"""What a search may change in a recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from optuna.trial import Trial
from pydantic import Field, model_validator

from caspi.config import Config

Value = float | int | str | bool


class Parameter(Config):
    """The values of a key of the recipe: a range, or a list."""

    low: float | None = None
    """The lowest value."""
    high: float | None = None
    """The highest value."""
    log: bool = False
    """Draw on a logarithmic scale, as suits learning rates."""
    integer: bool = False
    """Whole numbers only."""
    choices: tuple[Value, ...] | None = Field(None, min_length=2)
    """Instead of a range: the values."""

    @model_validator(mode="after")
    def _range_or_choices(self) -> Parameter:
        ranged = self.low is not None and self.high is not None
        if ranged == (self.choices is not None):
            raise ValueError("give low and high, or choices")
        if self.choices is not None and (self.log or self.integer):
            raise ValueError("log and integer are for a range")
        if ranged and self.low >= self.high:  # type: ignore[operator]
            raise ValueError("low must be below high")
        if self.log and self.low <= 0:  # type: ignore[operator]
            raise ValueError("with log, low must be above 0")
        return self

    def suggest(self, trial: Trial, key: str) -> Value:
        """A value for the key, drawn by the study's sampler."""
        if self.choices is not None:
            return trial.suggest_categorical(key, self.choices)
        assert self.low is not None
        assert self.high is not None
        if self.integer:
            return trial.suggest_int(key, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(key, self.low, self.high, log=self.log)

    def holds(self, value: Any) -> bool:
        """Whether a value is one that could be drawn."""
        if self.choices is not None:
            return value in self.choices
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high and (not self.integer or value == int(value))


class Space(Config):
    """The keys of a recipe that a search tries values for."""

    parameters: dict[str, Parameter] = Field(min_length=1)
    """By key, as in `caspi train RECIPE KEY=VALUE`: train.stages.1.groups.decoder_layers."""

    def suggest(self, trial: Trial) -> dict[str, Value]:
        """A value for every key."""
        return {key: parameter.suggest(trial, key) for key, parameter in self.parameters.items()}

    def own(self, recipe: Mapping[str, Any]) -> dict[str, Value] | None:
        """The recipe's own values of the keys; None if one of them is not in the space."""
        found = {}
        for key, parameter in self.parameters.items():
            value = _at(recipe, key)
            if not parameter.holds(value):
                return None
            found[key] = value
        return found


def overrides(values: Mapping[str, Value]) -> tuple[str, ...]:
    """Values as overrides of a recipe; JSON is YAML."""
    return tuple(f"{key}={json.dumps(value)}" for key, value in values.items())


def _at(values: Any, key: str) -> Any:
    """The value of a key such as train.stages.1.epochs; None if there is none. A group's plain rate is its lr."""
    for part in key.split("."):
        if isinstance(values, list) and part.isdigit() and int(part) < len(values):
            values = values[int(part)]
        elif isinstance(values, Mapping):
            values = values.get(part)
        else:
            return None
    if isinstance(values, Mapping) and "lr" in values and all(values[name] is None for name in values if name != "lr"):
        return values["lr"]
    return values
