from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from caspi import audio
from tests.conftest import tone
from tests.support import voice

SPEECH = voice("buenos dias a todos los presentes en esta sala")


def test_stereo_becomes_mono(tmp_path: Path) -> None:
    left = tone(1.0)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, np.zeros_like(left)], axis=1), 16_000)
    decoded = audio.decode(tmp_path / "stereo.wav")
    assert decoded.ndim == 1
    assert len(decoded) == 16_000


def stereo(left: np.ndarray, right: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([left, right], axis=1), 16_000, format=kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_an_empty_channel_is_detected(kind: str) -> None:
    clip = tone(1.0)
    for right, dead in ((np.zeros_like(clip), True), (clip, False)):
        stream = audio.open_stream(stereo(clip, right, kind))
        assert stream.channels == 2
        list(stream.blocks)
        assert stream.findings.dead_channel is dead


@pytest.mark.parametrize("share", [-1.0, -0.95, -0.7])
@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_the_louder_of_two_cancelling_channels_is_used(kind: str, share: float) -> None:
    left, right = SPEECH, share * SPEECH
    found, notes = audio.read(stereo(left, right, kind))
    assert notes == ["one_channel"]
    assert np.std(found) == pytest.approx(np.std(SPEECH), rel=0.05)


def test_channels_that_cancel_later_in_a_file_are_rejected() -> None:
    first = np.concatenate([tone(20.0, seed=1), tone(10.0, seed=2)])
    second = np.concatenate([tone(20.0, seed=1), -tone(10.0, seed=2)])
    with pytest.raises(audio.AudioError, match="out_of_phase"):
        audio.decode(stereo(first, second, "WAV"))


def test_two_voices_on_two_channels_are_detected() -> None:
    other = np.roll(SPEECH[::-1], 5_000)
    assert audio.read(stereo(SPEECH, other, "WAV"))[1] == ["channels_differ"]
    assert audio.read(stereo(SPEECH, 0.5 * SPEECH, "WAV"))[1] == []


def test_leading_silence_does_not_decide_the_channel_mix() -> None:
    sound = np.concatenate([np.zeros(11 * 16_000), SPEECH])
    found, notes = audio.read(stereo(sound, -sound, "WAV"))
    assert notes == ["one_channel"]
    assert np.std(found[11 * 16_000 :]) == pytest.approx(np.std(SPEECH), rel=0.05)
