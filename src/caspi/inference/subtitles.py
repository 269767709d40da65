"""Transcripts as files: plain text, JSON, SubRip, WebVTT. A new format is a function here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

from caspi.audio import Seconds
from caspi.inference.transcriber import Transcript


def _clock(seconds: Seconds, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{point}{milliseconds % 1000:03d}"


def as_text(transcript: Transcript) -> str:
    return transcript.text + "\n"


def as_json(transcript: Transcript) -> str:
    return json.dumps(asdict(transcript), ensure_ascii=False, indent=1) + "\n"


def as_srt(transcript: Transcript) -> str:
    """SubRip: numbered cues, times with a comma."""
    return "".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{cue.text}\n\n"
        for number, cue in enumerate(transcript.segments, 1)
    )


def as_vtt(transcript: Transcript) -> str:
    """WebVTT (W3C): times with a point."""
    cues = "".join(
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{cue.text}\n\n" for cue in transcript.segments
    )
    return f"WEBVTT\n\n{cues}"


FORMATS: dict[str, Callable[[Transcript], str]] = {
    "txt": as_text, "json": as_json, "srt": as_srt, "vtt": as_vtt,
}  # fmt: skip
