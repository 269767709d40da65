"""The result of a command, as the command line shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from caspi.errors import UsageError

if TYPE_CHECKING:
    from caspi.corpus.utterance import Split


@dataclass(frozen=True, slots=True)
class Outcome:
    """line: the last line on stderr. path: of the result. summary: what --json prints. tables: tables and lines shown
    before `line`. text: the result itself, if it is text for stdout."""

    line: str
    path: Path
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int = 0
    tables: tuple[Table | str, ...] = ()
    text: str = ""


def split_option(name: str) -> Split:
    """The name of a split. Raises UsageError if there is no such split."""
    from caspi.corpus.utterance import SPLITS

    split = next((known for known in SPLITS if known == name), None)
    if split is None:
        raise UsageError(f"--split {name}: not one of {', '.join(SPLITS)}")
    return split


def language_option(name: str | None) -> str | None:
    """The name of a language in the prompt. Raises UsageError if there is no such language."""
    from caspi.language import named

    try:
        return None if name is None else named(name)
    except ValueError as error:
        raise UsageError(f"--language: {error}") from error
