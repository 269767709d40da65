"""Shows right-to-left text on a terminal, whether or not the terminal supports it."""

from __future__ import annotations

import os
import sys

from bidi import get_display  # type: ignore[import-untyped]

_ISOLATE, _END = "\u2068", "\u2069"


def shown(text: str, at_most: int | None = None) -> str:
    """The text of a table cell for stderr. Terminals without bidirectional text get it in visual order; all others get
    it in logical order, isolated from its neighbours. A text longer than `at_most` characters is cut."""
    if at_most is not None and len(text) > at_most:
        text = text[: at_most - 1] + "…"
    if not any("\u0590" <= letter <= "\u08ff" for letter in text):
        return text
    if _supports_bidi() or not sys.stderr.isatty():
        return f"{_ISOLATE}{text}{_END}"
    return str(get_display(text))


def _supports_bidi() -> bool:
    """Whether the terminal supports bidirectional text: VTE (GNOME Terminal and others) since 0.58, Konsole, mlterm and
    Apple's Terminal."""
    vte = os.environ.get("VTE_VERSION", "")
    return (
        (vte.isdigit() and int(vte) >= 5800)
        or "KONSOLE_VERSION" in os.environ
        or os.environ.get("TERM", "").startswith("mlterm")
        or os.environ.get("TERM_PROGRAM") == "Apple_Terminal"
    )
