"""Transcripts as files: plain text, JSON, SubRip, WebVTT (also with the time of every word), CTM. To add a format, add
a function here. Where words have times, cues are made of them; elsewhere a cue is a window or a phrase."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from caspi.audio import Seconds
from caspi.inference.cues import Cue, TimedWord, cues
from caspi.inference.engine.words import RecognisedWord
from caspi.inference.transcriber import TimedText, Transcript


def _timestamp(seconds: Seconds, decimal_mark: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{decimal_mark}{milliseconds % 1000:03d}"


def as_text(transcript: Transcript) -> str:
    return transcript.text + "\n"


def as_json(transcript: Transcript) -> str:
    return json.dumps(described(transcript), ensure_ascii=False, indent=1) + "\n"


def described(transcript: Transcript) -> dict[str, Any]:
    """With the keys that users of Whisper know: `segments` with `id`, `start`, `end`, `text` and `words`, which have
    `word`, `start`, `end` and `probability`; times only where they are known."""
    segments = [
        {
            "id": number, "start": segment.start, "end": segment.end, "text": segment.text,
            "words": [_described_word(word) for word in segment.words],
        }
        for number, segment in enumerate(transcript.segments)
    ]  # fmt: skip
    return asdict(transcript) | {"segments": segments}


def _described_word(word: RecognisedWord) -> dict[str, Any]:
    times = {"start": word.start, "end": word.end} if word.start is not None else {}
    return {"word": word.text, **times, "probability": word.probability}


def as_srt(transcript: Transcript) -> str:
    return srt(_cues(transcript))


def srt(shown: Sequence[Cue]) -> str:
    """SubRip: numbered cues, times with a comma. The format has no escapes: an arrow becomes one character."""
    return "".join(
        f"{number}\n{_timestamp(cue.start, ',')} --> {_timestamp(cue.end, ',')}\n{_arrowless(cue)}\n\n"
        for number, cue in enumerate(shown, 1)
    )


def _arrowless(cue: Cue) -> str:
    return "\n".join(cue.lines).replace("-->", "→")


def _cues(transcript: Transcript) -> list[Cue]:
    """Of the words where all of a segment have times, else one for each segment."""
    found: list[Cue] = []
    for segment in transcript.segments:
        timed = timed_words(segment)
        if timed:
            found += cues(timed)
        elif text := " ".join(segment.text.split()):  # a blank line would end a cue
            found.append(Cue(segment.start, segment.end, (TimedWord(text, segment.start, segment.end),)))
    return found


def timed_words(segment: TimedText) -> list[TimedWord]:
    """The words of a segment; none if one has no time."""
    words = [TimedWord(w.text, w.start, w.end) for w in segment.words if w.start is not None and w.end is not None]
    return words if len(words) == len(segment.words) else []


def as_vtt(transcript: Transcript) -> str:
    """WebVTT (W3C): times with a point, text escaped as HTML is."""
    return _vtt((cue, "\n".join(_escaped(line) for line in cue.lines)) for cue in _cues(transcript))


def as_karaoke(transcript: Transcript) -> str:
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


def as_ctm(transcript: Transcript) -> str:
    """`recording channel start duration word probability` for every word with a time (NIST's sclite)."""
    return "".join(
        f"audio 1 {word.start:.3f} {word.end - word.start:.3f} {word.text} {word.probability:.4f}\n"
        for segment in transcript.segments
        for word in segment.words
        if word.start is not None and word.end is not None
    )


FORMATS: dict[str, Callable[[Transcript], str]] = {
    "txt": as_text, "json": as_json, "srt": as_srt, "vtt": as_vtt, "karaoke": as_karaoke, "ctm": as_ctm,
}  # fmt: skip
EXTENSIONS = {"karaoke": "vtt"}  # of formats whose files are not called like them
NEED_WORD_TIMES = ("karaoke", "ctm")
