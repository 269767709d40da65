"""The language that a request names."""

from __future__ import annotations

from caspi.errors import UsageError
from caspi.language import named


def asked_language(written: str | None) -> str | None:
    """Its name in prompts; None if the model is to identify it: nothing, or `auto`. Raises UsageError."""
    if not written or written == "auto":
        return None
    try:
        return named(written)
    except ValueError as error:
        raise UsageError(str(error)) from error
