"""Scoring speed: caspi against jiwer calls for each utterance, with the same counts.

    python benchmarks/score_throughput.py [--pairs 100000] [--rounds 3]

Pairs of random sentences of 4 to 20 words; three in ten hypotheses have no error. Both get normalised texts and count
word and character errors of every utterance: jiwer with one call of `process_words` and one of `process_characters`.
The time of text normalisation is printed too. Prints one JSON line; fails if the counts differ.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jiwer

from caspi.language.hebrew import leaderboard
from caspi.scoring.edits import count
from caspi.scoring.error_rates import total

_LETTERS = "אבגדהוזחטיכלמנסעפצקרשת"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    pairs = _made(options.pairs)
    seconds: dict[str, list[float]] = {"jiwer": [], "ours": [], "treatment": [], "interval": []}
    for _ in range(options.rounds):
        treated, taken = _timed(lambda: [(leaderboard(r), leaderboard(h)) for r, h in pairs])
        seconds["treatment"].append(taken)
        theirs, taken = _timed(lambda texts=treated: [_jiwer(*pair) for pair in texts])
        seconds["jiwer"].append(taken)
        expected, said = zip(*treated, strict=True)
        ours, taken = _timed(lambda e=expected, s=said: count(e, s))
        seconds["ours"].append(taken)
        columns = (ours.hits, ours.substitutions, ours.deletions, ours.insertions, ours.character_errors)
        if theirs != list(zip(*(column.tolist() for column in columns), strict=True)):
            sys.exit("the counts differ")
        score, taken = _timed(lambda scored=ours: total(scored, [str(n) for n in range(len(scored.hits))]))
        seconds["interval"].append(taken)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    ratios = [theirs / ours for theirs, ours in zip(seconds["jiwer"], seconds["ours"], strict=True)]
    print(json.dumps({
        "pairs": len(pairs), "wer": score.wer, "seconds": medians, "ratio": statistics.median(ratios), "ratios": ratios,
        "jiwer": importlib.metadata.version("jiwer"), "python": platform.python_version(),
    }))  # fmt: skip


def _made(count: int) -> list[tuple[str, str]]:
    draw = random.Random(0)
    words = ["".join(draw.choices(_LETTERS, k=draw.randint(2, 7))) for _ in range(20_000)]
    pairs = []
    for _ in range(count):
        reference = draw.choices(words, k=draw.randint(4, 20))
        hypothesis = list(reference)
        if draw.random() > 0.3:
            hypothesis = [
                draw.choice(words) if draw.random() < 0.08 else word for word in reference if draw.random() > 0.04
            ]
        pairs.append((" ".join(reference), " ".join(hypothesis or reference[:1])))
    return pairs


def _jiwer(reference: str, hypothesis: str) -> tuple[int, ...]:
    words, characters = jiwer.process_words(reference, hypothesis), jiwer.process_characters(reference, hypothesis)
    errors = characters.substitutions + characters.deletions + characters.insertions
    return words.hits, words.substitutions, words.deletions, words.insertions, errors


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result of `work` and its seconds, without the garbage collector, as in timeit."""
    gc.collect()
    gc.disable()
    started = time.perf_counter()
    done = work()
    taken = time.perf_counter() - started
    gc.enable()
    return done, taken


if __name__ == "__main__":
    main()
