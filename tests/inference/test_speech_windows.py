"""Only speech is in the windows of a recording; nothing of it is lost or in two of them."""

from __future__ import annotations

import importlib.util
from itertools import pairwise
from pathlib import Path, PurePath

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from caspi.audio import SAMPLE_RATE
from caspi.inference import speech_detection
from caspi.inference.inputs import AudioInput, Span
from caspi.inference.long_audio import SpeechCutter, Window, windows
from caspi.inference.reading import pieces_of
from caspi.inference.speech_detection import FRAME, Everything, Loudness, Silero, SpeechDetector, speech_detector
from tests.conftest import tone
from tests.support import needs, voice

DETECTORS = pytest.mark.parametrize("detector", [pytest.param(Silero, marks=needs("onnxruntime")), Loudness])


def cut(samples: np.ndarray, detector: SpeechDetector, longest: float = 30.0, block: int = 65_536) -> list[Window]:
    cutter = SpeechCutter(detector, longest)
    found = [w for first in range(0, len(samples), block) for w in cutter.add(samples[first : first + block])]
    return found + cutter.end()


def noise(seconds: float, level: float, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed).standard_normal(int(seconds * SAMPLE_RATE))
    return (10 ** (level / 20) * draw).astype(np.float32)


def melody(seconds: float) -> np.ndarray:
    """Notes with overtones that fade."""
    draw = np.random.default_rng(1)
    time = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    notes = [
        sum(np.sin(2 * np.pi * pitch * part * time) / part for part in range(1, 6)) * np.exp(-4 * time) * 0.2
        for pitch in draw.choice([262, 294, 330, 392, 440, 523], int(seconds * 2))
    ]
    return np.concatenate(notes).astype(np.float32)


@DETECTORS
@pytest.mark.parametrize("level", [-200, -60, -30, -10])
def test_a_minute_of_silence_or_steady_noise_has_no_window(detector: type[Silero | Loudness], level: int) -> None:
    assert cut(noise(60, level), detector()) == []


@needs("onnxruntime")
def test_a_minute_of_music_has_no_window() -> None:
    assert cut(melody(60), Silero()) == []
    assert cut(tone(60), Silero()) == []


@DETECTORS
def test_speech_between_silence_is_found_whole(detector: type[Silero | Loudness]) -> None:
    spoken = voice("la casa grande y el perro")
    samples = np.concatenate([noise(10, -70), spoken, noise(20, -70, 1), spoken, noise(5, -70, 2)])
    found = cut(samples, detector())
    starts = [10.0, 30 + len(spoken) / SAMPLE_RATE]
    assert len(found) == 2
    for window, start in zip(found, starts, strict=True):
        assert start - 0.5 <= window.start <= start + 0.05
        assert start + len(spoken) / SAMPLE_RATE - 0.15 <= window.end <= start + len(spoken) / SAMPLE_RATE + 0.5
        assert np.array_equal(window.samples, samples[window.first :][: len(window.samples)])


@needs("onnxruntime")
def test_the_probability_of_speech_is_known_to_a_model_only() -> None:
    spoken = voice("la casa grande y el perro")
    [heard] = cut(spoken, Silero())
    assert heard.speech is not None
    assert heard.speech > 0.7
    assert {window.speech for window in cut(spoken, Loudness())} == {None}
    assert {window.speech for window in cut(spoken, Everything())} == {None}


class Told:
    """A detector that is told where speech is."""

    name = "told"

    def __init__(self, speech: np.ndarray) -> None:
        self._left = speech

    def probabilities(self, frames: np.ndarray) -> np.ndarray:
        now, self._left = self._left[: len(frames)], self._left[len(frames) :]
        return now

    def known(self) -> bool:
        return True


SPEECH = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 150)), min_size=1, max_size=8)


@settings(max_examples=60)
@given(SPEECH, st.integers(100, 20_000), st.sampled_from([2.0, 5.0, 30.0]))
def test_all_speech_is_in_exactly_one_window_in_any_blocks(
    spans: list[tuple[int, int]], block: int, longest: float
) -> None:
    """Frames of silence and of speech in turn; speech of fewer than three frames may be left out as a click."""
    speech = np.concatenate([np.repeat(np.float32([0, 1]), pair) for pair in spans])
    samples = np.random.default_rng(0).standard_normal(len(speech) * FRAME).astype(np.float32) * 0.1
    found = cut(samples, Told(speech), longest, block)
    assert [(w.first, len(w.samples)) for w in found] == [
        (w.first, len(w.samples)) for w in cut(samples, Told(speech), longest, len(samples))
    ]
    for one, other in pairwise(found):
        assert one.first + len(one.samples) <= other.first + other.shared
        assert other.shared == 0 or (one.continues and one.first + len(one.samples) == other.first + other.shared)
    assert all(0 < len(window.samples) <= longest * SAMPLE_RATE for window in found)
    covered = np.zeros(len(samples), bool)
    for window in found:
        assert np.array_equal(window.samples, samples[window.first :][: len(window.samples)])
        covered[window.first : window.first + len(window.samples)] = True
    lost = np.repeat(speech > 0, FRAME) & ~covered
    assert lost.sum() <= 2 * FRAME * sum(count < 3 for _, count in spans) + 2 * FRAME * len(found)
    long = [number for number, (_, count) in enumerate(spans) if count >= 3]
    edges = np.cumsum([count for pair in spans for count in pair])
    for number in long:
        first, last = edges[2 * number] * FRAME, edges[2 * number + 1] * FRAME
        assert (~covered[first:last]).sum() <= 2 * FRAME  # what a cut leaves over may be too short for a word


@settings(max_examples=20)
@given(st.integers(1, 100), st.integers(0, 3), st.sampled_from([3.0, 7.5, 30.0]))
def test_without_detection_every_sample_is_in_a_window(seconds: int, seed: int, longest: float) -> None:
    samples = noise(seconds, -20, seed) * np.repeat(np.random.default_rng(seed).random(seconds), SAMPLE_RATE)
    samples = samples.astype(np.float32)[: len(samples) - 100 * seed]
    found = cut(samples, Everything(), longest, 10_000)
    assert (found[0].first, found[-1].first + len(found[-1].samples)) == (0, len(samples))
    for one, other in pairwise(found):
        assert one.first + len(one.samples) == other.first + other.shared
        assert one.continues == (other.shared > 0)
    if not any(window.shared for window in found):
        assert [(w.first, w.first + len(w.samples)) for w in found] == windows(samples, longest)


def test_cuts_fall_in_pauses() -> None:
    """Speech without long pauses, which needs several windows."""
    spoken = voice("la casa grande y el perro")
    pause = noise(0.5, -70)
    samples = np.concatenate([spoken, pause] * 20)
    period = len(spoken) + len(pause)
    found = cut(samples, Everything(), 10.0)
    assert len(found) > 3
    for window in found[1:]:
        assert not window.shared
        assert len(spoken) - 800 <= window.first % period or window.first % period <= 800


def test_a_stop_and_a_weak_vowel_inside_of_a_word_are_no_pause() -> None:
    """300 ms that are quiet on average: where they are cut, the next window begins before that."""
    speech = np.random.default_rng(0).standard_normal(14 * SAMPLE_RATE).astype(np.float32) * 0.1
    stop, vowel = (slice(int(a * SAMPLE_RATE), int(b * SAMPLE_RATE)) for a, b in ((6.0, 6.16), (6.16, 6.3)))
    speech[stop] *= 0.01
    speech[vowel] *= 0.44  # -7 dB
    [one, other] = cut(speech, Everything(), 10.0)
    assert one.continues
    assert SAMPLE_RATE <= other.shared <= 2 * SAMPLE_RATE
    speech[vowel] *= 0.1
    [one, other] = cut(speech, Everything(), 10.0)
    assert (one.continues, other.shared) == (False, 0)
    assert abs(one.end - 6.15) < 0.05


def test_a_long_recording_is_cut_in_bounded_memory() -> None:
    cutter = SpeechCutter(Everything(), 30.0)
    for _ in range(600):
        cutter.add(noise(1, -20))
        assert len(cutter._kept) < 40 * SAMPLE_RATE


def test_without_silero_the_level_decides_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        speech_detection.importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else real(name)
    )
    assert speech_detector() is Loudness
    assert "pip install 'caspi-asr[vad]'" in caplog.text
    assert speech_detector(detect=False) is Everything


@pytest.mark.parametrize("start", [0.0, 4.0])
def test_windows_that_are_read_from_a_file_are_those_of_its_samples(tmp_path: Path, start: float) -> None:
    """Trap: what a window shares with the one before it was lost on the way, and its words were doubled."""
    samples = noise(40, -20)
    soundfile.write(tmp_path / "a.wav", samples, SAMPLE_RATE, subtype="FLOAT")
    taken = AudioInput(tmp_path / "a.wav", PurePath("a"), Span(start, None))
    found = [piece for _, piece in pieces_of(taken, Everything, 10.0) if isinstance(piece, Window)]
    first = round(start * SAMPLE_RATE)
    wanted = cut(samples[first:], Everything(), 10.0)
    assert any(window.shared for window in wanted)
    assert [(w.first, w.shared, w.continues) for w in found] == [
        (first + w.first, w.shared, w.continues) for w in wanted
    ]
