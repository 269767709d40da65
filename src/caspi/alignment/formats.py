"""Aligned words as files: JSON, NIST's CTM, Praat's TextGrid, SubRip. To add a format, add a function here."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

from caspi.alignment.align import AlignedWord, Alignment
from caspi.audio import Seconds
from caspi.inference.cues import TimedWord, cues
from caspi.inference.subtitles import srt

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
    """One interval tier of words; the time between words is an empty interval."""
    intervals = _intervals(alignment.words, alignment.seconds)
    lines = [
        'File type = "ooTextFile"', 'Object class = "TextGrid"', "",
        "xmin = 0", f"xmax = {alignment.seconds:.3f}", "tiers? <exists>", "size = 1", "item []:", "    item [1]:",
        '        class = "IntervalTier"', '        name = "words"', "        xmin = 0",
        f"        xmax = {alignment.seconds:.3f}", f"        intervals: size = {len(intervals)}",
    ]  # fmt: skip
    for number, (start, end, text) in enumerate(intervals, 1):
        escaped = text.replace('"', '""')
        lines += [
            f"        intervals [{number}]:", f"            xmin = {start:.3f}", f"            xmax = {end:.3f}",
            f'            text = "{escaped}"',
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _intervals(words: Sequence[AlignedWord], seconds: Seconds) -> list[tuple[float, float, str]]:
    """Without gaps, overlaps and empty intervals, which Praat refuses: times in whole milliseconds."""
    intervals: list[tuple[float, float, str]] = []
    at = 0.0
    for word in words:
        start, end = max(at, round(word.start, _DIGITS)), round(word.end, _DIGITS)
        end = max(end, round(start + 10**-_DIGITS, _DIGITS))
        if start > at:
            intervals.append((at, start, ""))
        intervals.append((start, end, word.text))
        at = end
    if at < round(seconds, _DIGITS):
        intervals.append((at, round(seconds, _DIGITS), ""))
    return intervals


def as_srt(alignment: Alignment, _: str) -> str:
    """Subtitles, as those of `transcribe`."""
    return srt(cues([TimedWord(word.text, word.start, word.end) for word in alignment.words]))


FORMATS: dict[str, Callable[[Alignment, str], str]] = {
    "json": as_json, "ctm": as_ctm, "textgrid": as_textgrid, "srt": as_srt,
}  # fmt: skip
EXTENSIONS = {"textgrid": "TextGrid"}  # of formats whose files are not called like them
