"""Progress of long work: a live bar on a terminal, a line every five seconds in a file."""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bar

from caspi.terminal import console, on_terminal

_log = logging.getLogger(__name__)
_INTERVAL = 5.0  # seconds between lines


def duration(seconds: float) -> str:
    """`48 s`, `6.2 min` or `3.1 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class LiveBar:
    """A bar on a terminal, and nothing elsewhere: `with LiveBar("train all", 300) as bar: bar.show(20, "step 20")`."""

    def __init__(self, what: str, total: float | None, *, enabled: bool = True) -> None:
        self._what, self._total = what, total
        self._enabled = enabled and on_terminal()
        self._bar: Bar | None = None

    @property
    def is_shown(self) -> bool:
        """Whether there is a terminal to show it on."""
        return self._bar is not None

    def show(self, done: float, text: str) -> None:
        """Sets how much is done, and the text behind the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, text=text)

    def __enter__(self) -> Self:
        if self._enabled:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[text]}"),
            )
            self._bar = Bar(*columns, console=console(), transient=True)
            self._task = self._bar.add_task(self._what, total=self._total or None, text="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Progress:
    """`with Progress("prepare ivrit", unit="h of audio") as progress: progress.advance(0.1)`.

    total: in units of `advance`, or of its `items` if they are given. done: items done by an earlier run.
    """

    def __init__(self, what: str, unit: str, total: float | None = None, done: float = 0.0) -> None:
        self._what, self._unit, self._total, self._before = what, unit, total, done
        self._done: float = 0  # stays an integer if only counts are added
        self._items = 0.0
        self._started = self._printed = time.monotonic()
        self._bar = LiveBar(what, total)

    def advance(self, amount: float, items: float | None = None) -> None:
        self._done += amount
        self._items += amount if items is None else items
        if self._bar.is_shown:
            self._bar.show(self._before + self._items, self._line())
        elif time.monotonic() - self._printed >= _INTERVAL:
            self._print()

    def _print(self) -> None:
        self._printed = time.monotonic()
        _log.info(f"{self._what}: {self._line()}")

    def _line(self) -> str:
        taken = max(time.monotonic() - self._started, 1e-9)
        done = f"{self._done:,}" if isinstance(self._done, int) else f"{self._done:,.2f}"
        unit = self._unit.removesuffix("s") if done == "1" else self._unit
        line = f"{done} {unit}, {self._done / taken * 60:,.2f} per minute"
        if self._total and self._items > 0:
            there = self._before + self._items
            left = max(0.0, self._total - there) * taken / self._items
            line += f", {100 * there / self._total:.0f} %, {duration(left)} left"
        return line

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)
        if kind is None and self._done:
            self._print()
