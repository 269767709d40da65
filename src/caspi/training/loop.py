"""One stage of training: resume, take every planned step, log, evaluate, save.

Accumulation, clipping, schedules and checkpoints are caspi's own, because only the plan knows how many micro-batches a
step has and by what its loss is divided. accelerate provides processes and FSDP2 (strategy.py).
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import gather_object
from safetensors import SafetensorError

from caspi.errors import CaspiError, first_line
from caspi.interrupts import Interruption
from caspi.model.compiling import uncompiled
from caspi.model.loading import LoadedModel
from caspi.model.tensors import to_device
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
from caspi.training.results import Measurement
from caspi.training.stage_setup import StageModel
from caspi.training.step_recovery import CONTINUES, StepRecovery, StepResult
from caspi.training.strategy import strategy
from caspi.training.tracking import Tracker

Measure = Callable[[LoadedModel], Measurement | None]  # None: aborted, because the run was asked to end


class _AskedToEnd(Exception):
    """The current step is aborted; the next session repeats it."""


@dataclass(frozen=True, slots=True)
class StageInputs:
    """The inputs of a stage. measure: evaluates a model; its `wer` ranks checkpoints. seed: of this stage."""

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
    """Trains one stage. step: steps taken. ended_early: the run was asked to end, and has saved a checkpoint."""

    def __init__(self, given: StageInputs) -> None:
        self._given, self._config, self._stage = given, given.config, given.stage
        self._main, self._device = processes().is_main_process, processes().device
        self._state = Checkpointer(given.model.loaded, given.stage, given.config.max_seconds, writes=self._main)
        self._resumed = checkpoints.complete_checkpoints(given.folder)[-1:]
        for checkpoint in self._resumed:  # before weights are sharded: ZeRO keeps its own copies
            self._state.load_model(checkpoint)
        optimizer = build.build(given.model.loaded.model, given.model.groups, given.stage)
        self._strategy = strategy(given.objective, optimizer, given.stage.max_grad_norm)
        self._schedule = build.schedule(self._strategy.optimizer, given.stage.schedule, len(given.steps))
        self._recovery = StepRecovery(
            given.stage.name, given.folder, given.steps, given.log, given.config.max_bad_steps
        )
        self.step, self.ended_early = 0, False
        self._learnt = False  # whether any step of this session had a finite loss and gradient
        self._saved_at = time.monotonic()
        self._measured: tuple[int, Measurement | None] = (-1, None)  # after which step, and what

    def run(self) -> None:
        """Trains from the last checkpoint, or the beginning, to the last step. Raises CaspiError if it cannot."""
        # 1. Resume.
        first = self._resume()
        self._state.follow()
        incoming = self._incoming()
        try:
            while self.step < len(self._given.steps) and not self.ended_early:
                # 2. The gradient of one effective batch; out of memory is handled inside.
                rates = build.learning_rates(self._strategy.optimizer)
                planned, mine, everyone = self._gradient(incoming)
                # 3. The optimizer's step; skipped if the loss or the gradient is not finite.
                norm = self._take(planned, mine, everyone)
                self._schedule.step()
                self.step += 1
                self.ended_early = bool(everyone.asked_to_end)
                # 4. Log, evaluate, save.
                if self.step % self._config.log_every == 0:
                    self._log(rates, norm)
                if self._evaluation_is_due():
                    self._evaluate()
                if self.ended_early or everyone.save_due or self._evaluation_is_due():
                    self._save()
        except _AskedToEnd:
            self._save_and_end()
        except torch.OutOfMemoryError as error:  # in the optimizer, where a smaller micro-batch does not help
            raise CaspiError(
                f"stage {self._stage.name}, step {self.step + 1}: out of memory outside of a micro-batch: with "
                f"train.activation_checkpointing_every=1, or on a GPU with more memory, {CONTINUES}"
            ) from error
        # 5. End.
        self._measure_the_last()
        for tracker in self._given.trackers:
            tracker.close()
        self._strategy.close()
        if not (self._learnt or first or self.ended_early):
            raise CaspiError(
                f"stage {self._stage.name} learnt nothing: no step had a finite loss and gradient; metrics.jsonl lists "
                "the utterances"
            )

    def _resume(self) -> int:
        """Restores the last checkpoint. Returns the number of steps already taken, 0 at the beginning of the stage."""
        for checkpoint in self._resumed:
            self._strategy.load_optimizer(checkpoint)
            self._schedule.load_state_dict(torch.load(checkpoint / "scheduler.pt", weights_only=True))
            self.step = checkpoints.step_of(checkpoint)
        self._given.log.first_step = self.step
        return self.step

    def _incoming(self) -> IncomingSteps:
        state = processes()
        workers = self._config.loader_workers(on_gpu=state.device.type == "cuda", ranks=state.num_processes)
        steps = loader(self._given.steps, workers, first=self.step)
        return IncomingSteps(iter(steps), self._given.steps, state.device, self._given.log)

    def _gradient(self, incoming: IncomingSteps) -> tuple[OptimizerStep, StepResult, StepResult]:
        """The next step, and the results of its micro-batches on this rank and on all ranks together. Its gradient is
        that of the loss per target token over the whole effective batch, however it is cut into micro-batches.

        Ranks synchronise only after their micro-batches, so that a rank that runs out of memory does not block the
        others: then all repeat the step, in smaller micro-batches. Raises _AskedToEnd.
        """
        step = incoming.next()
        # The dropout of adapters is seeded by the step, so that a repeated step draws the same.
        draw = generator(self._given.seed, self.step, processes().process_index, "dropout")
        torch.manual_seed(int(draw.integers(2**63)))
        while True:
            self._strategy.model.train()
            mine = self._accumulate(step, incoming)
            everyone = mine.over_all_ranks()
            if everyone.asked_to_end and not self._strategy.sharded:
                raise _AskedToEnd
            if not everyone.out_of_memory:
                return step, mine, everyone
            self._strategy.discard_gradients()
            step = self._recovery.split(step, mine, self.step + 1)
            incoming.refit()

    def _accumulate(self, step: OptimizerStep, incoming: IncomingSteps) -> StepResult:
        """Forward and backward of this rank's micro-batches. Stops at one that runs out of memory, and when the run is
        asked to end, unless other ranks wait for this one."""
        losses: list[torch.Tensor] = []
        nothing = torch.zeros((), dtype=torch.float64, device=self._device)
        failed = None
        for batch, following in zip(step.batches, [*step.batches[1:], None], strict=True):
            if self._given.interruption.asked and not self._strategy.sharded:
                break
            try:
                here = incoming.prefetcher.take(batch)
                incoming.prefetcher.ahead(following)
                loss = self._strategy.model(here) / step.target_tokens
                self._strategy.backward(loss)
                losses.append(loss.detach())
            except torch.OutOfMemoryError:
                failed = batch
                break
        else:
            incoming.look_ahead()
        if self._strategy.sharded:
            if failed is not None:
                self._recovery.end_sharded(failed, self.step + 1)
            self._keep_pace(step)
        return StepResult(
            loss=sum(losses, nothing),
            tokens=sum(len(batch.labels) for batch in step.batches),
            out_of_memory=failed is not None,
            asked_to_end=self._given.interruption.asked,
            save_due=self._save_is_due(),
            replaced=len(step.replaced),
            losses=losses,
            failed=failed,
        )

    def _keep_pace(self, step: OptimizerStep) -> None:
        """All ranks gather sharded weights in every pass: a rank that has finished its micro-batches continues with
        passes of weight 0."""
        for _ in range(step.rounds - len(step.batches)):
            self._strategy.backward(self._strategy.model(to_device(step.batches[-1], self._device)) * 0.0)

    def _take(self, planned: OptimizerStep, mine: StepResult, everyone: StepResult) -> float:
        """Steps the optimizer, or skips the step. Returns the norm of the gradient."""
        # If utterances were replaced, the number of tokens is not the planned one.
        found = self._strategy.finish_gradients(everyone.loss, planned.target_tokens / everyone.tokens)
        loss, norm = found
        if everyone.replaced:
            self._recovery.report_replaced(planned, self.step + 1)
        if math.isfinite(loss) and math.isfinite(norm):
            self._strategy.clip(norm, self._stage.max_grad_norm)
            self._strategy.step()
            self._state.average(self.step + 1)
            self._recovery.bad_in_a_row, self._learnt = 0, True
            self._given.log.took(loss, everyone.tokens, planned.seconds)
        else:
            self._strategy.discard_gradients()
            self._recovery.leave_out(planned, mine, found, self._strategy.trained(), self.step + 1)
        return norm

    def _save_is_due(self) -> bool:
        """Whether `save_every` or `save_every_minutes` requires a checkpoint after the current step; only the clock of
        the main process counts."""
        every, minutes = self._config.save_every, self._config.save_every_minutes
        if every is not None and (self.step + 1) % every == 0:
            return True
        return self._main and minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes

    def _evaluation_is_due(self) -> bool:
        total = len(self._given.steps)
        return self.step >= total or self.step % min(self._config.evaluate.every, total) == 0

    def _log(self, rates: dict[str, float], norm: float) -> None:
        """rates: the learning rate of every group in the last step."""
        values = self._given.log.since_the_last_line() | {"grad_norm": norm}
        if torch.cuda.is_available():
            values["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        values |= {f"lr/{group}": rate for group, rate in rates.items()}
        values |= self._given.objective.take_notes()
        self._publish(values)

    def _publish(self, values: dict[str, float]) -> None:
        values = values | {"epoch": self._given.steps.epochs(self.step)}
        self._given.log.report(self.step, len(self._given.steps), values)
        for tracker in self._given.trackers:
            tracker.log(values, self.step)

    def _evaluate(self) -> None:
        """Evaluates the model as the stage would save it, unless the run is asked to end before or meanwhile."""
        if self.ended_early:
            return
        loaded = self._given.model.loaded
        with self._state.as_it_ships(), uncompiled(), unsharded_copy(loaded, self._given.compute_dtype) as whole:
            measured = self._given.measure(whole)
        if measured is None:
            self.ended_early = True
            return
        self._measured = self.step, measured
        self._publish({f"eval_{name}": value for name, value in measured.as_json().items()})

    def _measured_here(self) -> Measurement | None:
        """What was measured on the weights as they are now; None where that was at another step."""
        step, measured = self._measured
        return measured if step == self.step else None

    def _metrics(self) -> dict[str, float]:
        measured = self._measured_here()
        return {} if measured is None else measured.as_json()

    def _measure_the_last(self) -> None:
        """Evaluates the last checkpoint of a stage if the run was asked to end before that, and then resumed."""
        last = checkpoints.complete_checkpoints(self._given.folder)[-1:]
        if self.ended_early or self.step < len(self._given.steps):
            return
        if checkpoints.result_of(last[0]).measured is not None:
            return
        self._evaluate()
        processes().wait_for_everyone()
        if self._main and (measured := self._measured_here()) is not None:
            checkpoints.add_metrics(last[0], measured)

    def _save_and_end(self) -> None:
        """Saves the last complete step, if it is not saved yet."""
        self.ended_early = True
        here = self._given.folder / f"{checkpoints.PREFIX}{self.step}"
        if self.step > 0 and here not in checkpoints.complete_checkpoints(self._given.folder):
            self._save()

    def _save(self) -> None:
        """Writes into a hidden folder, checks it, then makes the complete checkpoint visible.

        On a full disk only this checkpoint is lost: the run continues and the previous one stays. Raises CaspiError if
        it was the last one.
        """
        folder = self._given.folder
        final = folder / f"{checkpoints.PREFIX}{self.step}"
        staging = folder / checkpoints.PARTIAL
        if self._main:
            shutil.rmtree(staging, ignore_errors=True)
        processes().wait_for_everyone()
        self._saved_at = time.monotonic()
        failures = [found for found in gather_object([self._write(staging / final.name)]) if found]
        if self._main and not failures:
            checkpoints.make_visible(staging / final.name, final, {"step": self.step, **self._metrics()})
            if self._given.uploads is not None:
                self._given.uploads.offer(final, self._what())
            checkpoints.prune_checkpoints(folder, self._config.evaluate.keep)
        if self._main:
            shutil.rmtree(staging, ignore_errors=True)
        processes().wait_for_everyone()
        if failures and (self.ended_early or self.step >= len(self._given.steps)):
            raise CaspiError(f"{final} could not be written ({failures[0]}): make space; {CONTINUES}")
        if failures:
            self._given.log.say(
                self.step + 1,
                f"warning: {final.name} could not be written ({failures[0]}); the run continues, make space",
            )

    def _write(self, folder: Path) -> str:
        """Writes all files of a checkpoint. Returns why that failed, "" if it did not. All ranks call it."""
        given = self._given
        try:
            if self._main:
                folder.mkdir(parents=True)
            processes().wait_for_everyone()
            self._state.save_model(folder)
            self._strategy.save_optimizer(folder, writes=self._main)
            if self._main:
                torch.save(self._schedule.state_dict(), folder / "scheduler.pt")
                text = model_card(
                    given.provenance, self._what(), self._metrics(), environment(), self._config.max_seconds
                )
                (folder / "README.md").write_text(text, encoding="utf-8")
                checkpoints.check_readable(folder)
        except (OSError, RuntimeError, SafetensorError) as error:
            return first_line(error)
        return ""

    def _what(self) -> str:
        return f"stage {self._stage.name}, step {self.step} of {len(self._given.steps)}"
