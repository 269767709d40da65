"""caspi evaluate: transcribes corpora with a model, scores the transcripts and writes a page."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caspi import atomic_output
from caspi.commands.outcome import Outcome, language_option, split_option
from caspi.errors import UsageError
from caspi.evaluation.options import EvaluationOptions
from caspi.reporting import report
from caspi.reporting.wording import percent, rate

if TYPE_CHECKING:
    from caspi.corpus.store import Corpus
    from caspi.corpus.utterance import Split
    from caspi.evaluation.results import EvaluationSummary, ScoredUtterance
    from caspi.evaluation.run import EvaluationInputs
    from caspi.evaluation.spelling_variants import SpellingVariants
    from caspi.language import Language

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EvaluationOutcome(Outcome):
    """An outcome with the results."""

    result: EvaluationSummary = field(kw_only=True)


_DEFAULTS = EvaluationOptions()


def run(model: str, corpora: Sequence[str], out: Path, options: EvaluationOptions = _DEFAULTS) -> EvaluationOutcome:
    """Transcribes and scores corpora, and writes the report. After a kill, the same call resumes."""
    from caspi.evaluation import run as stage

    atomic_output.check_owned(out, "evaluate")
    inputs = _inputs(model, corpora, options)
    for corpus in inputs.corpora:
        _report_groups(corpus)
    work = atomic_output.work_folder(out, "evaluate")
    with atomic_output.locked(work, "evaluate"):
        cache = work / stage.TRANSCRIPTS
        _copy_transcripts(out / stage.TRANSCRIPTS, cache)
        partial = atomic_output.begin_atomic(out, "evaluate")
        summary, utterances = stage.evaluate(inputs, options, cache, partial)
        write_evaluation(
            partial, "evaluate", f"caspi evaluate · {model}", summary, utterances, _described(inputs, options)
        )
        atomic_output.commit_atomic(partial, out)
    shutil.rmtree(work)
    return evaluation_outcome(summary, out)


def _inputs(model: str, corpora: Sequence[str], options: EvaluationOptions) -> EvaluationInputs:
    """Opens everything, so that bad input is reported before anything is written."""
    from caspi.evaluation.decode import ModelHandle, devices
    from caspi.evaluation.run import EvaluationInputs
    from caspi.language import language
    from caspi.model.loading import content_of

    split = split_option(options.split)
    spoken = language_option(options.language)
    opened = [corpus for name in corpora for corpus in open_sets(name, split, spoken, options.group_key)]
    others = [corpus for name in options.retention for corpus in open_sets(name, split)]
    equivalents = read_equivalents(options.equivalents, language(opened[0].utterance(0).language))
    handle = ModelHandle(model, content_of(model))
    handle.on(devices()[0])  # an invalid model is reported here
    return EvaluationInputs(handle, opened, others, equivalents)


def _described(inputs: EvaluationInputs, options: EvaluationOptions) -> dict[str, Any]:
    """The model and the corpora, for report.json."""
    from caspi.evaluation import benchmarks

    return {
        "model": inputs.model.model,
        "limit": options.limit,
        "model_fingerprint": inputs.model.fingerprint,
        "corpora": [
            {
                "path": str(corpus.folder),
                "split": corpus.split,
                "revision": benchmarks.revision(corpus),
                "fingerprint": report.fingerprint(corpus.folder),
            }
            for corpus in (*inputs.corpora, *inputs.retention)
        ],
    }


def _report_groups(corpus: Corpus) -> None:
    """Reports which field of a manifest names the speaker; warns if none does."""
    from caspi.evaluation.benchmarks import grouped_by

    found = grouped_by(corpus)
    if found == "" and len(corpus) > 1:
        _log.warning(
            f"{corpus.folder.name}: no line names a speaker; intervals treat files as independent. Name the field "
            "with --group-key"
        )
    elif found:
        _log.info(f"evaluate: {corpus.folder.name}: groups by {found}")


def open_sets(asked: str, split: Split, spoken: str | None = None, group_key: str = "") -> list[Corpus]:
    """Opens a corpus folder, a manifest, or benchmark sets by name."""
    from caspi.corpus.store import Corpus
    from caspi.evaluation import benchmarks

    if Path(asked).is_file():
        return [benchmarks.open_manifest(Path(asked), spoken, group_key)]
    if not Path(asked).exists() and (sets := benchmarks.named(asked)):
        return [benchmarks.open_set(name) for name in sets]
    return [Corpus.open(Path(asked), split)]


def open_set(asked: str, split: Split) -> Corpus:
    """As `open_sets`, for commands that take one. Raises UsageError for a name of several."""
    [corpus, *more] = open_sets(asked, split)
    if more:
        raise UsageError(f"{asked} is {len(more) + 1} sets: give one of them")
    return corpus


def _copy_transcripts(transcripts: Path, kept: Path) -> None:
    """Copies the transcripts of an earlier evaluation, except files that an interrupted run has written since."""
    kept.mkdir(exist_ok=True)
    for path in transcripts.glob("*.jsonl") if transcripts.is_dir() else ():
        if not (kept / path.name).exists():
            shutil.copy(path, kept)


def read_equivalents(path: Path | None, spoken: Language) -> SpellingVariants | None:
    from caspi.evaluation.spelling_variants import SpellingVariants

    return SpellingVariants.read(path, spoken.normalisers["fair"]) if path else None


def write_evaluation(
    out: Path,
    stage: str,
    title: str,
    summary: EvaluationSummary,
    utterances: Sequence[ScoredUtterance],
    inputs: dict[str, Any],
) -> None:
    """Writes report.json and report.html. inputs: what was evaluated, for report.json."""
    from caspi.evaluation import evaluation_page
    from caspi.evaluation.published import published

    clips = clips_of(inputs, [scored.pair.id for scored in evaluation_page.worst(utterances)])
    page = evaluation_page.evaluate_page(title, summary, utterances, clips, published())
    report.write_report(out, page, {"stage": stage, **inputs, **summary.as_json()})


def evaluation_outcome(summary: EvaluationSummary, out: Path) -> EvaluationOutcome:
    """The result in one line, a table of all scores, and warnings."""
    from caspi.evaluation.score_table import score_table, warning_signs

    return EvaluationOutcome(
        verdict(summary),
        out / report.HTML,
        summary.as_json(),
        tables=(score_table(summary), *warning_signs(summary)),
        result=summary,
    )


def clips_of(inputs: dict[str, Any], ids: Sequence[str]) -> dict[str, bytes]:
    """The audio of utterances, FLAC by id, from those corpora of an evaluation that still exist."""
    from caspi.corpus.store import Corpus

    wanted = set(ids)
    clips: dict[str, bytes] = {}
    for named in inputs.get("corpora", ()):
        try:
            corpus = Corpus.open(Path(named["path"]), named["split"])
        except UsageError:
            continue
        clips |= {key: corpus.flac(row) for row, key in enumerate(corpus.column("id")) if key in wanted}
    return clips


def verdict(summary: EvaluationSummary) -> str:
    """`WER 8.3 % [6.1, 10.5] (fair 8.1 %) on 200 utterances`."""
    leaderboard = summary.leaderboard
    return f"WER {rate(leaderboard.wer, leaderboard.wer_ci)} (fair {percent(summary.fair.wer)}) on {summary.counted()}"
