from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

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
