"""caspi label: transcripts for speech without any, from two recognisers that agree."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caspi import atomic_output
from caspi.commands.outcome import Outcome, language_option, split_option
from caspi.errors import UsageError
from caspi.reporting import report
from caspi.reporting.charts import Chart, Line
from caspi.reporting.report import LISTED, AudioCell, Browser, Page, Table
from caspi.reporting.wording import SYNTHETIC_NOTE, hours_or_minutes, percent, plural

if TYPE_CHECKING:
    from caspi.audit.label import Label, LabelConfig
    from caspi.audit.label_clips import CorpusClips, FileClips
    from caspi.audit.label_confidence import Confidence
    from caspi.audit.signals import Recogniser
    from caspi.corpus.store import Corpus

_log = logging.getLogger(__name__)
_LISTENED = 20  # labels with players
_LABELS = "labels.jsonl"


def run(
    inputs: Sequence[Path], models: Sequence[str], known: Path | None, out: Path | None, config: LabelConfig, *,
    known_split: str = "validation", language_name: str | None = None,
) -> Outcome:  # fmt: skip
    """Labels the clips of a corpus' train split, or of audio files, and writes a corpus. After a kill, the same call
    resumes."""
    from caspi.audit.label import confidence_of, hear
    from caspi.audit.label_clips import CorpusClips
    from caspi.corpus.store import Corpus

    recognisers, contents = _two(models)
    opened = Corpus.open(known, split_option(known_split)) if known else None
    clips = _clips(inputs, recognisers, language_option(language_name) or "Hebrew")
    out = out or atomic_output.default_output(inputs[0], "labelled")
    if any(out.resolve().is_relative_to(path.resolve()) for path in inputs):
        raise UsageError(f"{out} is what is labelled, or inside of it: give another --out")
    work = atomic_output.work_folder(out, "label")
    with atomic_output.locked(work, "label"):
        confidence = None
        if opened is not None:
            cache = work / f"known-{_digest(contents, str(known), report.fingerprint(opened.folder))}.jsonl"
            heard = hear(CorpusClips(opened), recognisers, cache)
            confidence = confidence_of(opened, heard, config)
        heard = hear(clips, recognisers, work / f"{_digest(contents, clips.identity)}.jsonl")
        partial = atomic_output.begin_atomic(out, "label")
        summary, listened, found = _write(partial, clips, heard, confidence, config)
        summary |= {
            "inputs": list(map(str, inputs)), "recognisers": list(models), "known": str(known) if known else None,
            "config": config.model_dump(mode="json"),
        }  # fmt: skip
        report.write_report(partial, label_page(summary, confidence, listened, found), summary)
        atomic_output.commit_atomic(partial, out)
    shutil.rmtree(work)
    _warn(summary, confidence, opened)
    line = f"{summary['kept']:,} of {plural(summary['input'], 'clip')} labelled, {hours_or_minutes(summary['hours'])}"
    return Outcome(line, out / report.HTML, summary)


def _two(models: Sequence[str]) -> tuple[list[Recogniser], list[str]]:
    """Both recognisers, and their contents. Raises UsageError if they are not two, or have the same weights."""
    from caspi.audit.signals import Recogniser
    from caspi.model.loading import content_of

    if len(models) != 2:
        raise UsageError(f"give --asr twice: labels are where two recognisers agree, not {len(models)}")
    contents = [content_of(model) for model in models]
    if contents[0] == contents[1]:
        raise UsageError(f"{models[0]} and {models[1]} have the same weights: agreement with itself says nothing")
    return [Recogniser.of(model, "") for model in models], contents


def _clips(inputs: Sequence[Path], recognisers: Sequence[Recogniser], language: str) -> CorpusClips | FileClips:
    from caspi.audit.label_clips import CorpusClips, FileClips
    from caspi.corpus.store import Corpus
    from caspi.inference.long_audio import longest_window

    corpora = [path for path in inputs if (path / atomic_output.REPORT).is_file()]
    if corpora:
        if len(inputs) > 1:
            raise UsageError("give one corpus, or audio files and folders")
        return CorpusClips(Corpus.open(corpora[0], "train"))
    longest = min(longest_window(one.loaded.model.config.to_dict()) for one in recognisers)
    return FileClips.of(inputs, language, longest)


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _write(
    partial: Path, clips: CorpusClips | FileClips, heard: dict[str, Any], confidence: Confidence | None,
    config: LabelConfig,
) -> tuple[dict[str, Any], list[tuple[object, ...]], list[Label]]:  # fmt: skip
    """Writes the corpus and the list of all labels; returns the summary, rows to listen to, and the labels."""
    from caspi import audio
    from caspi.audit.label import labels
    from caspi.corpus.derived import CorpusWriter

    found: list[Label] = []
    listened: list[tuple[object, ...]] = []
    writer = CorpusWriter(partial)
    with (partial / _LABELS).open("w", encoding="utf-8") as file:
        for clip, label in labels(clips, heard, confidence, config):
            file.write(json.dumps(asdict(label), ensure_ascii=False) + "\n")
            found.append(label)
            if label.reason is None:
                writer.add(clip.utterance, clip.samples)
                if len(listened) < _LISTENED:
                    player = AudioCell(audio.encode_flac(audio.pcm16(clip.samples)))
                    listened.append((_sure(label), label.text, player, label.texts[1], label.id))
    rejected = Counter(str(label.reason) for label in found if label.reason is not None)
    rejected.update(error.reason for error in clips.unreadable.values())
    count = len(found) + len(clips.unreadable)
    if rejected.total() == count:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in rejected.most_common())
        shutil.rmtree(partial)
        raise UsageError(f"no clip would be labelled: {reasons}; no corpus is made")
    summary = {
        "stage": "label", **writer.finish(), "input": count, "kept": count - rejected.total(),
        "rejected": dict(sorted(rejected.items())),
        "unreadable": {str(path): str(error) for path, error in clips.unreadable.items()},
        "threshold": confidence.threshold if confidence else None,
        "curve": [asdict(point) for point in confidence.curve] if confidence else None,
    }  # fmt: skip
    return summary, listened, found


def _sure(label: Label) -> str:
    return "" if label.confidence is None else percent(label.confidence)


def _warn(summary: dict[str, Any], confidence: Confidence | None, known: Corpus | None) -> None:
    if confidence is None:
        why = "it has too few transcripts" if known is not None else "give a corpus with transcripts of people"
        _log.warning(f"how many of these labels are right is not known (--known): {why}")
    elif confidence.threshold is None:
        _log.warning("no label is sure enough: the recognisers are not good enough for it, or ask for less --precision")
    for why in summary["unreadable"].values():  # it names the file
        _log.warning(f"not labelled: {why}")


def label_page(
    summary: dict[str, Any], confidence: Confidence | None, listened: list[tuple[object, ...]], found: list[Label]
) -> Page:
    """Counts, what the known transcripts say about the labels, some to listen to, and all."""
    facts = [
        ("clips", f"{summary['input']:,}"),
        ("labelled", f"{summary['kept']:,}"),
        ("audio", hours_or_minutes(summary["hours"])),
        ("surely right", _right(confidence)),
    ]
    rejected = sorted(summary["rejected"].items(), key=lambda one: -one[1])
    return Page(
        title=f"caspi label · {', '.join(summary['inputs'])}",
        headline=f"{summary['kept']:,} of {plural(summary['input'], 'clip')} labelled",
        facts=facts,
        synthetic=SYNTHETIC_NOTE if summary["synthetic"] else "",
        parts=[
            *([_curve(confidence)] if confidence else []),
            Table("Not labelled", ("reason", "clips"), [(reason, f"{count:,}") for reason, count in rejected]),
            Table(
                "Labels to listen to",
                ("sure", "label", "listen", "other recogniser", "id"),
                listened,
                text=(1, 3),
                note="The first ones.",
            ),
            Browser(
                "Clips",
                ("label", "other recogniser", "sure", "differ", "not labelled because", "seconds", "id"),
                [
                    (
                        one.text, one.texts[1], _sure(one), percent(one.difference), one.reason or "",
                        round(one.seconds, 1), one.id,
                    )
                    for one in found[:LISTED]
                ],
                text=(0, 1),
                note=f"Differ: letters to change over those of the longer text. {_LABELS} has all clips; here are at "
                f"most {LISTED:,}.",
            ),
        ],
    )  # fmt: skip


def _right(confidence: Confidence | None) -> str:
    if confidence is None or confidence.threshold is None:
        return "not known"
    return next(percent(one.right_at_least) for one in confidence.curve if one.confidence == confidence.threshold)


def _curve(confidence: Confidence) -> Chart:
    return Chart(
        "Labels of clips whose transcripts are known",
        [
            Line("right", [(100 * one.coverage, 100 * one.right) for one in confidence.curve]),
            Line("surely right", [(100 * one.coverage, 100 * one.right_at_least) for one in confidence.curve]),
            Line("wrong letters", [(100 * one.coverage, 100 * one.error_rate) for one in confidence.curve]),
        ],
        "% of the speech that is labelled",
        "%",
        note="The surest labels are on the left. Surely: lower end of the 95 % interval."
        + (
            f" Chosen: confidence of at least {percent(confidence.threshold)}."
            if confidence.threshold is not None
            else " No threshold is good enough."
        ),
    )
