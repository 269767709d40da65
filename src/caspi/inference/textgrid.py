"""Words with times as a TextGrid, the format of Praat."""

from __future__ import annotations

from collections.abc import Sequence

from caspi.audio import Seconds
from caspi.inference.cues import TimedWord

_DIGITS = 3


def textgrid(words: Sequence[TimedWord], seconds: Seconds) -> str:
    """One interval tier of words; the time between words is an empty interval."""
    intervals = _intervals(words, seconds)
    lines = [
        'File type = "ooTextFile"', 'Object class = "TextGrid"', "",
        "xmin = 0", f"xmax = {seconds:.3f}", "tiers? <exists>", "size = 1", "item []:", "    item [1]:",
        '        class = "IntervalTier"', '        name = "words"', "        xmin = 0",
        f"        xmax = {seconds:.3f}", f"        intervals: size = {len(intervals)}",
    ]  # fmt: skip
    for number, (start, end, text) in enumerate(intervals, 1):
        escaped = text.replace('"', '""')
        lines += [
            f"        intervals [{number}]:", f"            xmin = {start:.3f}", f"            xmax = {end:.3f}",
            f'            text = "{escaped}"',
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _intervals(words: Sequence[TimedWord], seconds: Seconds) -> list[tuple[float, float, str]]:
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
