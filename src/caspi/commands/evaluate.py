"""caspi evaluate: a model on corpora, with transcripts, scores and a page."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caspi import atomic_output
from caspi.atomic_output import read_jsonl
from caspi.commands.outcome import Outcome, language_option
from caspi.errors import UsageError
from caspi.reporting import report
from caspi.reporting.wording import counted, percent, rate

if TYPE_CHECKING:
    from caspi.corpus.store import Corpus
    from caspi.corpus.utterance import Split
    from caspi.evaluation.spelling_variants import SpellingVariants
    from caspi.language import Language

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """Beside model and corpora: see caspi.evaluation.run.EvaluationRequest."""

    split: str = "test"
    limit: int | None = None
    retention: Sequence[str] = ()
    stress: int = 0
    context: int = 0
    identify: bool = False
    equivalents: Path | None = None
    language: str | None = None
    group_key: str = ""


def run(model: str, corpora: Sequence[str], out: Path, options: EvaluateOptions = EvaluateOptions()) -> Outcome:
    """A model on corpora, with transcripts, scores and a page. If killed, the same call resumes."""
    from caspi.corpus.utterance import SPLITS
    from caspi.evaluation import benchmarks
    from caspi.evaluation import run as stage
    from caspi.evaluation.decode import ModelHandle, devices, model_fingerprint
    from caspi.language import language
    from caspi.model.loading import resolve

    atomic_output.check_owned(out, "evaluate")
    if options.split not in SPLITS:
        raise UsageError(f"--split {options.split}: not one of {', '.join(SPLITS)}")
    spoken = language_option(options.language)
    opened = [found for corpus in corpora for found in _opened(corpus, options.split, spoken, options.group_key)]
    others = [found for corpus in options.retention for found in _opened(corpus, options.split)]
    for corpus in opened:
        _say_groups(corpus)
    rules = language(opened[0].utterance(0).language)
    asked = stage.EvaluationRequest(
        opened,
        others,
        options.limit,
        options.stress,
        options.context,
        options.identify,
        read_equivalents(options.equivalents, rules),
    )
    folder = Path(resolve(model))
    recogniser = ModelHandle(model, model_fingerprint(folder) if folder.is_dir() else model)
    recogniser.on(devices()[0])  # an invalid model is reported before anything is written
    kept = atomic_output.work_folder(out, "evaluate")
    with atomic_output.locked(kept, "evaluate"):
        _take_over(out / stage.TRANSCRIPTS, kept / stage.TRANSCRIPTS)
        partial = atomic_output.begin_atomic(out, "evaluate")
        summary = stage.evaluate(recogniser, asked, kept / stage.TRANSCRIPTS, partial)
        inputs = {
            "model": model,
            "limit": options.limit,
            "model_fingerprint": recogniser.fingerprint,
            "corpora": [
                {
                    "path": str(corpus.folder),
                    "split": corpus.split,
                    "revision": benchmarks.revision(corpus),
                    "fingerprint": report.fingerprint(corpus.folder),
                }
                for corpus in (*opened, *others)
            ],
        }
        write_evaluation(partial, "evaluate", f"caspi evaluate · {model}", summary, inputs)
        atomic_output.commit_atomic(partial, out)
    shutil.rmtree(kept)
    return Outcome(verdict(summary), out / report.HTML, summary)


def _say_groups(corpus: Corpus) -> None:
    """Which field of a manifest said who speaks, or that none did."""
    from caspi.evaluation.benchmarks import grouped_by

    found = grouped_by(corpus)
    if found == "" and len(corpus) > 1:
        _log.warning(
            f"{corpus.folder.name}: no line says who speaks, so intervals take files as independent; name the "
            "field with --group-key"
        )
    elif found:
        _log.info(f"evaluate: {corpus.folder.name}: groups by {found}")


def _opened(asked: str, split: Split, spoken: str | None = None, group_key: str = "") -> list[Corpus]:
    """A corpus folder, a manifest, or benchmark sets by name."""
    from caspi.corpus.store import Corpus
    from caspi.evaluation import benchmarks

    if Path(asked).is_file():
        return [benchmarks.open_manifest(Path(asked), spoken, group_key)]
    if not Path(asked).exists() and (sets := benchmarks.named(asked)):
        return [benchmarks.open_set(name) for name in sets]
    return [Corpus.open(Path(asked), split)]


def _take_over(transcripts: Path, kept: Path) -> None:
    """What an earlier evaluation in this place has decoded, unless a later one was at work since."""
    kept.mkdir(exist_ok=True)
    for path in transcripts.glob("*.jsonl") if transcripts.is_dir() else ():
        if not (kept / path.name).exists():
            shutil.copy(path, kept)


def read_equivalents(path: Path | None, spoken: Language) -> SpellingVariants | None:
    from caspi.evaluation.spelling_variants import SpellingVariants

    return SpellingVariants.read(path, spoken.normalisers["fair"]) if path else None


def write_evaluation(out: Path, stage: str, title: str, summary: dict[str, Any], inputs: dict[str, Any]) -> None:
    from caspi.evaluation import evaluation_page as evaluation_pages
    from caspi.evaluation.published import published
    from caspi.evaluation.summary import RESULTS

    rows = read_jsonl(out / RESULTS)
    clips = clips_of(inputs, [row["id"] for row in evaluation_pages.worst(rows)])
    page = evaluation_pages.evaluate_page(title, summary, rows, clips, published())
    report.write_report(out, page, {"stage": stage, **inputs, **summary})


def clips_of(inputs: dict[str, Any], ids: Sequence[str]) -> dict[str, bytes]:
    """The audio of utterances, FLAC by id, of those corpora of an evaluation that are still where they were."""
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


def verdict(summary: dict[str, Any]) -> str:
    """`WER 0.083 [0.061, 0.105] (fair 0.081) on 200 utterances`."""
    leaderboard = summary["leaderboard"]
    return (
        f"WER {rate(leaderboard['wer'], leaderboard['wer_ci'])} (fair {percent(summary['fair']['wer'])}) "
        f"on {counted(summary)}"
    )
