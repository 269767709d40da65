from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from caspi import audio


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=500))
def test_flac_keeps_16_bits(values: list[float]) -> None:
    clip = np.array(values, np.float32)
    again = audio.decode_flac(audio.encode_flac(clip))
    assert np.abs(again - np.clip(clip, -1, 32767 / 32768)).max() <= 0.51 / 32768
