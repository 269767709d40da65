"""The corpus on disk, read by row."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from caspi.corpus.store import Corpus


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Threads take turns about every microsecond."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("frequent_switches")
def test_threads_that_read_a_corpus_first_at_the_same_time_get_whole_clips(small_corpus: Path) -> None:
    """They shared the position of a memory map: in one of two openings every clip began a byte too late."""
    threads = 4
    for _ in range(60):
        corpus, together = Corpus.open(small_corpus, "train"), threading.Barrier(threads)

        def first_bytes(row: int, corpus: Corpus = corpus, together: threading.Barrier = together) -> bytes:
            together.wait()
            return corpus.flac(row)[:4]

        with ThreadPoolExecutor(threads) as pool:
            assert list(pool.map(first_bytes, range(threads))) == [b"fLaC"] * threads
