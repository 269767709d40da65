from __future__ import annotations

import math
import time

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caspi.language import language
from caspi.language.hebrew import leaderboard
from caspi.scoring.edits import count
from caspi.scoring.error_rates import score_corpus
from caspi.scoring.intervals import Paired, matched_pairs, paired, rate_interval

HEBREW = language("Hebrew")
WORDS = ["שלום", "עולם", "ילד", "הלך", "לים", "ראה", "כלב", "גדול", "אתמול", "בבוקר"]


def interval(errors: np.ndarray, length: int, groups: list[str]) -> tuple[float, float]:
    found = rate_interval(errors, np.full(len(errors), length), groups)
    assert found is not None
    return found


SENTENCE = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)


@settings(max_examples=150)
@given(st.lists(st.tuples(SENTENCE.filter(bool), SENTENCE), min_size=1, max_size=8))
def test_corpus_rates_equal_jiwer(pairs: list[tuple[str, str]]) -> None:
    references, hypotheses = [r for r, _ in pairs], [h for _, h in pairs]
    totals = score_corpus(references, hypotheses, references, [HEBREW] * len(references))
    jiwer_output = jiwer.process_words([leaderboard(r) for r in references], [leaderboard(h) for h in hypotheses])
    score = totals["leaderboard"]
    assert score.wer == pytest.approx(jiwer_output.wer)
    assert (score.hits, score.substitutions, score.deletions, score.insertions) == (
        jiwer_output.hits, jiwer_output.substitutions, jiwer_output.deletions, jiwer_output.insertions,
    )  # fmt: skip
    assert score.wil == pytest.approx(jiwer_output.wil)
    assert score.cer == pytest.approx(
        jiwer.process_characters([leaderboard(r) for r in references], [leaderboard(h) for h in hypotheses]).cer
    )


def test_an_empty_hypothesis_counts_as_deletions_only() -> None:
    """Trap: dropping empty hypotheses lowers WER."""
    totals = score_corpus(["שלום עולם", "מה שלומך"], ["שלום עולם", ""], ["a", "b"], [HEBREW] * 2)
    score = totals["leaderboard"]
    assert (score.wer, score.deletions, score.empty, score.utterances) == (0.5, 2, 1, 2)


def test_an_empty_reference_counts_its_insertions() -> None:
    totals = score_corpus(["...", "שלום"], ["רעש גדול", "שלום"], ["a", "b"], [HEBREW] * 2)
    assert totals["leaderboard"].wer == 2.0
    assert count([""], [""]).errors.tolist() == [0]


def test_loops_are_scored_in_full() -> None:
    """Trap: removing repetitions before scoring hides loops."""
    assert count(["שלום"], [leaderboard("שלום " * 50)]).insertions.tolist() == [49]


def test_interval_contains_the_rate_and_narrows_with_data() -> None:
    draw = np.random.default_rng(0)
    few, many = draw.binomial(10, 0.2, 30), draw.binomial(10, 0.2, 3_000)
    low, high = interval(many, 10, [str(n) for n in range(3_000)])
    assert low < 0.2 < high
    wide = interval(few, 10, [str(n) for n in range(30)])
    assert (high - low) * 5 < wide[1] - wide[0]


def test_interval_covers_95_percent_of_the_time() -> None:
    draw = np.random.default_rng(1)
    covered = 0
    for _ in range(50):
        low, high = interval(draw.binomial(8, 0.15, 150), 8, [str(n) for n in range(150)])
        covered += low <= 0.15 <= high
    assert 43 <= covered <= 50


def corpora(
    draw: np.random.Generator, speakers: int, rate: float, utterances: int, unequal: float
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Errors, words and speakers. Rates of speakers have a beta distribution, errors of an utterance beta-binomial,
    amounts of speech log-normal."""
    rates = draw.beta(20 * rate, 20 * (1 - rate), speakers)
    amounts = np.maximum(1, np.round(utterances * draw.lognormal(0, unequal, speakers))).astype(int)
    speaker = np.repeat(np.arange(speakers), amounts)
    of_utterance = draw.beta(np.maximum(5 * rates[speaker], 1e-9), 5 * (1 - rates[speaker]) + 1e-9)
    words = np.maximum(1, draw.poisson(10, len(speaker)))
    return draw.binomial(words, of_utterance), words, [str(number) for number in speaker]


@pytest.mark.parametrize(
    ("speakers", "rate", "utterances", "unequal"),
    [
        (2, 0.2, 20, 1.0), (4, 0.2, 20, 0.0), (4, 0.2, 20, 1.0), (7, 0.2, 20, 1.0), (17, 0.2, 20, 1.0),
        (40, 0.2, 20, 1.0), (5, 0.02, 5, 1.0), (40, 0.002, 5, 1.0), (8, 0.9, 10, 1.0), (200, 0.005, 1, 0.0),
    ],
)  # fmt: skip
def test_intervals_cover_where_speakers_differ(speakers: int, rate: float, utterances: int, unequal: float) -> None:
    """Includes unequal amounts of speech and low rates. 400 data sets: 0.95, with a tolerance of slightly over 0.05."""
    draw = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        found = rate_interval(*corpora(draw, speakers, rate, utterances, unequal))
        assert found is not None
        covered += found[0] <= rate <= found[1]
    assert covered >= 0.89 * 400


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12), st.sampled_from("abcde")), min_size=2, max_size=30),
)
def test_intervals_contain_the_rate_and_have_a_positive_width(rows: list[tuple[int, int, str]]) -> None:
    errors, words, groups = zip(*rows, strict=True)
    found = rate_interval(errors, words, groups)
    sums = {group: [sum(row[n] for row in rows if row[2] == group) for n in (0, 1)] for group in groups}
    if found is None:
        dominated = any(wrong > sum(errors) / 2 and wrong > length for wrong, length in sums.values())
        assert len(sums) == 1 or dominated
        return
    rate = sum(errors) / max(1, sum(words))
    assert 0 <= found[0] <= rate <= found[1] < np.inf
    assert found[1] > found[0]
    if all(wrong <= length for wrong, length in sums.values()):
        assert found[1] <= 1


@pytest.mark.parametrize("speakers", [12, 40])
def test_intervals_have_coverage_for_rates_above_one(speakers: int) -> None:
    draw = np.random.default_rng(2)
    covered = 0
    for _ in range(400):
        words = draw.integers(20, 60, speakers)
        found = rate_interval(draw.poisson(words * draw.lognormal(0.3, 0.4, speakers)), words, range(speakers))
        assert found is not None
        covered += found[0] <= np.exp(0.3 + 0.4**2 / 2) <= found[1]
    assert covered >= 0.89 * 400


def test_one_loop_among_few_errors_gives_no_interval() -> None:
    assert rate_interval([264, *[0] * 9], [5] * 10, range(10)) is None
    assert rate_interval([264, *[0] * 39], [5] * 40, range(40)) is None


@pytest.mark.parametrize("inserted_words", [1, 3])
def test_words_inserted_in_silence_leave_room_on_both_sides(inserted_words: int) -> None:
    errors, words = [0] * 20 + [inserted_words] * 100, [4] * 20 + [0] * 100
    low, high = interval(np.array(errors), np.array(words), [str(n) for n in range(120)])
    assert low < inserted_words * 100 / 80 < high < np.inf


def test_all_words_wrong_still_gives_an_interval() -> None:
    low, high = interval(np.full(20, 10), 10, [str(n) for n in range(20)])
    assert 0.9 < low < 1
    assert high == 1


def test_one_group_has_no_interval_and_zero_errors_have_one() -> None:
    assert rate_interval([1, 2, 0], [10, 10, 10], ["a", "a", "a"]) is None
    low, high = interval(np.zeros(50), 10, [str(n) for n in range(50)])
    assert low == 0
    assert high == pytest.approx(2 * 3.69 / 500, rel=0.02)  # the exact bound for no errors in 500 words, in pairs


def test_correlated_errors_within_groups_widen_the_interval() -> None:
    errors = np.where(np.arange(1_000) < 100, 10, 0)
    together = interval(errors, 10, [str(n // 100) for n in range(1_000)])
    alone = interval(errors, 10, [str(n) for n in range(1_000)])
    assert together[1] - together[0] > 5 * (alone[1] - alone[0])


def test_the_time_of_an_interval_grows_no_faster_than_its_groups() -> None:
    def seconds(count: int) -> float:
        groups = [str(n) for n in range(count)]
        taken = []
        for _ in range(3):
            started = time.perf_counter()
            interval(np.arange(count) % 2, 10, groups)
            taken.append(time.perf_counter() - started)
        return min(taken)

    assert seconds(200_000) < 4 * 20 * seconds(10_000)


def differences(draw: np.random.Generator, speakers: int, apart: float) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Errors of one system minus those of another that is better by `apart`; speakers have unequal speech."""
    errors, words, groups = corpora(draw, speakers, 0.2, 10, 1.0)
    return errors - draw.binomial(words, np.clip(errors / words - apart, 0, 1)), words, groups


@pytest.mark.parametrize("speakers", [4, 7, 40, 200])
def test_equal_systems_differ_significantly_in_5_percent_of_comparisons(speakers: int) -> None:
    draw = np.random.default_rng(speakers)
    claimed = 0
    for _ in range(400):
        one, words, groups = corpora(draw, speakers, 0.2, 10, 1.0)
        other = draw.permutation(one) if speakers == 200 else draw.binomial(words, one / words)
        claimed += paired(one - other, words, groups).p < 0.05
    assert claimed <= 0.09 * 400


def test_a_real_difference_is_found() -> None:
    found = paired(*differences(np.random.default_rng(0), 40, 0.05))
    assert found.p < 0.01
    assert found.interval is not None
    assert 0.02 < found.interval[0] < found.interval[1] < 0.08


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(1, 12), st.sampled_from("abcdef")), min_size=1, max_size=40))
def test_interval_and_test_of_a_comparison_agree_and_are_symmetric(rows: list[tuple[int, int, str]]) -> None:
    apart, words, groups = zip(*rows, strict=True)
    found, other = paired(apart, words, groups), paired([-d for d in apart], words, groups)
    assert other.p == found.p
    if found.interval is None:
        assert found.p == 1
        return
    assert other.interval == pytest.approx((-found.interval[1], -found.interval[0]))
    assert (found.p < 0.05) == (found.interval[0] > 0 or found.interval[1] < 0)


def test_three_errors_with_the_same_pattern_are_not_significant() -> None:
    assert paired([1, 1, 1], [10, 10, 10], ["a", "b", "c"]).p > 0.1
    assert paired([0, 0], [10, 10], ["a", "b"]) == Paired((0.0, 0.0), 1.0)


def test_matched_pairs_of_equal_differences_are_a_sign_test() -> None:
    assert matched_pairs([1] * 6) == pytest.approx(2 / 64)
    assert matched_pairs([0, 0, 0]) == 1


def test_matched_pairs_are_the_normal_test_of_mean_differences() -> None:
    segments = [1, 0, 2, -1, 1, 1, 0, 1]
    z = np.mean(segments) / (np.std(segments, ddof=1) / len(segments) ** 0.5)
    assert matched_pairs(segments) == pytest.approx(2 * (1 - 0.5 * (1 + math.erf(z / 2**0.5))))
    assert matched_pairs([1, 1]) == 0.5
