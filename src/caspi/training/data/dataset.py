"""The utterances that a run trains on, with all data except audio."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import soundfile

from caspi.audio import AudioError
from caspi.corpus.store import Corpus
from caspi.corpus.utterance import Word
from caspi.errors import CaspiError, UsageError
from caspi.language.codes import NO_SPEECH
from caspi.language.spoken_words import spoken_form
from caspi.model.batch import AlignerPrompt, AnyPrompt, Item
from caspi.model.config import Hotwords
from caspi.model.hotwords import HotwordPool, joined, tail
from caspi.model.letters import FRAMES_PER_POSITION, LetterPrompt
from caspi.model.prompt import Prompt
from caspi.model.timestamps import text_with_times, timestamp_prompt
from caspi.randomness import seeded
from caspi.training.config import StageConfig, TrainConfig
from caspi.training.data.epoch_lengths import EpochLengths, audio_tokens, bernoulli_mask

_log = logging.getLogger(__name__)

MAX_REPLACEMENTS = 20  # utterances tried in place of one that cannot be read
UNREADABLE = (OSError, AudioError, pa.ArrowException, soundfile.LibsndfileError)


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """A split with the columns that planning needs; utterances longer than the limit are not in `rows`.

    plain: lengths without augmentation; a sequence is audio, prompt, the longest possible context, and target.
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
    plain: EpochLengths
    hotwords: HotwordPool | None = None
    timed_texts: list[str | None] = field(default_factory=list)
    words: list[tuple[Word, ...]] = field(default_factory=list)

    @classmethod
    def for_alignment(cls, corpus: Corpus, prompt: AlignerPrompt, max_seconds: float) -> TrainingSet:
        """Utterances with the times of their words; others are not in `rows`. Targets: all frames; or two slots for
        every word, of which some are left out in each epoch (see slotted). Raises UsageError if no utterance has times.
        """
        corpus.find_audio()
        seconds, texts = corpus.numbers("seconds"), corpus.column("text")
        listed = [tuple(Word(**word) for word in row) for row in corpus.column("words")]
        words = [
            _spoken(row) if row and " ".join(w.text for w in row) == text else ()
            for row, text in zip(listed, texts, strict=True)
        ]
        if isinstance(prompt, LetterPrompt):
            words = [
                row if prompt.fit(row, of_row) else () for row, of_row in zip(words, seconds.tolist(), strict=True)
            ]
        if not any(words):
            raise UsageError(f"corpus {corpus.folder} has no utterance with the times of its words: align needs them")
        has_times = np.array([bool(row) for row in words])
        fits = seconds <= (max_seconds if isinstance(prompt, LetterPrompt) else min(max_seconds, prompt.max_seconds))
        if count := int((fits & ~has_times).sum()):
            _log.warning(
                f"{count:,} utterances have no times of words, times of other words, or more letters than audio: they "
                "are left out"
            )
        if isinstance(prompt, LetterPrompt):
            sequence_tokens = np.full(len(texts), len(prompt.ids(0)), np.int64)
            target_tokens = FRAMES_PER_POSITION * audio_tokens(seconds)
        else:
            sequence_tokens = prompt.text_tokens([[word.text for word in row] for row in words])
            target_tokens = np.array([2 * len(row) for row in words], np.int64)
        none = [""] * len(texts)
        return cls(
            corpus=corpus,
            rows=np.flatnonzero(has_times & fits),
            ids=corpus.column("id"),
            seconds=seconds,
            texts=texts,
            languages=corpus.column("language"),
            contexts=none,
            previous=none,
            sources=corpus.column("source"),
            target_tokens=target_tokens,
            plain=EpochLengths.of(seconds, sequence_tokens),
            timed_texts=[None] * len(texts),
            words=words,
        )

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
        """`shuffle_seed` gives every utterance the transcript of another one: only for control
        experiments.

        with_previous, hotwords, with_times: the preceding text, hotwords and times may be part of a sequence, and are
        counted in its length.
        """
        corpus.find_audio()
        seconds = corpus.numbers("seconds")
        texts, languages = corpus.column("text"), corpus.column("language")
        if shuffle_seed is not None:
            order = seeded(shuffle_seed).permutation(len(texts))
            transcript_of = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
            texts = [texts[transcript_of[row]] for row in range(len(texts))]
        contexts, previous = corpus.column("context"), corpus.column("previous")
        target_tokens = prompt.target_lengths(texts, languages)
        prompt_tokens = len(prompt.prefix(0)) + prompt.text_lengths(contexts)
        if with_previous:
            prompt_tokens += prompt.text_lengths([tail(text) for text in previous])
        pool = None if hotwords is None else HotwordPool(texts, hotwords)
        if pool is not None:
            prompt_tokens += pool.max_tokens(prompt)
        timed_texts: list[str | None] = [None] * len(texts)
        if with_times and shuffle_seed is None:
            timed_texts = _timed_texts(corpus, texts)
            longest_texts = [timed or text for timed, text in zip(timed_texts, texts, strict=True)]
            prompt_tokens += (
                prompt.text_lengths(longest_texts)
                - prompt.text_lengths(texts)
                + prompt.text_lengths([timestamp_prompt("")])
            )
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
            plain=EpochLengths.of(seconds, prompt_tokens + target_tokens),
            hotwords=pool,
            timed_texts=timed_texts,
        )

    @classmethod
    def to_train_on(cls, corpus: Corpus, prompt: AnyPrompt, config: TrainConfig, seed: int) -> TrainingSet:
        """The training set with what the recipe adds: previous text, hotwords, times."""
        if not isinstance(prompt, Prompt):
            return cls.for_alignment(corpus, prompt, config.max_seconds)
        return cls.of(
            corpus,
            prompt,
            config.max_seconds,
            shuffle_seed=seed if config.shuffle_transcripts else None,
            with_previous=config.previous_text > 0,
            hotwords=config.hotwords,
            with_times=config.timestamps > 0,
        )

    def epoch_lengths(self, config: TrainConfig, stage: StageConfig, seed: int, epoch: int) -> EpochLengths:
        """The lengths of all rows in an epoch of a stage, after augmentation."""
        count = len(self.seconds)
        no_speech = bernoulli_mask(
            count, 0.0 if config.no_speech is None else config.no_speech.share, seed, epoch, "no_speech"
        )
        timed = bernoulli_mask(count, config.timestamps, seed, epoch, "timestamps")
        if timed.any():
            timed = timed & np.array([text is not None for text in self.timed_texts])
        augment = stage.augment or config.augment
        return self.plain.augmented(augment, seed, epoch, timed=timed, no_speech=no_speech)

    def target_of(self, row: int, lengths: EpochLengths) -> tuple[str, str]:
        """Text and language of an utterance in an epoch: with its times, or the target for no speech, if drawn so."""
        if lengths.no_speech[row]:
            return "", NO_SPEECH
        timed = self.timed_texts[row] if lengths.timed[row] else None
        return timed or self.texts[row], self.languages[row]

    def item(
        self, row: int, with_previous: bool = False, hotwords: str = "", lengths: EpochLengths | None = None
    ) -> Item:
        """One utterance with the samples of the corpus. Its context also gets the hotwords and the previous text, if
        given. `lengths` selects the target; without it, the target is the text of the corpus."""
        lengths = lengths or self.plain
        context = joined(self.contexts[row], hotwords, tail(self.previous[row]) if with_previous else "")
        system_turn = timestamp_prompt(context) if lengths.timed[row] else context
        words = self.words[row] if self.words else ()
        return Item(self.corpus.samples(row), *self.target_of(row, lengths), system_turn, row, words)


def _spoken(words: Sequence[Word]) -> tuple[Word, ...]:
    """Words as an aligner reads them; what cannot be heard is left out."""
    return tuple(Word(spoken, *word[1:]) for word in words if (spoken := spoken_form(word.text)))


def _timed_texts(corpus: Corpus, texts: list[str]) -> list[str | None]:
    """Every text with its times, None if they are unknown. Raises UsageError if no text has times."""
    segments, words = (
        [[Word(**word) for word in row] for row in corpus.column(name)] for name in ("segments", "words")
    )
    timed_texts = [text_with_times(*row) for row in zip(texts, segments, words, strict=True)]
    if not any(timed_texts):
        raise UsageError(f"train.timestamps: corpus {corpus.folder} has no utterance with times")
    return timed_texts


_ALL_SLOTS = 0.5  # share of utterances in which all words have slots, as when a text is aligned
_SLOT = 0.5  # probability of a word's slots in the others


def slotted(words: Sequence[Word], rng: np.random.Generator) -> tuple[bool, ...]:
    """Which words have slots, at least one: a model that always sees slots after every word does not learn words
    without them, which anchored windows have (arXiv:2601.18220, section 3.3)."""
    if rng.random() < _ALL_SLOTS:
        return (True,) * len(words)
    drawn = rng.random(len(words)) < _SLOT
    drawn[int(rng.integers(len(words)))] = True
    return tuple(drawn.tolist())


def second_speaker_clip(data: TrainingSet, row: int, rng: np.random.Generator) -> np.ndarray:
    """A clip of another group than the row's. Raises CaspiError if none of twenty drawn clips can be used."""
    group, reason = data.corpus.utterance(row).group, "all drawn utterances were of the same group"
    for _ in range(MAX_REPLACEMENTS):
        other_row = int(data.rows[rng.integers(len(data.rows))])
        if data.corpus.utterance(other_row).group != group:
            try:
                return data.corpus.samples(other_row)
            except UNREADABLE as error:
                reason = str(error)
    raise CaspiError(f"train.augment.second_speaker: no second speaker in corpus {data.corpus.folder} ({reason})")
