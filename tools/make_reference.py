"""The reference pages of the documentation, made from the code: every key of a recipe, every command.

python tools/make_reference.py docs/reference
"""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.main import get_command

from caspi.cli import app
from caspi.recipe import Recipe

_LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "at least", "max_length": "at most"}


def recipe_page() -> str:
    """Every key: type, default, range; what a section says of them stands above its table."""
    lines = [
        "# Recipe",
        "A recipe is one YAML file. Every key is here, made from the code that reads it; an unknown key is an error.",
        "",
    ]
    for path, model in _sections("", Recipe, set()):
        lines += [f"## {path or 'The recipe'}", "", _prose(model), ""]
        lines += ["| key | type | default | range | meaning |", "|---|---|---|---|---|"]
        meanings = _meanings(model)
        for name, field in model.model_fields.items():
            default = "required" if field.is_required() else _default(field)
            row = (f"`{name}`", _type(field.annotation), default, _range(field), meanings.get(name, ""))
            lines.append(f"| {' | '.join(row)} |")
        lines.append("")
    return "\n".join(lines)


def _sections(path: str, model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[tuple[str, type[BaseModel]]]:
    if model in seen:
        return
    seen.add(model)
    yield path, model
    for name, field in model.model_fields.items():
        for inner in _models(field.annotation):
            kind = inner.model_fields.get("kind")
            values = typing.get_args(kind.annotation) if kind is not None else ()
            suffix = f" ({values[0]})" if len(values) == 1 else ""
            yield from _sections(f"{path}.{name}".lstrip(".") + suffix, inner, seen)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in _models(inner)]


def _prose(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split()).replace("|", "\\|")


_SAYS = re.compile(r"(?:^|(?<=[.;] ))(\w+(?:, \w+)*): (.+?)(?=[.;] \w+(?:, \w+)*: |$)")


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """What the docstring says of single keys: `key, other: meaning.`"""
    found = {}
    for names, meaning in _SAYS.findall(_prose(model)):
        found |= dict.fromkeys(names.split(", "), meaning.rstrip("."))
    return found


def _type(annotation: Any) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin is typing.Annotated:
        return _type(inner[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(one) for one in inner if one is not type(None))
    if origin in (list, tuple):
        return "list of " + " or ".join(dict.fromkeys(_type(one) for one in inner if one is not Ellipsis))
    if origin is dict:
        return f"mapping to {_type(inner[1])}"
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return f"section ({annotation.__name__})"
    names = {"str": "text", "float": "number", "int": "whole number", "bool": "true or false", "Path": "path"}
    return names.get(getattr(annotation, "__name__", str(annotation)), getattr(annotation, "__name__", str(annotation)))


def _default(field: FieldInfo) -> str:
    value = field.default if field.default is not PydanticUndefined else field.get_default(call_default_factory=True)
    return "its own defaults" if isinstance(value, BaseModel) else "none" if value is None else f"`{value}`"


def _range(field: FieldInfo) -> str:
    found = [f"{sign} {value}" for limit in field.metadata for key, sign in _LIMITS.items()
             if (value := getattr(limit, key, None)) is not None]  # fmt: skip
    return ", ".join(found)


def commands_page() -> str:
    """Every command with its options."""
    lines = ["# Commands", "Made from the code; the same as `--help`.", ""]
    for name, command in _commands("", get_command(app)):
        lines += [f"## caspi {name}", "", re.sub(r"\n +", "\n", command.help or "").strip(), ""]
        lines += ["| option | meaning | default |", "|---|---|---|"]
        for one in command.params:
            if "--help" in one.opts:
                continue
            is_option = one.param_type_name == "option"
            written = ", ".join(f"`{opt}`" for opt in one.opts) if is_option else f"`{one.metavar or one.name}`"
            meaning = getattr(one, "help", "") or ""
            default = "" if one.default in (None, False, ()) or callable(one.default) else f"`{one.default}`"
            lines.append(f"| {written} | {meaning.replace('|', chr(92) + '|')} | {default} |")
        lines.append("")
    return "\n".join(lines)


def _commands(prefix: str, command: Any) -> Iterator[tuple[str, Any]]:
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        if getattr(inner, "commands", None):
            yield from _commands(f"{prefix}{name} ", inner)
        else:
            yield f"{prefix}{name}", inner


def main(out: str) -> None:
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.md").write_text(recipe_page(), encoding="utf-8")
    (folder / "commands.md").write_text(commands_page(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
