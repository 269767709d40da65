"""The log on stderr."""

from __future__ import annotations

import logging
import sys

from rich.console import Console
from rich.text import Text


def on_terminal() -> bool:
    """Whether stderr is a terminal, not a file or a pipe."""
    return sys.stderr.isatty()


class _Lines(logging.Handler):
    """Prints messages; warnings start with `warning:` and have a colour on terminals (unless NO_COLOR is set)."""

    def emit(self, record: logging.LogRecord) -> None:
        warns = record.levelno >= logging.WARNING
        text = f"warning: {record.getMessage()}" if warns else record.getMessage()
        if on_terminal():
            Console(stderr=True, soft_wrap=True).print(Text(text, style="yellow" if warns else ""))
        else:
            print(text, file=sys.stderr, flush=True)


def show_log() -> None:
    """Shows caspi's log on stderr, for the command line; imported as a library, caspi prints nothing."""
    logger = logging.getLogger("caspi")
    if not any(isinstance(handler, _Lines) for handler in logger.handlers):
        logger.addHandler(_Lines())
    logger.setLevel(logging.INFO)
    logger.propagate = False
