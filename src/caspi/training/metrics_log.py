"""The progress of a stage: lines in metrics.jsonl for programs, lines in the terminal for people."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from caspi.atomic_output import finite
from caspi.audio import Seconds
from caspi.reporting.wording import percent

_log = logging.getLogger(__name__)

_HINT_FROM = 0.1  # share of the time spent waiting for data from which a hint is printed


class MetricsLog:
    """enabled: whether this process writes and prints: only one does. on_gpu: whether a hint about waiting for data is
    printed (on a CPU, workers would share it with training). changed: called after every line."""

    def __init__(
        self, stage: str, file: Path, *, enabled: bool, on_gpu: bool, changed: Callable[[], None] = lambda: None
    ) -> None:
        self._stage, self._file, self._enabled, self._on_gpu = stage, file, enabled, on_gpu
        self._changed = changed
        self._window: list[tuple[float, float, Seconds]] = []  # loss, tokens and audio of steps since the last line
        self._waiting_seconds: Seconds = 0.0
        self._last_line_at = self._started_at = time.monotonic()
        self.first_step = 0  # the step that this session resumes from

    def add_step(self, loss: float, tokens: float, audio: Seconds) -> None:
        """Counts an optimizer step. loss: per token."""
        self._window.append((loss, tokens, audio))

    def add_waiting(self, seconds: Seconds) -> None:
        """Counts time spent waiting for data."""
        self._waiting_seconds += seconds

    def averages_since_last_line(self) -> dict[str, float]:
        """The speed, and the loss per token unless every step was skipped. Resets the counts."""
        now = time.monotonic()
        elapsed = max(1e-9, now - self._last_line_at)
        tokens = sum(count for _, count, _ in self._window)
        loss = {"loss": sum(loss * count for loss, count, _ in self._window) / tokens} if tokens else {}
        audio = sum(seconds for *_, seconds in self._window)
        speed = {"audio_seconds_per_second": audio / elapsed, "waited": self._waiting_seconds / elapsed}
        self._window, self._last_line_at, self._waiting_seconds = [], now, 0.0
        return loss | speed

    def warn(self, step: int, text: str) -> None:
        """Logs a warning about a step."""
        if self._enabled:
            _log.warning(f"train {self._stage}: step {step}: {text}")

    def record(self, step: int, values: dict[str, Any]) -> None:
        """Appends a line of metrics.jsonl about a step; on a full disk the line is lost, but the run continues."""
        if not self._enabled:
            return
        line = json.dumps(finite({"stage": self._stage, "step": step, **values}), ensure_ascii=False, allow_nan=False)
        try:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            _log.warning(f"{self._file}: {error.strerror}; this line is lost")
        self._changed()

    def report(self, step: int, total_steps: int, logs: dict[str, float], beside: dict[str, Any] | None = None) -> None:
        """Prints and records what the loop logs: progress of the stage, measurements, time left. beside: is recorded,
        not printed."""
        if self._enabled and "audio_seconds_per_second" in logs:
            self._print(step, total_steps, self._speed(total_steps - step, self._seconds_per_step(step), logs))
        elif self._enabled and "eval_loss" in logs:
            metrics = [
                _format_metric(name.removeprefix("eval_"), logs[name]) for name in logs if name.startswith("eval_")
            ]
            self._print(step, total_steps, f"validation {', '.join(metrics)}")
        left = {}
        if "audio_seconds_per_second" in logs:
            left = {"seconds_left": (total_steps - step) * self._seconds_per_step(step)}
        rates = {name.removeprefix("lr/"): logs[name] for name in logs if name.startswith("lr/")}
        others = {name: value for name, value in logs.items() if not name.startswith("lr/")}
        self.record(step, others | {"steps": total_steps} | left | ({"lr": rates} if rates else {}) | (beside or {}))

    def _print(self, step: int, total_steps: int, text: str) -> None:
        _log.info(f"train {self._stage}: step {step}/{total_steps}, {text}")

    def _speed(self, remaining: int, seconds_per_step: Seconds, logs: dict[str, float]) -> str:
        loss = f"loss {logs['loss']:.3f}" if "loss" in logs else "every step skipped"
        speed = f"{logs['audio_seconds_per_second']:.0f} s of audio per second"
        hint = ""
        if self._on_gpu and logs["waited"] > _HINT_FROM:
            hint = f"; {logs['waited']:.0%} of the time waiting for data: increase train.workers"
        return f"{loss}, {speed}, {remaining * seconds_per_step / 60:.1f} min left{hint}"

    def _seconds_per_step(self, step: int) -> Seconds:
        return (time.monotonic() - self._started_at) / max(1, step - self.first_step)


def _format_metric(name: str, value: float) -> str:
    """Every metric but the loss is a rate."""
    if name in ("start_shift", "end_shift"):
        return f"{name.removesuffix('_shift')}s {1000 * value:.0f} ms off"
    return f"{name} {value:.3f}" if name == "loss" else f"{name} {percent(value)}"
