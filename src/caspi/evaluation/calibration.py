"""Calibration of word confidences: of the words with a probability of 0.8, 80 % should be correct."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from caspi.evaluation.pairs import TranscriptPair
from caspi.evaluation.results import Calibration, CalibrationBin
from caspi.language import language
from caspi.scoring.edits import align

BINS = 10  # of equal width, as in Guo et al. 2017, arXiv:1706.04599


def calibration(pairs: Sequence[TranscriptPair], treated: Sequence[tuple[str, str]]) -> Calibration | None:
    """How far the probabilities of recognised words are from the share of them that is correct; None without
    probabilities. `treated`: reference and hypothesis of each pair, normalised by `fair`. A word that normalisation
    makes several counts as several; one that it removes does not count."""
    probabilities: list[float] = []
    correct: list[bool] = []
    left_out = 0
    for pair, (reference, hypothesis) in zip(pairs, treated, strict=True):
        of_words = _of_normalised_words(pair, hypothesis)
        if of_words is None:
            left_out += bool(hypothesis)
            continue
        probabilities += of_words
        correct += [
            step.kind == "equal" for step in align(reference.split(), hypothesis.split()) for _ in step.hypothesis
        ]
    if not probabilities:
        return None
    return _calibration(np.array(probabilities), np.array(correct), left_out)


def _of_normalised_words(pair: TranscriptPair, hypothesis: str) -> list[float] | None:
    """The probability of each normalised word; None if the hypothesis has none, or is not normalised word by word."""
    words = pair.hypothesis.split()
    if not words or len(words) != len(pair.probabilities):
        return None
    normalise = language(pair.language).normalisers["fair"]
    parts = [normalise(word).split() for word in words]
    if [part for of_word in parts for part in of_word] != hypothesis.split():
        return None
    return [p for p, of_word in zip(pair.probabilities, parts, strict=True) for _ in of_word]


def _calibration(probabilities: np.ndarray, correct: np.ndarray, left_out: int) -> Calibration:
    numbers = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    bins = []
    for number in np.unique(numbers).tolist():
        inside = numbers == number
        bins.append(
            CalibrationBin(
                low=number / BINS,
                high=(number + 1) / BINS,
                words=int(inside.sum()),
                probability=float(probabilities[inside].mean()),
                correct=float(correct[inside].mean()),
            )
        )
    apart = sum(bin_.words * abs(bin_.probability - bin_.correct) for bin_ in bins)
    return Calibration(
        words=len(correct),
        left_out=left_out,
        probability=float(probabilities.mean()),
        correct=float(correct.mean()),
        expected_error=apart / len(correct),
        bins=tuple(bins),
    )
