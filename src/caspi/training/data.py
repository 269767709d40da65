"""The corpus as steps: each item is all micro-batches of one optimizer step for this rank."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import DataLoader, Dataset

from caspi.corpus.mixing import Mixer
from caspi.corpus.store import Corpus
from caspi.model.prompt import Prompt
from caspi.training.augmentation import augment_samples, draw_masks, generator
from caspi.training.collation import Batch, Item, collate
from caspi.training.config import Augmentation, StageConfig, TrainConfig
from caspi.training.plan import EpochPlan, plan_epoch

_PREVIOUS_CHARACTERS = 200  # of the text before an utterance, about twice an utterance's own


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step of this rank. target_tokens and seconds are of the whole effective batch, all ranks."""

    batches: list[Batch]
    target_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """A split with the columns that planning needs; rows longer than the limit are left out of `rows`."""

    corpus: Corpus
    rows: np.ndarray
    seconds: np.ndarray
    texts: list[str]
    languages: list[str]
    contexts: list[str]
    previous: list[str]
    sources: list[str]
    target_tokens: np.ndarray

    @classmethod
    def of(cls, corpus: Corpus, prompt: Prompt, max_seconds: float, shuffle_seed: int | None = None) -> TrainingSet:
        """`shuffle_seed` gives every utterance the transcript of another one: a control, never a training run."""
        seconds = corpus.numbers("seconds")
        texts, languages = corpus.column("text"), corpus.column("language")
        if shuffle_seed is not None:
            order = np.random.default_rng(shuffle_seed).permutation(len(texts))
            moved = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
            texts = [texts[moved[row]] for row in range(len(texts))]
        return cls(
            corpus=corpus,
            rows=np.flatnonzero(seconds <= max_seconds),
            seconds=seconds,
            texts=texts,
            languages=languages,
            contexts=corpus.column("context"),
            previous=corpus.column("previous"),
            sources=corpus.column("source"),
            target_tokens=np.array([prompt.target_length(t, name) for t, name in zip(texts, languages, strict=True)]),
        )

    def item(self, row: int, with_previous: bool = False) -> Item:
        """One utterance as it stands in the corpus, the text before it in its context where that is asked for."""
        context = self.contexts[row]
        if with_previous:
            context = f"{context} {_tail(self.previous[row])}".strip()
        return Item(self.corpus.samples(row), self.texts[row], self.languages[row], context, row)


def _tail(text: str) -> str:
    """The last words of a text that may be long."""
    return text if len(text) <= _PREVIOUS_CHARACTERS else text[-_PREVIOUS_CHARACTERS:].partition(" ")[2]


class PlannedSteps(Dataset[Step]):
    """Steps of a stage, epoch after epoch, of one rank."""

    def __init__(
        self,
        data: TrainingSet,
        plans: Sequence[EpochPlan],
        steps: int,
        rank: int,
        prompt: Prompt,
        augment: Augmentation,
        seed: int,
        previous_text: float = 0.0,
    ) -> None:
        self._data, self._plans, self._rank, self._prompt = data, plans, rank, prompt
        self._augment, self._seed, self._previous_text = augment, seed, previous_text
        self._where = [(e, s) for e, plan in enumerate(plans) for s in range(len(plan.steps))][:steps]

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, index: int) -> Step:
        epoch, number = self._where[index]
        plan = self._plans[epoch]
        rows = plan.rows(number)
        return Step(
            batches=[self._batch(micro, epoch) for micro in plan.steps[number][self._rank]],
            target_tokens=int(self._data.target_tokens[rows].sum()),
            seconds=float(self._data.seconds[rows].sum()),
        )

    def _batch(self, rows: np.ndarray, epoch: int) -> Batch:
        draws = [generator(self._seed, epoch, int(row)) for row in rows]
        items = []
        for row, draw in zip(rows.tolist(), draws, strict=True):
            # Drawn apart from the augmentation, which stays what it was where no text is given.
            with_previous = generator(self._seed, epoch, row, "previous").random() < self._previous_text
            item = self._data.item(row, with_previous)
            samples = augment_samples(item.samples, self._augment, draw)
            items.append(Item(samples, item.text, item.language, item.context, row))
        masks = draw_masks([len(item.samples) for item in items], self._augment, draws)
        return collate(items, self._prompt, masks)


class _OneByOne:
    """Batch sampler of single steps, which Trainer's resume skips without loading."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self):  # type: ignore[no-untyped-def]
        return ([index] for index in range(self._count))


def _only(steps: list[Step]) -> Step:
    return steps[0]


def loader(steps: PlannedSteps, workers: int) -> DataLoader[Step]:
    """Loads steps in order, ahead of the device where there are workers."""
    return DataLoader(
        steps,
        batch_sampler=_OneByOne(len(steps)),
        collate_fn=_only,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )


def plan_stage(
    data: TrainingSet, config: TrainConfig, stage: StageConfig, ranks: int, seed: int
) -> tuple[list[EpochPlan], int]:
    """Plans of the stage's epochs and its number of steps; a fractional last epoch is cut short."""
    mixer = None
    if stage.mix is not None:
        mixer = Mixer(config.mixes[stage.mix], data.rows, data.seconds, data.sources, seed)
    plans = [
        plan_epoch(
            data.seconds,
            data.rows if mixer is None else mixer.epoch(epoch),
            effective_batch=config.effective_batch,
            budget=config.budget_seconds,
            ranks=ranks,
            seed=seed,
            epoch=epoch,
        )
        for epoch in range(math.ceil(stage.epochs))
    ]
    whole = sum(len(plan.steps) for plan in plans[: math.floor(stage.epochs)])
    rest = stage.epochs - math.floor(stage.epochs)
    return plans, max(1, whole + (round(rest * len(plans[-1].steps)) if rest else 0))


def audio_hours(data: TrainingSet, plans: Sequence[EpochPlan], steps: int) -> float:
    """Hours of audio in the first `steps` steps of the epochs."""
    first = itertools.islice((plan.rows(step) for plan in plans for step in range(len(plan.steps))), steps)
    return float(sum(data.seconds[rows].sum() for rows in first)) / 3600
