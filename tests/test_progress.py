"""Progress lines in a log file."""

from __future__ import annotations

import contextlib
import logging
import os
import pty
import re
import subprocess
import sys

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


_IN_A_TERMINAL = """
import logging, sys, time
from caspi.progress import LiveBar
from caspi.terminal import show_log
if sys.argv[1:]:
    show_log()
with LiveBar("train all", 3) as bar:
    for step in range(1, 4):
        bar.show(step, f"step {step} of 3")
        logging.getLogger("caspi.x").info(f"line {step}")
        time.sleep(0.2)
"""


@pytest.mark.parametrize("shown", [True, False])
def test_a_terminal_shows_a_bar_with_whole_lines_above_it(shown: bool) -> None:
    """In a program that imports caspi, and did not ask for its log, nothing is shown."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", _IN_A_TERMINAL, *(["show"] if shown else [])]
    with subprocess.Popen(command, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "80"}) as running:
        os.close(theirs)
        output = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while part := os.read(ours, 4096):
                output += part
        assert running.wait() == 0
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode())
    assert ("step 2 of 3" in text) == shown
    lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
    assert [line for line in lines if line.startswith("line ")] == ([f"line {n}" for n in (1, 2, 3)] if shown else [])
