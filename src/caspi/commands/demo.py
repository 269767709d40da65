"""caspi demo: runs the whole pipeline on the tiny model, and prints each command as a user would type it."""

from __future__ import annotations

import importlib.resources
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from caspi import recipe
from caspi.atomic_output import report_of
from caspi.audio import Seconds
from caspi.commands import evaluate, prepare, transcribe
from caspi.commands import run as runs
from caspi.commands.chain import Chain, Step, read_steps
from caspi.commands.outcome import Outcome
from caspi.commands.run import RunOptions
from caspi.commands.run_page import EVALUATION, START
from caspi.commands.train import training_curves
from caspi.commands.transcribe import TranscribeOptions
from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from caspi.evaluation import evaluation_page as evaluation_pages
from caspi.evaluation.options import EvaluationOptions
from caspi.evaluation.results import EvaluationSummary, read_results
from caspi.reporting import report
from caspi.reporting.wording import SYNTHETIC_NOTE, percent, plural, rate
from caspi.training.run import METRICS

RECIPE = "demo.yaml"
OTHERS = "demo-others.yaml"  # other languages, to measure forgetting
_STRESSED = 30  # utterances in the stress set
_OTHERS = 10  # utterances of each other language


def recipe_file(name: str) -> Path:
    """The path of a recipe that comes with caspi."""
    package = Path(str(importlib.resources.files("caspi")))
    folders = (package / "recipes", package.parents[1] / "recipes")  # installed from a wheel; from a checkout
    return next(folder / name for folder in folders if folder.is_dir())


def run(out: Path, seed: int) -> Outcome:
    """Runs the recipe as `caspi run` does, with other languages beside it; the outcome's line is the WER on unseen
    sentences and unseen voices."""
    clean(out)
    started = time.monotonic()
    loaded = _written(out, RECIPE, _overrides(out, seed))
    each = [f"corpus.sources.{number}.utterances={_OTHERS}" for number in range(4)]
    others = _written(out, OTHERS, (f"corpus.path={out / 'others'}", *each))
    best, start = loaded.require_train().path / "best", loaded.model.start
    chain = Chain(out / "beside-the-run", OTHERS)
    chain.run("prepare", f"caspi prepare {out / OTHERS}", seed, lambda: prepare.run(others))
    chain.run(
        "evaluate", f"caspi evaluate {start} {others.corpus.path} --identify --out {out / _BEFORE}", seed,
        lambda: evaluate.run(start, [str(others.corpus.path)], out / _BEFORE, EvaluationOptions(identify=True)),
    )  # fmt: skip
    options = RunOptions(export=None, retention=(str(others.corpus.path),), stress=_STRESSED)
    ran = runs.run(loaded, str(out / RECIPE), options)
    if ran.exit_code:
        return ran
    sample, subtitles = _write_sample(loaded.corpus.path, out), out / "subtitles"
    transcribed = chain.run(
        "transcribe", f"caspi transcribe {best} {sample} --language Hebrew --format srt --out {subtitles}", seed,
        lambda: transcribe.run(str(best), [str(sample)], TranscribeOptions("srt", subtitles, language="Hebrew")),
    )  # fmt: skip
    taken = [*chain.taken[:2], *read_steps(out), *chain.taken[2:]]
    at_start, averaged, before = (
        _evaluated(found) for found in (
            ran.of_steps["evaluate-start"], ran.of_steps["evaluate"], chain.outcomes["evaluate"]
        )
    )  # fmt: skip
    results = _Results(averaged, at_start, before)
    summary = {
        "stage": "demo",
        "seed": seed,
        "seconds": time.monotonic() - started,
        "steps": [asdict(step) for step in taken],
        "evaluation": averaged.as_json(),
        "evaluation_start": at_start.as_json(),
        "others_before": {name: asdict(part.leaderboard) for name, part in before.by["language"].parts.items()},
        "transcript": transcribed.summary["files"][0]["text"],
    }
    content = _page(results, taken, summary["seconds"], loaded.corpus.path)
    page = report.write_report(out, content, summary, recipe.dump(loaded))
    return Outcome(_verdict(averaged), page, summary)


def _evaluated(outcome: Outcome) -> EvaluationSummary:
    assert isinstance(outcome, evaluate.EvaluationOutcome)
    return outcome.result


@dataclass(frozen=True, slots=True)
class _Results:
    """Evaluations of the trained model, of the base model, and of the base model on other languages (others)."""

    averaged: EvaluationSummary
    start: EvaluationSummary
    others: EvaluationSummary


_BEFORE = "evaluation-before"  # the base model on other languages


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


def _write_sample(corpus: Path, out: Path) -> Path:
    """Writes the first test utterance to a file, for `caspi transcribe`."""
    path = out / "sample.flac"
    path.write_bytes(Corpus.open(corpus, "test").flac(0))
    return path


def _verdict(summary: EvaluationSummary) -> str:
    score = summary.leaderboard
    voices = plural(summary.groups, "unseen voice")
    return f"WER {rate(score.wer, score.wer_ci)} on {summary.utterances} held-out utterances, {voices}"


def _page(results: _Results, taken: list[Step], seconds: Seconds, corpus: Path) -> report.Page:
    final = results.averaged
    evaluated = corpus.parent / EVALUATION
    utterances = list(read_results(evaluated).values())
    clips = evaluate.clips_of(report_of(evaluated), [scored.pair.id for scored in evaluation_pages.worst(utterances)])
    return report.Page(
        title="caspi demo · tiny fine-tuned for Hebrew",
        headline=_verdict(final),
        facts=[
            ("WER", percent(final.leaderboard.wer)),
            ("before training", percent(results.start.leaderboard.wer)),
            ("CER", percent(final.leaderboard.cer)),
            ("time", f"{seconds / 60:.1f} min"),
        ],
        synthetic=SYNTHETIC_NOTE,
        parts=[
            _transcripts(corpus),
            report.Table(
                "Commands",
                ("command", "seconds", "result"),
                [(step.command, f"{step.seconds:.0f}", step.result) for step in taken],
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
    "evaluation-start/report.html",
)  # fmt: skip


def _transcripts(corpus: Path) -> report.Table:
    """The first test utterances: reference, and hypotheses before and after training."""
    test = Corpus.open(corpus, "test")
    start, end = (read_results(corpus.parent / name) for name in (START, EVALUATION))
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
