"""Trackers by name: Trainer's own, with the corpus's reports attached, and never the end of a run."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback, TrackioCallback, WandbCallback

from caspi.errors import UsageError, first_line, install
from caspi.training.checkpoint.provenance import Provenance
from caspi.training.config import TrackerName

Attach = Callable[[str, str], None]


class Tracker(TrainerCallback):  # type: ignore[misc]
    """One tracker of one stage. One that cannot start is an error; one that fails later is said, and left out."""

    def __init__(self, name: TrackerName, run: Path, stage: str, provenance: Provenance, first_step: int) -> None:
        self._name = name
        self._texts = {"recipe": provenance.recipe} | {
            f"report of {path.parent.name}": path.read_text(encoding="utf-8") for path in provenance.reports
        }
        try:
            self._inner, self._attach, self._finish = _TRACKERS[name](run, stage, provenance.name, first_step)
        except (ImportError, RuntimeError) as error:
            raise UsageError(f"train.track: {name} is not installed ({error}): {install(name)}") from error

    def on_train_begin(self, args: TrainingArguments, state: Any, control: Any, **others: Any) -> None:
        if state.is_world_process_zero:
            try:
                self._inner.on_train_begin(args, state, control, **others)
                for title, text in self._texts.items():
                    self._attach(title, text)
            except Exception as error:  # each tracker has its own
                reason = first_line(error)
                raise UsageError(f"train.track: {self._name} cannot start ({reason})") from error

    def on_log(self, args: TrainingArguments, state: Any, control: Any, **others: Any) -> None:
        if state.is_world_process_zero:
            self._guarded(lambda: self._inner.on_log(args, state, control, **others))

    def on_train_end(self, args: TrainingArguments, state: Any, control: Any, **others: Any) -> None:
        if state.is_world_process_zero:
            self._guarded(lambda: self._inner.on_train_end(args, state, control, **others))
            self._guarded(self._finish)

    def _guarded(self, work: Callable[[], object]) -> None:
        if self._inner is None:
            return
        try:
            work()
        except Exception as error:  # whatever a tracker raises, training goes on
            reason = first_line(error)
            print(f"warning: {self._name} failed ({reason}); the run goes on without it", file=sys.stderr, flush=True)
            self._inner = None


def _tensorboard(run: Path, stage: str, name: str, first_step: int) -> tuple[Any, Attach, Callable[[], object]]:
    from torch.utils.tensorboard import SummaryWriter

    # Steps after the checkpoint are logged again.
    writer = SummaryWriter(run / "tensorboard" / stage, purge_step=first_step + 1 if first_step else None)

    def attach(title: str, text: str) -> None:
        indented = "\n".join("    " + line for line in text.splitlines())  # shown as it is
        writer.add_text(title, indented)

    return TensorBoardCallback(writer), attach, writer.close


def _wandb(run: Path, stage: str, name: str, first_step: int) -> tuple[Any, Attach, Callable[[], object]]:
    import wandb

    os.environ.setdefault("WANDB_PROJECT", name)
    os.environ.setdefault("WANDB_DIR", str(run))
    os.environ["WANDB_RUN_GROUP"] = str(run)
    # A run that goes on is the same run there too.
    os.environ["WANDB_RUN_ID"] = hashlib.sha256(f"{run.resolve()}/{stage}".encode()).hexdigest()[:16]
    os.environ["WANDB_RESUME"] = "allow"

    def attach(title: str, text: str) -> None:
        artifact = wandb.Artifact(f"{name}-{title.replace(' ', '-')}", type="report")
        suffix = "yaml" if title == "recipe" else "json"
        with artifact.new_file(f"{title}.{suffix}") as file:
            file.write(text)
        wandb.log_artifact(artifact)

    return WandbCallback(), attach, wandb.finish


def _trackio(run: Path, stage: str, name: str, first_step: int) -> tuple[Any, Attach, Callable[[], object]]:
    import trackio

    def attach(title: str, text: str) -> None:
        trackio.log({title: trackio.Markdown(f"```\n{text}\n```")})

    return TrackioCallback(), attach, lambda: None


_TRACKERS = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}
