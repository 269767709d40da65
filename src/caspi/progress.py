"""Progress on stderr: what is done, at what rate, how long is left where the total is known."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

_INTERVAL = 5.0  # seconds between lines: few enough for a log file, often enough for a person


def duration(seconds: float) -> str:
    """`48 s`, `6.2 min` or `3.1 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class Progress:
    """`with Progress("prepare", unit="h") as progress: progress.advance(0.1)`.

    total counts what `advance` is told, or its `items` where it is told those; done: items of an earlier run.
    """

    def __init__(self, what: str, unit: str, total: float | None = None, done: float = 0.0) -> None:
        self._what, self._unit, self._total, self._before = what, unit, total, done
        self._done = self._items = 0.0
        self._started = self._printed = time.monotonic()

    def advance(self, amount: float, items: float | None = None) -> None:
        self._done += amount
        self._items += amount if items is None else items
        if time.monotonic() - self._printed >= _INTERVAL:
            self._print()

    def _print(self) -> None:
        self._printed = now = time.monotonic()
        taken = max(now - self._started, 1e-9)
        line = f"{self._what}: {self._done:,.2f} {self._unit}, {self._done / taken * 60:,.2f} a minute"
        if self._total and self._items > 0:
            there = self._before + self._items
            left = max(0.0, self._total - there) * taken / self._items
            line += f", {100 * there / self._total:.0f} %, {left / 60:.1f} min left"
        print(line, file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._done:
            self._print()
