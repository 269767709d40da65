from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from caspi.errors import UsageError
from caspi.evaluation.breakdowns import by_utterance
from caspi.evaluation.pairs import TranscriptPair
from caspi.evaluation.published import published
from caspi.evaluation.results import SUMMARY, read_results
from caspi.evaluation.spelling_variants import SpellingVariants
from caspi.evaluation.summary import ScoredPairs, scored_utterances, summarise, write_results
from caspi.language.hebrew import fair


def hebrew(reference: str, hypothesis: str, number: int = 0, **more: object) -> TranscriptPair:
    return TranscriptPair(f"u{number}", reference, hypothesis, language="Hebrew", **more)  # type: ignore[arg-type]


def test_each_relaxation_reports_the_errors_it_removes(tmp_path: Path) -> None:
    table = tmp_path / "same.csv"
    table.write_text("וואטסאפ,ווצאפ,what's app\n", encoding="utf-8")
    pairs = [
        hebrew("יש לי שלושה ילדים", "יש לי 3 ילדים", 0),
        hebrew("אמא שלחה וואטסאפ", "אימא שלחה ווצאפ", 1),
        hebrew("שלום לכולם", "שלום לך", 2),
    ]
    summary = summarise(ScoredPairs.of(pairs), equivalents=SpellingVariants.read(table, fair))
    assert summary.fair.wer == pytest.approx(4 / 9)
    found = {name: round(9 * one.removed) for name, one in summary.relaxations.items()}
    assert found == {"table": 1, "numerals": 1, "spelling": 1, "filled pauses": 0, "all": 3}
    assert summary.relaxations["all"].wer == pytest.approx(1 / 9)
    assert summary.leaderboard.wer == pytest.approx(4 / 9)  # as it was


@pytest.mark.parametrize(
    ("hypothesis", "counted"),
    [
        ("אמא " * 3, "4 utterances in 2 groups, so its interval is rough"),
        ("אמא " * 40, "4 utterances in 2 groups"),  # more errors than words: no interval
    ],
)
def test_only_an_interval_can_be_rough(hypothesis: str, counted: str) -> None:
    pairs = [hebrew("שלום לכולם", hypothesis if n < 2 else "שלום לכולם", n, group=f"g{n // 2}") for n in range(4)]
    assert summarise(ScoredPairs.of(pairs)).counted() == counted


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "contains no spellings"),
        ("א\n", "line 1: give two spellings or more"),
        ("א,א\n", "line 1: give two spellings or more"),
        ('א,"!"\n', "line 1: give two spellings or more"),
        ("א,ב\nג,ב\n", "line 2: ב is in an earlier line too"),
    ],
)
def test_an_invalid_spelling_table_is_reported(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "same.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        SpellingVariants.read(path, fair)
    with pytest.raises(UsageError, match="No such file"):
        SpellingVariants.read(tmp_path / "none.csv", fair)


def test_breakdowns_contain_every_utterance_once() -> None:
    pairs = [
        hebrew("אחת", "אחת", 0, seconds=2.0, snr_db=-3.0, source="a"),
        hebrew("שתיים", "שלוש", 1, seconds=7.0, snr_db=12.0, source="a"),
        hebrew("קנה iPhone", "קנה", 2, seconds=20.0, snr_db=45.0, source="b"),
        hebrew("בשנת 1948", "בשנת 1949", 3, seconds=90.0, snr_db=None, source="b"),
    ]
    found = by_utterance(pairs, ScoredPairs.of(pairs).counts)
    assert list(found["duration"].parts) == ["0-5 s", "5-15 s", "15-30 s", "30+ s"]
    assert list(found["noise"].parts) == ["below 0 dB", "10-20 dB", "30+ dB"]
    assert found["script"].parts.keys() == {"letters of the language only", "with Latin", "with digits"}
    for key in ("source", "duration", "script", "language"):
        assert sum(part.utterances for part in found[key].parts.values()) == 4
    assert found["source"].parts["a"].leaderboard.wer == 0.5


def test_hard_words_are_counted_with_their_misses() -> None:
    pairs = [
        hebrew('דובר צה"ל אמר שלום', "דובר אמר שלום", 0),
        hebrew("הגיע ד״ר כהן אמר", "הגיע דר לוי אמר", 1),
        hebrew("שלום שלום", "שלום שלום", 2),
    ]
    table = ScoredPairs.of(pairs).hard_words()
    name_like = table.classes["name-like"]
    assert (name_like.words, name_like.missed) == (3, 2)  # צה"ל, ד"ר, כהן
    assert table.classes["rare"].words == 6 - 1  # all but אמר and שלום
    assert table.left_out == 0


def test_each_language_is_scored_by_its_own_rules() -> None:
    pairs = [hebrew('צה"ל', "צה״ל", 0), TranscriptPair("b", "C'est ça", "c'est ça", language="French")]
    summary = summarise(ScoredPairs.of(pairs))
    assert summary.language == "French/Hebrew"
    assert summary.fair.wer == 0
    assert summary.by["language"].parts.keys() == {"Hebrew", "French"}


def test_the_lines_of_the_results_add_up_to_the_summary() -> None:
    draw = np.random.default_rng(0)
    words = ["שלום", "עולם", "ילד", "הלך"]
    pairs = [hebrew(" ".join(draw.choice(words, 5)), " ".join(draw.choice(words, 4)), n) for n in range(50)]
    measured = ScoredPairs.of(pairs)
    summary = summarise(measured).as_json()
    lines = [scored.as_json() for scored in scored_utterances(measured)]
    for count in ("hits", "substitutions", "deletions", "insertions", "words"):
        assert summary["leaderboard"][count] == sum(line[count] for line in lines)
        assert summary["fair"][count] == sum(line[f"fair_{count}"] for line in lines)


def test_published_results_are_fractions_for_known_sets() -> None:
    from caspi.corpus.sources.catalogue import CATALOGUE

    found = published()
    assert len(found) >= 15
    assert all(0 < one.wer < 1 and one.date and one.source for one in found)
    assert all(CATALOGUE[one.set].language == one.language for one in found)


def test_the_time_of_a_summary_grows_no_faster_than_its_utterances() -> None:
    def seconds(count: int) -> float:
        pairs = [
            hebrew("הילד הגדול הלך אתמול לבית הספר", "הילד גדול הלך אתמול לבית ספר", n, seconds=4.0, group=f"g{n % 40}")
            for n in range(count)
        ]
        started = time.perf_counter()
        summarise(ScoredPairs.of(pairs))
        return time.perf_counter() - started

    seconds(100)
    assert seconds(1_600) < 3 * 16 * seconds(100)


def test_a_relaxation_never_removes_a_negative_amount() -> None:
    """Ignoring the spelling of a year makes one word of six: the denominator stays the original word count."""
    pairs = [
        hebrew("הוא נולד בשנת אלף תשע מאות ארבעים ושמונה בחיפה", "הוא נולד בשנת אלף תשע מאות ארבעים ושמונה בירושלים", 0)
    ]
    summary = summarise(ScoredPairs.of(pairs))
    assert all(one.removed >= 0 for one in summary.relaxations.values())
    assert summary.relaxations["numerals"].wer == summary.fair.wer


def test_breakdowns_show_the_speakers_with_the_most_errors() -> None:
    pairs = [hebrew("שלום עולם", "שלום" if n % 2 else "שלום עולם", n, group=f"speaker {n}") for n in range(120)]
    by_group = by_utterance(pairs, ScoredPairs.of(pairs).counts)["group"]
    assert by_group.all_parts == 120
    shown = list(by_group.parts)
    assert len(shown) == 50
    numbers = [int(name.split()[1]) for name in shown]
    assert numbers == sorted(numbers)  # numeric order
    assert all(number % 2 for number in numbers)


def test_utterances_with_names_are_a_separate_part() -> None:
    pairs = [hebrew('דובר צה"ל אמר שלום', "דובר אמר שלום", 0), hebrew("שלום עולם", "שלום עולם", 1)]
    found = by_utterance(pairs, ScoredPairs.of(pairs).counts)["names"].parts
    assert found["with name-like words"].utterances == 1
    assert found["without name-like words"].leaderboard.wer == 0


def test_each_part_has_its_own_interval() -> None:
    draw = np.random.default_rng(0)
    words = "אחת שתיים שלוש ארבע".split()
    pairs = [
        hebrew(" ".join(words), " ".join(word for word in words if draw.random() > rate), n, seconds=seconds)
        for n, (seconds, rate) in enumerate([(2.0, 0.05), (8.0, 0.5)] * 100)
    ]
    parts = by_utterance(pairs, ScoredPairs.of(pairs).counts)["duration"].parts
    for name, rate in (("0-5 s", 0.05), ("5-15 s", 0.5)):
        interval = parts[name].leaderboard.wer_ci
        assert interval is not None
        low, high = interval
        assert low < rate < high < rate + 0.1


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    pairs = [hebrew("שלום עולם", "שלום", 0, seconds=2.0, group="a"), hebrew("ילד", "ילד " * 12, 1)]
    measured = ScoredPairs.of(pairs)
    written = write_results(tmp_path, measured, summarise(measured))
    assert list(read_results(tmp_path).values()) == written
    assert json.loads((tmp_path / SUMMARY).read_text())["by_group"].keys() == {"a"}
