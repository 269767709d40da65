from __future__ import annotations

import numpy as np
import pytest

from caspi.evaluation.calibration import calibration
from caspi.evaluation.evaluation_page import evaluate_page
from caspi.evaluation.pairs import TranscriptPair
from caspi.evaluation.summary import ScoredPairs, scored_utterances, summarise
from caspi.reporting.report import environment, render


def pair(number: int, reference: str, hypothesis: str, *probabilities: float) -> TranscriptPair:
    return TranscriptPair(str(number), reference, hypothesis, language="Hebrew", probabilities=probabilities)


def of(*pairs: TranscriptPair):  # type: ignore[no-untyped-def]
    return calibration(pairs, ScoredPairs.of(pairs).treated["fair"])


def test_expected_calibration_error_by_hand() -> None:
    """Of two words at 0.95 one is correct, the word at 0.25 is wrong: (2 * 0.45 + 1 * 0.25) / 3."""
    found = of(pair(1, "אחת שתיים שלוש", "אחת שתים ארבע", 0.95, 0.95, 0.25))
    assert [(one.words, one.probability, one.correct) for one in found.bins] == [(1, 0.25, 0.0), (2, 0.95, 0.5)]
    assert found.expected_error == pytest.approx((2 * 0.45 + 0.25) / 3)
    assert (found.words, found.correct) == (3, pytest.approx(1 / 3))


def test_words_that_are_as_often_correct_as_they_say_have_no_error() -> None:
    draw = np.random.default_rng(0)
    pairs = []
    for number in range(4_000):
        probability = draw.uniform()
        pairs.append(pair(number, "אור", "אור" if draw.uniform() < probability else "חושך", probability))
    found = of(*pairs)
    assert found.expected_error < 0.03
    assert len(found.bins) == 10


def test_punctuation_and_inserted_words() -> None:
    """Fair scores ignore punctuation; a word that is not in the reference is wrong."""
    found = of(pair(1, "שלום, עולם!", "שלום - עולם גדול", 0.9, 0.1, 0.9, 0.9))
    assert found.words == 3
    assert found.correct == pytest.approx(2 / 3)


def test_utterances_without_a_probability_for_each_word_are_counted_as_left_out() -> None:
    assert of(pair(1, "שלום", "שלום")) is None
    assert of(pair(1, "שלום", "שלום", 0.9), pair(2, "שלום", "שלום עולם", 0.9)).left_out == 1


def test_the_page_shows_the_reliability_diagram() -> None:
    pairs = [pair(1, "אחת שתיים שלוש", "אחת שתים ארבע", 0.95, 0.95, 0.25)]
    measured = ScoredPairs.of(pairs)
    page = render(
        evaluate_page("demo", summarise(measured), scored_utterances(measured), {}), {"environment": environment()}
    )
    assert "Confidence of words" in page
    assert "Expected calibration error 38.3 %" in page
    assert summarise(measured).as_json()["calibration"]["words"] == 3
