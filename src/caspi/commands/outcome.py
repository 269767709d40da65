"""What a command gives back to the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caspi.errors import UsageError


@dataclass(frozen=True, slots=True)
class Outcome:
    """line: the last line a person reads; path: where the result is; summary: what --json prints."""

    line: str
    path: Path
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int = 0


def language_option(asked: str | None) -> str | None:
    """As prompts say it. Raises UsageError for what is no language."""
    from caspi.language import named

    try:
        return None if asked is None else named(asked)
    except ValueError as error:
        raise UsageError(f"--language: {error}") from error
