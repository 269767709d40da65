"""Aligned words as files: JSON, NIST's CTM, Praat's TextGrid, SubRip. To add a format, add a function here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

from caspi.alignment.align import AlignedWord, Alignment
from caspi.inference.cues import TimedWord, cues
from caspi.inference.subtitles import srt
from caspi.inference.textgrid import textgrid

_DIGITS = 3


def as_json(alignment: Alignment, name: str) -> str:
    words = [_rounded(word) for word in alignment.words]
    return json.dumps({"name": name, "seconds": alignment.seconds, "words": words}, ensure_ascii=False, indent=1) + "\n"


def _rounded(word: AlignedWord) -> dict[str, object]:
    return {key: round(value, _DIGITS) if isinstance(value, float) else value for key, value in asdict(word).items()}


def as_ctm(alignment: Alignment, name: str) -> str:
    """`name channel start duration word confidence`; a space inside of a written word would be another column."""
    return "".join(
        f"{name} 1 {word.start:.3f} {word.end - word.start:.3f} {word.text.replace(' ', '')} {word.confidence:.4f}\n"
        for word in alignment.words
    )


def as_textgrid(alignment: Alignment, _: str) -> str:
    return textgrid(_timed(alignment), alignment.seconds)


def as_srt(alignment: Alignment, _: str) -> str:
    """Subtitles, as those of `transcribe`."""
    return srt(cues(_timed(alignment)))


def _timed(alignment: Alignment) -> list[TimedWord]:
    return [TimedWord(word.text, word.start, word.end) for word in alignment.words]


FORMATS: dict[str, Callable[[Alignment, str], str]] = {
    "json": as_json, "ctm": as_ctm, "textgrid": as_textgrid, "srt": as_srt,
}  # fmt: skip
EXTENSIONS = {"textgrid": "TextGrid"}  # of formats whose files are not called like them
