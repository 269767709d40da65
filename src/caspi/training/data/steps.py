"""The steps of a stage: planned rows, read, augmented and collated into micro-batches."""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from caspi.augmentation.spec_augment import draw_masks
from caspi.augmentation.waveform import Background, WaveformAugmenter
from caspi.corpus.pauses import without_pauses
from caspi.corpus.utterance import Word
from caspi.errors import CaspiError
from caspi.model.batch import AnyPrompt, Batch, Item, collate
from caspi.model.tensors import each_tensor
from caspi.randomness import generator
from caspi.training.config import Budget, StageConfig, TrainConfig
from caspi.training.data.batch_plan import EpochPlan, cut
from caspi.training.data.dataset import MAX_REPLACEMENTS, UNREADABLE, TrainingSet, second_speaker_clip, slotted

_RETRY_AFTER = (0.1, 1.0)  # seconds: enough for short faults of a network disk


@dataclass(frozen=True, slots=True)
class Replaced:
    """An utterance that could not be read, its replacement, and the reason."""

    row: int
    replacement: int
    reason: str


@dataclass(frozen=True, slots=True)
class OptimizerStep:
    """One optimizer step of this rank. target_tokens and seconds are of the whole effective batch as planned.
    max_micro_batches: of the rank with the most."""

    batches: list[Batch]
    target_tokens: int
    seconds: float
    max_micro_batches: int = 0
    epoch: int = 0
    replaced: tuple[Replaced, ...] = ()

    def pin_memory(self) -> OptimizerStep:
        """The step in pinned memory; called by DataLoader."""
        return replace(self, batches=[each_tensor(batch, torch.Tensor.pin_memory) for batch in self.batches])


class PlannedSteps(Dataset[OptimizerStep | CaspiError]):
    """Steps of a stage, epoch after epoch, of one rank.

    An utterance that cannot be read is tried again, then replaced by that of the most similar length.
    """

    def __init__(
        self,
        data: TrainingSet,
        plans: Sequence[EpochPlan],
        steps: int,
        rank: int,
        prompt: AnyPrompt,
        config: TrainConfig,
        stage: StageConfig,
        seed: int,
    ) -> None:
        self._data, self._plans, self._rank, self._prompt = data, plans, rank, prompt
        augment = stage.augment or config.augment
        self._augmenter, self._spec_augment = WaveformAugmenter(augment), augment.spec_augment
        self._seed, self._previous_text = seed, config.previous_text
        self._background = None if config.no_speech is None else Background(config.no_speech)
        self._positions = [(e, s) for e, plan in enumerate(plans) for s in range(len(plan.steps))][:steps]
        # In memory shared with the loader's workers, so that a lowered budget applies to the batches that they make.
        self._budget = torch.full((2,), float("inf"), dtype=torch.float64)
        self._budget.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> OptimizerStep | CaspiError:
        """A step. A worker returns an error instead of raising it, because torch would add its traceback."""
        if get_worker_info() is None:
            return self._step(index)
        try:
            return self._step(index)
        except CaspiError as error:
            return error

    def _step(self, index: int) -> OptimizerStep:
        epoch, number = self._positions[index]
        plan = self._plans[epoch]
        rows = plan.rows(number)
        replaced: list[Replaced] = []
        parts = [[part for rows in rank for part in self._parts(rows, epoch)] for rank in plan.steps[number]]
        return OptimizerStep(
            batches=[self._batch(part, epoch, replaced) for part in parts[self._rank]],
            target_tokens=int(self._data.target_tokens[rows].sum()),
            seconds=float(self._data.seconds[rows].sum()),
            max_micro_batches=max(map(len, parts)),
            epoch=epoch,
            replaced=tuple(replaced),
        )

    def _parts(self, rows: np.ndarray, epoch: int) -> list[np.ndarray]:
        """A planned micro-batch, cut into parts that fit the current budget."""
        lengths = self._plans[epoch].lengths
        return cut(rows, lengths.seconds, lengths.sequence_tokens, self.budget)

    @property
    def budget(self) -> Budget:
        """The lowered budget; no limit until `lower` was called."""
        seconds, tokens = self._budget.tolist()
        return Budget(seconds, tokens)

    def lower(self, budget: Budget) -> None:
        """Limits later micro-batches to `budget`, too."""
        self._budget.copy_(torch.tensor([budget.seconds, budget.tokens], dtype=torch.float64))

    def size(self, batch: Batch) -> Budget:
        """The seconds and tokens of a micro-batch."""
        lengths, rows = self._plans[batch.epoch].lengths, np.array(batch.rows)
        return Budget(float(lengths.seconds[rows].sum()), float(lengths.sequence_tokens[rows].sum()))

    def refit(self, step: OptimizerStep) -> OptimizerStep:
        """The same step in micro-batches that fit the lowered budget. Every utterance keeps its random draws."""
        batches: list[Batch] = []
        for batch in step.batches:
            parts = self._parts(np.array(batch.rows), step.epoch)
            batches += [batch] if len(parts) == 1 else [self.micro_batch(part, step.epoch) for part in parts]
        return replace(step, batches=batches)

    def epochs(self, step: int) -> float:
        """Epochs done after a number of steps: 1.5 means half of the second epoch."""
        if step == 0:
            return 0.0
        epoch, number = self._positions[step - 1]
        return epoch + (number + 1) / len(self._plans[epoch].steps)

    def identifiers(self, rows: Iterable[int]) -> list[str]:
        """Ids of corpus rows, for messages."""
        return [self._data.ids[row] for row in rows]

    def micro_batch(self, rows: np.ndarray, epoch: int) -> Batch:
        """Rows of the corpus as a batch, with the augmentation of an epoch."""
        return self._batch(rows, epoch, [])

    def _batch(self, rows: np.ndarray, epoch: int, replaced: list[Replaced]) -> Batch:
        items, lengths = [], self._plans[epoch].lengths
        for planned_row in rows.tolist():
            item = self._item(planned_row, epoch, replaced)
            generator_of = functools.partial(generator, self._seed, epoch, item.row)
            if self._background is not None and lengths.no_speech[item.row]:
                noise = self._background(len(item.samples), generator_of("no_speech"))
                items.append(replace(item, samples=noise))
                continue
            draw_second_speaker = functools.partial(second_speaker_clip, self._data, item.row)
            changes = lengths.tempo_and_padding(item.row)
            samples = self._augmenter(item.samples, changes, generator_of, draw_second_speaker)
            if item.words:
                sounding = without_pauses(item.words, item.samples)
                words = tuple(Word(w.text, *(t / changes.speed + changes.before for t in w[1:])) for w in sounding)
                item = replace(item, words=words, slotted=slotted(words, generator_of("slots")))
            items.append(replace(item, samples=samples))
        masks = None
        if self._spec_augment is not None:
            generators = [generator(self._seed, epoch, item.row, "spec_augment") for item in items]
            masks = draw_masks([len(item.samples) for item in items], self._spec_augment, generators)
        return collate(items, self._prompt, masks, epoch)

    def _item(self, row: int, epoch: int, replaced: list[Replaced]) -> Item:
        reason = ""
        for candidate in itertools.chain([row], self._nearest(row)):
            # A generator of its own, so that previous text does not change the augmentation.
            with_previous = generator(self._seed, epoch, candidate, "previous").random() < self._previous_text
            pool = self._data.hotwords
            hotwords = (
                pool.draw(self._data.texts[candidate], generator(self._seed, epoch, candidate, "hotwords"))
                if pool
                else ""
            )
            try:
                item = self._read(candidate, with_previous, hotwords, self._plans[epoch].lengths)
            except UNREADABLE as error:
                reason = reason or f"{type(error).__name__}: {error}"
                continue
            if candidate != row:
                replaced.append(Replaced(row, candidate, reason))
            return item
        raise CaspiError(f"corpus {self._data.corpus.folder} cannot be read ({reason}): is its disk available?")

    def _read(self, row: int, *arguments: Any) -> Item:
        for wait in _RETRY_AFTER:
            with contextlib.suppress(*UNREADABLE):
                return self._data.item(row, *arguments)
            time.sleep(wait)
        return self._data.item(row, *arguments)

    def _nearest(self, row: int) -> Iterator[int]:
        """Other rows, those of the most similar length first."""
        distances = np.abs(self._data.seconds[self._data.rows] - self._data.seconds[row])
        nearest = self._data.rows[np.argsort(distances, kind="stable")[: MAX_REPLACEMENTS + 1]]
        return (other for other in nearest.tolist() if other != row)
