"""caspi demo: runs the whole pipeline on the tiny model, and prints each command as a user would type it."""

from __future__ import annotations

import importlib.resources
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from caspi import recipe
from caspi.atomic_output import report_of
from caspi.audio import Seconds
from caspi.audit.audit import AuditConfig
from caspi.commands import audit, average, compare, evaluate, plan, prepare, train, transcribe
from caspi.commands.outcome import Outcome
from caspi.commands.train import training_curves
from caspi.commands.transcribe import TranscribeOptions
from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from caspi.evaluation import evaluation_page as evaluation_pages
from caspi.evaluation.options import EvaluationOptions
from caspi.evaluation.results import EvaluationSummary, read_results
from caspi.reporting import report
from caspi.reporting.wording import SYNTHETIC_NOTE, percent, plural, rate
from caspi.training.planning.plan import PlanOptions
from caspi.training.run import METRICS

RECIPE = "demo.yaml"
_ALIGNER = "tiny-aligner"
OTHERS = "demo-others.yaml"  # other languages, to measure forgetting
_STRESSED = 30  # utterances in the stress set
_OTHERS = 10  # utterances of each other language


def recipe_file(name: str) -> Path:
    """The path of a recipe that comes with caspi."""
    package = Path(str(importlib.resources.files("caspi")))
    folders = (package / "recipes", package.parents[1] / "recipes")  # installed from a wheel; from a checkout
    return next(folder / name for folder in folders if folder.is_dir())


def run(out: Path, seed: int) -> Outcome:
    """Runs all commands; the outcome's line is the WER on unseen sentences and unseen voices."""
    clean(out)
    started = time.monotonic()
    loaded = _written(out, RECIPE, _overrides(out, seed))
    each = [f"corpus.sources.{number}.utterances={_OTHERS}" for number in range(4)]
    others = _written(out, OTHERS, (f"corpus.path={out / 'others'}", *each))
    written = out / RECIPE
    corpus, run_folder = loaded.corpus.path, loaded.require_train().path
    steps = _Steps()
    steps.run(f"caspi prepare {written}", lambda: prepare.run(loaded))
    steps.run(f"caspi prepare {out / OTHERS}", lambda: prepare.run(others))
    steps.run(
        f"caspi audit {corpus} --aligner {_ALIGNER}", lambda: audit.run(corpus, _ALIGNER, [], None, AuditConfig())
    )
    steps.run(f"caspi plan {written}", lambda: plan.run(loaded, PlanOptions()))
    trained = steps.run(f"caspi train {written}", lambda: train.run(loaded))
    averaged = steps.run(f"caspi average {run_folder} --top 3", lambda: average.run(run_folder, 3))
    last, best = Path(trained.summary["final"]), averaged.path
    results = _evaluate(steps, out, loaded.model.start, last, best)
    comparison = steps.run(
        f"caspi compare {out / _LAST} {out / _BEST} --out {out / 'compare'}",
        lambda: compare.run(out / _LAST, out / _BEST, out / "compare"),
    )
    sample, subtitles = _write_sample(corpus, out), out / "subtitles"
    transcribed = steps.run(
        f"caspi transcribe {best} {sample} --language Hebrew --format srt --out {subtitles}",
        lambda: transcribe.run(str(best), [str(sample)], TranscribeOptions("srt", subtitles, language="Hebrew")),
    )
    others_before = results.others.by["language"].parts
    summary = {
        "stage": "demo",
        "seed": seed,
        "seconds": time.monotonic() - started,
        "steps": steps.taken,
        "evaluation": results.averaged.as_json(),
        "evaluation_last": results.last.as_json(),
        "evaluation_start": results.start.as_json(),
        "others_before": {name: asdict(part.leaderboard) for name, part in others_before.items()},
        "comparison": comparison.summary,
        "transcript": transcribed.summary["files"][0]["text"],
    }
    content = _page(results, steps.taken, summary["seconds"], corpus)
    page = report.write_report(out, content, summary, recipe.dump(loaded))
    return Outcome(_verdict(results.averaged), page, summary)


@dataclass(frozen=True, slots=True)
class _Results:
    """Evaluations of the averaged model, of the last checkpoint, of the base model (start), and of the base model on
    other languages (others)."""

    averaged: EvaluationSummary
    last: EvaluationSummary
    start: EvaluationSummary
    others: EvaluationSummary


_LAST, _BEST = "evaluation-last", "evaluation"  # folders of evaluations


def _evaluate(steps: _Steps, out: Path, start: str, last: Path, best: Path) -> _Results:
    """Evaluates the models on the corpus in `out`, and the base model and the averaged one on other languages."""
    corpus, others = out / "corpus", out / "others"

    def on(name: str, model: object, corpus: Path, words: str = "", **options: Any) -> EvaluationSummary:
        outcome = steps.run(
            f"caspi evaluate {model} {corpus}{words} --out {out / name}",
            lambda: evaluate.run(str(model), [str(corpus)], out / name, EvaluationOptions(**options)),
        )
        return outcome.result

    at_last = on(_LAST, last, corpus)
    before = on("evaluation-before", start, others, " --identify", identify=True)
    at_start = on("evaluation-start", start, corpus)
    words = f" --stress {_STRESSED} --retention {others}"
    averaged = on(_BEST, best, corpus, words, stress=_STRESSED, retention=[str(others)])
    return _Results(averaged, at_last, at_start, before)


def _written(out: Path, name: str, overrides: tuple[str, ...]) -> recipe.Recipe:
    """Writes a recipe with these overrides into the demo's folder, so that a user can run it again."""
    path = out / name
    path.write_text(recipe.dump(recipe.load(recipe_file(name), overrides)), encoding="utf-8")
    return recipe.load(path)


def _overrides(out: Path, seed: int) -> tuple[str, ...]:
    sources = range(3)
    return (
        f"corpus.path={out / 'corpus'}",
        f"train.path={out / 'train'}",
        f"seed={seed}",
        *(f"corpus.sources.{number}.seed={11 + number + 100 * seed}" for number in sources),
    )


_AnyOutcome = TypeVar("_AnyOutcome", bound=Outcome)


class _Steps:
    """Prints and runs each command, and records its time and result."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []

    def run(self, command: str, work: Callable[[], _AnyOutcome]) -> _AnyOutcome:
        print(f"\n$ {command}", file=sys.stderr, flush=True)
        started = time.monotonic()
        outcome = work()
        seconds = time.monotonic() - started
        print(f"{outcome.line}  ({seconds:.0f} s)", file=sys.stderr, flush=True)
        self.taken.append({"command": command, "seconds": seconds, "result": outcome.line})
        return outcome


def _write_sample(corpus: Path, out: Path) -> Path:
    """Writes the first test utterance to a file, for `caspi transcribe`."""
    path = out / "sample.flac"
    path.write_bytes(Corpus.open(corpus, "test").flac(0))
    return path


def _verdict(summary: EvaluationSummary) -> str:
    score = summary.leaderboard
    voices = plural(summary.groups, "unseen voice")
    return f"WER {rate(score.wer, score.wer_ci)} on {summary.utterances} held-out utterances, {voices}"


def _page(results: _Results, taken: list[dict[str, Any]], seconds: Seconds, corpus: Path) -> report.Page:
    final = results.averaged
    evaluated = corpus.parent / "evaluation"
    utterances = list(read_results(evaluated).values())
    clips = evaluate.clips_of(report_of(evaluated), [scored.pair.id for scored in evaluation_pages.worst(utterances)])
    return report.Page(
        title="caspi demo · tiny fine-tuned for Hebrew",
        headline=_verdict(final),
        facts=[
            ("WER", percent(final.leaderboard.wer)),
            ("before training", percent(results.start.leaderboard.wer)),
            ("CER", percent(final.leaderboard.cer)),
            ("without averaging", percent(results.last.leaderboard.wer)),
            ("time", f"{seconds / 60:.1f} min"),
        ],
        synthetic=SYNTHETIC_NOTE,
        parts=[
            _transcripts(corpus),
            report.Table(
                "Commands",
                ("command", "seconds", "result"),
                [(step["command"], f"{step['seconds']:.0f}", step["result"]) for step in taken],
                note=f"Other pages in this folder: {', '.join(_PAGES)}.",
            ),
            *training_curves(corpus.parent / "train" / METRICS),
            _retention(results.others, final),
            *evaluation_pages.evaluate_page("", final, utterances, clips).parts,
        ],
    )


_SHOWN = 3  # test utterances at the top of the page
_PAGES = (
    "corpus/report.html", "corpus-audit/report.html", "train/report.html", "evaluation/report.html",
    "evaluation-start/report.html", "compare/report.html",
)  # fmt: skip


def _transcripts(corpus: Path) -> report.Table:
    """The first test utterances: reference, and hypotheses before and after training."""
    test = Corpus.open(corpus, "test")
    start, end = (read_results(corpus.parent / name) for name in ("evaluation-start", "evaluation"))
    rows = [
        (
            report.AudioCell(test.flac(row)),
            test.utterance(row).text,
            start[key].pair.hypothesis,
            end[key].pair.hypothesis,
        )
        for row, key in enumerate(test.column("id")[:_SHOWN])
    ]
    columns = ("listen", "reference", "before training", "after training")
    return report.Table(
        "Transcripts before and after training",
        columns,
        rows,
        text=(1, 2, 3),
        note="The first utterances of the test split.",
    )


def _retention(before: EvaluationSummary, after: EvaluationSummary) -> report.Table:
    at_start = before.by["language"].parts
    rows = [
        (name, rate(at_start[name].leaderboard.wer), rate(score.wer, score.wer_ci), f"{score.utterances:,}")
        for languages in (after.retention or {}).values()
        for name, score in languages.items()
    ]
    note = "These languages were not trained on. To keep them, add a source of each to the corpus and to train.mixes."
    columns = ("language", "WER before", "WER after [95 %]", "utterances")
    return report.Table("Retention of the base model's languages", columns, rows, note=note)


def clean(folder: Path) -> None:
    """Deletes the folder of an earlier demo. Raises UsageError if the folder is not empty and not from a demo."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / DEMO_MARK).is_file():
            raise UsageError(f"{folder} is not empty and was not made by caspi demo: give another --out")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DEMO_MARK).write_text("made by caspi demo; deleted by the next one\n")


DEMO_MARK = ".caspi-demo"
