"""Transcribes audio of any length to text with times; used by evaluation, command line and server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from caspi.audio import SAMPLE_RATE, Seconds
from caspi.inference.decoding import Decoder, DecodeRequest, Hypothesis
from caspi.inference.long_audio import MAX_WINDOW, windows
from caspi.inference.loops import loops
from caspi.model.config import ModelConfig
from caspi.model.files import max_clip_seconds
from caspi.model.loading import LoadedModel, load
from caspi.model.timestamps import phrases, shift_times, timestamp_prompt, without_times


@dataclass(frozen=True, slots=True)
class TimedText:
    """Text of one window of a recording, or of one phrase if times were requested."""

    start: Seconds
    end: Seconds
    text: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """retried: windows that reached the token limit; truncated: those that reached it again after the split; looping:
    those whose text repeats itself; silent: those without sound, which are not decoded; untimed: those whose phrases
    have no times, although they were requested."""

    text: str
    segments: tuple[TimedText, ...]
    language: str | None
    seconds: Seconds
    truncated: int
    retried: int = 0
    untimed: int = 0
    looping: int = 0
    silent: int = 0

    def warnings(self) -> list[str]:
        """Warnings about the transcript, one line each."""
        problems = (
            (self.truncated, "hit the limit of tokens, so text is missing"),
            (self.retried - self.truncated, "hit the limit of tokens and {was} decoded again in two halves"),
            (self.looping, "repeat{s} the same words over and over"),
        )
        return [
            f"{count} window{'s' if count > 1 else ''} "
            + text.format(s="" if count > 1 else "s", was="were" if count > 1 else "was")
            for count, text in problems
            if count > 0
        ]


SILENT_DB = -60.0  # of full scale, for the loudest 32 ms; below it the clip is silent
_FRAME = 512  # samples, 32 ms
_MIN_SECONDS = 0.1  # seconds: no word is shorter


def is_silent(samples: np.ndarray) -> bool:
    """Whether samples, float32 [n] at 16 kHz, are silent: no sound, or too short for a word."""
    if len(samples) < _MIN_SECONDS * SAMPLE_RATE:
        return True
    frames = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME)
    return float(np.square(frames).mean(axis=1).max()) < 10 ** (SILENT_DB / 10)


class Transcriber:
    """Splits long audio into windows, decodes in batches, joins windows with spaces. No window is longer than the clips
    that the model was trained on, if the model states their length."""

    def __init__(self, loaded: LoadedModel, *, dtype: torch.dtype | None = None) -> None:
        self._decoder = Decoder(loaded, dtype=dtype)
        self._max_window = min(MAX_WINDOW, max_clip_seconds(loaded.model.config.to_dict()) or MAX_WINDOW)

    @classmethod
    def of(cls, model: str, device: str | None = None) -> Transcriber:
        """MODEL on the GPU in bf16 if there is one, else on the CPU in fp32. Raises UsageError."""
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = torch.bfloat16 if device.startswith("cuda") else None
        return cls(load(ModelConfig(start=model), device), dtype=dtype)

    def transcribe(
        self,
        recordings: Sequence[np.ndarray],
        *,
        languages: Sequence[str | None] | None = None,
        contexts: Sequence[str] | None = None,
        times: bool = False,
    ) -> list[Transcript]:
        """Samples float32 [n] at 16 kHz each; if the language is None, the model identifies it. times: of every phrase,
        for a model that was trained to output them."""
        languages = languages or [None] * len(recordings)
        contexts = contexts or [""] * len(recordings)
        window_lists = [windows(samples, self._max_window) for samples in recordings]
        clips = [
            DecodeRequest(samples[first:last], timestamp_prompt(context) if times else context, language)
            for samples, spans, context, language in zip(recordings, window_lists, contexts, languages, strict=True)
            for first, last in spans
        ]
        hypotheses = iter(self._decode_audible(clips))
        return [
            _join(samples, spans, [next(hypotheses) for _ in spans], times=times)
            for samples, spans in zip(recordings, window_lists, strict=True)
        ]

    def _decode_audible(self, clips: list[DecodeRequest]) -> list[Hypothesis]:
        """Hypotheses in the order of the clips, empty for silent clips."""
        audible = [index for index, clip in enumerate(clips) if not is_silent(clip.samples)]
        hypotheses = [Hypothesis("", None, truncated=False, silent=True)] * len(clips)
        for index, hypothesis in zip(audible, self._decode([clips[index] for index in audible]), strict=True):
            hypotheses[index] = hypothesis
        return hypotheses

    def _decode(self, clips: list[DecodeRequest]) -> list[Hypothesis]:
        """Decodes clips. One that reaches its token limit is split in two, which are decoded once more."""
        hypotheses = self._decoder.decode(clips)
        failed = [i for i, hypothesis in enumerate(hypotheses) if hypothesis.truncated and clips[i].seconds > 2.0]
        halves = [half for i in failed for half in _halves(clips[i])]
        retried = zip(halves, self._decoder.decode(halves), strict=True) if halves else iter(())
        for i in failed:
            (first_clip, first), (_, second) = next(retried), next(retried)
            text = " ".join(part for part in (first.text, shift_times(second.text, first_clip.seconds)) if part)
            hypotheses[i] = Hypothesis(
                text, first.language or second.language, first.truncated or second.truncated, retried=True
            )
        return hypotheses


def _halves(clip: DecodeRequest) -> list[DecodeRequest]:
    spans = windows(clip.samples, clip.seconds * 0.75)
    cut = spans[0][1]
    return [
        DecodeRequest(clip.samples[:cut], clip.context, clip.language),
        DecodeRequest(clip.samples[cut:], clip.context, clip.language),
    ]


def _join(
    samples: np.ndarray, spans: list[tuple[int, int]], hypotheses: list[Hypothesis], *, times: bool
) -> Transcript:
    segments: list[TimedText] = []
    untimed = 0
    for (first, last), hypothesis in zip(spans, hypotheses, strict=True):
        start, end = first / SAMPLE_RATE, last / SAMPLE_RATE
        timed_phrases = phrases(hypothesis.text, end - start) if times else []
        segments += [TimedText(start + phrase.start, start + phrase.end, phrase.text) for phrase in timed_phrases]
        text = without_times(hypothesis.text).strip() if times else hypothesis.text
        if text and not timed_phrases:
            segments.append(TimedText(start, end, text))
            untimed += times
    languages = [hypothesis.language for hypothesis in hypotheses if hypothesis.language]
    return Transcript(
        text=" ".join(segment.text for segment in segments),
        segments=tuple(segments),
        language=Counter(languages).most_common(1)[0][0] if languages else None,
        seconds=len(samples) / SAMPLE_RATE,
        truncated=sum(hypothesis.truncated for hypothesis in hypotheses),
        retried=sum(hypothesis.retried for hypothesis in hypotheses),
        untimed=untimed,
        looping=sum(loops(hypothesis.text) for hypothesis in hypotheses),
        silent=sum(hypothesis.silent for hypothesis in hypotheses),
    )
