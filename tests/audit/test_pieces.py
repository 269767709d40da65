"""What can be proposed for a transcript that an audit flags."""

from __future__ import annotations

import numpy as np
import pytest

from caspi.alignment.align import AlignedWord
from caspi.audit.pieces import Part, found_parts, new_boundaries, with_numbers_as_heard
from tests.conftest import tone

SECOND = 16_000


def words(*confidence: float, start: float = 0.0, each: float = 0.5) -> list[AlignedWord]:
    """Words w0, w1, ... one after the other."""
    return [AlignedWord(f"w{n}", start + n * each, start + (n + 1) * each, value) for n, value in enumerate(confidence)]


def parts(found: list[AlignedWord], samples: np.ndarray) -> list[Part]:
    return found_parts(found, samples, 0.5, 0.8, 2)


def test_a_clip_whose_words_are_all_there_is_one_part() -> None:
    assert parts(words(0.9, 0.9, 0.9, 0.9), tone(2.0)) == [Part(0.0, 2.0, "w0 w1 w2 w3")]


def test_words_that_are_not_in_the_audio_are_left_out() -> None:
    assert parts(words(0.1, 0.1, 0.9, 0.9, 0.9, 0.9), tone(3.0)) == [Part(0.9, 3.0, "w2 w3 w4 w5")]
    assert parts(words(0.9, 0.9, 0.9, 0.9, 0.1, 0.1), tone(3.0)) == [Part(0.0, 2.1, "w0 w1 w2 w3")]
    assert parts(words(0.1, 0.2, 0.1), tone(1.5)) == []


def test_wrong_words_in_the_middle_leave_two_parts() -> None:
    found = parts(words(0.9, 0.9, 0.9, 0.1, 0.0, 0.1, 0.9, 0.9, 0.9), tone(4.5))
    assert [part.text for part in found] == ["w0 w1 w2", "w6 w7 w8"]
    assert found[0].end <= 1.6
    assert found[1].start >= 2.9


def test_speech_without_words_is_cut_off_or_parts_the_clip() -> None:
    """Speech before the first word, and one second of it between two words; silence stays."""
    late = words(0.9, 0.9, 0.9, 0.9, start=1.0)
    assert parts(late, tone(3.0)) == [Part(0.9, 3.0, "w0 w1 w2 w3")]
    silent_first = np.concatenate([np.zeros(SECOND, np.float32), tone(2.0)])
    assert parts(late, silent_first) == [Part(0.0, 3.0, "w0 w1 w2 w3")]
    gap = [*words(0.9, 0.9), *words(0.9, 0.9, start=2.0)]
    assert [(part.start, part.end) for part in parts(gap, tone(3.0))] == [(0.0, 1.1), (1.9, 3.0)]


def test_short_parts_are_not_kept() -> None:
    assert found_parts(words(0.9, 0.9), tone(1.0), 0.5, 1.5, 2) == []
    assert found_parts(words(0.9, 0.9), tone(1.0), 0.5, 0.5, 3) == []


def test_a_new_boundary_is_in_the_pause_between_two_texts() -> None:
    """Between the words is 2.2 s; the pause is from 2.06 to 2.56 s."""
    samples = np.concatenate([tone(2.06), np.zeros(SECOND // 2, np.float32), tone(2.0)])
    aligned = [*words(*[0.9] * 4), *words(*[0.9] * 4, start=2.4)]
    [boundary] = new_boundaries([4, 4], aligned, samples)
    assert boundary == pytest.approx(2.31, abs=0.03)


@pytest.mark.parametrize(
    ("text", "heard", "wanted"),
    [
        ("היו שם 20 איש", "היו שם 30 איש", "היו שם 30 איש"),
        ("היו שם עשרים איש", "היו שם 30 איש", "היו שם 30 איש"),
        ("היו שם 20 איש,", "היו שם 30 איש", "היו שם 30 איש,"),
        ("היו שם 20 איש", "היו שם 20 איש", None),
        ("היו שם 20 איש", "היו שם עשרים איש", None),
        ("היו שם 20 איש", "היו כאן 30 איש", None),  # another word differs too
        ("היו שם רבים", "היו שם 30", None),  # a word in place of a number
        ("היו שם 20 איש", "", None),
    ],
)
def test_numbers_are_written_as_they_were_heard(text: str, heard: str, wanted: str | None) -> None:
    assert with_numbers_as_heard(text, heard, "Hebrew") == wanted
