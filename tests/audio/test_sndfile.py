from __future__ import annotations

import pytest

from caspi import audio
from tests.conftest import tone
from tests.support import encoded


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_wav_file_without_a_length_is_decoded_completely(size: int) -> None:
    """Programs write such files if they stream, or stop before they can update the header."""
    content = bytearray(encoded(tone(2.0), 16_000, "wav", "pcm_s16le"))
    at = content.index(b"data")
    content[at + 4 : at + 8] = size.to_bytes(4, "little")
    content[4:8] = size.to_bytes(4, "little")
    assert len(audio.decode(bytes(content))) == pytest.approx(32_000, abs=100)
