"""The command line: one command for each stage, without logic. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import _thread
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from caspi.errors import CaspiError, UsageError, first_line
from caspi.terminal import show_log

if TYPE_CHECKING:  # a command imports the modules that it needs when it runs
    from caspi.commands.outcome import Outcome
    from caspi.recipe import Recipe

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Fine-tune Qwen3-ASR for a language and measure the result. Start with: caspi demo",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file, such as recipes/demo.yaml.")]
Overrides = Annotated[
    Optional[list[str]],
    typer.Argument(metavar="[KEY=VALUE ...]", help="Override recipe keys, such as train.effective_batch=64."),
]


def _show_version(requested: bool) -> None:
    if requested:
        from caspi.reporting.report import installed_version

        print(f"caspi {installed_version()}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Options that come before the command."""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _finish(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        print(json.dumps(outcome.summary, ensure_ascii=False, indent=1, default=str))
    else:
        if outcome.line:  # only one of several processes prints it
            _say(outcome.line)
        if outcome.path != Path():
            print(outcome.path)
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def _recipe(path: Path, overrides: list[str] | None) -> Recipe:
    from caspi import recipe

    return recipe.load(path, tuple(overrides or ()))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Output folder; an earlier demo there is replaced.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Seed for sentences, voices, batches and augmentation.")] = 0,
    json_: Json = False,
) -> None:
    """Run the whole pipeline on the tiny model. This takes minutes on a CPU.

    Example: caspi demo --out runs/demo
    """
    from caspi.commands.demo import run
    from caspi.interrupts import Interrupted

    try:
        outcome = run(out, seed)
    except Interrupted as error:
        raise Interrupted(
            "the demo was stopped on request; caspi demo starts from the beginning, "
            f"caspi train {out / 'demo.yaml'} resumes its training"
        ) from error
    _finish(outcome, json_)


@app.command()
def prepare(
    recipe: RecipeFile,
    overrides: Overrides = None,
    engine: Annotated[str, typer.Option(help="local (processes on this machine) or ray (extra `ray`).")] = "local",
    json_: Json = False,
) -> None:
    """Make a corpus from sources.

    The same command resumes a run that was killed. If a source was added at the end, only that source is prepared.

    Example: caspi prepare recipes/torah.yaml corpus.workers=4
    """
    from caspi import commands

    _finish(commands.prepare.run(_recipe(recipe, overrides), engine), json_)


corpus_app = typer.Typer(no_args_is_help=True, help="Inspect, export or publish a corpus.")
app.add_typer(corpus_app, name="corpus")

CorpusFolder = Annotated[Path, typer.Argument(metavar="CORPUS", help="A folder made by caspi prepare.")]


@corpus_app.command("info")
def corpus_info(corpus: CorpusFolder, json_: Json = False) -> None:
    """Show hours and utterances by split, and distributions of length, speaking rate and signal measures.

    Example: caspi corpus info runs/torah/corpus
    """
    from caspi import commands

    outcome = commands.corpus.info(corpus)
    if not json_:
        _show_corpus(outcome.summary)
    _finish(outcome, json_)


def _show_corpus(summary: dict[str, Any]) -> None:
    splits = Table(title="Splits", title_justify="left")
    for column in ("split", "utterances", "hours", "groups", "MiB"):
        splits.add_column(column, justify="left" if column == "split" else "right")
    for name, found in summary["splits"].items():
        counts = (f"{found['utterances']:,}", f"{found['hours']:.2f}", f"{found['groups']:,}")
        splits.add_row(name, *counts, f"{found['bytes'] / 2**20:,.1f}")
    spread = Table(title="Distributions, percentiles", title_justify="left", box=box.SIMPLE, padding=(0, 0, 0, 1))
    spread.add_column("", no_wrap=True)
    for percentile in summary["percentiles"]:
        spread.add_column(f"{percentile}", justify="right", no_wrap=True)
    for name, values in summary["distributions"].items():
        spread.add_row(name, *(_short(value) for value in values))
    console = Console(stderr=True)
    console.print(splits)
    console.print(spread)


def _short(value: float) -> str:
    """A number in at most seven characters, without exponent, so that the table fits into 80 columns."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.1 else f"{value:.3f}"


@corpus_app.command("sample")
def corpus_sample(
    corpus: CorpusFolder,
    count: Annotated[int, typer.Option(min=1, help="Number of utterances.")] = 20,
    seed: Annotated[int, typer.Option(help="Random seed; another seed draws other utterances.")] = 0,
    split: Annotated[Optional[str], typer.Option(help="train, validation or test (default: all).")] = None,
    out: Annotated[Optional[Path], typer.Option(help="Output folder of the page (default: CORPUS-sample).")] = None,
    json_: Json = False,
) -> None:
    """Draw random utterances and write a page with audio players, to listen before training.

    Example: caspi corpus sample runs/torah/corpus --count 20
    """
    from caspi import commands

    page = out or corpus.with_name(corpus.name + "-sample")
    _finish(commands.corpus.sample(corpus, count, seed, split, page), json_)


@corpus_app.command("export")
def corpus_export(
    corpus: CorpusFolder,
    out: Annotated[Path, typer.Option(help="Output folder; must be new.")],
    to: Annotated[
        str, typer.Option(help="jsonl: JSONL with WAV files, as the official fine-tuning script reads them.")
    ] = "jsonl",
    json_: Json = False,
) -> None:
    """Write a corpus in a format that other programs read.

    Example: caspi corpus export runs/torah/corpus --to jsonl --out runs/torah/jsonl
    """
    from caspi import commands

    _finish(commands.corpus.export(corpus, to, out), json_)


@corpus_app.command("push")
def corpus_push(
    corpus: CorpusFolder,
    repository: Annotated[str, typer.Argument(metavar="REPO", help="Repository on the Hub: user/name.")],
    public: Annotated[bool, typer.Option("--public", help="Make the repository public (default: private).")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files, upload nothing.")] = False,
    json_: Json = False,
) -> None:
    """Publish a corpus as a data set on the Hub, with a card. First check that the licences of its sources allow it.

    Example: caspi corpus push runs/torah/corpus me/torah --dry-run
    """
    from caspi import commands

    outcome = commands.corpus.push(corpus, repository, not public, dry_run)
    if dry_run and not json_:
        for file in outcome.summary["files"]:
            _say(f"{file['file']}: {file['bytes']:,} bytes")
    _finish(outcome, json_)


@app.command()
def audit(
    corpus: Annotated[Path, typer.Argument(help="A folder made by caspi prepare.")],
    recipe: Annotated[Optional[Path], typer.Argument(help="Recipe to record in the report.")] = None,
    model: Annotated[
        str, typer.Option(help="Model that scores the transcripts: tiny, a folder or a Hub id.")
    ] = "Qwen/Qwen3-ASR-1.7B-hf",
    json_: Json = False,
) -> None:
    """Check whether transcripts match their audio.

    Gives an upper bound on the number of transcripts that do not belong to their audio, and lists the worst fits.

    Example: caspi audit runs/torah/corpus --model runs/torah/train/average
    """
    from caspi import commands

    _finish(commands.audit.run(corpus, model, _recipe(recipe, None) if recipe else None), json_)


@app.command()
def plan(
    recipe: RecipeFile,
    overrides: Overrides = None,
    gpu: Annotated[Optional[str], typer.Option(help="GPU kind: a100-40gb, a100-80gb, h100, h200, l4.")] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Number of GPUs.")] = 1,
    pilot: Annotated[
        bool, typer.Option("--pilot", help="Measure a few micro-batches of every stage on this machine.")
    ] = False,
    gpu_table: Annotated[Optional[Path], typer.Option(help="YAML file with further GPU kinds and prices.")] = None,
    json_: Json = False,
) -> None:
    """Predict batches, memory, hours and cost of training.

    Examples: caspi plan recipes/round2.yaml --gpu a100-40gb --gpus 2
              caspi plan recipes/round2.yaml --pilot
    """
    from caspi import commands

    made = _recipe(recipe, overrides)
    _finish(commands.plan.run(made, gpu, gpus, measured=pilot, table=gpu_table), json_)


@app.command("augment-preview")
def augment_preview(
    recipe: RecipeFile,
    overrides: Overrides = None,
    stage: Annotated[Optional[str], typer.Option(help="Stage of the recipe (default: the first).")] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of utterances.")] = 3,
    out: Annotated[Optional[Path], typer.Option(help="Output folder of the page (default: CORPUS-augmented).")] = None,
    json_: Json = False,
) -> None:
    """Write a page to listen to augmentation. It has each effect alone, and all effects together as in training.

    Example: caspi augment-preview recipes/demo.yaml train.augment.codec={}
    """
    from caspi import commands

    made = _recipe(recipe, overrides)
    page = out or made.corpus.path.with_name(made.corpus.path.name + "-augmented")
    _finish(commands.augment_preview.run(made, stage, count, page), json_)


@app.command()
def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what each stage would train; allocate nothing.")
    ] = False,
    json_: Json = False,
) -> None:
    """Run the stages of a recipe. The same command resumes a run that stopped.

    Examples: caspi train recipes/demo.yaml
              caspi train recipes/round2.yaml model.init=random model.scale=1.7b --dry-run
    """
    from caspi import commands

    loaded = _recipe(recipe, overrides)
    if dry_run:
        outcome = commands.train.dry_run(loaded)
        if not json_:
            _show_shapes(outcome.summary)
        _finish(outcome, json_)
    else:
        _finish(commands.train.run(loaded), json_)


def _show_shapes(summary: dict[str, Any]) -> None:
    groups = Table(title=f"{summary['parameters']:,} parameters", title_justify="left")
    groups.add_column("group")
    groups.add_column("parameters", justify="right")
    for name, count in summary["groups"].items():
        groups.add_row(name, f"{count:,}")
    stages = Table(title="Stages", title_justify="left")
    for column in ("stage", "trains", "lr", "parameters", "note"):
        stages.add_column(column, justify="right" if column in ("lr", "parameters") else "left")
    for stage in summary["stages"]:
        for row in stage["groups"]:
            stages.add_row(stage["name"], row["group"], f"{row['lr']:g}", f"{row['parameters']:,}", row["note"])
        stages.add_row(stage["name"], "all of it", "", f"{stage['trainable']:,}", "", style="bold", end_section=True)
    console = Console()
    console.print(groups)
    console.print(stages)


@app.command()
def average(
    run: Annotated[Path, typer.Argument(help="A folder made by caspi train.")],
    top: Annotated[int, typer.Option(min=1, help="Number of best checkpoints.")] = 3,
    weights: Annotated[
        Optional[str], typer.Option(help="Weights from the best checkpoint to the worst, such as 3,2,1.")
    ] = None,
    json_: Json = False,
) -> None:
    """Average the best checkpoints of a run.

    Example: caspi average runs/demo/train --top 3
    """
    from caspi import commands

    _finish(commands.average.run(run, top, _weights(weights)), json_)


def _weights(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--weights {text}: expected numbers separated by commas, such as 3,2,1") from error
    if min(found) < 0 or not 0 < sum(found) < float("inf"):
        raise UsageError(f"--weights {text}: no weight may be negative, and at least one must be above 0")
    return found


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="tiny, a folder or a Hub id.")],
    corpora: Annotated[
        list[str],
        typer.Argument(
            metavar="CORPUS|MANIFEST|BENCHMARK ...",
            help="Folders made by caspi prepare; JSONL manifests (used as they are); ivrit for the leaderboard's six "
            "sets, or one by name: eval-d1, eval-whatsapp, saspeech, fleurs-he, common-voice-he, kan; "
            "NAME@REVISION; NAME@FOLDER with its files.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Output folder for results.jsonl, summary.json and report.html.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    limit: Annotated[
        Optional[int], typer.Option(min=1, help="Number of utterances of each set; the first ones are used.")
    ] = None,
    stress: Annotated[
        int,
        typer.Option(
            min=0, help="Number of utterances of each set to repeat with noise, codecs, reverberation and so on."
        ),
    ] = 0,
    context: Annotated[
        int,
        typer.Option(
            min=0, help="Number of utterances of each set to repeat with hotwords or previous text in the prompt."
        ),
    ] = 0,
    retention: Annotated[
        Optional[list[Path]], typer.Option(help="A corpus of another language, to measure forgetting; repeatable.")
    ] = None,
    identify: Annotated[bool, typer.Option("--identify", help="Let the model identify the language.")] = False,
    equivalents: Annotated[
        Optional[Path],
        typer.Option(help="CSV of spellings that count as the same word, one set per line; reported separately."),
    ] = None,
    language: Annotated[
        Optional[str], typer.Option(help="Language of manifest lines that name none: Spanish, or es.")
    ] = None,
    group_key: Annotated[
        str, typer.Option(help="Manifest field that names the speaker (default: group, speaker, client_id ...).")
    ] = "",
    json_: Json = False,
) -> None:
    """Transcribe and score evaluation sets.

    Writes the word error rate with its interval, transcripts, kinds of errors, and the worst utterances.
    The same command resumes a run that was killed. If a corpus was added, only that corpus is decoded.

    Example: caspi evaluate runs/demo/train/average runs/demo/corpus --out runs/demo/evaluation --stress 50
    """
    from caspi import commands

    other = [str(corpus) for corpus in retention or ()]
    options = commands.evaluate.EvaluateOptions(
        split, limit, other, stress, context, identify, equivalents, language, group_key
    )
    outcome = commands.evaluate.run(model, corpora, out, options)
    if not json_:
        _show_scores(outcome.summary)
    _finish(outcome, json_)


@app.command()
def score(
    file: Annotated[
        Path,
        typer.Argument(
            help="A table (csv, tsv, jsonl, json, parquet) of references and hypotheses, or a file of references."
        ),
    ],
    hypotheses: Annotated[
        Optional[Path], typer.Argument(help="Hypotheses: trn, Kaldi text, ctm (or stm), or plain lines.")
    ] = None,
    reference: Annotated[str, typer.Option(help="Column of references (default: its usual names).")] = "",
    hypothesis: Annotated[str, typer.Option(help="Column of hypotheses.")] = "",
    group: Annotated[str, typer.Option(help="Column that names the speaker.")] = "",
    id_: Annotated[str, typer.Option("--id", help="Column of ids.")] = "",
    out: Annotated[Optional[Path], typer.Option(help="Output folder (default: FILE-score).")] = None,
    language: Annotated[Optional[str], typer.Option(help="Language of rows that name none (default: Hebrew).")] = None,
    equivalents: Annotated[
        Optional[Path],
        typer.Option(help="CSV of spellings that count as the same word, one set per line; reported separately."),
    ] = None,
    json_: Json = False,
) -> None:
    """Score the transcripts of any system. The scores are the same as those of evaluate.

    Examples: caspi score whisper.csv --out runs/whisper
              caspi score ref.trn hyp.trn --language English
    """
    from caspi import commands

    columns = {"reference": reference, "hypothesis": hypothesis, "group": group, "id": id_}
    place = out or _beside(file, f"{file.name}-score")
    outcome = commands.score.run(file, language, place, equivalents, hypotheses=hypotheses, columns=columns)
    if not json_:
        _show_scores(outcome.summary)
    _finish(outcome, json_)


_NAMES_AT_MOST = 36  # characters of a name in a table of 80 columns


def _show_scores(summary: dict[str, Any]) -> None:
    """Prints a table of 80 columns (scores, relaxations, breakdowns, stress conditions), then warning signs."""
    from caspi.reporting.bidi import shown
    from caspi.reporting.wording import counted, percent, rate

    console = Console(stderr=True, width=min(80, Console(stderr=True).width))
    table = Table(title=counted(summary), title_justify="left", expand=False)
    for column in ("", "WER [95 %]", "CER", "words"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for name in ("leaderboard", "fair"):
        found = summary[name]
        table.add_row(name, rate(found["wer"], found["wer_ci"]), rate(found["cer"]), f"{found['words']:,}")
    for name, relaxed in summary["relaxations"].items():
        table.add_row(f"fair, {name} ignored", f"{percent(relaxed['wer'])}, {percent(relaxed['removed'])} less", "", "")
    sections = [
        {name: part["leaderboard"] for name, part in summary[f"by_{key}"].items()}
        for key in ("source", "duration", "noise", "script", "language")
        if len(summary[f"by_{key}"]) > 1
    ]
    sections.append(summary.get("stress", {}).get("conditions", {}))
    sections.append({f"context: {shown}": found for shown, found in summary.get("context", {}).items()})
    for folder, languages in summary.get("retention", {}).items():
        sections.append({f"{spoken}, {Path(folder).name}": found for spoken, found in languages.items()})
    for section in sections:
        table.add_section()
        for name, found in section.items():
            words = f"{found['words']:,}" if "words" in found else ""
            table.add_row(shown(name, _NAMES_AT_MOST), rate(found["wer"], found["wer_ci"]), rate(found["cer"]), words)
    console.print(table)
    for line in _signs(summary):
        console.print(line, soft_wrap=True, highlight=False)


def _signs(summary: dict[str, Any]) -> list[str]:
    """Lines on what the word error rate does not show: empty or truncated hypotheses, hallucinations, languages."""
    from caspi.reporting.wording import plural

    counts = {
        "empty": summary["leaderboard"]["empty"], "cut off": summary["truncated"],
        "decoded again in pieces": summary["retried"], **summary["made_up"],
    }  # fmt: skip
    found = [f"{name} {count:,}" for name, count in counts.items() if count]
    lines = [f"of {plural(summary['utterances'], 'utterance')}: {', '.join(found)}"] if found else []
    for spoken, taken in (summary["named"] or {}).items():
        times = ", ".join(f"{name} {count:,} times" for name, count in taken.items())
        lines.append(f"{spoken} was identified as {times}")
    return lines


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="EVAL_A", help="A folder made by caspi evaluate or score.")],
    b: Annotated[Path, typer.Argument(metavar="EVAL_B", help="Another such folder, of the same utterances.")],
    out: Annotated[Optional[Path], typer.Option(help="Output folder of the page (default: beside B).")] = None,
    json_: Json = False,
) -> None:
    """Test whether B is better than A. Says whether the difference is significant.

    Example: caspi compare runs/demo/evaluation-last runs/demo/evaluation
    """
    from caspi import commands

    _finish(commands.compare.run(a, b, out or _beside(b, f"{a.name}-against-{b.name}")), json_)


def _beside(path: Path, name: str) -> Path:
    """Default output folder, beside `path`. Raises UsageError if `path` has no name."""
    if not path.name:
        raise UsageError(f"{path} has no name, so there is no default output folder: give --out")
    return path.with_name(name)


@app.command()
def transcribe(
    model: Annotated[str, typer.Argument(help="tiny, a folder or a Hub id.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE ...", help="Audio files in any format.")],
    context: Annotated[str, typer.Option(help="Hotwords (names and terms), or the previous text.")] = "",
    language: Annotated[
        Optional[str], typer.Option(help="Language of the audio, such as Hebrew (default: the model identifies it).")
    ] = None,
    format: Annotated[str, typer.Option(help="Output format: txt, json, srt or vtt.")] = "txt",
    out: Annotated[
        Optional[Path], typer.Option(help="Output folder, with one file for each input (default: stdout).")
    ] = None,
    times: Annotated[
        bool,
        typer.Option("--times", help="Write the times of every phrase; needs a model trained with train.timestamps."),
    ] = False,
    json_: Json = False,
) -> None:
    """Transcribe audio of any length to text or subtitles.

    Example: caspi transcribe runs/demo/train/average talk.mp3 --language Hebrew --format srt --out subtitles
    """
    from caspi import commands

    outcome = commands.transcribe.run(model, files, format, out, context, language, times=times)
    if out is None and not json_:
        for file in outcome.summary["files"]:
            print(file["output"], end="")
    _finish(outcome, json_)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A model folder.")],
    to: Annotated[str, typer.Option(help="hf (transformers, bf16) or qwen-asr (original layout).")],
    out: Annotated[Path, typer.Option(help="Output folder; must be new.")],
    json_: Json = False,
) -> None:
    """Write a checkpoint that other programs can load.

    Example: caspi export runs/demo/train/average --to qwen-asr --out runs/demo/qwen-asr
    """
    from caspi import commands

    _finish(commands.export.run(model, to, out), json_)


@app.command()
def publish(
    model: Annotated[str, typer.Argument(help="A model folder.")],
    repository: Annotated[str, typer.Argument(metavar="REPO", help="Repository on the Hub: user/name.")],
    public: Annotated[bool, typer.Option("--public", help="Make the repository public (default: private).")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and list, upload nothing.")] = False,
    json_: Json = False,
) -> None:
    """Upload a model to the Hub. Takes either layout, and first checks that the model loads.

    Example: caspi publish runs/demo/train/average me/caspi-demo --dry-run
    """
    from caspi import commands

    outcome = commands.publish.run(model, repository, dry_run, private=not public)
    if dry_run and not json_:
        for file in outcome.summary["files"]:
            _say(f"{file['file']}: {file['bytes']:,} bytes")
    _finish(outcome, json_)


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="tiny, a folder or a Hub id.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
) -> None:
    """Serve OpenAI's transcription endpoint over HTTP.

    Example: caspi serve runs/demo/train/average --port 8000
    """
    from caspi.errors import MissingDependency

    try:
        import uvicorn

        from caspi.serving.app import application
    except ImportError as error:
        raise MissingDependency("caspi serve", package="fastapi", extra="serve") from error
    from caspi.inference.transcriber import Transcriber

    uvicorn.run(application(Transcriber.of(model)), host=host, port=port)


@app.command()
def doctor(json_: Json = False) -> None:
    """Check this machine. Shows what it has, what is missing and how to install it.

    Example: caspi doctor
    """
    from dataclasses import asdict

    from caspi.commands.doctor import examine

    findings = examine()
    if json_:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            print(f"{finding.status:8} {finding.what:14} {finding.detail}")
    if any(finding.status == "broken" for finding in findings):
        raise typer.Exit(1)


def _quiet_libraries() -> None:
    """Turns off messages and progress bars of libraries, and makes idle OpenMP threads sleep."""
    # If threads spin while they wait for work, training runs at half speed beside one other busy process, and no
    # faster without one (docs/log.md, 2026-11-30). The variable is read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # hides messages about retries
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


_INTERRUPTED = 130  # the exit code of shells after Ctrl-C; typer uses it too
_RESUMES = "caspi: interrupted; run the same command again to resume from what was saved"


class _Missed:
    """Sends a Ctrl-C again if a library's callback or clean-up received it: Python only prints and ignores it there."""

    def __init__(self) -> None:
        self._again: threading.Timer | None = None

    def __call__(self, what: sys.UnraisableHookArgs) -> None:
        """Called as sys.unraisablehook."""
        if what.exc_type is not KeyboardInterrupt:
            sys.__unraisablehook__(what)
            return
        self._again = threading.Timer(0.05, _thread.interrupt_main)
        self._again.daemon = True
        self._again.start()

    def taken_back(self) -> bool:
        """Cancels a Ctrl-C that is about to be sent again. Returns whether there was one."""
        if self._again is None or not self._again.is_alive():
            return False
        self._again.cancel()
        return True


def _guarded(run: Callable[[], object], debug: bool) -> int:
    """Runs a command and returns its exit code. A failure is one line, with `--debug` also a traceback."""
    missed = _Missed()
    before, sys.unraisablehook = sys.unraisablehook, missed
    try:
        run()
    except SystemExit as error:  # raised by typer: usage errors, --help, typer.Exit
        if error.code == _INTERRUPTED:
            _say(_RESUMES)
        return error.code if isinstance(error.code, int) else 0
    except KeyboardInterrupt:
        _say(_RESUMES)
        return _INTERRUPTED
    except Exception as error:
        if missed.taken_back():  # a library turned the Ctrl-C in its callback into this error
            _say(_RESUMES)
            return _INTERRUPTED
        return _failed(error, debug)
    finally:
        sys.unraisablehook = before
    return 0


def _failed(error: Exception, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    if isinstance(error, CaspiError):
        _say(f"caspi: {error}")
        return error.exit_code
    if isinstance(error, OSError):
        _say(f"caspi: {error.filename or 'input or output'}: {error.strerror or error}")
    elif not debug:
        first = first_line(error)
        _say(f"caspi: unexpected {type(error).__name__}: {first}; `caspi --debug ...` shows where")
    return 1


def main() -> None:
    """Entry point."""
    _quiet_libraries()
    show_log()
    sys.exit(_guarded(app, debug="--debug" in sys.argv))


if __name__ == "__main__":
    main()
