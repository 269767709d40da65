from __future__ import annotations

import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from caspi import audio
from tests.conftest import tone
from tests.support import encoded


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


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty_audio"), (b"not audio at all" * 50, "corrupt_audio"), (None, "missing_audio")],
)
def test_unreadable_input_has_a_reason(tmp_path: Path, content: bytes | None, reason: str) -> None:
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


@settings(max_examples=60)
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


@pytest.mark.parametrize("kind", ["wav", "flac", "m4a"])
def test_one_channel_can_be_selected(kind: str, tmp_path: Path) -> None:
    left, right = tone(1.0, seed=1), 0.1 * tone(1.0, seed=2)
    path = tmp_path / f"x.{kind}"
    both = np.stack([left, right])
    if kind == "m4a":
        with av.open(str(path), "w") as out:
            stream = out.add_stream("aac", rate=16_000, layout="stereo")
            frame = av.AudioFrame.from_ndarray(both.astype(np.float32), format="fltp", layout="stereo")
            frame.sample_rate = 16_000
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    else:
        soundfile.write(path, both.T, 16_000)
    for channel, level in ((0, np.std(left)), (1, np.std(right))):
        found = np.concatenate(list(audio.open_stream(path, channel).blocks))
        assert np.std(found[2000:14_000]) == pytest.approx(level, rel=0.1)
    with pytest.raises(audio.AudioError, match="channel 2 does not exist, it has 2"):
        audio.open_stream(path, 2)


def test_a_recording_is_in_memory_only_once_while_reading(tmp_path: Path) -> None:
    """Keeping the blocks beside the joined array once took twice the memory."""
    soundfile.write(tmp_path / "x.wav", np.tile(tone(10.0, 44_100), 30), 44_100)
    tracemalloc.start()
    try:
        samples, _ = audio.read(tmp_path / "x.wav")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(samples) == pytest.approx(300 * 16_000, abs=100)
    assert peak < 1.3 * samples.nbytes
