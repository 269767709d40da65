"""Synthetic speech: sentences spoken by espeak-ng in many voices. Always labelled as synthetic.

A hash of its text assigns a sentence to one split, and voices are assigned to splits by name. So a test set has
only unseen sentences in unseen voices by construction.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from caspi import audio
from caspi.config import Cited, Seed, Unit
from caspi.corpus.sources.base import Source
from caspi.corpus.synthesis import hebrew_sentences
from caspi.corpus.synthesis.espeak import SPELLED, Voice, phonemes, speak, variants
from caspi.corpus.synthesis.hebrew_words import pointed
from caspi.corpus.utterance import Recording, Word
from caspi.errors import MissingDependency, UsageError
from caspi.language import TextPolicy, language
from caspi.language.hebrew import script_share, without_niqqud

SOURCE = "synthetic"

# Sound effects rather than voices: useless for tests, and of little use for training.
_UNNATURAL = frozenset(
    (
        *("Demonic", "whisper", "whisperf", "croak", "Mr serious", "UniRobot", "anikaRobot", "klatt6", "robosoft"),
        *(f"robosoft{n}" for n in range(2, 9)),
    )
)


@dataclass(frozen=True, slots=True)
class SpokenAudio:
    """A sentence to be synthesised; `written` is its text, word for word, as used in training."""

    spoken: str
    written: str
    code: str
    voice: Voice

    def open(self) -> tuple[audio.Stream, tuple[Word, ...]]:
        try:
            speech = speak(self.spoken, self.code, self.voice)
        except (OSError, RuntimeError, ValueError) as error:
            raise audio.AudioError("corrupt_audio", f"{type(error).__name__}: {error}") from error
        samples = audio.resample(speech.samples, speech.sample_rate)
        stream = audio.Stream(speech.sample_rate, 1, None, iter([samples]))
        return stream, tuple(map(Word, self.written.split(), speech.word_starts, speech.word_ends))


_Position = Annotated[float, Unit("share"), Field(ge=0, le=1)]
_ESPEAK = Cited("github.com/espeak-ng/espeak-ng")


class SyntheticSource(Source):
    """Sentences that espeak-ng speaks in many voices. They are always labelled as synthetic."""

    kind: Annotated[Literal["synthetic"], _ESPEAK]
    """Selects this kind of source."""
    utterances: Annotated[int, Unit("utterances")] = Field(gt=0)
    """Number of utterances, in all languages together."""
    languages: tuple[str, ...] = ("Hebrew",)
    """Languages of the sentences; the utterances alternate between them."""
    only: tuple[str, ...] = ()
    """The voices to use. Without it, all natural voices."""
    without: tuple[str, ...] = ()
    """Voices that are not used."""
    texts: tuple[str, ...] = ()
    """Speak these sentences in turn, in one language, instead of drawn sentences."""
    frequent_words: bool = False
    """Hebrew: frequent words in any order, with vowels at random, instead of the demo's sentences. Their sounds are
    those of their letters, which is what an aligner learns. Other languages always have frequent words; both need the
    package wordfreq."""
    rate: Annotated[tuple[int, int], Unit("words/min"), _ESPEAK] = (140, 220)
    """Slowest and fastest speech."""
    pitch: Annotated[tuple[int, int], Unit("scale of espeak-ng, 0 to 100"), _ESPEAK] = (25, 75)
    """Lowest and highest pitch of the voice; 50 is normal."""
    sentences: tuple[_Position, _Position] = (0.0, 1.0)
    """The part of all sentences that this source may use, from start to end. `[0, 0.9]` and `[0.9, 1]` have no sentence
    in common."""
    seed: Seed = 0
    """Start value of the random choices. Another value gives other sentences and voices."""

    def recordings(self, language: str, skip: int = 0) -> Iterator[Recording]:
        """Utterances that alternate between the languages; the same seed gives the same sentences and voices."""
        del language  # its own are named in `languages`
        return itertools.islice(self._drawn(), skip, None)

    def identity(self) -> str:
        return "synthetic"  # everything it depends on is in the recipe

    def count(self) -> int | None:
        return self.utterances

    def _drawn(self) -> Iterator[Recording]:
        draw = random.Random(f"{SOURCE}/{self.seed}")
        voices = self._voices()
        sentence_of = {name: self._sentences(name) for name in self.languages if not self.texts}
        for index in range(self.utterances):
            name = self.languages[index % len(self.languages)]
            if self.texts:
                spoken = self.texts[index % len(self.texts)]
                written = without_niqqud(spoken) if name == "Hebrew" else spoken
            else:
                spoken, written = self._draw_sentence(sentence_of[name], draw)
            voice = Voice(draw.choice(voices), draw.randint(*self.rate), draw.randint(*self.pitch))
            code = language(name).code
            yield Recording(
                id=f"{SOURCE}-{self.seed}-{code}-{index:07d}",
                audio=SpokenAudio(spoken, written, code, voice),
                source=SOURCE if len(self.languages) == 1 else f"{SOURCE}-{code}",
                group=f"{SOURCE}/{voice.variant}",
                language=name,
                text=written,
                synthetic=True,
                split=self.split,
            )

    def _voices(self) -> tuple[str, ...]:
        """espeak uses its default voice for an unknown name: a typo would train on a held-out voice."""
        known = variants()
        if unknown := sorted({*self.only, *self.without} - set(known)):
            raise UsageError(f"corpus.sources: espeak has no voice {', '.join(unknown)}; it has {', '.join(known)}")
        return self.only or tuple(v for v in known if v not in _UNNATURAL and v not in self.without)

    @model_validator(mode="after")
    def _ranges_hold_something(self) -> SyntheticSource:
        if self.texts and len(self.languages) > 1:
            raise ValueError("texts: needs exactly one language; add another source for another language")
        if self.frequent_words and self.languages != ("Hebrew",):
            raise ValueError("frequent_words: only for Hebrew alone; other languages always have frequent words")
        for name in ("sentences", "rate", "pitch"):
            low, high = getattr(self, name)
            if low > high or (name == "sentences" and high - low < 0.01):
                raise ValueError(f"{name}: the range is empty, from {low} to {high}")
        return self

    def _sentences(self, name: str) -> _Sentence:
        """A function that draws (input of espeak, written text)."""
        if name != "Hebrew":
            return _in_any_order(frequent_words(name))
        return _hebrew_words(frequent_words(name, shortest=2)) if self.frequent_words else _hebrew

    def _draw_sentence(self, sentence: _Sentence, draw: random.Random) -> tuple[str, str]:
        low, high = self.sentences
        while True:
            spoken, written = sentence(draw)
            position = int.from_bytes(hashlib.blake2b(written.encode(), digest_size=8).digest()) / 2**64
            if low <= position < high:
                return spoken, written


_Sentence = Callable[[random.Random], tuple[str, str]]


def _in_any_order(words: Sequence[str]) -> _Sentence:
    weights = _weights(len(words))

    def drawn(draw: random.Random) -> tuple[str, str]:
        text = " ".join(draw.choices(words, cum_weights=weights, k=draw.randint(2, 8)))
        return text, text

    return drawn


def _weights(words: int) -> list[float]:
    """Zipf, flattened at the top; summed once, because summing 20,000 weights per draw takes longer than the speech."""
    return list(itertools.accumulate(1.0 / (rank + 20) for rank in range(words)))


_PAUSE_AFTER = 0.15  # share of words with a comma, at which espeak pauses


def _hebrew_words(words: Sequence[str]) -> _Sentence:
    words = [word for word in words if script_share(word) == 1.0]
    weights = _weights(len(words))

    def drawn(draw: random.Random) -> tuple[str, str]:
        while True:
            chosen = draw.choices(words, cum_weights=weights, k=draw.randint(2, 10))
            commas = ["," if draw.random() < _PAUSE_AFTER else "" for _ in chosen[1:]] + [""]
            spoken = " ".join(pointed(word, draw) + comma for word, comma in zip(chosen, commas, strict=True))
            if SPELLED not in phonemes(spoken, "he"):
                return spoken, " ".join(map(str.__add__, chosen, commas))

    return drawn


def _hebrew(draw: random.Random) -> tuple[str, str]:
    pointed = hebrew_sentences.sentence(draw)
    return pointed, without_niqqud(pointed)


def frequent_words(name: str, count: int = 20_000, shortest: int = 3) -> list[str]:
    """The most frequent words of a language, without those of fewer letters than `shortest` and of other scripts."""
    try:
        import wordfreq
    except ImportError as error:
        raise MissingDependency(f"synthetic {name}", package="wordfreq", extra="base") from error
    rules = language(name)
    words = (rules.training_text(word, TextPolicy()) for word in wordfreq.top_n_list(rules.code, count))
    return [word for word in words if len(word) >= shortest and word.isalpha()]
