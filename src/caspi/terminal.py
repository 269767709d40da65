"""The log on stderr."""

from __future__ import annotations

import functools
import logging
import sys

from rich.console import Console
from rich.text import Text


def on_terminal() -> bool:
    """Whether the log is shown, and on a person's terminal, not in a file or a pipe."""
    return _shown() and sys.stderr.isatty()


def _shown() -> bool:
    return any(isinstance(handler, _Lines) for handler in logging.getLogger("caspi").handlers)


@functools.cache
def console() -> Console:
    """Of stderr. Lines and bars share it, so that a line appears above a bar and not inside it."""
    return Console(stderr=True, soft_wrap=True)


class _Lines(logging.Handler):
    """Prints messages; warnings start with `warning:` and have a colour on terminals (unless NO_COLOR is set)."""

    def emit(self, record: logging.LogRecord) -> None:
        warns = record.levelno >= logging.WARNING
        text = f"warning: {record.getMessage()}" if warns else record.getMessage()
        if on_terminal():
            console().print(Text(text, style="yellow" if warns else ""))
        else:
            print(text, file=sys.stderr, flush=True)


def show_log() -> None:
    """Shows caspi's log on stderr, for the command line; imported as a library, caspi prints nothing."""
    logger = logging.getLogger("caspi")
    if not _shown():
        logger.addHandler(_Lines())
    logger.setLevel(logging.INFO)
    logger.propagate = False
