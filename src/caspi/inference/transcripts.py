"""What was said in a recording: windows with their texts, and transcripts of all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from statistics import fmean

from caspi.audio import Seconds
from caspi.inference.engine.requests import Hypothesis
from caspi.inference.engine.words import RecognisedWord
from caspi.inference.long_audio import Window
from caspi.inference.window_decoder import loops_in, mean_log_probability
from caspi.model.timestamps import phrases, without_times


@dataclass(frozen=True, slots=True)
class TimedText:
    """Text of one window of a recording, or of one phrase if times were requested. words: of the text, in order.

    Of its window: log_probability: mean of the tokens; None without tokens. temperature: at which they were chosen.
    speech: mean probability that somebody speaks; None if it is not known. tokens: those of the window, in the first of
    its phrases. speaker: who says it; None if speakers were not told apart."""

    start: Seconds
    end: Seconds
    text: str
    words: tuple[RecognisedWord, ...] = ()
    log_probability: float | None = None
    temperature: float = 0.0
    speech: float | None = None
    tokens: tuple[int, ...] = ()
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """retried: windows that reached the token limit; truncated: those that reached it again after the split; looping:
    those whose text repeats itself; guarded: those that were decoded again because it did; silent: those without sound,
    which are not decoded; untimed: those whose phrases have no times, although they were requested; unaligned: those
    whose words have none, although an aligner was to find them.
    language_probability: mean over the windows in which the model identified this language; None if the language was
    given. log_probability: mean of the tokens of the text, with those that end it; None without tokens."""

    text: str
    segments: tuple[TimedText, ...]
    language: str | None
    seconds: Seconds
    truncated: int
    retried: int = 0
    untimed: int = 0
    looping: int = 0
    guarded: int = 0
    silent: int = 0
    language_probability: float | None = None
    unaligned: int = 0
    log_probability: float | None = None

    def warnings(self) -> list[str]:
        """Warnings about the transcript, one line each."""
        problems = (
            (self.truncated, "hit the limit of tokens, so text is missing"),
            (self.retried - self.truncated, "hit the limit of tokens and {was} decoded again in two halves"),
            (self.guarded, "repeated the same words over and over and {was} decoded again"),
            (self.looping, "repeat{s} the same words over and over"),
        )
        return [
            f"{count} window{'s' if count > 1 else ''} "
            + what.format(s="" if count > 1 else "s", was="were" if count > 1 else "was")
            for count, what in problems
            if count > 0
        ]


@dataclass(frozen=True, slots=True)
class HeardWindow:
    """A window with its text: as segments, and as the model wrote it."""

    ticket: int
    window: Window
    hypothesis: Hypothesis
    segments: tuple[TimedText, ...]
    untimed: bool


def heard_window(ticket: int, window: Window, hypothesis: Hypothesis, *, times: bool) -> HeardWindow:
    """A window and what the model wrote, as segments. times: whether it was asked for those of phrases."""
    timed_phrases = phrases(hypothesis.text, window.end - window.start) if times else []
    likely = mean_log_probability(hypothesis)
    words = iter(hypothesis.words)
    segments = [
        TimedText(
            window.start + phrase.start, window.start + phrase.end, phrase.text,
            tuple(islice(words, len(phrase.text.split()))), likely, hypothesis.temperature, window.speech,
            () if number else hypothesis.tokens,
        )
        for number, phrase in enumerate(timed_phrases)
    ]  # fmt: skip
    text = without_times(hypothesis.text).strip() if times else hypothesis.text
    untimed = bool(text) and not timed_phrases
    if untimed:
        segments = [
            TimedText(
                window.start, window.end, text, hypothesis.words, likely, hypothesis.temperature, window.speech,
                hypothesis.tokens,
            )
        ]  # fmt: skip
    return HeardWindow(ticket, window, hypothesis, tuple(segments), untimed and times)


def joined_transcript(heard_windows: Sequence[HeardWindow], seconds: Seconds, asked: str | None = None) -> Transcript:
    """Of all windows of a recording, in order. asked: the language that was given."""
    segments = tuple(segment for heard in heard_windows for segment in heard.segments)
    hypotheses = [heard.hypothesis for heard in heard_windows]
    languages = [hypothesis.language for hypothesis in hypotheses if hypothesis.language]
    language = Counter(languages).most_common(1)[0][0] if languages else asked
    return Transcript(
        text=" ".join(segment.text for segment in segments),
        segments=segments,
        language=language,
        seconds=seconds,
        truncated=sum(hypothesis.truncated for hypothesis in hypotheses),
        retried=sum(hypothesis.retried for hypothesis in hypotheses),
        untimed=sum(heard.untimed for heard in heard_windows),
        looping=sum(loops_in(hypothesis) for hypothesis in hypotheses),
        guarded=sum(hypothesis.guarded for hypothesis in hypotheses),
        silent=sum(hypothesis.silent for hypothesis in hypotheses),
        language_probability=_language_probability([h for h in hypotheses if h.language == language]),
        log_probability=_mean([p for h in hypotheses for p in h.log_probabilities[h.text_start :]]),
    )


def _language_probability(hypotheses: Sequence[Hypothesis]) -> float | None:
    return _mean([h.language_probability for h in hypotheses if h.language_probability is not None])


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


@dataclass(frozen=True, slots=True)
class TimedWindow:
    """The segments of a window, their words with times where they have been found; unaligned: segments where not."""

    segments: tuple[TimedText, ...]
    unaligned: int = 0


def with_timed_windows(transcript: Transcript, timed: Sequence[TimedWindow]) -> Transcript:
    """The transcript with the segments of all its windows, which have the times of words."""
    segments = tuple(segment for window in timed for segment in window.segments)
    return replace(transcript, segments=segments, unaligned=sum(window.unaligned for window in timed))
