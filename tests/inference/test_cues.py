"""Subtitle cues from timed words."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from caspi.inference.cues import CHARACTERS, LONGEST, Cue, TimedWord, cues

_TEXTS = st.text(st.characters(categories=["L", "P"]), min_size=1, max_size=15)


@st.composite
def words(draw: st.DrawFn) -> list[TimedWord]:
    found, at = [], 0.0
    for text in draw(st.lists(_TEXTS, max_size=60)):
        at += draw(st.sampled_from([0.0, 0.0, 0.1, 0.4, 1.5]))
        length = draw(st.floats(0.05, 1.2))
        found.append(TimedWord(text, at, at + length))
        at += length
    return found


def spoken(text: str, seconds: float = 0.3, pauses: dict[int, float] | None = None) -> list[TimedWord]:
    """Words one after another; pauses: before word number."""
    found, at = [], 0.0
    for number, word in enumerate(text.split()):
        at += (pauses or {}).get(number, 0.0)
        found.append(TimedWord(word, at, at + seconds))
        at += seconds
    return found


def shown(found: list[Cue]) -> list[str]:
    return ["|".join(cue.lines) for cue in found]


@given(words())
def test_every_word_is_in_one_cue_within_the_limits(given_words: list[TimedWord]) -> None:
    found = cues(given_words)
    assert [word for cue in found for word in cue.words] == given_words
    for cue in found:
        assert 1 <= len(cue.lines) <= 2
        assert all(len(line) <= CHARACTERS for line in cue.lines)
        assert cue.words[-1].end - cue.start <= LONGEST
        assert cue.end >= cue.words[-1].end
    assert all(one.end <= other.start for one, other in pairwise(found))


def test_a_pause_ends_a_cue() -> None:
    assert shown(cues(spoken("one two three", pauses={2: 1.0}))) == ["one two", "three"]


def test_a_sentence_ends_a_cue_unless_it_is_very_short() -> None:
    assert shown(cues(spoken("No. I said that twice. And then more"))) == ["No. I said that twice.", "And then more"]


def test_a_full_cue_is_broken_at_a_comma_or_pause_in_its_second_half() -> None:
    text = "the children went down to the sea in the morning of a very warm day, and they saw some big ships there"
    assert shown(cues(spoken(text)))[0] == "the children went down to the sea|in the morning of a very warm day,"
    paused = cues(spoken(text.replace(",", ""), pauses={11: 0.7}))
    assert shown(paused)[0].endswith("sea in the morning of")  # the pause is before "a"


def test_two_lines_are_about_equally_long() -> None:
    [cue] = cues(spoken("the children went down to the big blue sea again", seconds=0.2))
    assert cue.lines == ["the children went down", "to the big blue sea again"]


def test_a_short_cue_stays_for_a_second_or_until_the_next() -> None:
    first, second = cues(spoken("yes no", pauses={1: 0.9}))
    assert first.end == 1.0
    assert second.end == second.start + 1.0
    first, _ = cues([TimedWord("yes", 0.0, 0.1), TimedWord("no", 0.9, 1.0)])
    assert first.end == 0.9


def test_a_word_longer_than_a_line_is_a_line() -> None:
    [cue] = cues([TimedWord("a" * 50, 0.0, 1.0)])
    assert cue.lines == ["a" * 50]
