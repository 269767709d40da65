"""Progress on stderr: what is done, at what rate, how long is left where the total is known."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

_INTERVAL = 5.0  # seconds between lines: few enough for a log file, often enough for a person


class Progress:
    """`with Progress("prepare", unit="h") as progress: progress.advance(0.1)`."""

    def __init__(self, what: str, unit: str, total: float | None = None) -> None:
        self._what, self._unit, self._total = what, unit, total
        self._done = 0.0
        self._started = self._printed = time.monotonic()

    def advance(self, amount: float) -> None:
        self._done += amount
        if time.monotonic() - self._printed >= _INTERVAL:
            self._print()

    def _print(self) -> None:
        self._printed = now = time.monotonic()
        rate = self._done / max(now - self._started, 1e-9)
        line = f"{self._what}: {self._done:,.2f} {self._unit}, {rate * 60:,.2f} a minute"
        if self._total is not None and rate > 0:
            left = (self._total - self._done) / rate
            line += f", {100 * self._done / self._total:.0f} %, {left / 60:.1f} min left"
        print(line, file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._done:
            self._print()
