from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caspi.inference.engine.engine import Engine
from caspi.inference.engine.requests import DecodeRequest
from caspi.inference.engine.words import recognised_words
from caspi.inference.transcriber import Recording, Transcriber
from caspi.model.loading import LoadedModel
from caspi.model.timestamps import without_times

LETTERS = st.sampled_from("שלוםab1 \n\u00a0־״é中😀<.>")


def words(tiny: LoadedModel, text: str) -> list[str]:
    tokens = tiny.prompt.text_tokens(text)
    return [word.text for word in recognised_words(tiny.prompt, tokens, [-0.1] * len(tokens))]


@given(st.text(LETTERS))
def test_words_are_those_of_the_text(tiny: LoadedModel, text: str) -> None:
    assert words(tiny, text) == without_times(text).split()


def test_timestamps_are_no_words(tiny: LoadedModel) -> None:
    assert words(tiny, "<0.5>שלום עולם<1.2> <1.5>טוב<2.0>") == ["שלום", "עולם", "טוב"]


def test_a_truncated_character_is_part_of_its_word(tiny: LoadedModel) -> None:
    """A token limit may end in the middle of a character of several bytes."""
    whole = tiny.prompt.text_tokens("טוב 😀")
    found = recognised_words(tiny.prompt, whole[:-1], [-0.5] * (len(whole) - 1))
    assert found[0].text == "טוב"
    assert len(found) <= 2


@given(st.lists(st.text(st.sampled_from("שלוםab"), min_size=1, max_size=6), min_size=1, max_size=5), st.data())
def test_a_word_is_as_probable_as_all_its_tokens(tiny: LoadedModel, parts: list[str], data: st.DataObject) -> None:
    tokens = tiny.prompt.text_tokens(" ".join(parts))
    scores = data.draw(st.lists(st.floats(-3.0, 0.0), min_size=len(tokens), max_size=len(tokens)))
    found = recognised_words(tiny.prompt, tokens, scores)
    written = [tiny.prompt.token_bytes(token).decode("utf-8", "replace") for token in tokens]
    spaces = [number for number, piece in enumerate(written) if piece.startswith(" ")]
    bounds = [0, *spaces, len(tokens)]
    expected = [math.exp(sum(scores[first:last])) for first, last in itertools.pairwise(bounds) if first < last]
    assert [word.probability for word in found] == pytest.approx(expected)


def test_the_language_is_no_word_and_has_a_probability(tiny: LoadedModel, speech) -> None:  # type: ignore[no-untyped-def]
    identified, given_language, begun = Engine(tiny).decode(
        [DecodeRequest(speech), DecodeRequest(speech, language="Spanish"), DecodeRequest(speech, prefix="una")]
    )
    assert [word.text for word in identified.words] == identified.text.split()
    assert identified.language_probability is not None
    assert 0 < identified.language_probability <= 1
    assert given_language.language_probability is None
    assert [word.text for word in given_language.words] == given_language.text.split()
    assert begun.words[0].text.startswith("una")


def test_a_transcript_has_the_words_of_its_segments(tiny: LoadedModel, speech) -> None:  # type: ignore[no-untyped-def]
    transcript = Transcriber(tiny).transcribe([Recording(speech)])[0]
    assert [word.text for segment in transcript.segments for word in segment.words] == transcript.text.split()
    assert transcript.language_probability is not None
