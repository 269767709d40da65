"""Transcripts as files: plain text, JSON, SubRip, WebVTT. To add a format, add a function here."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from dataclasses import asdict

from caspi.audio import Seconds
from caspi.inference.transcriber import TimedText, Transcript


def _timestamp(seconds: Seconds, decimal_mark: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{decimal_mark}{milliseconds % 1000:03d}"


def as_text(transcript: Transcript) -> str:
    return transcript.text + "\n"


def as_json(transcript: Transcript) -> str:
    return json.dumps(asdict(transcript), ensure_ascii=False, indent=1) + "\n"


def as_srt(transcript: Transcript) -> str:
    """SubRip: numbered cues, times with a comma. The format has no escapes: an arrow becomes one character."""
    return "".join(
        f"{number}\n{_timestamp(cue.start, ',')} --> {_timestamp(cue.end, ',')}\n{text}\n\n"
        for number, (cue, text) in enumerate(_cues(transcript), 1)
        for text in [text.replace("-->", "→")]
    )


def _cues(transcript: Transcript) -> list[tuple[TimedText, str]]:
    """Cues with their text on one line, because a blank line would end a cue."""
    return [(cue, text) for cue in transcript.segments if (text := " ".join(cue.text.split()))]


def as_vtt(transcript: Transcript) -> str:
    """WebVTT (W3C): times with a point, text escaped as HTML is."""
    cues = "".join(
        f"{_timestamp(cue.start, '.')} --> {_timestamp(cue.end, '.')}\n{html.escape(text, quote=False)}\n\n"
        for cue, text in _cues(transcript)
    )
    return f"WEBVTT\n\n{cues}"


FORMATS: dict[str, Callable[[Transcript], str]] = {
    "txt": as_text, "json": as_json, "srt": as_srt, "vtt": as_vtt,
}  # fmt: skip
