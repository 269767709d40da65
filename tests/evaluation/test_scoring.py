from __future__ import annotations

import time

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caspi.evaluation.edits import count
from caspi.evaluation.resampling import _student, permutation_p, rate_interval
from caspi.evaluation.scoring import score_corpus
from caspi.language import language
from caspi.language.hebrew import leaderboard

HEBREW = language("Hebrew")
WORDS = ["שלום", "עולם", "ילד", "הלך", "לים", "ראה", "כלב", "גדול", "אתמול", "בבוקר"]


def interval(errors: np.ndarray, length: int, groups: list[str], seed: int = 0) -> tuple[float, float]:
    found = rate_interval(errors, np.full(len(errors), length), groups, seed)
    assert found is not None
    return found


SENTENCE = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)


@settings(max_examples=150)
@given(st.lists(st.tuples(SENTENCE.filter(bool), SENTENCE), min_size=1, max_size=8))
def test_corpus_rates_are_jiwers(pairs: list[tuple[str, str]]) -> None:
    references, hypotheses = [r for r, _ in pairs], [h for _, h in pairs]
    totals = score_corpus(references, hypotheses, references, HEBREW)
    theirs = jiwer.process_words([leaderboard(r) for r in references], [leaderboard(h) for h in hypotheses])
    score = totals["leaderboard"]
    assert score.wer == pytest.approx(theirs.wer)
    assert (score.hits, score.substitutions, score.deletions, score.insertions) == (
        theirs.hits, theirs.substitutions, theirs.deletions, theirs.insertions,
    )  # fmt: skip
    assert score.wil == pytest.approx(theirs.wil)
    assert score.cer == pytest.approx(
        jiwer.process_characters([leaderboard(r) for r in references], [leaderboard(h) for h in hypotheses]).cer
    )


def test_an_empty_hypothesis_is_all_deletions() -> None:
    """Trap: dropping empty hypotheses lowers WER."""
    totals = score_corpus(["שלום עולם", "מה שלומך"], ["שלום עולם", ""], ["a", "b"], HEBREW)
    score = totals["leaderboard"]
    assert (score.wer, score.deletions, score.empty, score.utterances) == (0.5, 2, 1, 2)


def test_an_empty_reference_counts_its_insertions() -> None:
    totals = score_corpus(["...", "שלום"], ["רעש גדול", "שלום"], ["a", "b"], HEBREW)
    assert totals["leaderboard"].wer == 2.0
    assert count([""], [""]).errors.tolist() == [0]


def test_loops_are_scored_in_full() -> None:
    """Trap: removing repetitions before scoring hides loops."""
    assert count(["שלום"], [leaderboard("שלום " * 50)]).insertions.tolist() == [49]


def test_interval_holds_the_rate_and_narrows_with_data() -> None:
    draw = np.random.default_rng(0)
    few, many = draw.binomial(10, 0.2, 30), draw.binomial(10, 0.2, 3_000)
    low, high = interval(many, 10, [str(n) for n in range(3_000)])
    assert low < 0.2 < high
    wide = interval(few, 10, [str(n) for n in range(30)])
    assert (high - low) * 5 < wide[1] - wide[0]


def test_interval_covers_95_percent_of_the_time() -> None:
    draw = np.random.default_rng(1)
    covered = 0
    for trial in range(50):
        low, high = interval(draw.binomial(8, 0.15, 150), 8, [str(n) for n in range(150)], seed=trial)
        covered += low <= 0.15 <= high
    assert 43 <= covered <= 50


@pytest.mark.parametrize("groups", [2, 4, 7, 8, 17])
def test_interval_covers_where_speakers_differ(groups: int) -> None:
    """Twenty utterances of each of a few speakers, some of whom are harder to hear."""
    draw = np.random.default_rng(groups)
    covered = 0
    for trial in range(200):
        hardness = np.clip(draw.normal(0.2, 0.06, groups), 0.01, 0.9)
        errors = draw.binomial(10, np.repeat(hardness, 20))
        low, high = interval(errors, 10, [str(n // 20) for n in range(len(errors))], seed=trial)
        covered += low <= 0.2 <= high
    assert covered >= 0.9 * 200


def test_one_group_has_no_interval_and_no_errors_are_no_certainty() -> None:
    assert rate_interval([1, 2, 0], [10, 10, 10], ["a", "a", "a"]) is None
    low, high = interval(np.zeros(50), 10, [str(n) for n in range(50)])
    assert low == 0
    assert high == pytest.approx(3.69 / 500, rel=0.01)  # the exact bound of no error in 500 words


@pytest.mark.parametrize(("freedom", "expected"), [(1, 12.706), (6, 2.447), (7, 2.3646), (16, 2.1199), (999, 1.9623)])
def test_students_quantiles_are_those_of_the_tables(freedom: int, expected: float) -> None:
    assert _student(freedom) == pytest.approx(expected, abs=2e-3)


def test_groups_that_fail_together_widen_the_interval() -> None:
    errors = np.where(np.arange(1_000) < 100, 10, 0)
    together = interval(errors, 10, [str(n // 100) for n in range(1_000)])
    alone = interval(errors, 10, [str(n) for n in range(1_000)])
    assert together[1] - together[0] > 5 * (alone[1] - alone[0])


def test_an_interval_of_a_hundred_times_the_groups_takes_no_hundred_times_as_long() -> None:
    def seconds(count: int) -> float:
        started = time.perf_counter()
        interval(np.arange(count) % 2, 10, [str(n) for n in range(count)])
        return time.perf_counter() - started

    seconds(1_000)
    assert seconds(100_000) < 30 * seconds(1_000)


def test_units_that_were_joined_give_the_same_interval() -> None:
    """More than a thousand units are dealt into a thousand: the interval is that of all."""
    errors = np.random.default_rng(2).binomial(10, 0.1, 20_000)
    low, high = interval(errors, 10, [str(n) for n in range(20_000)])
    exact = 1.96 * float(errors.std()) / 20_000**0.5 / 10
    assert (high - low) / 2 == pytest.approx(exact, rel=0.1)
    assert (high + low) / 2 == pytest.approx(float(errors.mean()) / 10, abs=exact / 5)


def test_the_permutation_test_is_two_sided_and_exact_where_all_signs_agree() -> None:
    """Ten differences of one sign: 2 of 1,024 ways are as far from 0."""
    for sign in (1, -1):
        assert permutation_p(np.full(10, 0.3 * sign), seed=0) == pytest.approx(2 / 1024, rel=0.5)
    assert permutation_p(np.array([1.0, -1.0] * 20), seed=0) == 1
