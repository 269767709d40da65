"""What can be measured about an utterance and its text. Higher means more suspicious; what is not known is missing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein

from caspi.alignment.align import AlignedWord, Aligner, Alignment, AlignmentRequest, confidence_at_ends
from caspi.audio import SAMPLE_RATE, Seconds
from caspi.audit.faults import Case
from caspi.corpus.read_ahead import read_ahead
from caspi.corpus.signals import QUIET_FRAME, quiet_frames
from caspi.inference.engine.engine import Engine
from caspi.inference.loops import loops
from caspi.inference.transcriber import Recording, Transcriber
from caspi.inference.transcripts import Transcript
from caspi.language import language
from caspi.language.spoken_words import spoken_words
from caspi.language.stock_phrases import is_stock_phrase
from caspi.model.batch import Batch, Item, collate
from caspi.model.forward import evaluation_mode, label_logits
from caspi.model.loading import LoadedModel, load_to_decode
from caspi.model.tensors import to_device

Signals = dict[str, float]
WEAKEST_WORDS = "weakest words"

_EDGE_LETTERS = 12
_SQUEEZED = 0.03  # seconds a letter: no one speaks faster
_AT_ONCE = {"cpu": 32, "cuda": 2048}
_BATCHES_AHEAD = 2  # made while the one before is computed
_BATCH_SECONDS: dict[str, Seconds] = {"cpu": 60.0, "cuda": 800.0}


def text_signals(case: Case) -> Signals:
    """Of the text alone, and its length."""
    seconds = max(0.01, len(case.samples) / SAMPLE_RATE)
    rate = math.log(max(1, len(case.text)) / seconds)
    return {
        "fast": rate, "slow": -rate, "repeats itself": float(loops(case.text)),
        "stock phrase": float(is_stock_phrase(case.text, case.language)),
    }  # fmt: skip


def alignment_signals(case: Case, aligned: Alignment) -> Signals:
    """Of words with their times. Speech is what is not quiet; where no word is, it has no transcript."""
    if not aligned.words:
        return {"words not in the audio": 1.0, WEAKEST_WORDS: 1.0, "weak edges": 1.0, "squeezed words": 1.0}
    confidence = np.array([word.confidence for word in aligned.words])
    runs = np.convolve(confidence, np.ones(3) / 3, "valid") if len(confidence) >= 3 else confidence
    speech = ~quiet_frames(case.samples)
    before, after, between = _speech_without_words(speech, aligned.words)
    return {
        "words not in the audio": 1 - aligned.confidence,
        WEAKEST_WORDS: 1 - float(runs.min()),
        "weak edges": 1 - confidence_at_ends(aligned.words),
        "unsure letters": aligned.entropy,
        "squeezed words": float(np.mean([_is_squeezed(word) for word in aligned.words])),
        "words out of order": aligned.repaired / len(aligned.words),
        "speech before the text": before,
        "speech after the text": after,
        "speech between words": between,
    }


def _is_squeezed(word: AlignedWord) -> bool:
    return word.end - word.start < _SQUEEZED * sum(map(str.isalnum, word.text))


def _speech_without_words(speech: np.ndarray, words: Sequence[AlignedWord]) -> tuple[float, float, float]:
    """Seconds of speech before the first word, after the last, and in the longest gap between two."""
    gaps = [speech_within(speech, one.end, other.start) for one, other in itertools.pairwise(words)]
    end = len(speech) * QUIET_FRAME / SAMPLE_RATE
    before, after = speech_within(speech, 0.0, words[0].start), speech_within(speech, words[-1].end, end)
    return before, after, max(gaps, default=0.0)


def speech_within(speech: np.ndarray, start: Seconds, end: Seconds) -> Seconds:
    """Seconds of speech between two times. speech: bool [frames of 20 ms]."""
    first, last = (min(len(speech), round(time * SAMPLE_RATE / QUIET_FRAME)) for time in (start, end))
    return float(np.count_nonzero(speech[first : max(first, last)])) * QUIET_FRAME / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Heard:
    """What a recogniser transcribes if it is told the language. language: that it identifies. probability: mean of the
    words; 0 if there is none. loss: of its own text, mean of the tokens without those of the language; None if there
    was nothing to decode."""

    text: str
    language: str | None
    probability: float
    loss: float | None = None

    @classmethod
    def of(cls, transcript: Transcript, identified: str | None) -> Heard:
        words = [word for segment in transcript.segments for word in segment.words]
        found = [word.probability for word in words if word.probability is not None]
        likely = transcript.log_probability
        return cls(
            transcript.text, identified, float(np.mean(found)) if found else 0.0, None if likely is None else -likely
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recogniser:
    """A recogniser that transcribes, and scores texts. name: of its signals, if there are several."""

    name: str
    loaded: LoadedModel
    engine: Engine

    @classmethod
    def of(cls, model: str, name: str) -> Recogniser:
        """On the GPU in bf16 if there is one, else on the CPU in fp32. Raises UsageError."""
        loaded = load_to_decode(model)
        return cls(name, loaded, Engine(loaded))

    @property
    def device(self) -> torch.device:
        return next(self.loaded.model.parameters()).device

    @property
    def at_once(self) -> int:
        """Clips that are transcribed together: some seconds of its device."""
        return _AT_ONCE[self.device.type]

    def heard(self, cases: Sequence[Case]) -> list[Heard]:
        """Clips that several cases have are decoded once."""
        clips = {id(case.samples): case for case in cases}
        transcriber = Transcriber(self.loaded, engine=self.engine)
        asked = transcriber.transcribe([Recording(case.samples) for case in clips.values()])
        found = {key: Heard.of(one, one.language) for key, one in zip(clips, asked, strict=True)}
        # With the right language it would have said the same.
        others = {key: case for key, case in clips.items() if found[key].language != case.language}
        told = transcriber.transcribe([Recording(case.samples, case.language) for case in others.values()])
        found |= {key: Heard.of(one, found[key].language) for key, one in zip(others, told, strict=True)}
        return [found[id(case.samples)] for case in cases]

    @torch.no_grad()
    def losses(self, cases: Sequence[Case], texts: Sequence[str]) -> list[float]:
        """Mean cross-entropy of the tokens of each text, without those of the language."""
        order = sorted(range(len(cases)), key=lambda number: len(cases[number].samples))
        found = [0.0] * len(cases)
        device = self.device
        prompt = self.loaded.prompt

        def made(some: list[int]) -> tuple[list[int], Batch]:
            return some, collate([Item(cases[n].samples, texts[n], cases[n].language) for n in some], prompt)

        batches = _batches(order, cases, _BATCH_SECONDS[device.type])
        for some, batch in read_ahead(made, batches, _BATCHES_AHEAD):
            with evaluation_mode(self.loaded.model):
                logits = label_logits(self.loaded.model, to_device(batch, device)).float()
            each = torch.nn.functional.cross_entropy(logits, batch.labels.to(device), reduction="none").cpu()
            lengths = [len(item.example.target) for item in batch.items]
            for number, losses in zip(some, torch.split(each, lengths), strict=True):
                found[number] = float(losses[len(prompt.language_prefix(cases[number].language)) :].mean())
        return found

    def signals(self, cases: Sequence[Case]) -> list[Signals]:
        """For every case."""
        heard = self.heard(cases)
        own = self.losses(cases, [case.text for case in cases])
        return [
            {f"{name}{self.name}": value for name, value in _compared(case, its, loss).items()}
            for case, its, loss in zip(cases, heard, own, strict=True)
        ]


def _batches(order: Sequence[int], cases: Sequence[Case], limit: Seconds) -> Iterator[list[int]]:
    """Of about equal clips, padded within the limit; order: by length."""
    some: list[int] = []
    for number in order:
        if some and len(cases[number].samples) * (len(some) + 1) > limit * SAMPLE_RATE:
            yield some
            some = []
        some.append(number)
    if some:
        yield some


def _compared(case: Case, heard: Heard, own_loss: float) -> Signals:
    """The text against what a recogniser heard, normalised as for the fair score."""
    normalised = language(case.language).normalisers["fair"]
    text, said = normalised(case.text), normalised(heard.text)
    above = {} if heard.loss is None else {"loss above that of the recognised text": own_loss - heard.loss}
    return above | {
        "loss": own_loss,
        "letters differ": differs(text, said),
        "first words differ": differs(text[:_EDGE_LETTERS], said[:_EDGE_LETTERS]),
        "last words differ": differs(text[-_EDGE_LETTERS:], said[-_EDGE_LETTERS:]),
        "longer than recognised": (len(text) - len(said)) / max(1, len(said)),
        "shorter than recognised": (len(said) - len(text)) / max(1, len(text)),
        "numbers differ": float(_numbers(text) != _numbers(said)),
        "another language": float(heard.language not in (None, case.language)),
    }


def differs(one: str, other: str) -> float:
    """Letters to change over those of the longer one: 0 to 1, the same in either direction."""
    return Levenshtein.distance(one, other) / max(1, len(one), len(other))


def _numbers(text: str) -> list[str]:
    return [word for word in text.split() if any(map(str.isdigit, word))]


@dataclass(frozen=True, slots=True)
class Listeners:
    """The models of an audit; at least one."""

    aligner: Aligner | None
    recognisers: Sequence[Recogniser]

    @classmethod
    def of(cls, aligner: str | None, recognisers: Sequence[str]) -> Listeners:
        """The models by their names; several recognisers are numbered. Raises UsageError."""
        names = [f" ({n})" if len(recognisers) > 1 else "" for n in range(1, len(recognisers) + 1)]
        heard_by = [Recogniser.of(model, name) for model, name in zip(recognisers, names, strict=True)]
        return cls(Aligner.of(aligner) if aligner else None, heard_by)

    @property
    def at_once(self) -> int:
        """Utterances that are measured together: some seconds of the models' device."""
        return self.recognisers[0].at_once if self.aligner is None else _AT_ONCE[self.aligner.device.type]


def measured(cases: Sequence[Case], listeners: Listeners) -> list[Signals]:
    """All signals of every case."""
    found = [text_signals(case) for case in cases]
    if listeners.aligner is not None:
        speakable = [n for n, case in enumerate(cases) if spoken_words(case.text, language(case.language).unit)]
        requests = [AlignmentRequest(cases[n].samples, cases[n].text, cases[n].language) for n in speakable]
        for number, aligned in zip(speakable, listeners.aligner.align(requests), strict=True):
            found[number] |= alignment_signals(cases[number], aligned)
    for recogniser in listeners.recognisers:
        for mine, more in zip(found, recogniser.signals(cases), strict=True):
            mine.update(more)
    return found
