"""Makes a corpus from sources. Every source goes through three steps; each can be killed and resumed:

1. an engine processes blocks of recordings into parts, in any order (shards.py, engines.py);
2. copies, leaks and splits are decided from all outcomes (selection.py);
3. kept utterances are copied into the shards of their split, in the order of the source.

The corpus folder is then created by one rename. A source that is already in the folder, unchanged and after the same
sources as before, is linked and not processed again.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from pydantic import Field, model_validator

from caspi import atomic_output
from caspi.config import Unit
from caspi.corpus.derived import link
from caspi.corpus.pipeline import shards
from caspi.corpus.pipeline.contamination import evaluation_sets
from caspi.corpus.pipeline.engines import ENGINES, EngineName
from caspi.corpus.pipeline.process import Rules
from caspi.corpus.pipeline.segmentation import WordTimer
from caspi.corpus.pipeline.selection import Selection, Selector, SourceRows
from caspi.corpus.pipeline.source_report import (
    CorpusReport,
    SourceReport,
    SourceTally,
    SplitTotal,
    corpus_totals,
    digest,
)
from caspi.corpus.pipeline.splits import Splits
from caspi.corpus.sources import Source, SourceConfig
from caspi.corpus.sources.catalogue import CATALOGUE
from caspi.corpus.store import SCHEMA, ShardWriter
from caspi.corpus.utterance import SPLITS
from caspi.errors import CaspiError, UsageError
from caspi.language import language, lookalikes
from caspi.progress import Progress
from caspi.reporting.report import installed_version

_log = logging.getLogger(__name__)

_LOOKALIKE = 0.2  # of a source's utterances in another language: more than a quotation


class CorpusConfig(Rules):
    """The corpus that `caspi prepare` creates."""

    path: Path
    """The folder of the corpus."""
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    """Where recordings and transcripts come from."""
    evaluation: tuple[SourceConfig, ...] = ()
    """Sets that will be used as tests. An utterance that is also in one of them is rejected as a leak."""
    splits: Splits = Splits()
    """How the data is divided into training, validation and test."""
    max_rejected: Annotated[float, Unit("share")] = Field(0.95, gt=0, le=1)
    """If more than this share of all utterances is rejected, no corpus is made."""
    workers: Annotated[int, Unit("processes")] = Field(default_factory=lambda: os.cpu_count() or 1, ge=1)
    """Processes that work at the same time. Without it, one for every CPU core."""

    @model_validator(mode="after")
    def _different_names(self) -> CorpusConfig:
        """Default names come from folders and may be equal; the groups and mixes of such sources would be merged."""
        homes: dict[str, Path] = {}
        for source in self.sources:
            if (found := source.default_name()) and homes.setdefault(found[0], found[1]) != found[1]:
                raise ValueError(
                    f"sources {homes[found[0]]} and {found[1]} would both be called {found[0]}: give them `name`s"
                )
        return self

    @property
    def rules(self) -> Rules:
        return Rules(segmentation=self.segmentation, text=self.text, filters=self.filters)


def prepare(
    config: CorpusConfig, spoken_language: str, engine: EngineName = "local", timer: WordTimer | None = None
) -> tuple[CorpusReport, Path]:
    """Makes the corpus in a folder beside the final one; returns the report and that folder. timer: gives recordings
    their times, in this process, before they go to the engine's.

    If killed at any point and started again, it resumes with the same result. Raises UsageError if no utterance is
    kept, CaspiError if the disk is full.
    """
    started = time.monotonic()
    work = atomic_output.work_folder(config.path, "prepare")
    with atomic_output.locked(work, "prepare"):
        try:
            report, partial = _prepare(config, spoken_language, engine, work, timer)
        except (OSError, pa.ArrowException) as error:
            if getattr(error, "errno", None) != errno.ENOSPC and "No space left" not in str(error):
                raise
            raise CaspiError(
                f"the disk of {work} is full; nothing is lost: make space and run the same command again"
            ) from error
    return replace(report, seconds=time.monotonic() - started), partial


def _prepare(
    config: CorpusConfig, spoken_language: str, engine: EngineName, work: Path, timer: WordTimer | None
) -> tuple[CorpusReport, Path]:
    earlier = _earlier(config.path)
    evaluation, leaks, compared = evaluation_sets(config.evaluation, spoken_language, work)
    whole = digest(config.splits.model_dump_json(), config.filters.model_dump_json(), leaks)
    keys = [_key(source, config, spoken_language, timer) for source in config.sources]
    known = _reusable(earlier, keys, whole)
    partial = atomic_output.begin_atomic(config.path, "prepare")
    judge = Selector(config.filters, config.splits, evaluation, _boundaries(earlier, config.splits))
    reports: list[SourceReport] = []
    for number, (source, key) in enumerate(zip(config.sources, keys, strict=True)):
        if number < len(known):
            reports.append(_link(known[number], config.path, partial, judge))
            continue
        folder = work / key
        _make_parts(source, folder, config, spoken_language, engine, timer)
        reports.append(_assemble(source, key, folder, partial, judge, _shards_so_far(reports)))
    _check_not_empty(reports, config.path, partial)
    _check_share(reports, config.max_rejected, partial)
    report = CorpusReport(
        totals=corpus_totals(reports, config.splits),
        reused=len(known),
        language=spoken_language,
        text_policy=language(spoken_language).applied(config.text),
        split_shares=config.splits.model_dump(),
        decided_with=whole,
        evaluation_sets=compared,
        source_reports=reports,
        seconds=0.0,
    )
    return report, partial


def finish(partial: Path, folder: Path) -> None:
    """Moves the corpus to its final folder and deletes its parts."""
    atomic_output.commit_atomic(partial, folder)
    shutil.rmtree(atomic_output.work_folder(folder, "prepare"), ignore_errors=True)


def _key(source: Source, config: CorpusConfig, spoken_language: str, timer: WordTimer | None) -> str:
    """A hash of everything the outcomes of a source depend on: its location, its settings, and the caspi version."""
    inputs = [source.model_dump_json(), source.identity(), config.rules.model_dump_json(), spoken_language]
    if timer is not None:
        inputs.append(timer.fingerprint)
    return digest(*inputs, installed_version(), str(shards.SHARD_SCHEMA))


def _earlier(folder: Path) -> dict[str, Any]:
    """The report of the corpus that is already in this folder; empty if there is none."""
    if atomic_output.stage_of(folder) != "prepare":
        return {}
    content: dict[str, Any] = json.loads((folder / atomic_output.REPORT).read_text(encoding="utf-8"))
    return content


def _boundaries(earlier: dict[str, Any], shares: Splits) -> dict[str, float]:
    """Where validation ended in an earlier corpus, by source; empty if the shares have changed."""
    if earlier.get("split_shares") != shares.model_dump():
        return {}
    return {source: end for report in earlier["source_reports"] for source, end in report["boundaries"].items()}


def _reusable(earlier: dict[str, Any], keys: list[str], whole: str) -> list[SourceReport]:
    """Reports of the leading sources that are already prepared and were decided by the same rules."""
    if earlier.get("decided_with") != whole:
        return []
    reusable: list[SourceReport] = []
    for report, key in zip(earlier["source_reports"], keys, strict=False):
        if report["key"] != key:
            break
        reusable.append(SourceReport.from_json(report))
    return reusable


def _link(report: SourceReport, corpus: Path, partial: Path, judge: Selector) -> SourceReport:
    """Reuses the shards of a source unchanged; their utterances are known when later sources are deduplicated."""
    rows = SourceRows()
    for split in SPLITS:
        for name in report.shards[split]:
            link(corpus / name, partial / name)
            for batch in shards.read_shard(corpus / name):
                rows.extend(batch, split)
    judge.remember(rows)
    return report


def _make_parts(
    source: Source, folder: Path, config: CorpusConfig, spoken_language: str, engine: EngineName,
    timer: WordTimer | None,
) -> None:  # fmt: skip
    """Step 1. The marker file `complete` means that the source has no more recordings."""
    complete = folder / "complete"
    if complete.is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob("*.partial"):
        leftover.unlink()
    _, done = shards.made_shards(folder)
    if done:
        _log.info(f"prepare: {done:,} recordings of this source are already processed")
    recordings = source.heard(spoken_language, done)
    found = shards.blocks(recordings if timer is None else map(timer, recordings), done)
    missing = (block for block in found if not (folder / block.name).exists())
    total = source.count()
    with Progress(f"prepare {source.label}", unit="h of audio", total=total, done=done) as progress:
        for made in ENGINES[engine](missing, folder, config.rules, config.workers):
            progress.advance(made.seconds / 3600, items=made.recordings)
    complete.touch()


def _assemble(
    source: Source, key: str, folder: Path, partial: Path, judge: Selector, first: dict[str, int]
) -> SourceReport:
    """Steps 2 and 3."""
    paths, _ = shards.made_shards(folder)
    rows = SourceRows.read(paths)
    _refuse_lookalikes(source, rows)
    verdicts = judge.decide(rows)
    writers = {split: ShardWriter(partial, split, first[split]) for split in SPLITS}
    report = SourceReport(source.kind, getattr(source, "name", "") or source.kind, key)  # type: ignore[attr-defined]
    report.licence = getattr(CATALOGUE.get(getattr(source, "dataset", "")), "licence", "")
    tally = SourceTally(report)
    start = 0
    for path in paths:
        for batch in shards.read_shard(path):
            stop = start + batch.num_rows
            tally.add(batch, rows, verdicts, start)
            for split, writer in writers.items():
                chosen = [
                    n - start for n in range(start, stop) if verdicts.reason[n] is None and verdicts.split[n] == split
                ]
                if chosen:
                    writer.write(_final(batch, chosen, verdicts, start))
            start = stop
    for split, writer in writers.items():
        writer.close()
        report.shards[split] = writer.shards
        report.splits[split] = SplitTotal(writer.count, writer.seconds / 3600, writer.fingerprint)
    report.boundaries = verdicts.boundaries
    tally.finish()
    return report


def _refuse_lookalikes(source: Source, rows: SourceRows) -> None:
    """Utterance by utterance only the clear ones are found: where they are many, so are the others."""
    for other in lookalikes():
        count = rows.reason.count(other.reason)
        if count > max(10, _LOOKALIKE * len(rows.reason)):
            name = next(value for key in ("name", "dataset", "path", "kind") if (value := getattr(source, key, "")))
            raise UsageError(
                f"source {name} is {other.name} by its language, letters or words ({count:,} of {len(rows.reason):,} "
                "utterances): remove it from corpus.sources"
            )


def _final(batch: pa.RecordBatch, chosen: list[int], verdicts: Selection, start: int) -> pa.RecordBatch:
    """The chosen rows of a part as rows of the corpus. start: the number of the part's first row in its source."""
    taken = batch.take(pa.array(chosen, pa.int64()))
    columns = {name: taken.column(name) for name in SCHEMA.names}
    allowed = (verdicts.previous[start + n] for n in chosen)
    texts = taken.column("previous").to_pylist()
    columns["previous"] = pa.array([text if may else "" for may, text in zip(allowed, texts, strict=True)])
    columns["id"] = pa.array([verdicts.id[start + n] for n in chosen])
    columns["repeat"] = pa.array([verdicts.repeat[start + n] for n in chosen], pa.int32())
    columns["position"] = pa.array([start + n for n in chosen], pa.int64())
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=SCHEMA)


def _shards_so_far(reports: list[SourceReport]) -> dict[str, int]:
    return {split: sum(len(report.shards[split]) for report in reports) for split in SPLITS}


def _check_not_empty(reports: list[SourceReport], path: Path, partial: Path) -> None:
    if not any(report.kept for report in reports):
        rejected = sum((Counter(report.rejected) for report in reports), Counter())
        reasons = ", ".join(f"{reason} {count}" for reason, count in rejected.most_common()) or "no input"
        examples = [found[0]["detail"] for report in reports for found in report.examples.values()]
        shutil.rmtree(partial)
        raise UsageError(
            f"corpus {path} would be empty: {reasons}{f' (such as {examples[0]})' if examples else ''}; "
            "check corpus.sources and corpus.filters"
        )


def _check_share(reports: list[SourceReport], limit: float, partial: Path) -> None:
    """Raises UsageError if more was rejected than the recipe allows."""
    rejected = sum((Counter(report.rejected) for report in reports), Counter())
    total = sum(report.input for report in reports)
    if rejected.total() > limit * total:
        shutil.rmtree(partial)
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in rejected.most_common(3))
        raise UsageError(
            f"{100 * rejected.total() / total:.2f} % of {total:,} utterances would be rejected ({reasons}): check "
            "corpus.filters, or allow it with corpus.max_rejected=1"
        )
