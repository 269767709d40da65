from __future__ import annotations

import time

import pytest

from caspi.evaluation.error_types import ErrorTypes, hallucination_signs
from caspi.evaluation.pairs import TranscriptPair
from caspi.language import language

HEBREW = language("Hebrew")


@pytest.mark.parametrize(
    ("expected", "said", "kinds"),
    [
        ("הוא הלך לבית ספר", "הוא הלך לביתספר", {"word boundary": 1}),
        ("ביתספר גדול", "בית ספר גדול", {"word boundary": 1}),
        ("הוא הלך הביתה", "הוא הלך לביתה", {"prefix": 1}),
        ("ראיתי ילד", "ראיתי הילד", {"prefix": 1}),
        ("אמא הלכה", "אימא הלכה", {"spelling": 1}),
        ("חתול קטן", "כתול כתן", {"letters that sound alike": 2}),
        ("שלום לכולם", "שלום", {"left out": 1}),
        ("שלום", "שלום לכולם", {"put in": 1}),
        ("מחברת", "מכתבות", {"similar word": 1}),
        ("שלום", "אתמול", {"another word": 1}),
        ("זה בית ספר ישן", "זה ביתספר חדש", {"word boundary": 1, "another word": 1}),
        ("אני רוצה ללכת הביתה", "אני רוצא הביתא", {"left out": 1, "letters that sound alike": 2}),
    ],
)
def test_kinds_of_errors(expected: str, said: str, kinds: dict[str, int]) -> None:
    types = ErrorTypes()
    types.add(expected.split(), said.split(), HEBREW)
    assert {kind: count for kind, count in types.kinds.items() if count} == kinds


def test_letters_and_prefixes_are_counted() -> None:
    types = ErrorTypes()
    types.add("חתול הלך לבית".split(), "כתול הלך הבית".split(), HEBREW)
    table = types.table()
    assert table.letters == [("ח", "כ", 1), ("ל", "ה", 1)]
    assert table.prefixes == [("ל", "ה", 1)]


@pytest.mark.parametrize(
    ("pair", "signs"),
    [
        (TranscriptPair("a", "שלום", "שלום " * 9), ["loop", "long"]),
        (TranscriptPair("a", "כן כן כן כן כן", "כן כן כן כן כן"), []),
        (
            TranscriptPair("a", "מה שלומך היום", "מה שלומך היום מה שלומך היום מה שלומך היום מה שלומך היום ועוד"),
            ["loop", "long"],
        ),
        (TranscriptPair("a", "שלום עולם", "שלוווווווום עולם"), ["loop"]),
        (TranscriptPair("a", "שלום עולם", "שלום " + "le" * 30), ["loop"]),
        (TranscriptPair("a", "שלום עולם", "ויהי…" * 9), ["loop"]),
        (TranscriptPair("a", "אחת שתיים שלוש ארבע", "אחת שתיים שלוש ארבע חמש שש שבע", seconds=0.8), ["long"]),
        (TranscriptPair("a", "", "תודה שצפיתם"), ["over silence"]),
        (TranscriptPair("a", "שלום", "שלום", silence=0.99), ["over silence"]),
        (TranscriptPair("a", "שלום", "של", truncated=True), ["cut off"]),
        (TranscriptPair("a", "שלום לכולם", ""), []),
        (TranscriptPair("a", "שלום לכולם", "language Hebrew<asr_text>שלום לכולם"), ["leaked tags"]),
        (TranscriptPair("a", "שלום לכולם", "<|0.00|>שלום לכולם<|1.20|>"), ["leaked tags"]),
    ],
)
def test_hallucination_signs_are_detected(pair: TranscriptPair, signs: list[str]) -> None:
    fair = HEBREW.normalisers["fair"]
    assert hallucination_signs(pair, fair(pair.reference), fair(pair.hypothesis)) == signs


def test_counting_an_hour_in_another_language_takes_linear_time() -> None:
    def seconds(words: int) -> float:
        taken = []
        for _ in range(3):  # take the fastest: other processes may slow down the others
            started = time.process_time()
            ErrorTypes().add([f"א{n}" for n in range(words)], [f"z{n}" for n in range(words)], HEBREW)
            taken.append(time.process_time() - started)
        return min(taken)

    assert seconds(4_000) < 4 * 8 * seconds(500)
