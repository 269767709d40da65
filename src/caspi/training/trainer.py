"""A thin subclass of transformers.Trainer: planned steps, token-exact loss, group rates, whole checkpoints.

Trainer sees one item a step and no accumulation; the micro-batches of a step are looped over here, because only
the plan knows how many a step has.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from caspi.model.groups import TrainableGroup
from caspi.model.loading import Loaded
from caspi.training import checkpoints, optimizers
from caspi.training.config import StageConfig
from caspi.training.data import PlannedSteps, Step, loader

Evaluate = Callable[[], dict[str, float]]


class _MeasureAtTheEnd(TrainerCallback):  # type: ignore[misc]
    """The last checkpoint of a stage is evaluated too, wherever the last step falls."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_evaluate = True


class StageTrainer(Trainer):  # type: ignore[misc]
    """Trains one stage. `evaluate_model` measures the model as it is; its `wer` ranks checkpoints."""

    optimizer: Any  # Trainer's own attributes, which it does not declare
    lr_scheduler: Any
    control: Any

    def __init__(
        self,
        *,
        objective: nn.Module,
        loaded: Loaded,
        stage: StageConfig,
        groups: list[TrainableGroup],
        steps: PlannedSteps,
        arguments: TrainingArguments,
        compute_dtype: torch.dtype | None,
        evaluate_model: Evaluate,
        keep: int,
        workers: int,
        metrics_file: Path,
    ) -> None:
        self._loaded, self._stage, self._groups, self._steps = loaded, stage, groups, steps
        self._compute_dtype, self._evaluate_model, self._keep = compute_dtype, evaluate_model, keep
        self._workers, self._metrics_file = workers, metrics_file
        self._audio_seconds = 0.0
        self._since = self._started = time.monotonic()
        self._first_step = 0
        self._measured: dict[str, float] = {}
        self._staging = False
        super().__init__(model=objective, args=arguments, train_dataset=steps, eval_dataset=steps)
        self.add_callback(_MeasureAtTheEnd)
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> DataLoader[Step]:
        return loader(self._steps, self._workers)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = optimizers.adamw(self._loaded.model, self._groups, self._stage)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        if self.lr_scheduler is None:
            self.lr_scheduler = optimizers.schedule(
                optimizer or self.optimizer, self._stage.schedule, num_training_steps
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Step], None]:
        return [step for _, step in zip(range(num_batches), epoch_iterator, strict=False)], None

    def training_step(self, model: nn.Module, inputs: Step, num_items_in_batch: Any = None) -> torch.Tensor:
        """Gradient of the loss per target token over the whole effective batch, whatever its micro-batches."""
        model.train()
        device = self.args.device
        total = torch.zeros((), device=device)
        # DDP averages gradients over ranks; the loss is a sum over them.
        scale = self.accelerator.num_processes / inputs.target_tokens
        for number, batch in enumerate(inputs.batches):
            last = number == len(inputs.batches) - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                with torch.autocast(device.type, dtype=self._compute_dtype, enabled=self._compute_dtype is not None):
                    loss = model(batch.to(device)) * scale
                self.accelerator.backward(loss)
            total += loss.detach()
        self._audio_seconds += inputs.seconds
        return total

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # not counted: Trainer's own formula knows nothing of audio

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        self._measured = self._evaluate_model()
        self.log({f"eval_{name}": value for name, value in self._measured.items()})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, self._measured)
        return self._measured

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds what Trainer does not know and appends one line to metrics.jsonl."""
        if "loss" in logs:
            now = time.monotonic()
            logs["audio_seconds_per_second"] = self._audio_seconds / max(1e-9, now - self._since)
            self._audio_seconds, self._since = 0.0, now
            del logs["learning_rate"]
            logs["lr"] = optimizers.learning_rates(self.optimizer)  # type: ignore[assignment]
        super().log(logs, start_time)
        if self.is_world_process_zero():
            self._print(logs)
        if self.is_world_process_zero() and "train_runtime" not in logs:
            line = {"stage": self._stage.name, "step": self.state.global_step, **logs}
            with self._metrics_file.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def _print(self, logs: dict[str, float]) -> None:
        """One line a log for people: where the stage is, what it measured, how long is left."""
        where = f"train {self._stage.name}: step {self.state.global_step}/{self.state.max_steps}"
        if "loss" in logs:
            left = (self.state.max_steps - self.state.global_step) * self._seconds_a_step()
            speed = f"{logs['audio_seconds_per_second']:.0f} s of audio a second"
            line = f"{where}, loss {logs['loss']:.3f}, {speed}, {left / 60:.1f} min left"
            print(line, file=sys.stderr, flush=True)
        elif "eval_loss" in logs:
            line = ", ".join(
                f"{name.removeprefix('eval_')} {logs[name]:.3f}" for name in logs if name.startswith("eval_")
            )
            print(f"{where}, validation {line}", file=sys.stderr, flush=True)

    def _seconds_a_step(self) -> float:
        done = self.state.global_step - self._first_step
        return (time.monotonic() - self._started) / max(1, done)

    def _get_output_dir(self, trial: Any) -> str:
        folder = Path(self.args.output_dir)
        return str(folder / checkpoints.PARTIAL if self._staging else folder)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Writes into a hidden folder, then makes it visible whole."""
        folder = Path(self.args.output_dir)
        staging = folder / checkpoints.PARTIAL
        name = f"{checkpoints.PREFIX}{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._staging = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._staging = False
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoints.publish(staging / name, folder / name, {"step": self.state.global_step, **self._measured})
            staging.rmdir()
            checkpoints.prune(folder, self._keep)
        self.accelerator.wait_for_everyone()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if self.args.should_save:
            checkpoints.save_model(self._loaded, Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        checkpoints.load_weights(self._loaded, Path(resume_from_checkpoint))
        self._first_step = checkpoints.step_of(Path(resume_from_checkpoint))
