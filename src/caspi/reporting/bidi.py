"""Hebrew on a terminal, which may or may not turn it round itself."""

from __future__ import annotations

import os
import sys

from bidi import get_display  # type: ignore[import-untyped]

_ISOLATE, _END = "\u2068", "\u2069"


def shown(text: str, at_most: int | None = None) -> str:
    """A cell that reads right where stderr shows it: in the order it is seen on terminals that draw from left to
    right, in its own order, isolated from its neighbours, on those that know better. What is longer than `at_most`
    characters loses its end."""
    if at_most is not None and len(text) > at_most:
        text = text[: at_most - 1] + "…"
    if not any("\u0590" <= letter <= "\u08ff" for letter in text):
        return text
    if _turns_text_round() or not sys.stderr.isatty():
        return f"{_ISOLATE}{text}{_END}"
    return str(get_display(text))


def _turns_text_round() -> bool:
    """VTE (GNOME Terminal and others) since 0.58, Konsole, mlterm and Apple's Terminal."""
    vte = os.environ.get("VTE_VERSION", "")
    return (
        (vte.isdigit() and int(vte) >= 5800)
        or "KONSOLE_VERSION" in os.environ
        or os.environ.get("TERM", "").startswith("mlterm")
        or os.environ.get("TERM_PROGRAM") == "Apple_Terminal"
    )
