"""One stage of training: resume, take every planned step, log, evaluate, save.

Accumulation, clipping, schedules and checkpoints are caspi's own, because they depend on the plan: the number of
micro-batches of a step, and the divisor of its loss. accelerate provides processes and FSDP2 (strategy.py).
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from safetensors import SafetensorError

from caspi.errors import CaspiError, first_line
from caspi.interrupts import Interruption
from caspi.model.compiling import uncompiled
from caspi.model.tensors import to_device
from caspi.progress import LiveBar
from caspi.randomness import generator
from caspi.reporting.report import environment
from caspi.training.checkpoint import files as checkpoints
from caspi.training.checkpoint.model_card import model_card
from caspi.training.checkpoint.provenance import Provenance
from caspi.training.checkpoint.state import Checkpointer
from caspi.training.checkpoint.uploads import Uploads
from caspi.training.config import StageConfig, TrainConfig
from caspi.training.data.loader import loader
from caspi.training.data.prefetch import IncomingSteps
from caspi.training.data.steps import OptimizerStep, PlannedSteps
from caspi.training.distributed.processes import processes
from caspi.training.distributed.sharding import unsharded_copy
from caspi.training.metrics_log import MetricsLog
from caspi.training.objectives.base import Objective
from caspi.training.optim import build
from caspi.training.results import AnyMeasurement, Measurement
from caspi.training.stage_setup import StageModel
from caspi.training.step_recovery import RESUME_HINT, StepRecovery, StepResult
from caspi.training.strategy import strategy
from caspi.training.tracking import Tracker

Measure = Callable[[Any], AnyMeasurement | None]  # None: aborted, because the run is to end


class _StopRequested(Exception):
    """The current step is aborted; the next session repeats it."""


@dataclass(frozen=True, slots=True)
class StageInputs:
    """The inputs of a stage. measure: evaluates a model; its `quality` ranks checkpoints. seed: of this stage."""

    objective: Objective
    model: StageModel
    config: TrainConfig
    stage: StageConfig
    steps: PlannedSteps
    folder: Path
    seed: int
    compute_dtype: torch.dtype | None
    measure: Measure
    log: MetricsLog
    trackers: Sequence[Tracker]
    interruption: Interruption
    provenance: Provenance
    uploads: Uploads | None


class StageLoop:
    """Trains one stage. step: steps taken. ended_early: the run was interrupted, and has saved a checkpoint."""

    def __init__(self, inputs: StageInputs) -> None:
        self._inputs, self._config, self._stage = inputs, inputs.config, inputs.stage
        self._is_main, self._device = processes().is_main_process, processes().device
        self._state = Checkpointer(
            inputs.model.loaded, inputs.stage, inputs.config.max_seconds, is_writer=self._is_main
        )
        self._resume_from = checkpoints.complete_checkpoints(inputs.folder)[-1:]
        for checkpoint in self._resume_from:  # before weights are sharded: ZeRO keeps its own copies
            self._state.load_model(checkpoint)
        optimizer = build.build(inputs.model.loaded.model, inputs.model.groups, inputs.stage)
        self._strategy = strategy(inputs.objective, optimizer, inputs.stage.max_grad_norm)
        self._schedule = build.schedule(self._strategy.optimizer, inputs.stage.schedule, len(inputs.steps))
        self._recovery = StepRecovery(
            inputs.stage.name, inputs.folder, inputs.steps, inputs.log, inputs.config.max_bad_steps
        )
        self.step, self.ended_early = 0, False
        self._took_a_step = False  # whether any step of this session had a finite loss and gradient
        self._saved_at = time.monotonic()
        self._last_measurement: tuple[int, AnyMeasurement | None] = (-1, None)  # step and result

    def run(self) -> None:
        """Trains from the last checkpoint, or the beginning, to the last step. Raises CaspiError if it cannot."""
        # 1. Resume.
        first_step = self._resume()
        self._state.start_average()
        incoming = self._incoming()
        try:
            with LiveBar(f"train {self._stage.name}", len(self._inputs.steps), enabled=self._is_main) as bar:
                while self.step < len(self._inputs.steps) and not self.ended_early:
                    # 2. The gradient of one effective batch; running out of memory is handled there.
                    rates = build.learning_rates(self._strategy.optimizer)
                    planned, local, on_all_ranks = self._gradient(incoming)
                    # 3. The optimizer's step; skipped if the loss or the gradient is not finite.
                    norm = self._apply_gradient(planned, local, on_all_ranks)
                    self._schedule.step()
                    self.step += 1
                    self.ended_early = bool(on_all_ranks.stop_requested)
                    # 4. Log, evaluate, save.
                    if self.step % self._config.log_every == 0:
                        self._log(rates, norm)
                    if self._evaluation_is_due():
                        self._evaluate()
                    if self.ended_early or on_all_ranks.save_due or self._evaluation_is_due():
                        self._save()
                    bar.show(self.step, f"step {self.step:,} of {len(self._inputs.steps):,}")
        except _StopRequested:
            self._save_and_end()
        except torch.OutOfMemoryError as error:  # in the optimizer, where a smaller micro-batch does not help
            raise CaspiError(
                f"stage {self._stage.name}, step {self.step + 1}: out of memory outside of a micro-batch: with "
                f"train.activation_checkpointing_every=1, or on a GPU with more memory, {RESUME_HINT}"
            ) from error
        # 5. End.
        self._evaluate_last_checkpoint()
        for tracker in self._inputs.trackers:
            tracker.close()
        self._strategy.close()
        if not (self._took_a_step or first_step or self.ended_early):
            raise CaspiError(
                f"stage {self._stage.name} updated no weights: no step had a finite loss and gradient; metrics.jsonl "
                "lists the utterances"
            )

    def _resume(self) -> int:
        """Restores the last checkpoint. Returns the number of steps already taken, 0 at the beginning of the stage."""
        for checkpoint in self._resume_from:
            self._strategy.load_optimizer(checkpoint)
            self._schedule.load_state_dict(torch.load(checkpoint / "scheduler.pt", weights_only=True))
            self.step = checkpoints.step_of(checkpoint)
        self._inputs.log.first_step = self.step
        return self.step

    def _incoming(self) -> IncomingSteps:
        state = processes()
        workers = self._config.loader_workers(on_gpu=state.device.type == "cuda", ranks=state.num_processes)
        steps = loader(self._inputs.steps, workers, first_step=self.step)
        return IncomingSteps(iter(steps), self._inputs.steps, state.device, self._inputs.log)

    def _gradient(self, incoming: IncomingSteps) -> tuple[OptimizerStep, StepResult, StepResult]:
        """The next step, and the results of its micro-batches on this rank and on all ranks together. Its gradient is
        that of the loss per target token over the whole effective batch, however it is cut into micro-batches.

        Ranks synchronise only after their micro-batches, so that a rank that runs out of memory does not block the
        others: then all repeat the step, in smaller micro-batches. Raises _StopRequested.
        """
        step = incoming.next()
        # The dropout of adapters is seeded by the step, so that a repeated step draws the same.
        rng = generator(self._inputs.seed, self.step, processes().process_index, "dropout")
        torch.manual_seed(int(rng.integers(2**63)))
        while True:
            self._strategy.model.train()
            local = self._accumulate(step, incoming)
            on_all_ranks = local.sum_over_ranks()
            if on_all_ranks.stop_requested and not self._strategy.sharded:
                raise _StopRequested
            if not on_all_ranks.out_of_memory:
                return step, local, on_all_ranks
            self._strategy.discard_gradients()
            step = self._recovery.split(step, local, self.step + 1)
            incoming.refit()

    def _accumulate(self, step: OptimizerStep, incoming: IncomingSteps) -> StepResult:
        """Forward and backward passes of this rank's micro-batches. Stops at one that runs out of memory, and when the
        run is to end, unless other ranks wait for this one."""
        losses: list[torch.Tensor] = []
        zero = torch.zeros((), dtype=torch.float64, device=self._device)
        failed = None
        for batch, next_batch in zip(step.batches, [*step.batches[1:], None], strict=True):
            if self._inputs.interruption.requested and not self._strategy.sharded:
                break
            try:
                on_device = incoming.prefetcher.take(batch)
                incoming.prefetcher.start_copy(next_batch)
                loss = self._strategy.model(on_device) / step.target_tokens
                self._strategy.backward(loss)
                losses.append(loss.detach())
            except torch.OutOfMemoryError:
                failed = batch
                break
        else:
            incoming.fetch_next()
        if self._strategy.sharded:
            if failed is not None:
                self._recovery.end_sharded(failed, self.step + 1)
            self._run_missing_passes(step)
        return StepResult(
            loss=sum(losses, zero),
            tokens=sum(len(batch.labels) for batch in step.batches),
            out_of_memory=failed is not None,
            stop_requested=self._inputs.interruption.requested,
            save_due=self._save_is_due(),
            replaced=len(step.replaced),
            losses=losses,
            failed=failed,
        )

    def _run_missing_passes(self, step: OptimizerStep) -> None:
        """Runs passes of weight 0 until this rank has as many as the others: all ranks gather sharded weights in every
        pass."""
        for _ in range(step.max_micro_batches - len(step.batches)):
            self._strategy.backward(self._strategy.model(to_device(step.batches[-1], self._device)) * 0.0)

    def _apply_gradient(self, planned: OptimizerStep, local: StepResult, on_all_ranks: StepResult) -> float:
        """Takes the optimizer step, or skips it. Returns the norm of the gradient."""
        # If utterances were replaced, the number of tokens is not the planned one.
        loss_and_norm = self._strategy.finish_gradients(on_all_ranks.loss, planned.target_tokens / on_all_ranks.tokens)
        loss, norm = loss_and_norm
        if on_all_ranks.replaced:
            self._recovery.report_replaced(planned, self.step + 1)
        if math.isfinite(loss) and math.isfinite(norm):
            self._strategy.clip(norm, self._stage.max_grad_norm)
            self._strategy.step()
            self._state.update_average(self.step + 1)
            self._recovery.consecutive_bad_steps, self._took_a_step = 0, True
            self._inputs.log.add_step(loss, on_all_ranks.tokens, planned.seconds)
        else:
            self._strategy.discard_gradients()
            self._recovery.report_skipped(planned, local, loss_and_norm, self._strategy.trained(), self.step + 1)
        return norm

    def _save_is_due(self) -> bool:
        """Whether `save_every` or `save_every_minutes` requires a checkpoint after the current step; only the clock of
        the main process counts."""
        every, minutes = self._config.save_every, self._config.save_every_minutes
        if every is not None and (self.step + 1) % every == 0:
            return True
        return self._is_main and minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes

    def _evaluation_is_due(self) -> bool:
        total = len(self._inputs.steps)
        return self.step >= total or self.step % min(self._config.evaluate.every, total) == 0

    def _log(self, rates: dict[str, float], norm: float) -> None:
        """rates: the learning rate of every group in the last step."""
        values = self._inputs.log.averages_since_last_line() | {"grad_norm": norm}
        if torch.cuda.is_available():
            values["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        values |= {f"lr/{group}": rate for group, rate in rates.items()}
        values |= self._inputs.objective.take_metrics()
        self._publish(values)

    def _publish(self, values: dict[str, float], beside: dict[str, Any] | None = None) -> None:
        """values: for the log and the trackers. beside: for the log's file alone."""
        values = values | {"epoch": self._inputs.steps.epochs(self.step)}
        self._inputs.log.report(self.step, len(self._inputs.steps), values, beside)
        for tracker in self._inputs.trackers:
            tracker.log(values, self.step)

    def _evaluate(self) -> None:
        """Evaluates the weights that the stage would save, unless the run is to end."""
        if self.ended_early:
            return
        loaded = self._inputs.model.loaded
        began = time.monotonic()
        with self._state.weights_to_save(), uncompiled(), unsharded_copy(loaded, self._inputs.compute_dtype) as whole:
            measured = self._inputs.measure(whole)
        if measured is None:
            self.ended_early = True
            return
        self._last_measurement = self.step, measured
        figures = {f"eval_{name}": value for name, value in measured.as_json().items()}
        errors = {"utterances": measured.by_utterance} if isinstance(measured, Measurement) else {}
        self._publish(figures | {"evaluation_seconds": time.monotonic() - began}, errors)

    def _current_measurement(self) -> AnyMeasurement | None:
        """The evaluation of the current weights; None if the last evaluation was at another step."""
        step, measured = self._last_measurement
        return measured if step == self.step else None

    def _metrics(self) -> dict[str, float]:
        measured = self._current_measurement()
        return {} if measured is None else measured.as_json()

    def _evaluate_last_checkpoint(self) -> None:
        """Evaluates the last checkpoint of a stage if the run was interrupted before it did, and then resumed."""
        last = checkpoints.complete_checkpoints(self._inputs.folder)[-1:]
        if self.ended_early or self.step < len(self._inputs.steps):
            return
        if checkpoints.result_of(last[0]).measured is not None:
            return
        self._evaluate()
        processes().wait_for_everyone()
        if self._is_main and (measured := self._current_measurement()) is not None:
            checkpoints.add_metrics(last[0], measured)

    def _save_and_end(self) -> None:
        """Saves the last complete step, if it is not saved yet."""
        self.ended_early = True
        checkpoint = self._inputs.folder / f"{checkpoints.PREFIX}{self.step}"
        if self.step > 0 and checkpoint not in checkpoints.complete_checkpoints(self._inputs.folder):
            self._save()

    def _save(self) -> None:
        """Writes into a hidden folder, checks it, then makes the complete checkpoint visible.

        On a full disk only this checkpoint is lost: the run continues and the previous one stays. Raises CaspiError if
        it was the last one.
        """
        folder = self._inputs.folder
        final = folder / f"{checkpoints.PREFIX}{self.step}"
        staging = folder / checkpoints.PARTIAL
        if self._is_main:
            shutil.rmtree(staging, ignore_errors=True)
        processes().wait_for_everyone()
        self._saved_at = time.monotonic()
        failures = [reason for reason in gather_object([self._write(staging / final.name)]) if reason]
        if self._is_main and not failures:
            checkpoints.make_visible(staging / final.name, final, {"step": self.step, **self._metrics()})
            if self._inputs.uploads is not None:
                self._inputs.uploads.offer(final, self._description())
            checkpoints.prune_checkpoints(folder, self._config.evaluate.keep)
        if self._is_main:
            shutil.rmtree(staging, ignore_errors=True)
        processes().wait_for_everyone()
        if failures and (self.ended_early or self.step >= len(self._inputs.steps)):
            raise CaspiError(f"{final} could not be written ({failures[0]}): make space; {RESUME_HINT}")
        if failures:
            self._inputs.log.warn(
                self.step + 1,
                f"{final.name} could not be written ({failures[0]}); the run continues, make space",
            )

    def _write(self, folder: Path) -> str:
        """Writes all files of a checkpoint. Returns the reason if that failed, otherwise "". All ranks call it."""
        inputs = self._inputs
        try:
            if self._is_main:
                folder.mkdir(parents=True)
            processes().wait_for_everyone()
            self._state.save_model(folder)
            self._strategy.save_optimizer(folder, is_writer=self._is_main)
            if self._is_main:
                torch.save(self._schedule.state_dict(), folder / "scheduler.pt")
                measured = self._current_measurement()
                figures = {} if measured is None else measured.figures
                text = model_card(
                    inputs.provenance, self._description(), figures, environment(), self._config.max_seconds
                )
                (folder / "README.md").write_text(text, encoding="utf-8")
                checkpoints.check_readable(folder)
        except (OSError, RuntimeError, SafetensorError) as error:
            return first_line(error)
        return ""

    def _description(self) -> str:
        return f"stage {self._stage.name}, step {self.step} of {len(self._inputs.steps)}"
