"""One strict YAML file says everything a stage does; dotted overrides change single values of it."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from caspi.config import Config
from caspi.corpus.prepare import CorpusConfig
from caspi.errors import UsageError
from caspi.language import language, named
from caspi.model.config import ModelConfig
from caspi.training.config import TrainConfig


class Recipe(Config):
    """corpus: what `prepare` makes. model: where training starts. train: the stages."""

    name: str
    language: Annotated[str, AfterValidator(named)] = "Hebrew"
    seed: int = Field(0, ge=0)
    corpus: CorpusConfig
    model: ModelConfig = ModelConfig()
    train: TrainConfig | None = None

    @model_validator(mode="after")
    def _rules_of_the_language(self) -> Recipe:
        try:
            language(self.language).check(self.corpus.text)
        except ValueError as error:
            raise ValueError(f"corpus.text.{error}") from error
        return self

    def require_train(self) -> TrainConfig:
        """The training part. Raises UsageError where the recipe has none."""
        if self.train is None:
            raise UsageError(f"recipe {self.name} has no train section: nothing to train")
        return self.train


class _Loader(yaml.SafeLoader):
    """YAML 1.2 floats: PyYAML alone reads 2e-4 as a string."""


def _unique_keys(loader: Any, node: Any) -> dict[Any, Any]:
    """PyYAML lets the last of two equal keys win without a word."""
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", node.start_mark)
    loader.flatten_mapping(node)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _unique_keys)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def load(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Reads a recipe and applies `key.to.value=yaml` overrides. Raises UsageError: key, value, fix."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise UsageError(f"recipe {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"recipe {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UsageError(f"recipe {path} holds no keys; see recipes/ for examples")
    for override in overrides:
        _apply(values, override)
    try:
        # As JSON, because there `strict` still lets a list be a tuple and text a path, and nothing else be anything.
        return Recipe.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise UsageError(f"recipe {path}: {_explain(error)}") from error


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML; reading it gives the same recipe."""
    text: str = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return text


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"override {override!r} is not key=value, such as train.effective_batch=128")
    *parents, last = key.split(".")
    place: Any = values
    for part in parents:
        place = _step(place, part, override)
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise UsageError(f"override {override!r}: {text!r} is not a YAML value") from error
    if isinstance(place, list):
        place[_index(place, last, override)] = value
    else:
        place[last] = value


def _step(place: Any, part: str, override: str) -> Any:
    if isinstance(place, list):
        return place[_index(place, part, override)]
    if place.get(part) is None:
        place[part] = {}
    if not isinstance(place[part], dict | list):
        raise UsageError(f"override {override!r}: {part} holds a value, not keys")
    return place[part]


def _index(place: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(place):
        raise UsageError(f"override {override!r}: {part!r} is not an index of a list of {len(place)}")
    return int(part)


def _explain(error: ValidationError) -> str:
    """The first problem in one line, with the nearest known key where a key is unknown."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if problem["type"] == "extra_forbidden":
        guess = difflib.get_close_matches(str(problem["loc"][-1]), _known_keys(Recipe), n=1)
        hint = f"; did you mean {guess[0]}?" if guess else ""
        return f"{where}: unknown key{hint}{more}"
    if problem["type"] == "missing":
        return f"{where}: missing{more}"
    return f"{where}: {problem['msg'].removeprefix('Value error, ')}, got {problem['input']!r}{more}"


def _known_keys(config: type[BaseModel]) -> list[str]:
    """Every key any part of a recipe knows."""
    keys: list[str] = []
    for name, definition in config.model_json_schema().get("$defs", {}).items():
        del name
        keys += definition.get("properties", {})
    return [*keys, *config.model_fields]
