"""Reads ahead of need with threads: decoding audio releases the interpreter, so that it runs beside other work."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

_THREADS_AT_MOST = 8
_SWITCH_SECONDS = 0.0002  # a reader that needs the interpreter waits this long for a busy main thread; usual: 0.005


@contextlib.contextmanager
def _prompt_switches() -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(min(usual, _SWITCH_SECONDS))
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


def read_ahead(read: Callable[[Key], Value], keys: Iterable[Key], ahead: int = 64) -> Iterator[Value]:
    """`read(key)` of every key, in their order; up to `ahead` of them are read before they are needed."""
    threads = max(1, min(_THREADS_AT_MOST, (os.cpu_count() or 1) - 1))
    with _prompt_switches(), ThreadPoolExecutor(threads) as pool:
        reading: deque[Future[Value]] = deque()
        try:
            for key in keys:
                reading.append(pool.submit(read, key))
                if len(reading) > ahead:
                    yield reading.popleft().result()
            while reading:
                yield reading.popleft().result()
        finally:
            for waiting in reading:
                waiting.cancel()
