"""Progress of a stage: lines of metrics.jsonl for programs, lines of the terminal for people."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

from caspi.atomic_output import finite
from caspi.audio import Seconds
from caspi.reporting.wording import percent

_log = logging.getLogger(__name__)

_STARVED = 0.1  # share of the time spent waiting for data from which a hint is printed


class MetricsLog:
    """speaks: whether this process writes and prints; one process does, the others only count. on_gpu: only there, a
    hint about waiting for data is printed (on a CPU, workers would share it with training)."""

    def __init__(self, stage: str, file: Path, *, speaks: bool, on_gpu: bool) -> None:
        self._stage, self._file, self._speaks, self._on_gpu = stage, file, speaks, on_gpu
        self._window: list[tuple[float, float, Seconds]] = []  # loss, tokens and audio of steps since the last line
        self._waited: Seconds = 0.0
        self._since = self._started = time.monotonic()
        self.first_step = 0  # the step that this session resumes from

    def took(self, loss: float, tokens: float, audio: Seconds) -> None:
        """Counts an optimizer step. loss: per token."""
        self._window.append((loss, tokens, audio))

    def waited(self, seconds: Seconds) -> None:
        """Counts time spent waiting for data."""
        self._waited += seconds

    def since_the_last_line(self) -> dict[str, float]:
        """The pace, and the loss per token unless every step was skipped; then resets the counts."""
        now = time.monotonic()
        passed = max(1e-9, now - self._since)
        tokens = sum(count for _, count, _ in self._window)
        loss = {"loss": sum(loss * count for loss, count, _ in self._window) / tokens} if tokens else {}
        audio = sum(seconds for *_, seconds in self._window)
        pace = {"audio_seconds_per_second": audio / passed, "waited": self._waited / passed}
        self._window, self._since, self._waited = [], now, 0.0
        return loss | pace

    def say(self, step: int, text: str) -> None:
        """Prints a line about a step."""
        if self._speaks:
            _log.info(f"train {self._stage}: step {step}: {text}")

    def record(self, step: int, what: dict[str, Any]) -> None:
        """Appends a line of metrics.jsonl about a step; on a full disk the line is lost, but the run continues."""
        if not self._speaks:
            return
        line = json.dumps(finite({"stage": self._stage, "step": step, **what}), ensure_ascii=False, allow_nan=False)
        try:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            _log.warning(f"{self._file}: {error.strerror}; this line is lost")

    def report(self, step: int, of: int, logs: dict[str, float]) -> None:
        """Prints and records what the loop logs: progress of the stage, measurements, time left."""
        if self._speaks and "audio_seconds_per_second" in logs:
            self._print(step, of, self._pace(of - step, self._seconds_a_step(step), logs))
        elif self._speaks and "eval_loss" in logs:
            found = [_measured(name.removeprefix("eval_"), logs[name]) for name in logs if name.startswith("eval_")]
            self._print(step, of, f"validation {', '.join(found)}")
        rates = {name.removeprefix("lr/"): logs[name] for name in logs if name.startswith("lr/")}
        others = {name: value for name, value in logs.items() if not name.startswith("lr/")}
        self.record(step, others | ({"lr": rates} if rates else {}))

    def _print(self, step: int, of: int, text: str) -> None:
        _log.info(f"train {self._stage}: step {step}/{of}, {text}")

    def _pace(self, left: int, seconds_a_step: Seconds, logs: dict[str, float]) -> str:
        loss = f"loss {logs['loss']:.3f}" if "loss" in logs else "every step skipped"
        speed = f"{logs['audio_seconds_per_second']:.0f} s of audio a second"
        starved = ""
        if self._on_gpu and logs["waited"] > _STARVED:
            starved = f"; {logs['waited']:.0%} of the time waiting for data: increase train.workers"
        return f"{loss}, {speed}, {left * seconds_a_step / 60:.1f} min left{starved}"

    def _seconds_a_step(self, step: int) -> Seconds:
        return (time.monotonic() - self._started) / max(1, step - self.first_step)


def _measured(name: str, value: float) -> str:
    """All that is measured but the loss is a rate."""
    return f"{name} {value:.3f}" if name == "loss" else f"{name} {percent(value)}"
