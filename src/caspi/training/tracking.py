"""Experiment trackers by name: they receive a stage's log and the corpus's reports; one that fails never ends a run."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from caspi.errors import UsageError, first_line, install
from caspi.training.checkpoint.provenance import Provenance
from caspi.training.config import TrackerName

_log = logging.getLogger(__name__)


class _Sink(Protocol):
    """The interface of one tracker."""

    def attach(self, title: str, text: str) -> None:
        """Stores a text beside the curves."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Logs the values of a step."""

    def close(self) -> None:
        """Sends what has not been sent yet."""


class Tracker:
    """One tracker of one stage, on the main process. A tracker that cannot start is an error; one that fails later is
    reported and no longer used.

    stage: the name of its folder, such as `2-all`. first_step: the step that this session resumes from; later steps are
    logged again. Raises UsageError.
    """

    def __init__(self, name: TrackerName, run: Path, stage: str, provenance: Provenance, first_step: int) -> None:
        self._name = name
        self._sink: _Sink | None = None
        texts = {"recipe": provenance.recipe} | {
            f"report of {path.parent.name}": path.read_text(encoding="utf-8") for path in provenance.reports
        }
        try:
            sink: _Sink = _TRACKERS[name](run, stage, provenance.name, first_step)
            for title, text in texts.items():
                sink.attach(title, text)
            self._sink = sink
        except ImportError as error:
            raise UsageError(f"train.track: {name} is not installed ({error}): {install(name)}") from error
        except Exception as error:  # each tracker has its own
            raise UsageError(f"train.track: {name} cannot start ({first_line(error)})") from error

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Logs `loss` as train/loss and `eval_wer` as eval/wer; values that are not numbers are skipped."""
        numbers = {_chart_name(key): float(value) for key, value in values.items() if isinstance(value, int | float)}
        self._call("log", numbers, step)

    def close(self) -> None:
        """Ends the tracking: the stage is complete, or will be resumed."""
        self._call("close")

    def _call(self, method: str, *arguments: Any) -> None:
        if self._sink is None:
            return
        try:
            getattr(self._sink, method)(*arguments)
        except Exception as error:  # whatever a tracker raises, training continues
            reason = first_line(error)
            _log.warning(f"{self._name} failed ({reason}); the run continues without it")
            self._sink = None


def _chart_name(key: str) -> str:
    return f"eval/{key.removeprefix('eval_')}" if key.startswith("eval_") else f"train/{key}"


class TensorBoard:
    """Writes event files in the run's folder."""

    def __init__(self, run: Path, stage: str, name: str, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(run / "tensorboard" / stage, purge_step=first_step + 1 if first_step else None)

    def attach(self, title: str, text: str) -> None:
        self._writer.add_text(title, "\n".join("    " + line for line in text.splitlines()))  # indented: verbatim

    def log(self, values: Mapping[str, float], step: int) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandB:
    """A run of Weights & Biases for each stage; a resumed stage is the same run there."""

    def __init__(self, run: Path, stage: str, name: str, first_step: int) -> None:
        import wandb

        self._wandb, self._name = wandb, name
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", name),
            dir=os.environ.get("WANDB_DIR", str(run)),
            group=str(run),
            name=_run_name(name, stage),
            id=hashlib.sha256(f"{run.resolve()}/{stage}".encode()).hexdigest()[:16],
            resume="allow",
        )
        self._run.define_metric("*", step_metric="train/global_step", step_sync=True)

    def attach(self, title: str, text: str) -> None:
        artifact = self._wandb.Artifact(f"{self._name}-{title.replace(' ', '-')}", type="report")
        with artifact.new_file(f"{title}.{'yaml' if title == 'recipe' else 'json'}") as file:
            file.write(text)
        self._run.log_artifact(artifact)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log({**values, "train/global_step": step})

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """A run of Trackio for each stage."""

    def __init__(self, run: Path, stage: str, name: str, first_step: int) -> None:
        import trackio

        self._trackio = trackio
        trackio.init(project=name, name=_run_name(name, stage), resume="allow")

    def attach(self, title: str, text: str) -> None:
        self._trackio.log({title: self._trackio.Markdown(f"```\n{text}\n```")})

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._trackio.log({**values, "train/global_step": step})

    def close(self) -> None:
        self._trackio.finish()  # type: ignore[no-untyped-call]


def _run_name(name: str, stage: str) -> str:
    return f"{name}-{stage.partition('-')[2]}"


_TRACKERS: dict[TrackerName, Callable[[Path, str, str, int], _Sink]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "trackio": Trackio,
}
