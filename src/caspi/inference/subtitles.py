"""Transcripts as files: plain text, JSON, tables, subtitles, and words with times for other programs. To add a format,
add a function here. Where words have times, cues are made of them; elsewhere a cue is a window or a phrase."""

from __future__ import annotations

import csv
import html
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from typing import Any

from bidi import get_display  # type: ignore[import-untyped]

from caspi.audio import Seconds
from caspi.inference.cues import Cue, TimedWord, cues
from caspi.inference.engine.words import RecognisedWord
from caspi.inference.textgrid import textgrid
from caspi.inference.transcripts import TimedText, Transcript
from caspi.inference.window_decoder import compression_ratio
from caspi.language import language


def _timestamp(seconds: Seconds, decimal_mark: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{decimal_mark}{milliseconds % 1000:03d}"


def as_text(transcript: Transcript, _: str = "") -> str:
    """The text in one line; a line for each turn where the speakers are known."""
    if not any(segment.speaker for segment in transcript.segments):
        return transcript.text + "\n"
    turns = groupby(transcript.segments, key=lambda segment: segment.speaker)
    return "".join(f"{_said_by(speaker)}{' '.join(part.text for part in parts)}\n" for speaker, parts in turns)


def _said_by(speaker: str | None) -> str:
    return f"{speaker}: " if speaker else ""


def as_json(transcript: Transcript, _: str = "") -> str:
    return json.dumps(described(transcript), ensure_ascii=False, indent=1) + "\n"


def described(transcript: Transcript) -> dict[str, Any]:
    """With the keys that users of Whisper know, and the counts of the transcript. What is not known is null."""
    spoken = language(transcript.language) if transcript.language else None
    return asdict(transcript) | {
        "language": spoken.code if spoken else None,
        "language_name": spoken.name if spoken else None,
        "segments": [segment_as_json(number, segment) for number, segment in enumerate(transcript.segments)],
    }


def segment_as_json(number: int, segment: TimedText) -> dict[str, Any]:
    """As Whisper's, and `confidence`: the geometric mean of the probabilities of the window's tokens. `seek` is the
    start in frames of 10 ms. Words have `word`, `start`, `end` and `probability`, times only where they are known."""
    likely = segment.log_probability
    return {
        "id": number, "seek": round(segment.start * 100), "start": segment.start, "end": segment.end,
        "text": segment.text, "tokens": list(segment.tokens), "temperature": segment.temperature,
        "avg_logprob": likely, "confidence": None if likely is None else math.exp(likely),
        "compression_ratio": compression_ratio(segment.text),
        "no_speech_prob": None if segment.speech is None else 1 - segment.speech,
        "words": [word_as_json(word) for word in segment.words],
    } | ({"speaker": segment.speaker} if segment.speaker else {})  # fmt: skip


def word_as_json(word: RecognisedWord) -> dict[str, Any]:
    times = {"start": word.start, "end": word.end} if word.start is not None else {}
    return {"word": word.text, **times, "probability": word.probability}


def as_srt(transcript: Transcript, _: str = "") -> str:
    return srt(_cues(transcript), right_to_left=_right_to_left(transcript))


def srt(shown: Sequence[Cue], *, right_to_left: bool = False) -> str:
    """SubRip: numbered cues, times with a comma. The format has no escapes: an arrow becomes one character."""
    return "".join(
        f"{number}\n{_timestamp(cue.start, ',')} --> {_timestamp(cue.end, ',')}\n"
        + "\n".join(_directed(line.replace("-->", "→"), right_to_left) for line in cue.lines)
        + "\n\n"
        for number, cue in enumerate(shown, 1)
    )


def _right_to_left(transcript: Transcript) -> bool:
    return transcript.language is not None and language(transcript.language).right_to_left


_EMBED, _END = "\u202b", "\u202c"  # right-to-left embedding, and its end


def _directed(line: str, right_to_left: bool) -> str:
    """A line of a language from right to left, marked where players that take lines for left-to-right would show its
    parts in another order (Unicode, annex 9)."""
    if not right_to_left or get_display(line, base_dir="L") == get_display(line, base_dir="R"):
        return line
    return f"{_EMBED}{line}{_END}"


def as_tsv(transcript: Transcript, _: str = "") -> str:
    """As Whisper's: start and end in milliseconds, and a text without tabs."""
    rows = (f"{round(start * 1000)}\t{round(end * 1000)}\t{text}\n" for start, end, text in _rows(transcript))
    return "start\tend\ttext\n" + "".join(rows)


def as_csv(transcript: Transcript, _: str = "") -> str:
    """Start and end in seconds, and the text (RFC 4180)."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(("start", "end", "text"))
    writer.writerows((f"{start:.3f}", f"{end:.3f}", text) for start, end, text in _rows(transcript))
    return table.getvalue()


def _rows(transcript: Transcript) -> list[tuple[Seconds, Seconds, str]]:
    return [(cue.start, cue.end, " ".join(" ".join(cue.lines).split())) for cue in _cues(transcript)]


def as_textgrid(transcript: Transcript, _: str = "") -> str:
    """The words, where they have times (Praat)."""
    return textgrid([word for segment in transcript.segments for word in timed_words(segment)], transcript.seconds)


def _cues(transcript: Transcript) -> list[Cue]:
    """Of the words where all of a segment have times, else one for each segment."""
    found: list[Cue] = []
    speaker = None
    for segment in transcript.segments:
        said_by = "" if segment.speaker == speaker else _said_by(segment.speaker)
        speaker = segment.speaker
        timed = timed_words(segment)
        if timed:
            timed[0] = replace(timed[0], text=said_by + timed[0].text)
            found += cues(timed)
        elif text := " ".join(segment.text.split()):  # a blank line would end a cue
            words = tuple(TimedWord(word, segment.start, segment.end) for word in (said_by + text).split())
            found.append(Cue(segment.start, segment.end, words))
    return found


def timed_words(segment: TimedText) -> list[TimedWord]:
    """The words of a segment; none if one has no time."""
    words = [TimedWord(w.text, w.start, w.end) for w in segment.words if w.start is not None and w.end is not None]
    return words if len(words) == len(segment.words) else []


def as_vtt(transcript: Transcript, _: str = "") -> str:
    """WebVTT (W3C): times with a point, text escaped as HTML is."""
    turned = _right_to_left(transcript)
    return _vtt((c, "\n".join(_escaped(_directed(line, turned)) for line in c.lines)) for c in _cues(transcript))


def as_karaoke(transcript: Transcript, _: str = "") -> str:
    """WebVTT in which every word but the first of a cue has its own time (W3C, "cue timestamp")."""
    return _vtt((cue, _sung(cue)) for cue in _cues(transcript))


def _sung(cue: Cue) -> str:
    """The lines of a cue, with the start of every later word before it."""
    return "\n".join(
        " ".join(
            ("" if word is cue.words[0] else f"<{_timestamp(word.start, '.')}>") + f"<c>{_escaped(word.text)}</c>"
            for word in row
        )
        for row in cue.rows
    )


def _vtt(texts: Iterable[tuple[Cue, str]]) -> str:
    shown = (f"{_timestamp(cue.start, '.')} --> {_timestamp(cue.end, '.')}\n{text}\n\n" for cue, text in texts)
    return f"WEBVTT\n\n{''.join(shown)}"


def _escaped(text: str) -> str:
    return html.escape(text, quote=False)


def as_ctm(transcript: Transcript, name: str) -> str:
    """`recording channel start duration word [probability]` for every word with a time (NIST's sclite)."""
    recording = "_".join(name.split()) or "audio"
    return "".join(
        f"{recording} 1 {word.start:.3f} {word.end - word.start:.3f} {word.text}"
        + (f" {word.probability:.4f}\n" if word.probability is not None else "\n")
        for segment in transcript.segments
        for word in segment.words
        if word.start is not None and word.end is not None
    )


FORMATS: dict[str, Callable[[Transcript, str], str]] = {
    "txt": as_text, "json": as_json, "srt": as_srt, "vtt": as_vtt, "tsv": as_tsv, "csv": as_csv,
    "karaoke": as_karaoke, "ctm": as_ctm, "textgrid": as_textgrid,
}  # fmt: skip
EXTENSIONS = {"karaoke": "karaoke.vtt", "textgrid": "TextGrid"}  # of formats whose files are not called like them
NEED_WORD_TIMES = ("karaoke", "ctm", "textgrid")
BETTER_WITH_WORD_TIMES = ("srt", "vtt", "tsv", "csv")
