"""Labels: transcripts that two recognisers of different weights write for speech without any, with how sure they are.
What fails a check, or is not sure enough, is left out with its reason."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field
from rapidfuzz.distance import Levenshtein

from caspi.atomic_output import read_whole_lines
from caspi.audio import SAMPLE_RATE, Seconds
from caspi.audit.faults import Case
from caspi.audit.label_clips import Clip, CorpusClips, FileClips
from caspi.audit.label_confidence import Agreement, Confidence, KnownClip, learnt
from caspi.audit.signals import Heard, Recogniser
from caspi.config import Config, Unit
from caspi.corpus.pipeline.filters import ClipLengths, Filters, Reason, reject
from caspi.corpus.signals import measure_signals, spectrogram
from caspi.corpus.store import Corpus
from caspi.inference.loops import loops
from caspi.language import TextPolicy, language
from caspi.language.stock_phrases import is_stock_phrase
from caspi.progress import Progress

LabelReason: TypeAlias = (
    Reason | Literal["another_language", "repeats_itself", "stock_phrase", "recognisers_differ", "not_sure"]
)


class LabelConfig(Config):
    """Which labels are kept."""

    max_difference: Annotated[float, Unit("share")] = Field(0.25, ge=0, le=1)
    """Largest difference of the two texts, in letters over those of the longer one, however sure a label is."""
    right_below: Annotated[float, Unit("share")] = Field(0.1, ge=0, le=1)
    """Largest character error rate of a label that counts as right."""
    precision: Annotated[float, Unit("share")] = Field(0.9, gt=0, lt=1)
    """Share of the labels that shall surely be right."""
    filters: Filters = Filters()
    """The conditions that utterances of a corpus must meet too."""


@dataclass(frozen=True, slots=True)
class Label:
    """The label of a clip, or why it has none. confidence: the probability that it is right; None if it is not known.
    texts: of both recognisers."""

    id: str
    text: str
    texts: tuple[str, str]
    seconds: Seconds
    difference: float
    confidence: float | None
    reason: LabelReason | None


def hear(
    clips: CorpusClips | FileClips, recognisers: Sequence[Recogniser], cache: Path
) -> dict[str, tuple[Heard, Heard]]:
    """What both recognisers hear in every clip, by id. cache: a file that it is appended to; what it holds is not heard
    again."""
    known = {line["id"]: _pair(line["heard"]) for line in read_whole_lines(cache)}
    with cache.open("a", encoding="utf-8") as lines, Progress("label", unit="clips", total=clips.count) as progress:
        waiting = iter(clips)
        while block := list(itertools.islice(waiting, recognisers[0].at_once)):
            new = [clip for clip in block if clip.utterance.id not in known]
            cases = [Case(clip.samples, "", clip.utterance.language) for clip in new]
            both = [recogniser.heard(cases) for recogniser in recognisers]
            for clip, one, other in zip(new, *both, strict=True):
                known[clip.utterance.id] = (one, other)
                line = {"id": clip.utterance.id, "heard": [asdict(one), asdict(other)]}
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")
            lines.flush()
            progress.advance(len(block))
    return known


def _pair(found: Sequence[dict[str, Any]]) -> tuple[Heard, Heard]:
    one, other = (Heard(**heard) for heard in found)
    return one, other


def confidence_of(known: Corpus, heard: dict[str, tuple[Heard, Heard]], config: LabelConfig) -> Confidence | None:
    """Learnt from a split with transcripts of people; None if they are too few."""
    found = []
    for row in range(len(known)):
        utterance = known.utterance(row)
        one, other = heard[utterance.id]
        normalised = language(utterance.language).normalisers["fair"]
        truth, text = normalised(utterance.text), normalised(one.text)
        if truth and text and not utterance.labelled:
            agreement = Agreement.of(one, other, utterance.language)
            found.append(KnownClip(agreement, Levenshtein.distance(truth, text), len(truth), utterance.seconds))
    return learnt(found, config.right_below, config.precision)


def labels(
    clips: Iterable[Clip], heard: dict[str, tuple[Heard, Heard]], confidence: Confidence | None, config: LabelConfig
) -> Iterator[tuple[Clip, Label]]:
    """Every clip with its label; that of a kept one is its text."""
    for clip in clips:
        utterance = clip.utterance
        one, other = heard[utterance.id]
        agreement = Agreement.of(one, other, utterance.language)
        sure = float(confidence([agreement])[0]) if confidence is not None else None
        text = language(utterance.language).training_text(one.text, TextPolicy())
        reason = _failed_check(clip, text, one, other, config) or _unsure(agreement, sure, confidence, config)
        label = Label(
            utterance.id, text, (one.text, other.text), len(clip.samples) / SAMPLE_RATE, agreement.differ, sure, reason
        )
        made = replace(utterance, text=text, quality=sure, labelled=True, words=(), segments=(), previous="", repeat=0)
        yield replace(clip, utterance=made), label


def _failed_check(clip: Clip, text: str, one: Heard, other: Heard, config: LabelConfig) -> LabelReason | None:
    spoken = clip.utterance.language
    if {one.language, other.language} - {None, spoken}:
        return "another_language"
    if loops(one.text) or loops(other.text):
        return "repeats_itself"
    if is_stock_phrase(one.text, spoken) or is_stock_phrase(other.text, spoken):
        return "stock_phrase"
    signals = measure_signals(clip.samples, spectrogram(clip.samples))
    share = language(spoken).script_share(text)
    if reason := language(spoken).rejection_reason(text, TextPolicy()):
        return reason
    lengths = ClipLengths(len(clip.samples) / SAMPLE_RATE, text, share, signals, None)
    return reject(lengths, config.filters)


def _unsure(
    agreement: Agreement, sure: float | None, confidence: Confidence | None, config: LabelConfig
) -> LabelReason | None:
    if agreement.differ > config.max_difference:
        return "recognisers_differ"
    if sure is None or confidence is None:
        return None
    return None if confidence.threshold is not None and sure >= confidence.threshold else "not_sure"
