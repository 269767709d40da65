"""Texts of windows that share speech: no word is lost, none is doubled."""

from __future__ import annotations

import random
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rapidfuzz import fuzz

from caspi.inference.engine.requests import Hypothesis
from caspi.inference.engine.words import RecognisedWord
from caspi.inference.long_audio import Window
from caspi.inference.stitching import overlap
from caspi.inference.transcriber import Transcriber, TranscriptionOptions
from caspi.inference.window_decoder import WindowDecoder
from caspi.model.loading import LoadedModel


def stitched(before: str, after: str, shared: float = 2.5) -> str:
    first, second = before.split(), after.split()
    kept, left_out = overlap(first, second, len(first), shared)
    return " ".join(first[:kept] + second[left_out:])


@pytest.mark.parametrize(
    ("before", "after", "whole"),
    [
        ("הילד הלך הביתה", "הלך הביתה ואכל", "הילד הלך הביתה ואכל"),
        ("הילד הלך הבי", "הלך הביתה ואכל", "הילד הלך הביתה ואכל"),  # the last word is cut off
        ("הילד הלך הביתה", "לך הביתה ואכל", "הילד הלך הביתה ואכל"),  # so is the first of the next
        ("הילד הלך הביתה,", "הביתה ואכל", "הילד הלך הביתה, ואכל"),  # punctuation makes no difference
        ("הילד הלכ", "הלך ואכל", "הילד הלך ואכל"),  # nearly the same word is the same word
        ("הילד הלך", "אכל תפוח", "הילד הלך אכל תפוח"),  # nothing in common: both stay
        # Trap: a frequent word further on is another one.
        (
            "שברה את החולצה החדשה בלילה",
            "הדשה בלילה אתמול האופה קנתה את הכסא",
            "שברה את החולצה החדשה בלילה אתמול האופה קנתה את הכסא",
        ),
        (
            "ששה חתולים ביום ששי הדוד",
            "משה הדוד קנה תשעה פרחים ביום שני",
            "ששה חתולים ביום ששי הדוד קנה תשעה פרחים ביום שני",
        ),
        ("", "אכל תפוח", "אכל תפוח"),
        ("הילד הלך", "", "הילד הלך"),
    ],
)
def test_words_at_the_edge(before: str, after: str, whole: str) -> None:
    assert stitched(before, after) == whole


WORDS = st.lists(st.text("אבגדהוזחטיכלמנסעפצקרשת", min_size=3, max_size=7), min_size=7, max_size=12, unique=True)


@given(WORDS, st.integers(1, 4), st.data())
def test_a_text_that_was_cut_anywhere_is_whole_again(words: list[str], shared: int, data: st.DataObject) -> None:
    """The last word of the first part and the first of the second may be pieces."""
    assume(all(fuzz.ratio(*pair) < 60 for pair in combinations(words, 2)))
    cut = data.draw(st.integers(shared + 1, len(words) - 1))
    before, after = words[:cut], words[cut - shared :]
    if shared >= 2 and data.draw(st.booleans()):
        before = [*before[:-1], before[-1][:-1] + "ק"]
    kept, left_out = overlap(before, after, len(before), shared)
    assert before[:kept] + after[left_out:] == words


def test_a_long_recording_without_pauses_is_stitched(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of numbered words; their order of arrival makes no difference."""
    draw = random.Random(0)
    spoken = ["".join(draw.choices("אבגדהוזחטיכלמנסעפצקרשת", k=6)) for _ in range(60)]
    transcriber = Transcriber(tiny)
    windows = [
        Window(16_000 * 9 * number, np.full(160_000, 0.1, np.float32), None, 16_000 if number else 0, number < 5)
        for number in range(6)
    ]
    texts = [spoken[10 * number - (2 if number else 0) : 10 * number + 10] for number in range(6)]

    def said(number: int) -> Hypothesis:
        words = tuple(RecognisedWord(word, 0.9) for word in texts[number])
        return Hypothesis(" ".join(texts[number]), "Hebrew", truncated=False, words=words)

    order = [1, 0, 2, 5, 4, 3]
    monkeypatch.setattr(
        WindowDecoder, "submit", lambda self, clip, options: self.__dict__.setdefault("n", iter(range(99))).__next__()
    )
    monkeypatch.setattr(WindowDecoder, "poll", lambda self: [(order[0], said(order.pop(0)))])
    heard: list[list[str]] = []
    ticket = transcriber.begin(
        TranscriptionOptions("Hebrew"), lambda window: heard.append([s.text for s in window.segments])
    )
    for window in windows:
        transcriber.add(ticket, window)
    transcriber.end(ticket, 55.0)
    found = []
    while not found:
        found = transcriber.poll()
    [(_, transcript)] = found
    assert transcript.text.split() == spoken  # type: ignore[union-attr]
    assert [word.text for segment in transcript.segments for word in segment.words] == spoken  # type: ignore[union-attr]
    assert " ".join(text for texts_ in heard for text in texts_).split() == spoken
    starts = [segment.start for segment in transcript.segments]  # type: ignore[union-attr]
    assert all(one < other for one, other in pairwise(starts))
