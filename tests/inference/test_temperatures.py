"""Temperatures: what is unlikely or repeats itself is decoded again at the next one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from caspi.inference import window_decoder
from caspi.inference.decoding_options import DecodingOptions
from caspi.inference.engine.engine import Engine
from caspi.inference.engine.requests import DecodeRequest, Hypothesis
from caspi.inference.transcriber import Recording, Transcriber
from caspi.inference.window_decoder import MOST_COMPRESSED, compression_ratio, repetition
from caspi.model.loading import LoadedModel
from tests.support import voice

FALLBACK = DecodingOptions(temperatures=(0.0, 0.4, 1.0))


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return voice("la casa grande y el perro come pan")


def asked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The temperatures of what the engine decodes from now on."""
    found: list[float] = []
    real = Engine.submit

    def submit(self: Engine, request: DecodeRequest) -> int:
        found.append(request.sampling.temperature if request.sampling else 0.0)
        return real(self, request)

    monkeypatch.setattr(Engine, "submit", submit)
    return found


def test_a_likely_text_is_decoded_once(tiny: LoadedModel, clip: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_decoder, "LEAST_LIKELY", -100.0)
    temperatures = asked(monkeypatch)
    [found] = Transcriber(tiny).transcribe([Recording(clip, "Spanish", decoding=FALLBACK)])
    assert temperatures == [0.0]
    assert found.segments[0].temperature == 0.0
    assert found == Transcriber(tiny).transcribe([Recording(clip, "Spanish")])[0]


def test_an_unlikely_one_at_every_temperature_until_the_last(
    tiny: LoadedModel, clip: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window_decoder, "LEAST_LIKELY", 1.0)
    temperatures = asked(monkeypatch)
    first, second = (Transcriber(tiny).transcribe([Recording(clip, "Spanish", decoding=FALLBACK)])[0] for _ in range(2))
    assert temperatures == [0.0, 0.4, 1.0] * 2
    assert first == second, "the random numbers are those of the window"
    assert first.segments[0].temperature == 1.0


def test_a_single_temperature_is_used_and_beams_only_at_zero(
    tiny: LoadedModel, clip: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window_decoder, "LEAST_LIKELY", 1.0)
    temperatures = asked(monkeypatch)
    options = DecodingOptions(beams=2, temperatures=(0.0, 0.6))
    [found] = Transcriber(tiny).transcribe([Recording(clip, "Spanish", decoding=options)])
    assert (temperatures, found.segments[0].temperature) == ([0.0, 0.6], 0.6)


def test_repetitions_are_compressed_and_speech_is_not() -> None:
    """Trap: in UTF-8 half of the bytes of Hebrew are the same, so that right text looks as if it repeated itself."""
    assert repetition("שלום עולם " * 40) > MOST_COMPRESSED
    assert repetition("") == compression_ratio("") == 0.0
    latin = "the government approved the budget of the state for the coming year after a long discussion"
    assert repetition(latin) == pytest.approx(compression_ratio(latin), abs=0.1)


@pytest.mark.skipif("CASPI_REAL_SPEECH" not in os.environ, reason="CASPI_REAL_SPEECH names no folder")
def test_real_hebrew_is_no_repetition() -> None:
    manifest = Path(os.environ["CASPI_REAL_SPEECH"]) / "torah" / "manifest.jsonl"
    pieces = []
    for line in manifest.read_text(encoding="utf-8").splitlines():
        text = " ".join(segment["text"] for segment in json.loads(line)["segments"])
        pieces += [text[first : first + 450] for first in range(0, len(text) - 450, 450)]
    assert np.mean([repetition(piece) > MOST_COMPRESSED for piece in pieces]) < 0.03  # generations do repeat themselves
    assert np.mean([compression_ratio(piece) > MOST_COMPRESSED for piece in pieces]) > 0.9


def test_nothing_is_likely() -> None:
    assert not window_decoder._is_unlikely(Hypothesis("", None, truncated=False))
