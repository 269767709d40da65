"""caspi align: the times of the words of a known text."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table as TextTable

from caspi import atomic_output
from caspi.commands.evaluate import open_set
from caspi.commands.outcome import Outcome, language_option, split_option
from caspi.errors import UsageError
from caspi.progress import Progress
from caspi.reporting import report
from caspi.reporting.charts import Bars, Chart
from caspi.reporting.report import Browser, Page, Table
from caspi.reporting.wording import percent, plural

if TYPE_CHECKING:
    from caspi.alignment.accuracy import Accuracy
    from caspi.alignment.align import AlignedWord, Aligner, Alignment, AlignmentRequest
    from caspi.corpus.store import Corpus
    from caspi.corpus.utterance import Word

_log = logging.getLogger(__name__)

_SHOWN = 50  # utterances with the lowest confidence on the page
_TOLD_FROM = 6  # words: fewer cannot tell whether a text is another one


def run(
    model: str, source: str, text: Path | None, out: Path | None, *, format_name: str, split: str, spoken: str | None
) -> Outcome:
    """Aligns an audio file with a text file, or every utterance of a corpus with its text."""
    from caspi.alignment.align import Aligner
    from caspi.alignment.formats import FORMATS

    if format_name not in FORMATS:
        raise UsageError(f"--format {format_name}: not one of {', '.join(FORMATS)}")
    if text is not None:
        return _file(Aligner.of(model), Path(source), text, out, format_name, spoken)
    if out is None:
        raise UsageError("give --out for a corpus, or a file with the text after an audio file")
    return _corpus(model, source, out, format_name, split)


def _file(
    aligner: Aligner, source: Path, text: Path, out: Path | None, format_name: str, spoken: str | None
) -> Outcome:
    from caspi import audio
    from caspi.alignment.formats import EXTENSIONS, FORMATS
    from caspi.alignment.recordings import in_other_orders, not_its_text

    try:
        content = text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{text} cannot be read as UTF-8 text ({error})") from error
    if not content.strip():
        raise UsageError(f"{text} is empty: give the file with what is said in {source}")
    samples, _ = audio.read(source)
    texts = (content, *in_other_orders(content.split()))
    aligned, *by_chance = aligner.align_texts(samples, texts, language_option(spoken) or "Hebrew")
    if aligned.problem:
        raise UsageError(f"{source}: {aligned.problem}: is {text} its text?")
    doubt = not_its_text(aligned, by_chance) if len(aligned.words) >= _TOLD_FROM else ""
    if doubt:
        _log.warning(f"{text} may not be what is said in {source}: {doubt}")
    written = FORMATS[format_name](aligned, source.stem)
    path = Path()
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{source.stem}.{EXTENSIONS.get(format_name, format_name)}"
        atomic_output.write_whole(path, written)
    words = [asdict(word) for word in aligned.words]
    summary = {"stage": "align", "file": str(source), "words": words, "doubt": doubt}
    return Outcome(_line([aligned]), path, summary, text="" if out else written)


def _line(aligned: Sequence[Alignment]) -> str:
    words = sum(len(one.words) for one in aligned)
    repaired = sum(one.repaired for one in aligned)
    mean = sum(word.confidence for one in aligned for word in one.words) / max(1, words)
    return f"{plural(words, 'word')}, mean confidence {percent(mean)}, {repaired:,} with times moved into order"


@dataclass(frozen=True, slots=True)
class _Measured:
    """Accuracy of starts and ends, of the aligner and of words at even distances."""

    starts: Accuracy
    ends: Accuracy
    even_starts: Accuracy
    even_ends: Accuracy


def _corpus(model: str, source: str, out: Path, format_name: str, split: str) -> Outcome:
    from caspi.alignment.align import Aligner
    from caspi.alignment.formats import EXTENSIONS, FORMATS

    atomic_output.check_owned(out, "align")
    corpus = open_set(source, split_option(split))
    aligner = Aligner.of(model)
    longest = math.inf if aligner.any_length else aligner.longest
    fits = (corpus.numbers("seconds") <= longest).nonzero()[0].tolist()
    partial = atomic_output.begin_atomic(out, "align")
    found: dict[int, Alignment] = {}
    with Progress("align", unit="utterances", total=len(fits)) as progress:
        for row, aligned in zip(fits, aligner.align_each(_requests(corpus, fits)), strict=True):
            found[row] = aligned
            progress.advance(1)
    with (partial / "words.jsonl").open("w", encoding="utf-8") as lines:
        for row, aligned in found.items():
            content = {"id": corpus.utterance(row).id, **asdict(aligned)}
            lines.write(json.dumps(content, ensure_ascii=False) + "\n")
    if format_name != "json":
        for row, aligned in found.items():
            name = corpus.utterance(row).id
            file = partial / format_name / f"{name.replace('/', '_')}.{EXTENSIONS.get(format_name, format_name)}"
            file.parent.mkdir(exist_ok=True)
            file.write_text(FORMATS[format_name](aligned, name), encoding="utf-8")
    measured = _measured(corpus, found)
    left_out = len(corpus) - len(fits)
    problems = sum(bool(aligned.problem) for aligned in found.values())
    summary: dict[str, Any] = {
        "stage": "align", "model": model, "corpus": source, "split": split, "utterances": len(found),
        "too_long": left_out, "not_aligned": problems, "accuracy": asdict(measured) if measured else None,
    }  # fmt: skip
    line = _line(list(found.values()))
    line += f"; {plural(left_out, 'utterance')} too long for this model" if left_out else ""
    line += f"; {plural(problems, 'utterance')} with more letters than fit into the audio" if problems else ""
    page = _page(f"caspi align · {source}", line, corpus, found, measured)
    report.write_report(partial, page, summary)
    atomic_output.commit_atomic(partial, out)
    return Outcome(line, out / report.HTML, summary, tables=(_table(measured),) if measured else ())


def _requests(corpus: Corpus, rows: Sequence[int]) -> Iterator[AlignmentRequest]:
    from caspi.alignment.align import AlignmentRequest

    for row in rows:
        utterance = corpus.utterance(row)
        yield AlignmentRequest(corpus.samples(row), utterance.text, utterance.language)


def _measured(corpus: Corpus, found: dict[int, Alignment]) -> _Measured | None:
    """Against the word times of the corpus, from where each word begins to sound until it ends; None if there are none
    for the same words."""
    from caspi.alignment.accuracy import accuracy, evenly_spaced
    from caspi.corpus.pauses import without_pauses
    from caspi.language.spoken_words import spoken_form

    true: list[Word] = []
    ours: list[AlignedWord] = []
    even: list[tuple[float, float]] = []
    groups: list[str] = []
    for row, aligned in found.items():
        utterance = corpus.utterance(row)
        known = [word for word in utterance.words if spoken_form(word.text)]
        if [spoken_form(w.text) for w in known] != [spoken_form(w.text) for w in aligned.words]:
            continue
        true += without_pauses(known, corpus.samples(row))
        ours += aligned.words
        even += zip(*evenly_spaced(len(known), utterance.seconds), strict=True)
        groups += [utterance.group or utterance.id] * len(known)
    if not true:
        return None
    starts, ends = [word.start for word in true], [word.end for word in true]
    return _Measured(
        accuracy([word.start for word in ours], starts, groups),
        accuracy([word.end for word in ours], ends, groups),
        accuracy([start for start, _ in even], starts, groups),
        accuracy([end for _, end in even], ends, groups),
    )


def _rows(measured: _Measured) -> list[tuple[str, ...]]:
    named = {
        "starts": measured.starts, "ends": measured.ends,
        "starts at even distances": measured.even_starts, "ends at even distances": measured.even_ends,
    }  # fmt: skip
    return [
        (
            name,
            f"{1000 * one.mean:.0f} ms"
            + (f" [{1000 * one.mean_ci[0]:.0f}, {1000 * one.mean_ci[1]:.0f}]" if one.mean_ci else ""),
            f"{1000 * one.median:.0f} ms", f"{1000 * one.bias:+.0f} ms", *map(percent, one.within.values()),
        )
        for name, one in named.items()
    ]  # fmt: skip


_COLUMNS = ("times of words", "mean distance [95 %]", "median", "late by", "20 ms", "40 ms", "80 ms", "200 ms")


def _table(measured: _Measured) -> TextTable:
    table = TextTable(*_COLUMNS)
    for row in _rows(measured):
        table.add_row(*row)
    return table


def _page(title: str, line: str, corpus: Corpus, found: dict[int, Alignment], measured: _Measured | None) -> Page:
    worst = sorted(found, key=lambda row: found[row].confidence)[:_SHOWN]
    parts: list[Table | Chart | Bars | Browser] = []
    if measured is not None:
        note = (
            "Distance from the corpus' own word times, without the pauses that it counts to words; the last columns: "
            "share of times that are as near."
        )
        parts.append(Table("Accuracy", _COLUMNS, [*_rows(measured)], note=note))
    parts.append(
        Table(
            "Lowest confidence",
            ("id", "text", "confidence", "entropy", "out of order"),
            [
                (
                    corpus.utterance(row).id, corpus.utterance(row).text, percent(found[row].confidence),
                    f"{found[row].entropy:.2f}", f"{found[row].repaired:,} of {len(found[row].words):,}",
                )
                for row in worst
            ],
            text=(1,),
            note="Confidence: mean of the words; by letters, the mean probability of a word's letters in its frames.",
        )
    )  # fmt: skip
    return Page(title=title, headline=line, facts=[("utterances", f"{len(found):,}")], parts=parts)
