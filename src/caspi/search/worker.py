"""Does the runs of a search one after another: each is `caspi train` in a process of its own, which is ended early if
others are better."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import Trial

from caspi.search.halving import Reached, passed, pruned
from caspi.search.space import Value
from caspi.search.study import Study, progress_lines

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Work:
    """count: of runs in all. stage: the name of the last one, by whose evaluations runs are compared. write: writes
    the recipe of a run with these values into a folder and returns its file and metrics. tidy: called after each."""

    study: Study
    count: int
    stage: str
    write: Callable[[Path, dict[str, Value]], tuple[Path, Path]]
    tidy: Callable[[], None]


class Worker:
    """One at a time; workers share the study. device: the number of the GPU, if there are several."""

    def __init__(self, work: Work, device: int | None, ending: threading.Event) -> None:
        self._work, self._study, self._ending = work, work.study, ending
        self._environment = os.environ | ({} if device is None else {"CUDA_VISIBLE_DEVICES": str(device)})

    def run(self) -> None:
        """Until no run is left to do, or the search is asked to end. Raises CaspiError if all of them fail."""
        while self._one():
            self._work.tidy()
            self._study.require_success()

    def _one(self) -> bool:
        """Does a run. Returns whether there may be another."""
        with self._study.next(self._work.count) as trial:
            if trial is not None:
                self._do(trial, self._study.folder_of(trial))
        return trial is not None and not self._ending.is_set()

    def _do(self, trial: Trial, folder: Path) -> None:
        values = self._study.values(trial)
        recipe, metrics = self._work.write(folder, values)
        said = ", ".join(f"{key.rpartition('.')[2]} {_short(value)}" for key, value in values.items())
        _log.info(f"{folder.name}: {said}")
        with (folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - this program
                [sys.executable, "-m", "caspi", "train", str(recipe)], env=self._environment, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=_end_with_the_search,  # noqa: PLW1509 - a single system call
            )  # fmt: skip
            try:
                reason = self._follow(trial, process, metrics)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        lines = progress_lines(metrics, self._work.stage)
        if self._ending.is_set() and process.returncode:
            return  # it is reclaimed when the search goes on
        if reason is not None:
            self._study.prune(trial, _reached(lines[-1]), lines[-1]["progress"], reason)
            _log.info(f"{folder.name}: ended at {100 * lines[-1]['progress']:.0f} %: {reason}")
        elif process.returncode or not lines or lines[-1]["progress"] < 1:
            reason = _last_line(folder / "log.txt")
            self._study.fail(trial, reason)
            _log.warning(f"{folder.name} failed: {reason}")
        else:
            self._study.finish(trial, _reached(lines[-1]))
            _log.info(f"{folder.name}: WER {100 * _reached(lines[-1]).wer:.2f} %")

    def _follow(self, trial: Trial, process: subprocess.Popen[bytes], metrics: Path) -> str | None:
        """Until the process ends. Returns the reason if it was ended because it is worse than others."""
        before = 0.0
        while process.poll() is None:
            if self._ending.is_set():
                process.send_signal(signal.SIGTERM)
                process.wait()
                return None
            for line in progress_lines(metrics, self._work.stage):
                if line["progress"] <= before or line["progress"] >= 1:
                    continue
                for rung in passed(before, line["progress"]):
                    reached = _reached(line)
                    reason = pruned(reached, self._study.others_at(trial, rung))
                    self._study.add_reached(trial, rung, reached)
                    if reason is not None:
                        process.send_signal(signal.SIGTERM)
                        process.wait()
                        return reason
                before = line["progress"]
            time.sleep(_LOOK_SECONDS)
        return None


def _end_with_the_search() -> None:
    """In the child, before it starts: it is asked to end if the search is killed (prctl, PR_SET_PDEATHSIG)."""
    _LIBC.prctl(1, signal.SIGTERM)


_LIBC = ctypes.CDLL(None)


def _reached(line: dict[str, Any]) -> Reached:
    errors, words, groups = (tuple(line["utterances"][key]) for key in ("errors", "words", "groups"))
    return Reached(errors, words, groups, line["eval_loss"])


def _short(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("caspi: ") if lines else "no output"
