from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from caspi.reporting.bidi import shown

HEBREW = "שלום עולם"


def test_text_without_hebrew_is_left_alone() -> None:
    assert shown("0-5 s") == "0-5 s"


@pytest.mark.parametrize("variables", [{"VTE_VERSION": "7200"}, {"KONSOLE_VERSION": "230800"}, {"TERM": "mlterm"}])
def test_terminals_that_turn_text_round_get_it_isolated(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert shown(HEBREW) == f"\u2068{HEBREW}\u2069"


def test_a_plain_terminal_shows_a_table_of_80_columns_in_the_order_it_is_read(tmp_path: Path) -> None:
    """A real terminal, which draws from left to right: the first letter of a word comes last."""
    file = tmp_path / "x.jsonl"
    lines = [f'{{"reference": "שלום", "hypothesis": "שלום", "source": "{source}"}}' for source in ("מקור ראשון", "b")]
    file.write_text("\n".join(lines), encoding="utf-8")
    outer, inner = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if k not in ("VTE_VERSION", "KONSOLE_VERSION", "TERM_PROGRAM")}
    process = subprocess.Popen(
        [sys.executable, "-m", "caspi", "score", str(file)], stderr=inner, stdout=subprocess.DEVNULL,
        env=clean | {"TERM": "xterm", "COLUMNS": "200"},
    )  # fmt: skip
    os.close(inner)
    written = b""
    while True:
        try:
            block = os.read(outer, 65536)
        except OSError:
            break
        if not block:
            break
        written += block
    assert process.wait() == 0
    text = written.decode()
    assert "מקור ראשון"[::-1] in text
    assert max(len(line.strip("\r")) for line in text.split("\n") if "│" in line) <= 80 + 40  # 40: colours
