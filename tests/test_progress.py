"""Progress lines in a log file."""

from __future__ import annotations

import logging

import pytest

from caspi.progress import Progress


@pytest.mark.parametrize(
    ("unit", "amounts", "line"),
    [
        ("files", [1], "x: 1 file, "),
        ("utterances", [59, 1], "x: 60 utterances, "),
        ("h of audio", [0.5, 1.0], "x: 1.50 h of audio, "),
    ],
)
def test_counts_are_printed_as_integers(
    unit: str, amounts: list[float], line: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("caspi"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="caspi"), Progress("x", unit=unit) as progress:
        for amount in amounts:
            progress.advance(amount)
    assert caplog.messages[-1].startswith(line)
