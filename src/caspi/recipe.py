"""A recipe is one strict YAML file that defines everything the stages do; dotted overrides change single values."""

from __future__ import annotations

import difflib
import json
import logging
import re
import typing
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from caspi.config import Config, Seed
from caspi.corpus.pipeline.prepare import CorpusConfig
from caspi.errors import UsageError
from caspi.language import language, named
from caspi.model.config import ModelConfig
from caspi.training.config import RENAMED_KEYS, TrainConfig, new_key, with_new_keys

_log = logging.getLogger(__name__)


class Recipe(Config):
    """A whole recipe."""

    name: str
    """The name of the recipe, for messages and reports."""
    language: Annotated[str, AfterValidator(named)] = "Hebrew"
    """The language of the transcripts: an English name or an ISO 639 code."""
    seed: Seed = Field(0, ge=0)
    """Start value of all random choices in training. The same seed gives the same choices."""
    corpus: CorpusConfig
    """What `caspi prepare` reads and creates."""
    model: ModelConfig = ModelConfig()
    """The model that training starts from."""
    train: TrainConfig | None = None
    """How `caspi train` trains. A recipe without it only prepares a corpus."""

    @model_validator(mode="after")
    def _rules_of_the_language(self) -> Recipe:
        try:
            language(self.language).check(self.corpus.text)
        except ValueError as error:
            raise ValueError(f"corpus.text.{error}") from error
        return self

    def require_train(self) -> TrainConfig:
        """The train section. Raises UsageError if the recipe has none."""
        if self.train is None:
            raise UsageError(f"recipe {self.name} has no train section: nothing to train")
        return self.train


class _Loader(yaml.SafeLoader):
    """Reads YAML 1.2 floats: PyYAML alone reads 2e-4 as a string."""


AnyConfig = TypeVar("AnyConfig", bound=Config)


def _unique_keys(loader: Any, node: Any) -> dict[Any, Any]:
    """Refuses duplicate keys: PyYAML would silently keep the last one."""
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} occurs twice", node.start_mark)
    loader.flatten_mapping(node)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _unique_keys)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def load(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Reads a recipe and applies `key.to.value=yaml` overrides. Raises UsageError, which names key, value and fix."""
    values = _values(path, f"recipe {path}")
    if not values:
        raise UsageError(f"recipe {path} holds no keys; see recipes/ for examples")
    old: set[str] = set()
    if "train" in values:
        values["train"] = with_new_keys(values["train"], old)
    for override in overrides:
        _apply(values, override, old)
    for key in sorted(old):
        _log.warning(
            f"recipe {path}: the key {key} was renamed to {RENAMED_KEYS[key]}; the next version will not accept it"
        )
    return _checked(Recipe, values, f"recipe {path}")


def load_as(model: type[AnyConfig], path: Path, what: str) -> AnyConfig:
    """Reads another YAML file of settings; what: its name in messages. Raises UsageError as `load` does."""
    return _checked(model, _values(path, f"{what} {path}"), f"{what} {path}")


def _values(path: Path, named: str) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise UsageError(f"{named}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{named} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict | None):
        raise UsageError(f"{named} holds no keys")
    return values or {}


def _checked(model: type[AnyConfig], values: dict[str, Any], named: str) -> AnyConfig:
    try:
        # As JSON, because there `strict` still accepts a list for a tuple and text for a path, and no other conversion.
        return model.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise UsageError(f"{named}: {_explain(error, model)}") from error


def schema() -> dict[str, Any]:
    """The JSON schema of a recipe, with which editors complete and check keys."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML; loading it gives the same recipe."""
    text: str = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return text


def _apply(values: dict[str, Any], override: str, old: set[str]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"override {override!r} is not key=value, such as train.effective_batch=128")
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise UsageError(f"override {override!r}: {text!r} is not a YAML value") from error
    parts = key.split(".")
    if parts[0] == "train" and "mixes" not in parts:
        parts, value = [new_key(part, old) for part in parts], with_new_keys(value, old)
    *parents, last = parts
    place: Any = values
    for part in parents:
        place = _step(place, part, override)
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


# Key names of other trainers, with the matching key here.
_ELSEWHERE = {
    "batch_size": "train.effective_batch (utterances per step, over all GPUs)",
    "per_device_train_batch_size": "train.effective_batch (utterances per step, over all GPUs)",
    "gradient_accumulation_steps": "train.effective_batch (cut into micro-batches automatically)",
    "lr": "train.stages: groups: {GROUP: RATE}",
    "learning_rate": "train.stages: groups: {GROUP: RATE}",
    "freeze": "train.stages: groups (it lists what is trained; everything else is frozen)",
    "num_epochs": "train.stages: epochs",
    "num_train_epochs": "train.stages: epochs",
    "max_steps": "train.stages: epochs",
    "warmup": "train.stages: schedule: {warmup_steps: N}",
    "warmup_steps": "train.stages: schedule: {warmup_steps: N}",
    "output_dir": "train.path",
    "model_name_or_path": "model.start",
    "model_path": "model.start",
    "train_file": "corpus.sources",
    "dataset": "corpus.sources",
    "bf16": "train.precision",
    "fp16": "train.precision",
    "group_key": "corpus.sources: columns: {speaker: NAME}",
    "optim": "train.stages: optimizer",
    "save_steps": "train.save_every",
    "eval_steps": "train.evaluate.every",
    "logging_steps": "train.log_every",
    "num_workers": "train.workers",
    "dataloader_num_workers": "train.workers",
    "grad_acc": "train.effective_batch (cut into micro-batches automatically)",
    "epochs": "train.stages: epochs",
    "lr_scheduler_type": "train.stages: schedule: {kind: NAME}",
    "warmup_ratio": "train.stages: schedule: {warmup_ratio: SHARE}",
    "weight_decay": "train.stages: weight_decay",
    "max_grad_norm": "train.stages: max_grad_norm",
    "eval_file": "corpus.sources: split: validation",
    "eval_strategy": "train.evaluate.every",
    "save_strategy": "train.save_every",
    "save_total_limit": "train.evaluate.keep",
    "log_steps": "train.log_every",
    "gradient_checkpointing": "train.activation_checkpointing_every",
    "lora_r": "train.stages: groups: {GROUP: {lr: RATE, lora: {rank: N}}}",
    "lora_rank": "train.stages: groups: {GROUP: {lr: RATE, lora: {rank: N}}}",
    "lora_alpha": "train.stages: groups: {GROUP: {lr: RATE, lora: {alpha: N}}}",
    "report_to": "train.track",
    "push_to_hub": "train.hub",
    "hub_model_id": "train.hub: {repository: OWNER/NAME}",
    "max_duration": "train.max_seconds",
    "max_length": "train.max_seconds",
    "min_duration": "corpus.filters.min_seconds",
}


def _explain(error: ValidationError, model: type[Config]) -> str:
    """All problems in one line; for an unknown key with the known ones."""
    found = error.errors()
    places = [one["loc"] for one in found]

    def is_of_another(one: Any) -> bool:
        """pydantic also reports a list as too short if one of its items is invalid."""
        place = one["loc"]
        inside = any(other[: len(place)] == place and len(other) > len(place) for other in places)
        return one["type"] == "too_short" and inside

    return "; ".join(_problem(one, model) for one in found if not is_of_another(one))


def _problem(found: Any, model: type[Config]) -> str:
    where = ".".join(str(part) for part in found["loc"])
    if found["type"] == "extra_forbidden":
        return f"{where}: unknown key; {_meant(found['loc'], model)}"
    if found["type"] == "missing":
        return f"{where}: missing"
    message = found["msg"].removeprefix("Value error, ")
    given = found["input"]
    if isinstance(given, dict | list):  # an error of a whole section: its message names the keys
        return f"{where}: {message}" if where else message
    return f"{where}: {message}, got {given!r}"


def _meant(place: tuple[str | int, ...], model: type[Config]) -> str:
    """A suggestion for an unknown key."""
    key, siblings = str(place[-1]), sorted(_keys_at(model, list(place[:-1])))
    if near := difflib.get_close_matches(key, siblings, n=1):
        return f"did you mean {near[0]}?"
    if key in _ELSEWHERE:
        return f"use {_ELSEWHERE[key]} instead"
    return f"valid keys: {', '.join(siblings)}" if siblings else "no keys are allowed here"


def _keys_at(annotation: Any, place: list[str | int]) -> set[str]:
    """The keys that are allowed at a place in a recipe."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not place:
            return set(annotation.model_fields)
        found = annotation.model_fields.get(str(place[0]))
        if found is not None:
            return _keys_at(found.annotation, place[1:])
        kind = annotation.model_fields.get("kind")  # of a union, whose kind pydantic puts in the error's place
        is_meant = kind is not None and place[0] in typing.get_args(kind.annotation)
        return _keys_at(annotation, place[1:]) if is_meant else set()
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (list, tuple, dict) and place:
        return _keys_at(arguments[-1] if arguments[-1] is not Ellipsis else arguments[0], place[1:])
    if origin is Annotated:
        return _keys_at(arguments[0], place)
    return set().union(*(_keys_at(argument, place) for argument in arguments)) if origin is not None else set()
