from __future__ import annotations

import io

import av
import pytest

from caspi import audio
from tests.conftest import tone
from tests.support import encoded


def test_joined_mp3_files_are_decoded_to_the_end() -> None:
    """The first one's header counts its own frames only."""
    one, two = (encoded(tone(length, 16_000, seed=7), 16_000, "mp3", "libmp3lame") for length in (4.0, 5.0))
    assert len(audio.decode(one + two)) / 16_000 == pytest.approx(9.0, abs=0.3)
    assert len(audio.decode(one)) / 16_000 == pytest.approx(4.0, abs=0.1)
    tag = b"TAG" + bytes(125)  # ID3v1 at the end of the first file
    assert len(audio.decode(one + tag + two + one)) / 16_000 == pytest.approx(13.0, abs=0.3)
    assert len(audio.decode(one[: len(one) // 2] + two)) / 16_000 == pytest.approx(7.0, abs=0.3)


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
