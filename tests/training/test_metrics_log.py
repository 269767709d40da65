"""Progress of a stage: for programs in metrics.jsonl, for people on the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from caspi.training import metrics_log
from caspi.training.metrics_log import MetricsLog


class Clock:
    """A clock that a test advances."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(metrics_log.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_loss_is_per_token_over_all_steps_since_the_last_line(tmp_path: Path, clock: Clock) -> None:
    journal = MetricsLog("s", tmp_path / "m.jsonl", enabled=True, on_gpu=False)
    journal.add_step(loss=1.0, tokens=30, audio=40.0)
    journal.add_step(loss=5.0, tokens=10, audio=20.0)
    journal.add_waiting(3.0)
    clock.now += 12
    assert journal.averages_since_last_line() == {"loss": 2.0, "audio_seconds_per_second": 5.0, "waited": 0.25}
    clock.now += 10
    journal.add_step(loss=7.0, tokens=10, audio=20.0)
    assert journal.averages_since_last_line() == {"loss": 7.0, "audio_seconds_per_second": 2.0, "waited": 0.0}
    clock.now += 10
    assert journal.averages_since_last_line() == {"audio_seconds_per_second": 0.0, "waited": 0.0}, "every step skipped"


def test_the_time_left_is_estimated_from_the_steps_of_this_session(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = MetricsLog("s", tmp_path / "m.jsonl", enabled=True, on_gpu=True)
    journal.first_step = 100
    clock.now += 60
    pace = {"audio_seconds_per_second": 50.0, "waited": 0.05}
    journal.report(110, 200, {"loss": 1.5, **pace, "lr/projector": 1e-3})
    journal.report(110, 200, {**pace, "waited": 0.2})
    journal.report(110, 200, {"eval_loss": 1.0, "eval_wer": 0.25})
    assert capsys.readouterr().err.splitlines() == [
        "train s: step 110/200, loss 1.500, 50 s of audio per second, 9.0 min left",
        "train s: step 110/200, every step skipped, 50 s of audio per second, 9.0 min left; "
        "20% of the time waiting for data: increase train.workers",
        "train s: step 110/200, validation loss 1.000, wer 25.0 %",
    ]
    first, *_, last = lines(tmp_path / "m.jsonl")
    of = {"stage": "s", "step": 110, "steps": 200}
    assert first == {**of, "loss": 1.5, **pace, "lr": {"projector": 1e-3}, "seconds_left": 540.0}
    assert last == {**of, "eval_loss": 1.0, "eval_wer": 0.25}


def test_there_is_no_hint_about_waiting_for_data_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = MetricsLog("s", tmp_path / "m.jsonl", enabled=True, on_gpu=False)
    journal.report(1, 2, {"loss": 1.0, "audio_seconds_per_second": 5.0, "waited": 0.5})
    assert "waiting" not in capsys.readouterr().err


def test_only_one_process_writes_and_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = MetricsLog("s", tmp_path / "m.jsonl", enabled=False, on_gpu=False)
    journal.warn(1, "said")
    journal.record(1, {"skipped": "loss nan"})
    journal.report(1, 2, {"eval_loss": 1.0})
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "m.jsonl").exists()


def test_a_line_that_cannot_be_written_is_lost_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.jsonl").mkdir()
    MetricsLog("s", tmp_path / "m.jsonl", enabled=True, on_gpu=False).record(1, {"a": 1})
    assert capsys.readouterr().err == f"warning: {tmp_path / 'm.jsonl'}: Is a directory; this line is lost\n"


def test_non_finite_numbers_become_null(tmp_path: Path, clock: Clock) -> None:
    journal = MetricsLog("s", tmp_path / "m.jsonl", enabled=True, on_gpu=False)
    journal.record(1, {"loss": float("nan"), "of": [1.0, float("inf")]})
    assert json.loads((tmp_path / "m.jsonl").read_text(), parse_constant=pytest.fail)["of"] == [1.0, None]
