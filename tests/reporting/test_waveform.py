"""A waveform with words."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np

from caspi.reporting.waveform import ShownWord, WaveformCell


def test_words_are_where_they_are_spoken_and_coloured_by_confidence() -> None:
    samples = np.concatenate([np.zeros(8_000), np.full(8_000, 0.5)]).astype(np.float32)
    words = [ShownWord("<a>", 0.0, 0.5, 0.0), ShownWord("שלום", 0.5, 1.0, 1.0)]
    cell = WaveformCell.of(b"fLaC", samples, words)
    assert cell.source == "data:audio/flac;base64,ZkxhQw=="
    assert (cell.peaks[0], cell.peaks[-1]) == (0.0, 1.0)
    svg = ET.fromstring(str(cell.svg))  # our own text
    first, second = svg.findall("g/rect")
    assert (first.get("x"), first.get("width"), second.get("x")) == ("0.0", "300.0", "300.0")
    assert "hsl(0 " in (first.get("style") or "")
    assert "hsl(120 " in (second.get("style") or "")
    assert [text.text for text in svg.findall("g/text")] == ["<a>", "שלום"]


def test_an_empty_clip_has_a_waveform() -> None:
    assert str(WaveformCell.of(b"", np.zeros(0, np.float32), []).svg).startswith("<svg")
