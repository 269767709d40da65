"""Finds the times of the words of a known text in its audio."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from caspi.alignment.timing import WordTimes, letter_scores, times_by_letters, word_times
from caspi.audio import SAMPLE_RATE, Seconds
from caspi.corpus.utterance import Word
from caspi.errors import UsageError
from caspi.language import language
from caspi.language.spoken_words import SpokenWord, spoken_words
from caspi.model.aligner import LoadedAligner, load_aligner
from caspi.model.alignment import AlignmentPrompt
from caspi.model.batch import Item
from caspi.model.config import ModelConfig
from caspi.model.files import max_clip_seconds
from caspi.model.letters import FRAME_SECONDS, LetterPrompt
from caspi.model.loading import cast

MAX_WINDOW: Seconds = 30.0  # of a model that does not say how long its clips were
_EDGE_WORDS = 2
_MARGIN = 1  # seconds at each end of a window that are heard for context only
_SHORTEST_WINDOW = 2 * _MARGIN + 1
_FRAMES_PER_MARGIN = round(_MARGIN / FRAME_SECONDS)
_BATCH_SECONDS: dict[str, Seconds] = {"cpu": 60.0, "cuda": 800.0}


@dataclass(frozen=True, slots=True)
class AlignmentRequest:
    """A clip, samples float32 [n] at 16 kHz, and its text in a language."""

    samples: np.ndarray
    text: str
    language: str

    @property
    def seconds(self) -> Seconds:
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class AlignedWord:
    """A word as it is written, with its times in seconds. confidence: by letters, the mean probability of its letters
    in its frames; by slots, the probability that both times are within 0.2 s. repaired: it was moved, because the
    model's own times were out of order."""

    text: str
    start: Seconds
    end: Seconds
    confidence: float
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class Alignment:
    """The words of a clip in order; none if there is a problem. entropy: mean of the distributions that the times come
    from, in nats: high where the model is unsure."""

    words: tuple[AlignedWord, ...]
    seconds: Seconds
    entropy: float
    problem: str = ""

    @property
    def confidence(self) -> float:
        """Mean of the words; 0 if there is none."""
        return confidence(self.words) if self.words else 0.0

    @property
    def repaired(self) -> int:
        """Number of words whose times were out of order."""
        return sum(word.repaired for word in self.words)


def confidence(words: Sequence[AlignedWord]) -> float:
    """Mean of the words; at least one."""
    return float(np.mean([word.confidence for word in words]))


def confidence_at_ends(words: Sequence[AlignedWord]) -> float:
    """Of the first two words or of the last two: of those that are less sure."""
    return min(confidence(words[:_EDGE_WORDS]), confidence(words[-_EDGE_WORDS:]))


class Aligner:
    """Aligns clips. An aligner by letters also takes recordings of any length: it reads them in windows, whose letters
    it knows without the text, and then finds one way through all of them."""

    def __init__(self, loaded: LoadedAligner) -> None:
        self._loaded = loaded
        self.device = next(loaded.model.parameters()).device
        stated = max_clip_seconds(loaded.model.config.to_dict()) or MAX_WINDOW
        prompt = loaded.prompt
        self.longest = min(stated, prompt.max_seconds) if isinstance(prompt, AlignmentPrompt) else stated

    @classmethod
    def of(cls, model: str, device: str | None = None) -> Aligner:
        """An aligner on the GPU in bf16 if there is one, else on the CPU in fp32. Raises UsageError."""
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        loaded = load_aligner(ModelConfig(task="align", start=model), device)
        if not _is_trained(loaded):
            raise UsageError(f"{model} is not an aligner: give tiny-aligner, or train one with model.task: align")
        if device.startswith("cuda"):
            cast(loaded.model, torch.bfloat16)
        return cls(loaded)

    @property
    def any_length(self) -> bool:
        """Whether it also takes clips longer than those it was trained on."""
        return isinstance(self._loaded.prompt, LetterPrompt)

    def check_long_recordings(self) -> None:
        """Raises UsageError if it takes no clips longer than those it was trained on."""
        if not self.any_length:
            raise UsageError(
                f"this aligner takes clips of up to {self.longest:.1f} s; only one by letters takes longer ones"
            )

    def reads(self, text: str, spoken: str) -> bool:
        """Whether it knows most letters of a text in a language, and there is a word."""
        words = spoken_words(text, language(spoken).unit)
        if not isinstance(self._loaded.prompt, LetterPrompt):
            return bool(words)
        letters = [letter for word in words for letter in self._loaded.prompt.spelling(word.spoken)]
        known = sum(letter <= len(self._loaded.prompt.letters) for letter in letters)
        return known > len(letters) / 2

    def align(self, requests: Sequence[AlignmentRequest]) -> list[Alignment]:
        """In the order of the requests. Raises UsageError for a clip that is too long, or a text without a word."""
        order = sorted(range(len(requests)), key=lambda number: requests[number].seconds)
        found = dict(zip(order, self.align_each(requests[number] for number in order), strict=True))
        return [found[number] for number in range(len(requests))]

    def align_each(self, requests: Iterable[AlignmentRequest]) -> Iterator[Alignment]:
        """Alignments in order; requests are taken as there is room. Raises UsageError as `align` does."""
        group: list[tuple[AlignmentRequest, list[SpokenWord]]] = []
        longest = 0.0
        for request in requests:
            words = self._words(request)
            if request.seconds > self.longest:
                yield from self._aligned(group)
                group, longest = [], 0.0
                yield self._aligned_in_windows(request, words)
                continue
            longest = max(longest, request.seconds)
            if group and longest * (len(group) + 1) > _BATCH_SECONDS[self.device.type]:
                yield from self._aligned(group)
                group, longest = [], request.seconds
            group.append((request, words))
        yield from self._aligned(group)

    def align_texts(self, samples: np.ndarray, texts: Sequence[str], spoken: str) -> list[Alignment]:
        """Several texts with the same clip, of any length, which is heard once. Raises UsageError as `align` does."""
        requests = [AlignmentRequest(samples, text, spoken) for text in texts]
        if not requests or requests[0].seconds <= self.longest:
            return self.align(requests)
        words = [self._words(request) for request in requests]
        scores = self._scores_in_windows(requests[0])
        return [self._aligned_to(scores, *asked) for asked in zip(requests, words, strict=True)]

    def _words(self, request: AlignmentRequest) -> list[SpokenWord]:
        """Of a request that can be aligned. Raises UsageError."""
        if request.seconds > self.longest:
            self.check_long_recordings()
        if not (words := spoken_words(request.text, language(request.language).unit)):
            raise UsageError(f"the text {request.text[:40]!r} has no word")
        return words

    def _aligned(self, group: Sequence[tuple[AlignmentRequest, list[SpokenWord]]]) -> list[Alignment]:
        items = [_item(request, words) for request, words in group]
        times = word_times(self._loaded, items) if items else []
        return [_alignment(*asked, found) for asked, found in zip(group, times, strict=True)]

    def _aligned_in_windows(self, request: AlignmentRequest, words: Sequence[SpokenWord]) -> Alignment:
        return self._aligned_to(self._scores_in_windows(request), request, words)

    def _scores_in_windows(self, request: AlignmentRequest) -> np.ndarray:
        """Log-probabilities of letters, float32 [frames, classes], of a clip that is longer than a window."""
        seconds = max(_SHORTEST_WINDOW, int(self.longest))
        starts = _window_starts(request.seconds, seconds)
        windows = [request.samples[first * SAMPLE_RATE :][: seconds * SAMPLE_RATE] for first in starts]
        at_once = max(1, int(_BATCH_SECONDS[self.device.type] / self.longest))
        scores: list[np.ndarray] = []
        for first in range(0, len(windows), at_once):
            scores += letter_scores(self._loaded, windows[first : first + at_once])
        return _joined(scores, starts)

    def _aligned_to(self, scores: np.ndarray, request: AlignmentRequest, words: Sequence[SpokenWord]) -> Alignment:
        prompt = self._loaded.prompt
        assert isinstance(prompt, LetterPrompt)  # _words has checked it
        [times] = times_by_letters([scores], [_item(request, words)], prompt)
        return _alignment(request, words, times)


def _item(request: AlignmentRequest, words: Sequence[SpokenWord]) -> Item:
    return Item(request.samples, "", "", words=tuple(Word(word.spoken, 0.0, 0.0) for word in words))


def _alignment(request: AlignmentRequest, words: Sequence[SpokenWord], times: WordTimes | None) -> Alignment:
    if times is None:
        return Alignment((), request.seconds, 0.0, f"more letters than fit into {request.seconds:.1f} s of audio")
    columns = (times.starts, times.ends, times.confidence, times.repaired)
    aligned = tuple(
        AlignedWord(word.written, *values)
        for word, *values in zip(words, *(column.tolist() for column in columns), strict=True)
    )
    return Alignment(aligned, request.seconds, times.entropy)


def _window_starts(seconds: Seconds, longest: int) -> list[int]:
    """In whole seconds. Windows overlap by two margins, and the last is longer than one."""
    step = longest - 2 * _MARGIN
    return [step * number for number in range(max(1, math.ceil((seconds - _MARGIN) / step)))]


def _joined(scores: Sequence[np.ndarray], starts: Sequence[int]) -> np.ndarray:
    """The frames of all windows; where two overlap, the later begins at its margin."""
    parts = []
    for number, part in enumerate(scores):
        first = _FRAMES_PER_MARGIN if number else 0
        is_last = number + 1 == len(scores)
        last = len(part) if is_last else round((starts[number + 1] - starts[number] + _MARGIN) / FRAME_SECONDS)
        parts.append(part[first:last])
    return np.concatenate(parts)


def _is_trained(loaded: LoadedAligner) -> bool:
    return LoadedAligner.architecture.__name__ in (loaded.model.config.architectures or ())
