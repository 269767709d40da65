"""Files that say what is said when in the recording beside them: subtitles, TextGrids of Praat, ELAN's annotations."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from caspi.corpus.utterance import Segment
from caspi.errors import MissingDependency

ENDINGS = (".srt", ".vtt", ".TextGrid", ".eaf")


def segments_of(path: Path, tier: str = "") -> list[Segment]:
    """The segments with a text, in order. tier: of a TextGrid or of ELAN; "": the one with the longest texts. Raises
    ValueError if the file cannot be read or has no text, MissingDependency."""
    ending = path.suffix.lower()
    if ending in (".srt", ".vtt"):
        found = _subtitles(path)
    else:
        tiers = _textgrid(path) if ending == ".textgrid" else _elan(path)
        found = tiers[_chosen(path, tiers, tier)]
    if not (spoken := [segment for segment in found if segment.text.strip()]):
        raise ValueError(f"{path.name} has no text with times")
    return sorted(spoken, key=lambda segment: segment.start)


def _chosen(path: Path, tiers: dict[str, list[Segment]], tier: str) -> str:
    if tier and tier not in tiers:
        raise ValueError(f"{path.name} has no tier {tier!r}; it has {', '.join(map(repr, tiers)) or 'none'}")
    if not tiers:
        raise ValueError(f"{path.name} has no tier with times")
    return tier or max(tiers, key=lambda name: _mean_length(tiers[name]))


def _mean_length(segments: Sequence[Segment]) -> float:
    return statistics.fmean([len(segment.text) for segment in segments if segment.text.strip()] or [0.0])


def _subtitles(path: Path) -> list[Segment]:
    try:
        import pysubs2
    except ImportError as error:
        raise MissingDependency(f"{path.name}", package="pysubs2", extra="annotations") from error
    try:
        cues = pysubs2.load(str(path), encoding="utf-8-sig")
    except (pysubs2.Pysubs2Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    return [Segment(cue.start / 1000, cue.end / 1000, " ".join(cue.plaintext.split())) for cue in cues]


def _textgrid(path: Path) -> dict[str, list[Segment]]:
    """The interval tiers."""
    try:
        from praatio import textgrid
        from praatio.utilities.errors import PraatioException
    except ImportError as error:
        raise MissingDependency(f"{path.name}", package="praatio", extra="annotations") from error
    try:
        opened = textgrid.openTextgrid(str(path), includeEmptyIntervals=False, duplicateNamesMode="rename")
    except (PraatioException, ValueError, IndexError, KeyError) as error:
        raise ValueError(f"{path.name} cannot be read: {type(error).__name__}: {error}") from error
    return {
        tier.name: [Segment(float(start), float(end), label) for start, end, label in tier.entries]
        for tier in opened.tiers
        if isinstance(tier, textgrid.IntervalTier)
    }


def _elan(path: Path) -> dict[str, list[Segment]]:
    """The tiers whose annotations have times (mpi.nl/tools/elan/EAF_Annotation_Format_3.0_and_ELAN.pdf)."""
    try:
        document = ElementTree.parse(path).getroot()  # noqa: S314 - expat opens no external entities
    except ElementTree.ParseError as error:
        raise ValueError(f"{path.name} is not XML: {error}") from error
    times = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in document.iter("TIME_SLOT")}
    tiers: dict[str, list[Segment]] = {}
    for tier in document.iter("TIER"):
        for annotation in tier.iter("ALIGNABLE_ANNOTATION"):
            start, end = (times.get(annotation.get(f"TIME_SLOT_REF{number}")) for number in (1, 2))
            if start is None or end is None:
                continue  # ELAN spreads such slots between their neighbours; they are no times
            text = annotation.findtext("ANNOTATION_VALUE") or ""
            tiers.setdefault(tier.get("TIER_ID", ""), []).append(Segment(int(start) / 1000, int(end) / 1000, text))
    return tiers
