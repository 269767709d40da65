"""The corpus as steps: each item is all micro-batches of one optimizer step for this rank."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import math
import multiprocessing
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from caspi.audio import AudioError
from caspi.corpus.mixing import Mixer
from caspi.corpus.store import Corpus
from caspi.corpus.utterance import Word
from caspi.errors import CaspiError, UsageError
from caspi.language.codes import NO_SPEECH
from caspi.model.moving import each_tensor
from caspi.model.prompt import Prompt
from caspi.model.timestamps import asking, timed
from caspi.training.augmentation import draw_masks, generator
from caspi.training.collation import Batch, Item, collate
from caspi.training.config import CurriculumKey, Hotwords, StageConfig, TrainConfig
from caspi.training.context import HotwordPool, joined, tail
from caspi.training.hearing import Hearing, chosen
from caspi.training.plan import Budget, EpochPlan, cut, plan_epoch, shuffled
from caspi.training.waveform import Background, Effects

_RETRY_AFTER = (0.1, 1.0)  # seconds: a network disk that stumbles, not one that is gone
_STAND_INS = 20  # utterances tried in the place of one that cannot be read

UNREADABLE = (OSError, AudioError, pa.ArrowException, soundfile.LibsndfileError)


@dataclass(frozen=True, slots=True)
class Replaced:
    """An utterance that could not be read, the one that took its place, and why."""

    row: int
    by: int
    why: str


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step of this rank. target_tokens and seconds are of the whole effective batch as planned; rounds:
    the micro-batches of the rank that has most."""

    batches: list[Batch]
    target_tokens: int
    seconds: float
    rounds: int = 0
    epoch: int = 0
    replaced: tuple[Replaced, ...] = ()

    def pin_memory(self) -> Step:
        """In memory that a GPU copies from by itself; DataLoader asks for it."""
        return replace(self, batches=[each_tensor(batch, torch.Tensor.pin_memory) for batch in self.batches])


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """A split with the columns that planning needs; rows longer than the limit are left out of `rows`.

    plain: how it is heard as it lies there; a sequence is audio, prompt, context at its longest, and target.
    """

    corpus: Corpus
    rows: np.ndarray
    ids: list[str]
    seconds: np.ndarray
    texts: list[str]
    languages: list[str]
    contexts: list[str]
    previous: list[str]
    sources: list[str]
    target_tokens: np.ndarray
    plain: Hearing
    hotwords: HotwordPool | None = None
    timed_texts: list[str | None] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        corpus: Corpus,
        prompt: Prompt,
        max_seconds: float,
        shuffle_seed: int | None = None,
        with_previous: bool = False,
        hotwords: Hotwords | None = None,
        with_times: bool = False,
    ) -> TrainingSet:
        """`shuffle_seed` gives every utterance the transcript of another one: a control, never a training run.

        with_previous, hotwords, with_times: the text before an utterance, words to expect and times may stand in its
        sequence, and are counted.
        """
        corpus.find_audio()
        seconds = corpus.numbers("seconds")
        texts, languages = corpus.column("text"), corpus.column("language")
        if shuffle_seed is not None:
            order = np.random.default_rng(shuffle_seed).permutation(len(texts))
            moved = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
            texts = [texts[moved[row]] for row in range(len(texts))]
        contexts, previous = corpus.column("context"), corpus.column("previous")
        target_tokens = prompt.target_lengths(texts, languages)
        around = len(prompt.prefix(0)) + prompt.text_lengths(contexts)
        if with_previous:
            around += prompt.text_lengths([tail(text) for text in previous])
        pool = None if hotwords is None else HotwordPool(texts, hotwords)
        if pool is not None:
            around += pool.most_tokens(prompt)
        timed_texts: list[str | None] = [None] * len(texts)
        if with_times and shuffle_seed is None:
            timed_texts = _timed_texts(corpus, texts)
            found = [text or plain for text, plain in zip(timed_texts, texts, strict=True)]
            around += prompt.text_lengths(found) - prompt.text_lengths(texts) + prompt.text_lengths([asking("")])
        return cls(
            corpus=corpus,
            rows=np.flatnonzero(seconds <= max_seconds),
            ids=corpus.column("id"),
            seconds=seconds,
            texts=texts,
            languages=languages,
            contexts=contexts,
            previous=previous,
            sources=corpus.column("source"),
            target_tokens=target_tokens,
            plain=Hearing.of(seconds, around + target_tokens),
            hotwords=pool,
            timed_texts=timed_texts,
        )

    @classmethod
    def to_train_on(cls, corpus: Corpus, prompt: Prompt, config: TrainConfig, seed: int) -> TrainingSet:
        """With what the recipe adds to what is heard and said."""
        return cls.of(
            corpus,
            prompt,
            config.max_seconds,
            shuffle_seed=seed if config.shuffle_transcripts else None,
            with_previous=config.previous_text > 0,
            hotwords=config.hotwords,
            with_times=config.timestamps > 0,
        )

    def heard(self, config: TrainConfig, stage: StageConfig, seed: int, epoch: int) -> Hearing:
        """How an epoch of a stage hears it."""
        count = len(self.seconds)
        nobody = chosen(count, 0.0 if config.no_speech is None else config.no_speech.share, seed, epoch, "no_speech")
        timed = chosen(count, config.timestamps, seed, epoch, "timestamps")
        if timed.any():
            timed = timed & np.array([text is not None for text in self.timed_texts])
        how = stage.augment or config.augment
        return self.plain.drawn(how, seed, epoch, timed=timed, nobody=nobody)

    def said(self, row: int, heard: Hearing) -> tuple[str, str]:
        """Text and language of an utterance in an epoch: with its times, or of nobody, where that was drawn."""
        if heard.nobody[row]:
            return "", NO_SPEECH
        timed = self.timed_texts[row] if heard.timed[row] else None
        return timed or self.texts[row], self.languages[row]

    def item(self, row: int, with_previous: bool = False, hotwords: str = "", heard: Hearing | None = None) -> Item:
        """One utterance with the samples that the corpus has; in its context what is asked for, beside its own. Said is
        what is `heard`; without it, what the corpus has."""
        heard = heard or self.plain
        context = joined(self.contexts[row], hotwords, tail(self.previous[row]) if with_previous else "")
        asked = asking(context) if heard.timed[row] else context
        return Item(self.corpus.samples(row), *self.said(row, heard), asked, row)


def _timed_texts(corpus: Corpus, texts: list[str]) -> list[str | None]:
    """Every text with its times, None where they are not known. Raises UsageError where none are."""
    columns = ([[Word(**word) for word in of] for of in corpus.column(name)] for name in ("segments", "words"))
    found = [timed(*row) for row in zip(texts, *columns, strict=True)]
    if not any(found):
        raise UsageError(f"train.timestamps: corpus {corpus.folder} holds no times of what is said")
    return found


def another_voice(data: TrainingSet, row: int, draw: np.random.Generator) -> np.ndarray:
    """A clip of another group than the row's. Raises CaspiError where twenty draws find none that can be read."""
    mine, why = data.corpus.utterance(row).group, "all utterances drawn were of one group"
    for _ in range(_STAND_INS):
        other = int(data.rows[draw.integers(len(data.rows))])
        if data.corpus.utterance(other).group != mine:
            try:
                return data.corpus.samples(other)
            except UNREADABLE as error:
                why = str(error)
    raise CaspiError(f"train.augment.second_speaker: no second speaker in corpus {data.corpus.folder} ({why})")


class PlannedSteps(Dataset[Step | CaspiError]):
    """Steps of a stage, epoch after epoch, of one rank.

    An utterance that cannot be read is tried again, then replaced by the one nearest to it in length.
    """

    def __init__(
        self,
        data: TrainingSet,
        plans: Sequence[EpochPlan],
        steps: int,
        rank: int,
        prompt: Prompt,
        config: TrainConfig,
        stage: StageConfig,
        seed: int,
    ) -> None:
        self._data, self._plans, self._rank, self._prompt = data, plans, rank, prompt
        augment = stage.augment or config.augment
        self._effects, self._spec_augment = Effects(augment), augment.spec_augment
        self._seed, self._previous_text = seed, config.previous_text
        self._background = None if config.no_speech is None else Background(config.no_speech)
        self._where = [(e, s) for e, plan in enumerate(plans) for s in range(len(plan.steps))][:steps]
        # Shared with the loader's workers: a lesson learnt by the trainer reaches the batches they make.
        self._budget = torch.full((2,), float("inf"), dtype=torch.float64)
        self._budget.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, index: int) -> Step | CaspiError:
        """A step; from a worker also why there is none, for torch would wrap an error into a traceback."""
        if get_worker_info() is None:
            return self._step(index)
        try:
            return self._step(index)
        except CaspiError as error:
            return error

    def _step(self, index: int) -> Step:
        epoch, number = self._where[index]
        plan = self._plans[epoch]
        rows = plan.rows(number)
        replaced: list[Replaced] = []
        parts = [[part for rows in rank for part in self._parts(rows, epoch)] for rank in plan.steps[number]]
        return Step(
            batches=[self._batch(part, epoch, replaced) for part in parts[self._rank]],
            target_tokens=int(self._data.target_tokens[rows].sum()),
            seconds=float(self._data.seconds[rows].sum()),
            rounds=max(map(len, parts)),
            epoch=epoch,
            replaced=tuple(replaced),
        )

    def _parts(self, rows: np.ndarray, epoch: int) -> list[np.ndarray]:
        """A micro-batch, as memory turned out to hold it."""
        heard = self._plans[epoch].heard
        return cut(rows, heard.seconds, heard.sequence_tokens, self.budget)

    @property
    def budget(self) -> Budget:
        """What memory turned out to hold; no limit until it was told."""
        seconds, tokens = self._budget.tolist()
        return Budget(seconds, tokens)

    def lower(self, budget: Budget) -> None:
        """Micro-batches made from now on fit `budget` as well as the plan's."""
        self._budget.copy_(torch.tensor([budget.seconds, budget.tokens], dtype=torch.float64))

    def size(self, batch: Batch) -> Budget:
        """What a micro-batch holds."""
        heard, rows = self._plans[batch.epoch].heard, np.array(batch.rows)
        return Budget(float(heard.seconds[rows].sum()), float(heard.sequence_tokens[rows].sum()))

    def refit(self, step: Step) -> Step:
        """The same step in micro-batches that fit the lowered budget. Every utterance is drawn as it was before."""
        batches: list[Batch] = []
        for batch in step.batches:
            parts = self._parts(np.array(batch.rows), step.epoch)
            batches += [batch] if len(parts) == 1 else [self.micro_batch(part, step.epoch) for part in parts]
        return replace(step, batches=batches)

    def epochs(self, step: int) -> float:
        """Epochs done after a number of steps: 1.5 in the middle of the second."""
        if step == 0:
            return 0.0
        epoch, number = self._where[step - 1]
        return epoch + (number + 1) / len(self._plans[epoch].steps)

    def identifiers(self, rows: Iterable[int]) -> list[str]:
        """Ids of corpus rows, for messages."""
        return [self._data.ids[row] for row in rows]

    def micro_batch(self, rows: np.ndarray, epoch: int) -> Batch:
        """Rows of the corpus as an epoch hears them."""
        return self._batch(rows, epoch, [])

    def _batch(self, rows: np.ndarray, epoch: int, replaced: list[Replaced]) -> Batch:
        items, heard = [], self._plans[epoch].heard
        for planned in rows.tolist():
            item = self._item(planned, epoch, replaced)
            draw = functools.partial(generator, self._seed, epoch, item.row)
            if self._background is not None and heard.nobody[item.row]:
                noise = self._background(len(item.samples), draw("no_speech"))
                items.append(replace(item, samples=noise))
                continue
            another = functools.partial(another_voice, self._data, item.row)
            samples = self._effects(item.samples, heard.stretch(item.row), draw, another)
            items.append(replace(item, samples=samples))
        masks = None
        if self._spec_augment is not None:
            draws = [generator(self._seed, epoch, item.row, "spec_augment") for item in items]
            masks = draw_masks([len(item.samples) for item in items], self._spec_augment, draws)
        return collate(items, self._prompt, masks, epoch)

    def _item(self, planned: int, epoch: int, replaced: list[Replaced]) -> Item:
        row, why = planned, ""
        for stand_in in itertools.chain([planned], self._nearest(planned)):
            # Drawn apart from the augmentation, which stays what it was where no text is given.
            with_previous = generator(self._seed, epoch, stand_in, "previous").random() < self._previous_text
            pool = self._data.hotwords
            expected = (
                pool.draw(self._data.texts[stand_in], generator(self._seed, epoch, stand_in, "hotwords"))
                if pool
                else ""
            )
            try:
                item = self._read(stand_in, with_previous, expected, self._plans[epoch].heard)
            except UNREADABLE as error:
                why = why or f"{type(error).__name__}: {error}"
                continue
            if stand_in != row:
                replaced.append(Replaced(row, stand_in, why))
            return item
        raise CaspiError(f"corpus {self._data.corpus.folder} cannot be read ({why}): is its disk there?")

    def _read(self, row: int, *how: Any) -> Item:
        for wait in _RETRY_AFTER:
            with contextlib.suppress(*UNREADABLE):
                return self._data.item(row, *how)
            time.sleep(wait)
        return self._data.item(row, *how)

    def _nearest(self, row: int) -> Iterator[int]:
        """Other rows, by how near their lengths are."""
        apart = np.abs(self._data.seconds[self._data.rows] - self._data.seconds[row])
        nearest = self._data.rows[np.argsort(apart, kind="stable")[: _STAND_INS + 1]]
        return (other for other in nearest.tolist() if other != row)


class _OneByOne:
    """Batch sampler of single steps, which Trainer's resume skips without loading."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self):  # type: ignore[no-untyped-def]
        return ([index] for index in range(self._count))


def _outlive_termination(_: int) -> None:
    """A machine that is being taken away asks every process to end; the trainer still needs its workers to save."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to all processes


@functools.cache
def _end_workers_at_exit() -> None:
    """Python waits for workers at its end after a SIGTERM, which they ignore: a run that failed would never be over."""

    def kill() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would raise for each
        for child in multiprocessing.active_children():
            if child.daemon:
                child.kill()

    atexit.register(kill)


def _only(steps: list[Step | CaspiError]) -> Step | CaspiError:
    return steps[0]


def loader(steps: PlannedSteps, workers: int) -> DataLoader[Step | CaspiError]:
    """Loads steps in order, ahead of the device where there are workers."""
    if workers:
        _end_workers_at_exit()
    return DataLoader(
        steps,
        batch_sampler=_OneByOne(len(steps)),
        collate_fn=_only,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_outlive_termination if workers else None,
        pin_memory=torch.cuda.is_available(),
    )


def plan_stage(
    data: TrainingSet, config: TrainConfig, stage: StageConfig, ranks: int, seed: int
) -> tuple[list[EpochPlan], int]:
    """Plans of the stage's epochs and its number of steps; a fractional last epoch is cut short.

    Raises UsageError where an effective batch has not an utterance for every rank.
    """
    mixer = None
    if stage.mix is not None:
        mixer = Mixer(config.mixes[stage.mix], data.rows, data.seconds, data.sources, seed)
    plans = []
    for epoch in range(math.ceil(stage.epochs)):
        rows = data.rows if mixer is None else mixer.epoch(epoch)
        curriculum = stage.curriculum
        if curriculum is not None and epoch < curriculum.epochs:
            order = shuffled(rows, seed, epoch, _difficulty(data, curriculum.first)[rows], curriculum.bands)
        else:
            order = shuffled(rows, seed, epoch)
        plans.append(
            plan_epoch(
                data.seconds,
                order,
                batch=config.batch,
                budget=config.budget,
                ranks=ranks,
                heard=data.heard(config, stage, seed, epoch),
                sequences=stage.objective.sequences,
            )
        )
    if any(len(plan.rows(step)) < ranks for plan in plans for step in range(len(plan.steps))):
        raise UsageError(
            f"train: an effective batch leaves some of {ranks} processes without an utterance: "
            "raise effective_batch or effective_seconds, or start fewer"
        )
    whole = sum(len(plan.steps) for plan in plans[: math.floor(stage.epochs)])
    rest = stage.epochs - math.floor(stage.epochs)
    return plans, max(1, whole + (round(rest * len(plans[-1].steps)) if rest else 0))


def _difficulty(data: TrainingSet, first: CurriculumKey) -> np.ndarray:
    """A number a row of the corpus; what a curriculum starts with has low ones."""
    if first == "short":
        return data.seconds
    if first == "clean":
        return -np.nan_to_num(data.corpus.numbers("snr_db"))
    return np.array([len(text) for text in data.texts]) / data.seconds


def audio_hours(data: TrainingSet, plans: Sequence[EpochPlan], steps: int) -> float:
    """Hours of audio in the first `steps` steps of the epochs."""
    first = itertools.islice((plan.rows(step) for plan in plans for step in range(len(plan.steps))), steps)
    return float(sum(data.seconds[rows].sum() for rows in first)) / 3600
