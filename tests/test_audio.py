from __future__ import annotations

import io
import tracemalloc
from fractions import Fraction
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


def mux_late(out: av.container.OutputContainer, stream: av.AudioStream, samples: np.ndarray) -> None:
    """Writes samples at 16 kHz that start 1.94 s after the file does."""
    pcm = (samples * 32767).astype(np.int16)
    for start in range(0, len(pcm), 1024):
        frame = av.AudioFrame.from_ndarray(pcm[start : start + 1024][None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, start + 31_040, Fraction(1, 16_000)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


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


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=500))
def test_flac_keeps_16_bits(values: list[float]) -> None:
    clip = np.array(values, np.float32)
    again = audio.decode_flac(audio.encode_flac(clip))
    assert np.abs(again - np.clip(clip, -1, 32767 / 32768)).max() <= 0.51 / 32768


@pytest.mark.parametrize(
    "content",
    [
        b"ffconcat version 1.0\nfile 'private.wav'\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nprivate.wav\n#EXT-X-ENDLIST\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    ],
)
@pytest.mark.parametrize("as_file", [False, True])
def test_bytes_that_refer_to_other_files_are_refused(
    content: bytes, as_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row of a foreign data set must not make caspi read a local file, or wait for the network."""
    monkeypatch.chdir(tmp_path)
    soundfile.write(tmp_path / "private.wav", tone(1.0), 16_000)
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(audio.AudioError, match="corrupt_audio"):
        audio.decode(tmp_path / "x" if as_file else content)


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


def test_gaps_in_time_stamps_become_silence(tmp_path: Path) -> None:
    """A browser's recording skips lost packets; later audio must not move forward."""
    path = tmp_path / "x.webm"
    samples = np.zeros(48_000 * 6, np.float32)
    samples[48_000 * 4 : 48_000 * 5] = tone(1.0, 48_000)
    pcm = (samples * 32767).astype(np.int16)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libopus", rate=48_000, layout="mono")
        for start in [*range(0, 48_000, 960), *range(48_000 * 3, 48_000 * 6, 960)]:  # nothing from 1 s to 3 s
            frame = av.AudioFrame.from_ndarray(pcm[start : start + 960][None], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, start, Fraction(1, 48_000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    found = audio.decode(path)
    assert len(found) / 16_000 == pytest.approx(6.0, abs=0.1)
    loud = np.flatnonzero(np.abs(found) > 0.1) / 16_000
    assert (loud[0], loud[-1]) == (pytest.approx(4.0, abs=0.05), pytest.approx(5.0, abs=0.05))


def test_an_ogg_file_that_ends_inside_a_page_is_incomplete() -> None:
    whole = encoded(tone(20.0, 48_000), 48_000, "ogg", "libopus")
    assert audio.open_stream(whole).declared == pytest.approx(20.0, abs=0.1)
    for share in (0.3, 0.5, 0.9):
        assert audio.open_stream(whole[: int(share * len(whole))]).declared == float("inf")


def test_joined_mp3_files_are_decoded_to_the_end() -> None:
    """The first one's header counts its own frames only."""
    one, two = (encoded(tone(length, 16_000, seed=7), 16_000, "mp3", "libmp3lame") for length in (4.0, 5.0))
    assert len(audio.decode(one + two)) / 16_000 == pytest.approx(9.0, abs=0.3)
    assert len(audio.decode(one)) / 16_000 == pytest.approx(4.0, abs=0.1)
    tag = b"TAG" + bytes(125)  # ID3v1 at the end of the first file
    assert len(audio.decode(one + tag + two + one)) / 16_000 == pytest.approx(13.0, abs=0.3)
    assert len(audio.decode(one[: len(one) // 2] + two)) / 16_000 == pytest.approx(7.0, abs=0.3)


@pytest.mark.parametrize(
    ("container", "codec"),
    [("webm", "libopus"), ("matroska", "pcm_s16le"), ("caf", "pcm_s16le"), ("avi", "pcm_s16le"), ("w64", "pcm_s16le"),
     ("wav", "pcm_s16le"), ("mp3", "libmp3lame")],
)  # fmt: skip
def test_a_truncated_file_is_distinguished_from_a_complete_one(container: str, codec: str, tmp_path: Path) -> None:
    """Reads from a file whose container declares its length."""
    rate = 48_000 if codec == "libopus" else 16_000
    path = tmp_path / "x"
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            (tone(20.0, rate) * 32767).astype(np.int16)[None], format="s16", layout="mono"
        )
        frame.sample_rate = rate
        resampler = av.AudioResampler(
            format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size or 1024
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    whole = path.read_bytes()
    assert audio.read(path)[1] == []
    path.write_bytes(whole[: int(0.6 * len(whole))])
    found, notes = audio.read(path)
    assert len(found) < 0.8 * 20 * 16_000
    assert notes == ["ends_early"]


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_wav_file_without_a_length_is_decoded_completely(size: int) -> None:
    """Programs write such files if they stream, or stop before they can update the header."""
    content = bytearray(encoded(tone(2.0), 16_000, "wav", "pcm_s16le"))
    at = content.index(b"data")
    content[at + 4 : at + 8] = size.to_bytes(4, "little")
    content[4:8] = size.to_bytes(4, "little")
    assert len(audio.decode(bytes(content))) == pytest.approx(32_000, abs=100)


def test_a_joined_mp3_without_a_first_frame_is_decoded_too() -> None:
    one, two = (encoded(tone(length, 16_000, seed=7), 16_000, "mp3", "libmp3lame") for length in (4.0, 5.0))
    buffer = io.BytesIO()
    with av.open(io.BytesIO(two)) as known, av.open(buffer, "w", format="mp3", options={"write_xing": "0"}) as out:
        stream = out.add_stream_from_template(known.streams.audio[0])
        for packet in known.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    samples, notes = audio.read(one + buffer.getvalue())
    assert len(samples) / 16_000 == pytest.approx(9.0, abs=0.3)
    assert notes == []


def test_files_longer_than_their_header_give_a_warning() -> None:
    wav = encoded(tone(2.0), 16_000, "wav", "pcm_s16le")
    m4a = encoded(tone(2.0), 16_000, "ipod", "aac")
    wrong_length = bytearray(wav)
    at = wav.index(b"data")
    wrong_length[at + 4 : at + 8] = (20_000).to_bytes(4, "little")
    for content in (wav + wav, m4a + m4a, bytes(wrong_length)):
        assert audio.read(content)[1] == ["more_follows"]
    for container, codec in (("aiff", "pcm_s16be"), ("w64", "pcm_s16le"), ("caf", "pcm_s16le")):
        content = encoded(tone(2.0), 16_000, container, codec)
        assert audio.read(content)[1] == []
        assert audio.read(content + content)[1] == ["more_follows"], container
    for content in (wav, m4a, wav + b"TAG" + bytes(125), wav[:40_000], m4a + bytes(2_000)):
        assert "more_follows" not in audio.read(content)[1]


def test_a_hole_in_an_ogg_file_is_detected() -> None:
    content = encoded(tone(20.0, 48_000), 48_000, "ogg", "libopus")
    middle = len(content) // 2
    stream = audio.open_stream(content[:middle] + bytes(4_000) + content[middle + 4_000 :])
    found = np.concatenate(list(stream.blocks))
    assert len(found) / 16_000 == pytest.approx(20.0, abs=0.2)
    assert stream.findings.damaged
    assert stream.findings.notes(stream.declared) == ["damaged"]
    [(start, end)] = stream.findings.gaps
    assert 5 < start < end < 15


def test_audio_that_starts_later_than_its_film_keeps_its_times(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as out:
        film = out.add_stream("mpeg4", rate=10)
        film.width, film.height, film.pix_fmt = 64, 64, "yuv420p"
        sound = out.add_stream("flac", rate=16_000, layout="mono")
        for number in range(60):
            picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, 10)
            out.mux(film.encode(picture))
        mux_late(out, sound, tone(3.0))
        out.mux(film.encode(None))
    found = audio.decode(path)
    assert np.flatnonzero(np.abs(found) > 0.1)[0] / 16_000 == pytest.approx(1.94, abs=0.03)
    assert len(found) / 16_000 == pytest.approx(4.94, abs=0.1)


def test_audio_that_starts_late_without_a_film_has_its_declared_length(tmp_path: Path) -> None:
    path = tmp_path / "x.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("flac", rate=16_000, layout="mono")
        mux_late(out, stream, tone(10.0))
    found, notes = audio.read(path)
    assert len(found) / 16_000 == pytest.approx(10.0, abs=0.1)
    assert notes == []


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
