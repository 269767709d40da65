from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from caspi import audio
from tests.conftest import tone
from tests.support import encoded


def test_an_ogg_file_that_ends_inside_a_page_is_incomplete() -> None:
    whole = encoded(tone(20.0, 48_000), 48_000, "ogg", "libopus")
    assert audio.open_stream(whole).declared == pytest.approx(20.0, abs=0.1)
    for share in (0.3, 0.5, 0.9):
        assert audio.open_stream(whole[: int(share * len(whole))]).declared == float("inf")


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
