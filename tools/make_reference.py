"""The reference pages of the documentation, made from the code: every key of a recipe, every command.

python tools/make_reference.py docs/reference
"""

from __future__ import annotations

import argparse
import ast
import functools
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.main import get_command

from caspi.cli import app
from caspi.config import Cited, Unit
from caspi.recipe import Recipe

_LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "entries ≥", "pattern": "matches"}
_NUMBERS = (int, float)
_TYPES = {str: "text", float: "number", int: "whole number", bool: "true or false", Path: "path"}


def recipe_page() -> str:
    """A table of the keys of every section."""
    lines = [
        "# Recipe",
        "A recipe is one YAML file. Every key is here, made from the code that reads it; an unknown key is an error.",
        "",
        "Numbers have a unit, or the column says what they count or what they are: a share or a probability (0 to 1),"
        " a factor, a weight. The source is the paper or page that describes the method.",
        "",
    ]
    places = _places()
    for path, model in sections():
        lines += [f"## {path or 'The recipe'}", "", _in_a_line(model.__doc__), ""]
        lines += ["| key | type | unit | default | range | meaning | source |", "|---|---|---|---|---|---|---|"]
        said = meanings(model)
        for name, field in model.model_fields.items():
            row = (
                f"`{name}`",
                _type(field.annotation, places),
                unit(field),
                _default(field),
                _range(field),
                _in_a_line(said.get(name)),
                _source(field),
            )
            lines.append(f"| {' | '.join(row)} |")
        lines.append("")
    return "\n".join(lines)


def sections() -> list[tuple[str, type[BaseModel]]]:
    """Every section of a recipe, where it occurs first."""
    return list(_sections("", Recipe, set()))


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


def _places() -> dict[type[BaseModel], str]:
    """The heading under which a section's keys stand, without the kind."""
    return {model: path.partition(" (")[0] for path, model in sections()}


def _in_a_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


@functools.cache
def meanings(model: type[BaseModel]) -> dict[str, str]:
    """The text under every field. Only here: pydantic's `use_attribute_docstrings` would read the source files at every
    start of caspi."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(meaning))):
                    found[name] = meaning
    return found


def _metadata(field: FieldInfo) -> list[Any]:
    """The metadata of a field and of the types it is made of."""
    return [*field.metadata, *_inner_metadata(field.annotation)]


def _inner_metadata(annotation: Any) -> Iterator[Any]:
    if typing.get_origin(annotation) is typing.Annotated:
        for one in annotation.__metadata__:
            yield from one.metadata if isinstance(one, FieldInfo) else [one]
    for inner in typing.get_args(annotation):
        yield from _inner_metadata(inner)


def has_numbers(annotation: Any) -> bool:
    """Whether the value is a number or holds numbers, apart from those of sections in it."""
    if typing.get_origin(annotation) is typing.Literal:
        return False
    return annotation in _NUMBERS or any(map(has_numbers, typing.get_args(annotation)))


def unit(field: FieldInfo) -> str:
    """The unit of a key, empty if it has none."""
    return next((one.name for one in _metadata(field) if isinstance(one, Unit)), "")


def _source(field: FieldInfo) -> str:
    sources = dict.fromkeys(one.source for one in _metadata(field) if isinstance(one, Cited))
    return "; ".join(map(_linked, sources))


def _linked(source: str) -> str:
    """The source with links."""
    links: tuple[tuple[str, Callable[[str], str]], ...] = (
        (r"arXiv:([\d.]+\d)", "https://arxiv.org/abs/{}".format),
        (r"doi:(10\.[^\s;,]+)", "https://doi.org/{}".format),
        (r"((?:[\w-]+\.)+\w+/[^\s;,]*)", "https://{}".format),
    )
    pattern = "|".join(pattern for pattern, _ in links)

    def link(match: re.Match[str]) -> str:
        address = next(to(part) for part, (_, to) in zip(match.groups(), links, strict=True) if part)
        return f"[{match[0]}]({address})"

    return re.sub(pattern, link, source)


def _type(annotation: Any, places: dict[type[BaseModel], str]) -> str:
    def all_of(inner: tuple[Any, ...]) -> str:
        kept = [one for one in inner if one not in (types.NoneType, Ellipsis)]
        return " or ".join(dict.fromkeys(_type(one, places) for one in kept))

    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin is typing.Annotated:
        return _type(inner[0], places)
    if origin in (typing.Union, types.UnionType):
        return all_of(inner)
    if origin is tuple and Ellipsis not in inner:
        return f"list of {len(inner)}: {all_of(inner)}"
    if origin in (list, tuple):
        return f"list of {all_of(inner)}"
    if origin is dict:
        return f"mapping to {_type(inner[1], places)}"
    if annotation in places:
        return f"section `{places[annotation]}`"
    return _TYPES[annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is PydanticUndefined and not inspect.isclass(field.default_factory):
        return "of the machine"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its own defaults"
    return "none" if value is None else f"`{json.dumps(value) if not isinstance(value, str) or not value else value}`"


def _range(field: FieldInfo) -> str:
    found = [
        f"{sign} `{value}`" if key == "pattern" else f"{sign} {value}"
        for limit in _metadata(field)
        for key, sign in _LIMITS.items()
        if (value := getattr(limit, key, None)) is not None
    ]
    return ", ".join(dict.fromkeys(found))


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="folder to write into")
    main(parser.parse_args().out)
