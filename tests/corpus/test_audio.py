from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from caspi import audio
from tests.conftest import tone


def encoded(samples: np.ndarray, rate: int, container: str, codec: str) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(
            format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size or None
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("rate", "container", "codec"),
    [(44_100, "mp3", "libmp3lame"), (48_000, "ogg", "libopus"), (8_000, "wav", "pcm_s16le"), (22_050, "flac", "flac")],
)
def test_decodes_real_codecs_to_16_khz(rate: int, container: str, codec: str) -> None:
    clip = tone(2.0, rate)
    decoded = audio.decode(encoded(clip, rate, container, codec))
    assert decoded.dtype == np.float32
    assert len(decoded) == pytest.approx(32_000, abs=2_500)  # lossy codecs pad
    spectrum = np.abs(np.fft.rfft(decoded[4_000:20_000]))
    assert np.argmax(spectrum) * 16_000 / 16_000 == pytest.approx(220, abs=3)


def test_stereo_becomes_mono(tmp_path: Path) -> None:
    left = tone(1.0)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, np.zeros_like(left)], axis=1), 16_000)
    decoded = audio.decode(tmp_path / "stereo.wav")
    assert decoded.ndim == 1
    assert len(decoded) == 16_000


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty_audio"), (b"not audio at all" * 50, "corrupt_audio"), (None, "missing_audio")],
)
def test_names_what_is_wrong(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "bad.mp3"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(audio.AudioError) as error:
        audio.decode(path)
    assert error.value.reason == reason


def test_nan_samples_are_refused(tmp_path: Path) -> None:
    clip = tone(1.0)
    clip[100] = np.nan
    soundfile.write(tmp_path / "nan.wav", clip, 16_000, subtype="FLOAT")
    with pytest.raises(audio.AudioError, match="non_finite"):
        audio.decode(tmp_path / "nan.wav")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_damaged_files_never_crash(seed: int) -> None:
    draw = np.random.default_rng(seed)
    data = bytearray(encoded(tone(0.5, 16_000), 16_000, "mp3", "libmp3lame"))
    del data[draw.integers(1, len(data)) :]
    for _ in range(draw.integers(0, 20)):
        data[draw.integers(0, len(data))] ^= 1 << draw.integers(0, 8)
    try:
        decoded = audio.decode(bytes(data))
    except audio.AudioError:
        return
    assert np.isfinite(decoded).all()


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=500))
def test_flac_keeps_16_bits(values: list[float]) -> None:
    clip = np.array(values, np.float32)
    again = audio.decode_flac(audio.encode_flac(clip))
    assert np.abs(again - np.clip(clip, -1, 32767 / 32768)).max() <= 0.51 / 32768
