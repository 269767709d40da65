"""Handles a step that runs out of memory, or whose loss or gradient is not finite."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import torch
import torch.distributed as dist
from accelerate.utils import gather_object

from caspi.atomic_output import write_whole
from caspi.errors import CaspiError
from caspi.model.batch import Batch
from caspi.training.checkpoint import files as checkpoints
from caspi.training.config import Budget
from caspi.training.data.steps import OptimizerStep, PlannedSteps
from caspi.training.distributed.processes import processes
from caspi.training.metrics_log import MetricsLog

_log = logging.getLogger(__name__)

_BUDGET_FILE = "budget-{rank}.json"  # in a stage's folder: the budget that fits into memory, by rank
_MAX_NAMED = 20  # utterances named in a message; metrics.jsonl has them all
RESUME_HINT = "the same command continues from the last checkpoint"


def learned_budget(stage_folder: Path) -> Budget | None:
    """The budget that a stage was lowered to after it ran out of memory; None if it did not."""
    budgets = [
        json.loads(path.read_text(encoding="utf-8")) for path in stage_folder.glob(_BUDGET_FILE.format(rank="*"))
    ]
    return (
        Budget(min(budget["seconds"] for budget in budgets), min(budget["tokens"] for budget in budgets))
        if budgets
        else None
    )


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of a step's micro-batches, on one rank or summed over all ranks.

    loss: summed over targets, divided by the planned target tokens of the effective batch; float64 and on the device,
    so that the host does not wait for it. losses: of this rank's micro-batches. failed: the micro-batch of this rank
    that ran out of memory.
    """

    loss: torch.Tensor
    tokens: float
    out_of_memory: float
    stop_requested: float
    save_due: float
    replaced: float
    losses: list[torch.Tensor] = field(default_factory=list)
    failed: Batch | None = None

    def sum_over_ranks(self) -> StepResult:
        """The sums over all ranks, the same on every rank."""
        if processes().num_processes == 1:
            return self
        counts = torch.tensor(
            [self.tokens, self.out_of_memory, self.stop_requested, self.save_due, self.replaced], dtype=torch.float64
        )
        total = torch.cat([self.loss[None], counts.to(self.loss.device)])
        dist.all_reduce(total)
        return StepResult(total[0], *total[1:].tolist())


class StepRecovery:
    """Step recovery for one stage. max_bad_steps: the run ends after this many non-finite steps in a row."""

    def __init__(self, stage: str, folder: Path, steps: PlannedSteps, log: MetricsLog, max_bad_steps: int) -> None:
        self._stage, self._folder, self._steps, self._log = stage, folder, steps, log
        self._max_bad_steps = max_bad_steps
        self.consecutive_bad_steps = 0

    def split(self, step: OptimizerStep, local: StepResult, number: int) -> OptimizerStep:
        """The step in smaller micro-batches; later steps use the smaller size too. All ranks call it, whether or not
        they ran out of memory themselves. Raises CaspiError if there is nothing to split."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        budget = self._steps.budget
        is_single = local.failed is not None and len(local.failed.rows) == 1
        if local.failed is not None and not is_single:
            half = self._steps.size(local.failed).halved()
            budget = Budget(min(budget.seconds, half.seconds), min(budget.tokens, half.tokens))
        on_all_ranks = gather_object(
            [(budget.seconds, budget.tokens, local.failed.rows if is_single and local.failed else ())]
        )
        if too_large := [row for *_, rows in on_all_ranks for row in rows]:
            self._raise_too_large(too_large)
        budget = Budget(min(seconds for seconds, *_ in on_all_ranks), min(tokens for _, tokens, _ in on_all_ranks))
        self._steps.lower(budget)
        self._log.record(
            number, {"out_of_memory": True, "max_batch_seconds": budget.seconds, "max_batch_tokens": budget.tokens}
        )
        self._log.warn(
            number,
            f"out of memory: repeating the step; micro-batches hold at most {budget.seconds:.0f} s and "
            f"{budget.tokens:.0f} tokens from now on",
        )
        if processes().is_main_process:
            self._write_budget(budget)
        return self._steps.refit(step)

    def end_sharded(self, failed: Batch, number: int) -> NoReturn:
        """Handles out of memory on one of several ranks that share sharded weights: it cannot repeat the step while the
        others wait in their passes. Saves a lower budget. Raises CaspiError."""
        if len(failed.rows) == 1:
            self._raise_too_large(failed.rows)
        budget = self._steps.size(failed).halved()
        self._write_budget(budget)
        raise CaspiError(
            f"stage {self._stage}, step {number}: out of memory. Micro-batches will hold {budget.seconds:.0f} s and "
            f"{budget.tokens:.0f} tokens at most: {RESUME_HINT}"
        )

    def report_skipped(
        self,
        step: OptimizerStep,
        local: StepResult,
        loss_and_norm: tuple[float, float],
        parameters: Sequence[torch.Tensor],
        number: int,
    ) -> None:
        """Reports the utterances of a skipped step. Raises CaspiError if too many steps in a row were skipped, or if
        the weights themselves are not finite."""
        rows_of_bad_batches = [
            batch.rows for batch, value in zip(step.batches, local.losses, strict=True) if not torch.isfinite(value)
        ]
        utterances = self._identifiers_on_all_ranks(row for rows in rows_of_bad_batches for row in rows)
        if not utterances:  # every loss is finite, but a gradient is not: it may come from any utterance
            utterances = self._identifiers_on_all_ranks(row for batch in step.batches for row in batch.rows)
        self.consecutive_bad_steps += 1
        description = f"loss {loss_and_norm[0]:g}, gradient norm {loss_and_norm[1]:g}"
        self._check_weights(description, parameters, number)
        self._log.record(number, {"skipped": description, "utterances": utterances})
        named = ", ".join(utterances[:_MAX_NAMED])
        named += f" and {len(utterances) - _MAX_NAMED} more" if len(utterances) > _MAX_NAMED else ""
        self._log.warn(number, f"{description}: the step is skipped; its utterances: {named}")
        if self.consecutive_bad_steps >= self._max_bad_steps:
            raise CaspiError(
                f"{self.consecutive_bad_steps} steps in a row had a loss or gradient that is not finite, the last with "
                f"{named}: listen to these utterances. The weights are finite, so the cause is this audio or a "
                "learning rate that is too high"
            )

    def report_replaced(self, step: OptimizerStep, number: int) -> None:
        """Reports utterances that could not be read, and their replacements. All ranks call it."""
        local = [
            {"utterance": utterance, "by": replacement, "why": entry.reason}
            for entry in step.replaced
            for utterance, replacement in [self._steps.identifiers([entry.row, entry.replacement])]
        ]
        replaced = gather_object(local)
        self._log.record(number, {"replaced": replaced})
        for entry in replaced:
            self._log.warn(number, f"{entry['utterance']} cannot be read ({entry['why']}): replaced by {entry['by']}")

    def _identifiers_on_all_ranks(self, rows: Iterable[int]) -> list[str]:
        return sorted(gather_object(self._steps.identifiers(rows)))

    def _check_weights(self, description: str, parameters: Sequence[torch.Tensor], number: int) -> None:
        """Raises CaspiError if the weights are not finite: then the data is not the cause."""
        if all(bool(torch.isfinite(parameter).all()) for parameter in parameters):
            return
        self._log.record(number, {"diverged": description})
        complete = checkpoints.complete_checkpoints(self._folder)
        start = f"start another run from {complete[-1]} (model.start)" if complete else "start another run"
        raise CaspiError(
            f"stage {self._stage}: the weights have been non-finite since step {number - 1:,}: training diverged; "
            f"{start} with a lower learning rate, more warmup or a lower max_grad_norm"
        )

    def _raise_too_large(self, rows: Iterable[int]) -> NoReturn:
        named = ", ".join(self._steps.identifiers(rows))
        raise CaspiError(
            f"{named}: does not fit the device's memory even alone. With train.activation_checkpointing_every=1, or on "
            "a GPU with more memory, the same command continues from the last checkpoint; a lower train.max_seconds or "
            "fewer groups need a new run"
        )

    def _write_budget(self, budget: Budget) -> None:
        path = self._folder / _BUDGET_FILE.format(rank=processes().process_index)
        try:
            write_whole(path, json.dumps({"seconds": budget.seconds, "tokens": budget.tokens}))
        except OSError as error:  # on a full disk the budget is not saved, and a resumed run is out of memory again
            _log.warning(f"{path}: {error.strerror}")
