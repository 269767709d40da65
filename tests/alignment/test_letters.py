"""The aligner by letters: labels of frames, and the best path through a text."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from caspi.alignment.viterbi import BAND, WordPaths, untranscribed, word_paths
from caspi.corpus.utterance import Word
from caspi.model.aligner import load_aligner
from caspi.model.config import ModelConfig
from caspi.model.features import audio_token_count
from caspi.model.letters import FRAME_SECONDS, IGNORED, SILENCE, LetterPrompt, frame_logits, frames_at


@pytest.fixture(scope="module")
def prompt() -> LetterPrompt:
    made = load_aligner(ModelConfig(task="align")).prompt
    assert isinstance(made, LetterPrompt)
    return made


@pytest.mark.parametrize(("one", "other"), [("שלום", "שלומ"), ("Él", "el"), ("2024", "1999"), ("בית־ספר", "ביתספר")])
def test_spellings_that_sound_alike_are_the_same(prompt: LetterPrompt, one: str, other: str) -> None:
    assert prompt.spelling(one) == prompt.spelling(other)


def test_letters_of_other_scripts_are_one_class(prompt: LetterPrompt) -> None:
    assert set(prompt.spelling("жд中")) == {prompt.classes - 1}
    assert len(set(prompt.spelling("אבגדה"))) == 5


@given(st.integers(50, 6_000))
def test_a_clip_has_a_frame_for_every_20_ms(mel_frames: int) -> None:
    """The last of a second's 13 positions is half as long as the others."""
    count = int(frames_at(audio_token_count(mel_frames)).sum())
    assert mel_frames / 2 <= count < mel_frames / 2 + 4


def test_labels_are_the_letters_at_their_times(prompt: LetterPrompt) -> None:
    labels = prompt.labels([Word("אב", 0.1, 0.5), Word("ג", 1.0, 1.2)], audio_token_count(150))
    frames = labels[labels != IGNORED]
    a, b, c = prompt.spelling("אבג")
    assert frames.tolist() == [0] * 5 + [a] * 10 + [b] * 10 + [0] * 25 + [c] * 10 + [0] * (len(frames) - 60)
    assert (labels[12] == IGNORED).tolist() == [False, False, True, True]


def test_logits_are_in_the_order_of_time(prompt: LetterPrompt) -> None:
    counts = [audio_token_count(250), audio_token_count(60)]
    outputs = torch.arange(sum(counts) * 4).float().repeat_interleave(prompt.classes).view(sum(counts), -1)
    first, second = frame_logits(outputs, counts)
    assert len(first) == 128  # two seconds, and half a second in seven whole positions of 80 ms
    assert (first[:, 0].diff() > 0).all()
    assert second[0, 0] == counts[0] * 4


def way(scores: np.ndarray, spellings: list[list[int]], band: int = BAND) -> WordPaths | None:
    """Of one clip alone."""
    [found] = word_paths([scores], [spellings], band)
    return found


def log_probabilities(frames: list[int], classes: int = 6, sure: float = 0.9) -> np.ndarray:
    found = np.full((len(frames), classes), (1 - sure) / (classes - 1))
    found[np.arange(len(frames)), frames] = sure
    return np.log(found)


def test_words_are_where_their_letters_are() -> None:
    frames = [0] * 5 + [1] * 4 + [2] * 6 + [0] * 3 + [3] * 7 + [0] * 5
    found = way(log_probabilities(frames), [[1, 2], [3]])
    assert found is not None
    assert found.starts.tolist() == pytest.approx([5 * FRAME_SECONDS, 18 * FRAME_SECONDS])
    assert found.ends.tolist() == pytest.approx([15 * FRAME_SECONDS, 25 * FRAME_SECONDS])
    assert found.confidence.tolist() == pytest.approx([0.9, 0.9])


def test_words_without_a_pause_between_them_touch() -> None:
    found = way(log_probabilities([1] * 4 + [2] * 4), [[1], [2]])
    assert found is not None
    assert (found.starts.tolist(), found.ends.tolist()) == ([0.0, 0.08], [0.08, 0.16])


def test_speech_before_and_after_the_text_belongs_to_no_word() -> None:
    frames = [4] * 20 + [5] * 10 + [1] * 4 + [2] * 6 + [3] * 7 + [5] * 20
    found = way(log_probabilities(frames, sure=0.8), [[1, 2], [3]])
    assert found is not None
    assert found.starts.tolist() == pytest.approx([30 * FRAME_SECONDS, 40 * FRAME_SECONDS])
    assert found.ends.tolist() == pytest.approx([40 * FRAME_SECONDS, 47 * FRAME_SECONDS])


def test_a_text_with_more_letters_than_frames_has_no_path() -> None:
    assert way(log_probabilities([1, 2]), [[1, 2, 3]]) is None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=2), min_size=1, max_size=3))
def test_no_path_is_more_likely(seed: int, spellings: list[list[int]]) -> None:
    """Against all paths of eight frames."""
    scores = np.log(np.random.default_rng(seed).dirichlet(np.ones(4), 8))
    found = way(scores, spellings)
    assert found is not None
    states = [SILENCE]
    for spelling in spellings:
        states += [*spelling, SILENCE]
    emissions = np.maximum(scores[:, states], scores.max(axis=1, keepdims=True) - untranscribed(np.array(states)))
    best = max(
        (sum(emissions[t, s] for t, s in enumerate(path)), path) for path in _paths(states, len(scores))
    )  # fmt: skip
    first = list(itertools.accumulate([1, *(len(spelling) + 1 for spelling in spellings[:-1])]))
    starts = [best[1].index(state) * FRAME_SECONDS for state in first]
    assert found.starts.tolist() == pytest.approx(starts)


@pytest.mark.parametrize("band", [256, 1024])
def test_a_band_of_letters_finds_the_way_through_a_long_text(band: int) -> None:
    """With pauses of any length, and a stretch of 4 s that nobody has transcribed."""
    draw = np.random.default_rng(0)
    spellings = [draw.integers(1, 20, draw.integers(1, 9)).tolist() for _ in range(600)]
    frames: list[int] = []
    starts = []
    for number, spelling in enumerate(spellings):
        frames += [SILENCE] * int(draw.integers(0, 4) + 100 * (number % 50 == 0))
        if number == 300:
            frames += draw.integers(20, 30, 200).tolist()
        starts.append(len(frames) * FRAME_SECONDS)
        for letter in spelling:
            frames += [letter] * int(draw.integers(1, 12))
    scores = log_probabilities(frames, classes=30, sure=0.6)
    found, wanted = way(scores, spellings, band), way(scores, spellings, 10_000)
    assert found is not None
    assert wanted is not None
    assert found.starts.tolist() == wanted.starts.tolist()
    assert (np.abs(found.starts - starts) < 0.03).mean() > 0.98  # neighbours that share a letter are ambiguous


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.sampled_from([12, BAND]))
def test_clips_together_have_the_ways_that_they_have_alone(seed: int, clips: int, band: int) -> None:
    """Of any lengths; those with too many letters for their frames, or for the band, among them."""
    draw = np.random.default_rng(seed)
    spellings = [
        [draw.integers(1, 4, draw.integers(1, 5)).tolist() for _ in range(draw.integers(1, 9))] for _ in range(clips)
    ]
    scores = [np.log(draw.dirichlet(np.ones(4), int(draw.integers(5, 60)))) for _ in range(clips)]
    for together, one, spelling in zip(word_paths(scores, spellings, band), scores, spellings, strict=True):
        alone = way(one, spelling, band)
        assert (together is None) == (alone is None)
        if together is not None and alone is not None:
            assert together.starts.tolist() == alone.starts.tolist()
            assert together.ends.tolist() == alone.ends.tolist()
            assert together.confidence.tolist() == alone.confidence.tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(8, 40))
def test_a_band_never_loses_the_end_of_a_text(seed: int, band: int) -> None:
    """Whatever the scores, the way ends with the last word."""
    draw = np.random.default_rng(seed)
    spellings = [draw.integers(1, 4, draw.integers(1, 6)).tolist() for _ in range(draw.integers(1, 30))]
    letters = sum(map(len, spellings))
    scores = np.log(draw.dirichlet(np.ones(4), letters + int(draw.integers(0, 60))))
    found = way(scores, spellings, band)
    assert found is not None
    assert (found.ends > found.starts).all()
    assert (found.starts[1:] >= found.ends[:-1] - 1e-9).all()


def _paths(states: list[int], frames: int) -> list[tuple[int, ...]]:
    """Every way through all letters, one state after the other, silence left out or not."""
    paths = [(0,), (1,)]
    for _ in range(frames - 1):
        paths = [
            (*path, following)
            for path in paths
            for following in range(path[-1], min(path[-1] + 3, len(states)))
            if following < path[-1] + 2 or (states[path[-1] + 1] == SILENCE and states[path[-1]] != SILENCE)
        ]
    return [path for path in paths if path[-1] >= len(states) - 2]
