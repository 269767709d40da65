"""What a command gives back to the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from caspi.errors import UsageError


@dataclass(frozen=True, slots=True)
class Outcome:
    """line: the last line a person reads. path: where the result is. summary: what --json prints. tables: tables and
    lines that a person reads before. text: the result itself, where it is text to print."""

    line: str
    path: Path
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int = 0
    tables: tuple[Table | str, ...] = ()
    text: str = ""


def language_option(name: str | None) -> str | None:
    """A language as prompts name it. Raises UsageError if the name is not a language."""
    from caspi.language import named

    try:
        return None if name is None else named(name)
    except ValueError as error:
        raise UsageError(f"--language: {error}") from error
