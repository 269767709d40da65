"""Deduplication over thousands of hours: memory, time, and the share of duplicates that are still found.

    python benchmarks/copies.py [--hours 100 200 400 ...]

Fingerprints are random (no two utterances share a key, the hardest case for memory), 7 s per utterance. At each number
of hours, 500 earlier utterances are looked up again with one bit in ten flipped, as Opus at 16 kbit/s does.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from caspi.corpus.dedup.acoustic_fingerprint import WORDS_PER_SECOND
from caspi.corpus.dedup.near_duplicates import AudioCopies

_SECONDS = 7
_QUERIES = 500
_FLIPPED = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=int, nargs="+", default=[100, 200, 400])
    hours = parser.parse_args().hours
    copies, number, started = AudioCopies(), 0, time.perf_counter()
    for wanted in hours:
        while number < wanted * 3600 / _SECONDS:
            copies.is_copy(_name(number), [_fingerprint(number)], str(number))
            copies.add(_name(number), _fingerprint(number), str(number))
            number += 1
        draw = np.random.default_rng((1, wanted))
        numbers = draw.integers(0, number, _QUERIES)
        found = sum(copies.is_copy(b"another", [_disturbed(_fingerprint(int(n)), draw)], "another") for n in numbers)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{wanted:5} h: {time.perf_counter() - started:6.1f} s, {peak:.2f} GiB peak, {found / _QUERIES:.3f} found",
            flush=True,
        )


def _name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def _fingerprint(number: int) -> np.ndarray:
    draw = np.random.default_rng((0, number))
    return draw.integers(1, 1 << 16, int(_SECONDS * WORDS_PER_SECOND), dtype=np.uint16)


def _disturbed(words: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    flips = draw.random((len(words), 16)) < _FLIPPED
    return words ^ (flips @ (1 << np.arange(16))).astype(np.uint16)


if __name__ == "__main__":
    main()
