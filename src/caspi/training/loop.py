"""A thin subclass of transformers.Trainer: planned steps, token-exact loss, group rates, whole checkpoints.

Trainer sees one item a step and no accumulation; the micro-batches of a step are looped over here, because only
the plan knows how many a step has.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import gather_object, save_fsdp_optimizer
from safetensors import SafetensorError
from torch import nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from caspi.atomic_output import write_whole
from caspi.errors import CaspiError, first_line
from caspi.interrupts import Interruption
from caspi.model.batch import Batch
from caspi.model.compiling import uncompiled
from caspi.model.groups import TrainableGroup
from caspi.model.loading import LoadedModel
from caspi.model.tensors import to_device
from caspi.randomness import generator
from caspi.reporting.report import environment
from caspi.training.checkpoint import files as checkpoints
from caspi.training.checkpoint.model_card import model_card
from caspi.training.checkpoint.provenance import Provenance
from caspi.training.checkpoint.state import Checkpointer
from caspi.training.checkpoint.uploads import Uploads
from caspi.training.config import Budget, StageConfig, TrainConfig
from caspi.training.data.loader import loader
from caspi.training.data.prefetch import DevicePrefetcher
from caspi.training.data.steps import OptimizerStep, PlannedSteps
from caspi.training.distributed.deepspeed import Zero3
from caspi.training.distributed.processes import sharding
from caspi.training.distributed.sharding import shard_on_cpu, unsharded_copy
from caspi.training.metrics_log import MetricsLog
from caspi.training.optim import build, gradients

_LESSON = "budget-{rank}.json"  # of a stage's folder: what memory turned out to hold, by who found it out
_NAMED = 20  # utterances named in a message; metrics.jsonl has them all
_CONTINUES = "the same command continues from the last checkpoint"
Measure = Callable[[LoadedModel], dict[str, float] | None]  # None: given up, because the run was asked to end


def learned_budget(stage_folder: Path) -> Budget | None:
    """The smallest budget that memory taught a stage; None where it never ran out."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in stage_folder.glob(_LESSON.format(rank="*"))]
    return Budget(min(one["seconds"] for one in found), min(one["tokens"] for one in found)) if found else None


class _MeasureAtTheEnd(TrainerCallback):  # type: ignore[misc]
    """The last checkpoint of a stage is evaluated too, wherever the last step falls."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_evaluate = True


class _Average(TrainerCallback):  # type: ignore[misc]
    """Keeps the average of a stage that has one."""

    def __init__(self, trainer: StageTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._trainer.follow()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._trainer.average()


class _Leave(Exception):
    """A process was asked to end: the step that is being taken is given up, and taken again by the next session."""


class _SaveAndStop(TrainerCallback):  # type: ignore[misc]
    """Ends the run after a step that no process could give up, and in which one was asked to end."""

    def __init__(self, trainer: StageTrainer) -> None:
        self._trainer = trainer

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._trainer.stopping:
            control.should_save = control.should_training_stop = True
        if self._trainer.save_due:
            control.should_save = True


@dataclass(frozen=True, slots=True)
class StepResult:
    """What became of a step's micro-batches on one rank, or on all: counts are sums.

    loss: summed over targets, by the planned target tokens of the effective batch, float64 and on the device, so that
    the host need not wait for it. losses, failed: of this rank only; failed is the micro-batch that did not fit memory.
    """

    loss: torch.Tensor
    tokens: float
    out_of_memory: float
    asked_to_end: float
    save_due: float
    replaced: float
    losses: list[torch.Tensor] = field(default_factory=list)
    failed: Batch | None = None

    def agreed(self, accelerator: Accelerator) -> StepResult:
        """The sums over all ranks, the same on every one."""
        if accelerator.num_processes == 1:
            return self
        counts = torch.tensor(
            [self.tokens, self.out_of_memory, self.asked_to_end, self.save_due, self.replaced], dtype=torch.float64
        )
        total = torch.cat([self.loss[None], counts.to(self.loss.device)])
        dist.all_reduce(total)
        return StepResult(total[0], *total[1:].tolist())


class StageTrainer(Trainer):  # type: ignore[misc]
    """Trains one stage. `measure` measures a model; its `wer` ranks checkpoints."""

    optimizer: Any  # Trainer's own attributes, which it does not declare
    lr_scheduler: Any
    control: Any

    def __init__(
        self,
        *,
        objective: nn.Module,
        loaded: LoadedModel,
        config: TrainConfig,
        stage: StageConfig,
        groups: list[TrainableGroup],
        steps: PlannedSteps,
        arguments: TrainingArguments,
        compute_dtype: torch.dtype | None,
        measure: Measure,
        metrics_file: Path,
        interruption: Interruption,
        provenance: Provenance,
        uploads: Uploads | None,
    ) -> None:
        self._loaded, self._config, self._stage, self._groups, self._steps = loaded, config, stage, groups, steps
        self._compute_dtype, self._measure = compute_dtype, measure
        self._interruption, self._provenance, self._uploads = interruption, provenance, uploads
        self._bad_in_a_row, self._learnt = 0, False
        self._norm = 0.0
        self._rates: dict[str, float] = {}
        self._measured_at = -1
        self.stopping = self.save_due = False
        self._saved_at = time.monotonic()
        self._measured: dict[str, float] = {}
        self._staging = False
        self._feed = DevicePrefetcher(arguments.device)
        self._incoming: Iterator[OptimizerStep | CaspiError] = iter(())
        self._queued: OptimizerStep | None = None
        super().__init__(model=objective, args=arguments, train_dataset=steps, eval_dataset=steps)
        spread = self._sharding != "none"
        self._kept = Checkpointer(loaded, stage, config.max_seconds, spread=spread, writes=arguments.should_save)
        speaks, on_gpu = self.is_world_process_zero(), arguments.device.type != "cpu"
        self._journal = MetricsLog(stage.name, metrics_file, speaks=speaks, on_gpu=on_gpu)
        self.add_callback(_MeasureAtTheEnd)
        self.add_callback(_SaveAndStop(self))
        self.add_callback(_Average(self))
        self.remove_callback(PrinterCallback)

    def train(self, *args: Any, **options: Any) -> Any:
        """As Trainer does; what held the model is let go of afterwards, so that the next stage may load it."""
        try:
            done = super().train(*args, **options)
        except _Leave:
            self._save_and_leave()
            return None
        except torch.OutOfMemoryError as error:  # the optimizer's, which no smaller micro-batch helps
            raise CaspiError(
                f"stage {self._stage.name}, step {self.state.global_step + 1}: out of memory outside of a micro-batch: "
                f"with train.recompute_every=1, or on a GPU with more memory, {_CONTINUES}"
            ) from error
        self._measure_last()
        if isinstance(self.optimizer, Zero3):
            self.optimizer.end()
        if not (self._learnt or self._journal.first_step or self.stopping):
            raise CaspiError(
                f"stage {self._stage.name} learnt nothing: no step had a loss and a gradient that are numbers; "
                "metrics.jsonl names their utterances"
            )
        return done

    def _save_and_leave(self) -> None:
        """Saves the last whole step, where that was not done, and ends as Trainer does on a callback's word."""
        self.stopping = True
        here = Path(self.args.output_dir) / f"{checkpoints.PREFIX}{self.state.global_step}"
        if self.state.global_step > 0 and here not in checkpoints.complete_checkpoints(here.parent):
            self._save_checkpoint(self.model, None)
        self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)

    def get_train_dataloader(self) -> DataLoader[OptimizerStep | CaspiError]:
        on_gpu, ranks = self.args.device.type != "cpu", self.accelerator.num_processes
        return loader(self._steps, self._config.loader_workers(on_gpu=on_gpu, ranks=ranks))

    def create_accelerator_and_postprocess(self) -> None:
        """Without DDP, which would hold the gradients twice and make ranks wait for one that ran out of memory."""
        super().create_accelerator_and_postprocess()
        shard_on_cpu(self.accelerator)
        self._sharding = sharding() if self.accelerator.num_processes > 1 else "none"
        self.is_fsdp_enabled = self._sharding == "fsdp2"
        if self._sharding == "zero3":
            self.accelerator.prepare = self._give_to_zero
        elif self._sharding == "none":
            self.accelerator.prepare_model = functools.partial(self.accelerator.prepare_model, evaluation_mode=True)
        # What `training_step` found, and clipped by.
        self.accelerator.clip_grad_norm_ = lambda *_: torch.tensor(self._norm)

    def _give_to_zero(self, objective: nn.Module, adamw: torch.optim.Optimizer) -> tuple[nn.Module, Zero3]:
        """Instead of accelerate's preparation, whose engine would step inside of its backward pass."""
        zero = Zero3(objective, adamw, self._stage.max_grad_norm)
        self.accelerator.backward = zero.backward
        return zero.engine, zero

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = build.build(self._loaded.model, self._groups, self._stage)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        if self.lr_scheduler is None:
            self.lr_scheduler = build.schedule(optimizer or self.optimizer, self._stage.schedule, num_training_steps)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[OptimizerStep], None]:
        """The step to be taken; the one after it is asked for while the device computes."""
        self._incoming = epoch_iterator
        step, self._queued = self._queued or self._next(), None
        return [step] if step is not None else [], None

    def _next(self) -> OptimizerStep | None:
        """Counts the time it takes, unless the device was still at work when it was over."""
        started, launched = time.monotonic(), None
        if self.args.device.type == "cuda":
            launched = torch.cuda.current_stream(self.args.device).record_event()
        found = next(self._incoming, None)
        if launched is None or launched.query():
            self._journal.waited(time.monotonic() - started)
        if isinstance(found, CaspiError):
            raise found
        # What workers made before memory ran out is too large still.
        return found if found is None else self._steps.refit(found)

    def _look_ahead(self) -> None:
        """Fetches the next step and starts its way to the device: what was launched before computes meanwhile."""
        self._queued = self._queued or self._next()
        if self._queued is not None:
            with contextlib.suppress(torch.OutOfMemoryError):  # then it is copied when it is needed
                self._feed.ahead(self._queued.batches[0])

    def training_step(self, model: nn.Module, inputs: OptimizerStep, num_items_in_batch: Any = None) -> torch.Tensor:
        """Gradient of the loss per target token over the whole effective batch, whatever its micro-batches.

        Ranks meet once all of them have been through their micro-batches, so that one that ran out of memory keeps
        nobody waiting: then all repeat the step, in smaller micro-batches.
        """
        # What adapters drop follows from the step, so that a step taken again drops the same.
        self._rates = build.learning_rates(self.optimizer)
        draw = generator(self.args.seed, self.state.global_step, self.args.process_index, "dropout")
        torch.manual_seed(int(draw.integers(2**63)))
        while True:
            model.train()
            mine = self._accumulate(model, inputs)
            everyone = mine.agreed(self.accelerator)
            if everyone.asked_to_end and self._sharding == "none":
                raise _Leave
            if not everyone.out_of_memory:
                break
            self.optimizer.zero_grad()
            inputs = self._make_room(inputs, mine)
            self._queued = None if self._queued is None else self._steps.refit(self._queued)
        self.stopping = bool(everyone.asked_to_end)
        self.save_due = bool(everyone.save_due)
        # Utterances that were replaced have another number of tokens than was planned.
        loss, norm = self._finish_gradients(everyone.loss, inputs.target_tokens / everyone.tokens)
        self._norm = norm
        if everyone.replaced:
            self._note_replaced(inputs)
        if math.isfinite(loss) and math.isfinite(norm):
            self._clip(norm)
            self._bad_in_a_row, self._learnt = 0, True
            self._journal.took(loss, everyone.tokens, inputs.seconds)
        else:
            self.optimizer.zero_grad()  # without gradients the optimizer leaves everything as it is
            self._skip(inputs, mine, loss, norm)
        return torch.zeros((), device=self.args.device)  # `log` has its own average, over tokens

    def _accumulate(self, model: nn.Module, step: OptimizerStep) -> StepResult:
        """Forward and backward of this rank's micro-batches; stops at one that memory does not hold, and where the run
        is to end and no other rank waits for them."""
        losses: list[torch.Tensor] = []
        nothing = torch.zeros((), dtype=torch.float64, device=self.args.device)
        failed = None
        for batch, following in zip(step.batches, [*step.batches[1:], None], strict=True):
            if self._interruption.asked and self._sharding == "none":
                break
            try:
                here = self._feed.take(batch)
                self._feed.ahead(following)
                loss = model(here) / step.target_tokens
                self.accelerator.backward(loss)
                losses.append(loss.detach())
            except torch.OutOfMemoryError:
                failed = batch
                break
        else:
            self._look_ahead()
        if self._sharding != "none":
            self._keep_pace(model, step, failed)
        return StepResult(
            loss=sum(losses, nothing),
            tokens=sum(len(batch.labels) for batch in step.batches),
            out_of_memory=failed is not None,
            asked_to_end=self._interruption.asked,
            save_due=self._save_is_due(),
            replaced=len(step.replaced),
            losses=losses,
            failed=failed,
        )

    def _save_is_due(self) -> bool:
        """Whether `save_every` or `save_every_minutes` ask for a checkpoint after the step that is being taken; of
        clocks only the main process' counts."""
        every, minutes = self._config.save_every, self._config.save_every_minutes
        if every is not None and (self.state.global_step + 1) % every == 0:
            return True
        late = minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        return late and self.is_world_process_zero()

    def _keep_pace(self, model: nn.Module, step: OptimizerStep, failed: Batch | None) -> None:
        """Sharded weights are gathered by all processes in every pass: one that is through with its micro-batches goes
        on with passes that count nothing, and one that ran out of memory cannot repeat alone. Raises CaspiError."""
        if failed is not None:
            if len(failed.rows) == 1:
                self._refuse_alone(failed.rows)
            budget = self._steps.size(failed).halved()
            self._write_lesson(budget)
            raise CaspiError(
                f"stage {self._stage.name}, step {self.state.global_step + 1}: out of memory. Micro-batches will hold "
                f"{budget.seconds:.0f} s and {budget.tokens:.0f} tokens at most: {_CONTINUES}"
            )
        for _ in range(step.rounds - len(step.batches)):
            self.accelerator.backward(model(to_device(step.batches[-1], self.args.device)) * 0.0)

    def _make_room(self, step: OptimizerStep, mine: StepResult) -> OptimizerStep:
        """The step in smaller micro-batches; they stay smaller. Raises CaspiError where there is nothing to split."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        held = self._steps.budget
        alone = mine.failed is not None and len(mine.failed.rows) == 1
        if mine.failed is not None and not alone:
            half = self._steps.size(mine.failed).halved()
            held = Budget(min(held.seconds, half.seconds), min(held.tokens, half.tokens))
        everyone = gather_object([(held.seconds, held.tokens, mine.failed.rows if alone and mine.failed else ())])
        if found := [row for *_, rows in everyone for row in rows]:
            self._refuse_alone(found)
        budget = Budget(min(seconds for seconds, *_ in everyone), min(tokens for _, tokens, _ in everyone))
        self._steps.lower(budget)
        self._record({"out_of_memory": True, "budget_seconds": budget.seconds, "budget_tokens": budget.tokens})
        self._say(
            f"out of memory: the step is repeated, micro-batches hold at most {budget.seconds:.0f} s and "
            f"{budget.tokens:.0f} tokens from now on"
        )
        if self.is_world_process_zero():
            self._write_lesson(budget)
        return self._steps.refit(step)

    def _refuse_alone(self, rows: Iterable[int]) -> NoReturn:
        named = ", ".join(self._steps.identifiers(rows))
        raise CaspiError(
            f"{named}: the device has no memory for it even alone; with train.recompute_every=1, or on a GPU with "
            "more memory, the same command continues from the last checkpoint; a lower train.max_seconds or fewer "
            "groups are another run"
        )

    def _write_lesson(self, budget: Budget) -> None:
        path = Path(self.args.output_dir) / _LESSON.format(rank=self.args.process_index)
        try:
            write_whole(path, json.dumps({"seconds": budget.seconds, "tokens": budget.tokens}))
        except OSError as error:  # a full disk costs the lesson, which memory teaches again
            print(f"warning: {path}: {error.strerror}", file=sys.stderr, flush=True)

    def _finish_gradients(self, loss: torch.Tensor, factor: float) -> tuple[float, float]:
        """Sums gradients over ranks and corrects their scale; loss, and norm of what the optimizer would see unclipped.
        The host waits for both at once."""
        processes = self.accelerator.num_processes
        averaged = 1 if self._sharding == "none" else processes  # what sharding leaves is divided by their number
        if isinstance(self.optimizer, Zero3):
            return float(loss) * factor, self.optimizer.scale(factor * averaged)
        if self._sharding == "none" and processes > 1:
            gradients.add_up(self._learning())
        gradients.scale(self._learning(), factor * averaged)
        norm = gradients.norm(self._learning()).to(loss)
        found: list[float] = torch.stack([loss * factor, norm]).tolist()
        return found[0], found[1]

    def _clip(self, norm: float) -> None:
        if norm > self._stage.max_grad_norm and not isinstance(self.optimizer, Zero3):  # whose engine clips
            gradients.scale(self._learning(), self._stage.max_grad_norm / norm)

    def _learning(self) -> list[torch.Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _skip(self, step: OptimizerStep, mine: StepResult, loss: float, norm: float) -> None:
        """Names the utterances of a step that is left out. Raises CaspiError where too many were."""
        suspects = [
            batch.rows for batch, value in zip(step.batches, mine.losses, strict=True) if not torch.isfinite(value)
        ]
        rows = [row for batch in suspects for row in batch]
        found = sorted(gather_object(self._steps.identifiers(rows)))
        if not found:  # every loss is a number, a gradient is none: it may come from any of them
            rows = [row for batch in step.batches for row in batch.rows]
            found = sorted(gather_object(self._steps.identifiers(rows)))
        self._bad_in_a_row += 1
        what = f"loss {loss:g}, gradient norm {norm:g}"
        self._check_weights(what)
        self._record({"skipped": what, "utterances": found})
        named = ", ".join(found[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")
        self._say(f"{what}: the step is left out; its utterances: {named}")
        if self._bad_in_a_row >= self._config.stop_after:
            raise CaspiError(
                f"{self._bad_in_a_row} steps in a row had a loss or gradient that is not finite, the last with "
                f"{named}: listen to these utterances; the weights are finite, so it is they, or a learning rate that "
                "is too high"
            )

    def _check_weights(self, what: str) -> None:
        """Raises CaspiError where it is not the data: weights that are no longer finite give no finite loss."""
        if all(bool(torch.isfinite(parameter).all()) for parameter in self._learning()):
            return
        self._record({"diverged": what})
        found = checkpoints.complete_checkpoints(Path(self.args.output_dir))
        start = f"start another run from {found[-1]} (model.start)" if found else "start another run"
        raise CaspiError(
            f"stage {self._stage.name}: the weights are not finite since step {self.state.global_step:,}: training "
            f"diverged; {start} with a lower learning rate, more warmup or a lower max_grad_norm"
        )

    def _note_replaced(self, step: OptimizerStep) -> None:
        mine = [
            {"utterance": this, "by": other, "why": entry.why}
            for entry in step.replaced
            for this, other in [self._steps.identifiers([entry.row, entry.by])]
        ]
        found = gather_object(mine)
        self._record({"replaced": found})
        for entry in found:
            self._say(f"{entry['utterance']} cannot be read ({entry['why']}): {entry['by']} takes its place")

    def _say(self, text: str) -> None:
        self._journal.say(self.state.global_step + 1, text)

    def _record(self, what: dict[str, Any]) -> None:
        """About the step being taken."""
        self._journal.record(self.state.global_step + 1, what)

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # not counted: Trainer's own formula knows nothing of audio

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measures the model as it would ship; not where the run was asked to end, or is asked meanwhile."""
        if self.stopping:
            return {}
        with self._kept.as_it_ships(), uncompiled(), unsharded_copy(self._loaded, self._compute_dtype) as loaded:
            measured = self._measure(loaded)
        if measured is None:
            self.stopping = self.control.should_save = self.control.should_training_stop = True
            return {}
        self._measured, self._measured_at = measured, self.state.global_step
        self.log({f"eval_{name}": value for name, value in self._measured.items()})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, self._measured)
        return self._measured

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds what Trainer does not know; its own loss is not weighted by tokens."""
        if "loss" in logs:
            found = self._journal.since_the_last_line()
            for name in {"loss", "learning_rate"} - set(found):
                del logs[name]
            logs |= found
            if torch.cuda.is_available():
                logs["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
            logs |= {f"lr/{group}": rate for group, rate in self._rates.items()}
            logs |= self.model.take_notes()
        self.state.epoch = self._steps.epochs(self.state.global_step)
        super().log(logs, start_time)
        if "train_runtime" not in logs:
            self._journal.report(self.state.global_step, self.state.max_steps, logs)

    def _measure_last(self) -> None:
        """Measures a stage's last checkpoint where the run was asked to end before it was, and then went on."""
        last = checkpoints.complete_checkpoints(Path(self.args.output_dir))[-1]
        measured_before = "wer" in checkpoints.metrics_of(last)
        if measured_before or self.stopping or self.state.global_step < self.state.max_steps:
            return
        measured = self.evaluate()
        self.accelerator.wait_for_everyone()
        if measured and self.is_world_process_zero():
            checkpoints.add_metrics(last, measured)

    def _get_output_dir(self, trial: Any) -> str:
        folder = Path(self.args.output_dir)
        return str(folder / checkpoints.PARTIAL if self._staging else folder)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Writes into a hidden folder, checks it, then makes it visible whole.

        A disk that is full costs this checkpoint, not the run: the one before it stays. Raises CaspiError where it was
        the last one.
        """
        folder = Path(self.args.output_dir)
        staging = folder / checkpoints.PARTIAL
        name = f"{checkpoints.PREFIX}{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._staging, failure, self._saved_at = True, "", time.monotonic()
        try:
            super()._save_checkpoint(model, trial)
            if self.args.should_save:
                checkpoints.check_readable(staging / name)
        except (OSError, RuntimeError, SafetensorError) as error:
            failure = first_line(error)
        finally:
            self._staging = False
        failures = [found for found in gather_object([failure]) if found]
        if self.args.should_save and not failures:
            measured = self._measured_here()
            checkpoints.make_visible(staging / name, folder / name, {"step": self.state.global_step, **measured})
            if self._uploads is not None:
                self._uploads.offer(folder / name, self._what())
            checkpoints.prune_checkpoints(folder, self._config.evaluate.keep)
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        if failures and (self.stopping or self.state.global_step >= self.state.max_steps):
            raise CaspiError(f"{folder / name} could not be written ({failures[0]}): make space; {_CONTINUES}")
        if failures:
            self._say(f"warning: {name} could not be written ({failures[0]}); the run goes on, make space")

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """A model that others can load, with a card that says what it is."""
        folder = Path(output_dir or self.args.output_dir)
        self._kept.save_model(folder)
        if self.args.should_save:
            text = model_card(
                self._provenance, self._what(), self._measured_here(), environment(), self._config.max_seconds
            )
            (folder / "README.md").write_text(text, encoding="utf-8")

    def _what(self) -> str:
        return f"stage {self._stage.name}, step {self.state.global_step} of {self.state.max_steps}"

    def _measured_here(self) -> dict[str, float]:
        """What was measured on the weights as they are now; nothing where that was at another step."""
        return self._measured if self._measured_at == self.state.global_step else {}

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self._kept.knows(self.optimizer):
            self._kept.save_optimizer(self.optimizer, Path(output_dir))
        else:
            plugin = self.accelerator.state.fsdp_plugin
            save_fsdp_optimizer(plugin, self.accelerator, self.optimizer, self.model, output_dir)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not self._kept.knows(self.optimizer):
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        self._kept.load_optimizer(self.optimizer, Path(checkpoint))
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / "scheduler.pt", weights_only=True))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        self._journal.first_step = checkpoints.step_of(folder)
        self._kept.load_model(folder)

    def follow(self) -> None:
        """Training begins: so does the average of a stage that keeps one."""
        self._kept.follow()

    def average(self) -> None:
        """After a step: the average follows, unless the step was left out."""
        if not self._bad_in_a_row:
            self._kept.average(self.state.global_step)
