"""The command line: one command for each stage, without logic. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.console import Console

from caspi.atomic_output import default_output
from caspi.errors import UsageError

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
    typer.Argument(metavar="KEY=VALUE", help="Override recipe keys, such as train.effective_batch=64."),
]

GpuTable = Annotated[Optional[Path], typer.Option(help="YAML file with further GPU kinds and prices.")]
MeanSeconds = Annotated[float, typer.Option(help="With --hours: the mean length of a clip, in seconds.")]
Beams = Annotated[
    int,
    typer.Option(
        "--beams", "--beam-size", min=1, max=32, help="Beams of a beam search; 1 takes the most likely token each time."
    ),
]
LoopGuard = Annotated[
    bool,
    typer.Option("--loop-guard", help="Decode what repeats itself again with repetitions forbidden; it is counted."),
]
Temperature = Annotated[
    str,
    typer.Option(
        metavar="T[,T...]",
        help="0: the most likely token. Above: random. Further values are tried where a text is unlikely or repeats "
        "itself: 0,0.2,0.4,0.6,0.8,1.",
    ),
]
PreviousText = Annotated[
    bool,
    typer.Option(
        "--previous-text",
        help="Give each window of a long recording the text before it; for models that were trained with it.",
    ),
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
        console = Console(stderr=outcome.path != Path())  # stdout has the path alone
        for part in outcome.tables:
            console.print(part, soft_wrap=isinstance(part, str), highlight=False, markup=False)
        print(outcome.text, end="")
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
def init(
    data: Annotated[
        Path, typer.Argument(metavar="[DIR|FILE]", help="Your data: a folder, a table, a manifest.")
    ] = Path(),
    out: Annotated[Optional[Path], typer.Option(help="The recipe (default: NAME.yaml, after the data).")] = None,
    language: Annotated[
        Optional[str], typer.Option(help="Of the transcripts: a name or an ISO code (default: by their letters).")
    ] = None,
    model: Annotated[
        Optional[str],
        typer.Option(help="To start from: tiny, a folder, a Hub id (default: 1.7B with a GPU, else tiny)."),
    ] = None,
    official: Annotated[
        Optional[str],
        typer.Option(metavar="COMMAND", help="Instead of data: a command of the official script qwen3_asr_sft.py."),
    ] = None,
    json_: Json = False,
) -> None:
    """Look at your data and write a recipe for it.

    Knows tables (CSV, TSV; Common Voice, LJSpeech), manifests (also NeMo's), lhotse cuts, Kaldi folders, parquet and
    Arrow files, data sets saved by datasets, WebDataset's tar files, and audio files with texts beside them.

    \b
    Examples: caspi init data/recordings
              caspi init --official "python qwen3_asr_sft.py --train_file train.jsonl --lr 2e-5"
    """
    from caspi import commands

    if official is not None:
        _finish(commands.init.run_official(official, out, language), json_)
    else:
        _finish(commands.init.run(data, out, language, model), json_)


@app.command()
def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    first: Annotated[
        Optional[str], typer.Option("--from", metavar="STEP", help="Run this step and those after it again.")
    ] = None,
    last: Annotated[Optional[str], typer.Option("--until", metavar="STEP", help="Stop after this step.")] = None,
    aligner: Annotated[
        Optional[str], typer.Option(help="For the audit (default: tiny-aligner for Hebrew, else no audit).")
    ] = None,
    audit: Annotated[
        bool, typer.Option("--audit/--no-audit", help="Stop where too many transcripts are faulty.")
    ] = True,
    budget: Annotated[
        Optional[float], typer.Option(min=0, help="Stop before training that costs more dollars.")
    ] = None,
    parent: Annotated[
        Optional[Path], typer.Option(metavar="RUN", help="Another run to compare with: runs/NAME.")
    ] = None,
    export: Annotated[Optional[str], typer.Option(help="A format of caspi export, or none.")] = "hf",
    publish: Annotated[Optional[str], typer.Option(metavar="REPO", help="Publish to the Hub: user/name.")] = None,
    retention: Annotated[
        Optional[list[str]], typer.Option(metavar="CORPUS", help="Another language's corpus; may be repeated.")
    ] = None,
    bucket: Annotated[
        Optional[str],
        typer.Option(
            metavar="URL", help="Keep the run there (s3://, gs://, hf://, a folder), so that another machine can go on."
        ),
    ] = None,
    json_: Json = False,
) -> None:
    """Run everything: prepare, audit, plan, train, average, evaluate, compare, export, publish.

    Run again, it resumes; what is done and has not changed is not done again. It stops, exit code 3, where the audit
    says STOP, where training would not fit, or would cost more than the budget.

    Example: caspi run mine.yaml
    """
    from caspi import commands

    options = commands.run.RunOptions(
        first, last, aligner, audit, budget, parent, None if export == "none" else export, publish,
        tuple(retention or ()), bucket=bucket,
    )  # fmt: skip
    file = shlex.join([str(recipe), *(overrides or [])])
    _finish(commands.run.run(_recipe(recipe, overrides), file, options), json_)


@app.command()
def status(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, such as runs/NAME.")],
    json_: Json = False,
) -> None:
    """Show what a run has done and where it is.

    Example: caspi status runs/mine
    """
    from caspi import commands

    _finish(commands.run.status(folder), json_)


recipe_app = typer.Typer(no_args_is_help=True, help="What a recipe may say.")
app.add_typer(recipe_app, name="recipe")


@recipe_app.command("schema")
def recipe_schema() -> None:
    """Print the JSON schema of a recipe, with which editors complete and check its keys.

    Example: caspi recipe schema > recipe.schema.json
    """
    from caspi import recipe

    print(json.dumps(recipe.schema(), indent=1))


@recipe_app.command("check")
def recipe_check(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Check a recipe: all errors in one line, with the keys that are valid there.

    Example: caspi recipe check mine.yaml
    """
    _say(f"{recipe}: {_recipe(recipe, overrides).name} is a valid recipe")


@app.command()
def prepare(
    recipe: RecipeFile,
    overrides: Overrides = None,
    engine: Annotated[str, typer.Option(help="local (processes on this machine) or ray (extra `ray`).")] = "local",
    json_: Json = False,
) -> None:
    """Make a corpus from sources.

    The same command resumes a run that was killed. If a source was added at the end, only that source is prepared.

    Example: caspi prepare recipes/demo.yaml corpus.workers=4
    """
    from caspi import commands

    _finish(commands.prepare.run(_recipe(recipe, overrides), engine), json_)


corpus_app = typer.Typer(no_args_is_help=True, help="Inspect, export or publish a corpus.")
app.add_typer(corpus_app, name="corpus")

CorpusFolder = Annotated[Path, typer.Argument(metavar="CORPUS", help="A folder made by caspi prepare.")]


@corpus_app.command("info")
def corpus_info(corpus: CorpusFolder, json_: Json = False) -> None:
    """Show the size of each split and distributions of measures.

    The measures are length, speaking rate, level, signal-to-noise ratio and bandwidth.

    Example: caspi corpus info runs/demo/corpus
    """
    from caspi import commands

    _finish(commands.corpus.info(corpus), json_)


@corpus_app.command("sample")
def corpus_sample(
    corpus: CorpusFolder,
    count: Annotated[int, typer.Option(min=1, help="Number of utterances.")] = 20,
    seed: Annotated[int, typer.Option(help="Random seed; another seed draws other utterances.")] = 0,
    split: Annotated[Optional[str], typer.Option(help="train, validation or test (default: all).")] = None,
    out: Annotated[Optional[Path], typer.Option(help="Output folder of the page (default: CORPUS-sample).")] = None,
    json_: Json = False,
) -> None:
    """Write a page to listen to random utterances.

    Example: caspi corpus sample runs/demo/corpus --count 20
    """
    from caspi import commands

    page = out or default_output(corpus, "sample")
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

    Example: caspi corpus export runs/demo/corpus --to jsonl --out runs/demo/jsonl
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
    """Publish a corpus as a data set on the Hub.

    First check that the licences of its sources allow it. The upload includes a card.

    Example: caspi corpus push runs/demo/corpus me/demo --dry-run
    """
    from caspi import commands

    _finish(commands.corpus.push(corpus, repository, not public, dry_run), json_)


@app.command()
def audit(
    corpus: CorpusFolder,
    aligner: Annotated[Optional[str], typer.Option(help="An aligner: tiny-aligner, a folder or a Hub id.")] = None,
    asr: Annotated[
        Optional[list[str]], typer.Option(metavar="MODEL", help="A recogniser: a folder or a Hub id; may be repeated.")
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="Output folder (default: CORPUS-audit).")] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "train",
    share: Annotated[
        float, typer.Option(min=0.0001, max=1, help="Share of every source that is audited; 1: all.")
    ] = 0.1,
    at_least: Annotated[int, typer.Option(min=1, help="Utterances of every source, or all that it has.")] = 300,
    at_most: Annotated[int, typer.Option(min=1, help="Utterances of every source, unless --share is 1.")] = 5000,
    seed: Annotated[int, typer.Option(help="Another one draws another sample.")] = 0,
    proceed_below: Annotated[
        float, typer.Option(min=0, max=1, help="PROCEED if surely fewer transcripts are faulty.")
    ] = 0.10,
    stop_above: Annotated[float, typer.Option(min=0, max=1, help="STOP, exit code 3, if surely more are.")] = 0.15,
    json_: Json = False,
) -> None:
    """Estimate how many transcripts are faulty, list them, and say whether to train.

    An aligner, one or more recognisers, or both listen to a sample. Faults made on purpose show what they can find.

    Example: caspi audit runs/demo/corpus --aligner tiny-aligner --asr runs/demo/train/average
    """
    from caspi import commands
    from caspi.audit.audit import AuditConfig
    from caspi.audit.sampling import Sampling

    if proceed_below > stop_above:
        raise UsageError(f"--proceed-below {proceed_below:g} is above --stop-above {stop_above:g}")
    sampling = Sampling(share=share, at_least=at_least, at_most=at_most, seed=seed)
    config = AuditConfig(sampling=sampling, proceed_below=proceed_below, stop_above=stop_above)
    _finish(commands.audit.run(corpus, aligner, asr or [], out, config, split), json_)


@app.command()
def repair(
    corpus: CorpusFolder,
    audit: Annotated[Path, typer.Option("--from", metavar="AUDIT", help="Folder that caspi audit wrote.")],
    policy: Annotated[
        Optional[Path],
        typer.Option(metavar="FILE", help="YAML: what is done with flagged utterances (docs/stages.md)."),
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder of the new corpus (default: CORPUS-repaired).")] = None,
    json_: Json = False,
) -> None:
    """Make a new corpus in which what an audit flags is mended or left out. The old one stays as it is.

    Boundaries are moved, clips are cut to the part that has their words, numbers are written as they were heard; each
    change must pass the audit. What nothing helps is dropped, or marked for people.

    Example: caspi repair runs/demo/corpus --from runs/demo/corpus-audit
    """
    from caspi import commands

    _finish(commands.repair.run(corpus, audit, out, commands.repair.policy_of(policy)), json_)


@app.command()
def label(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="CORPUS|AUDIO...", help="A corpus, or audio files and folders.")
    ],
    asr: Annotated[
        list[str], typer.Option(metavar="MODEL", help="A recogniser; give two. The first writes the labels.")
    ],
    known: Annotated[
        Optional[Path], typer.Option(metavar="CORPUS", help="A corpus with transcripts of people: how sure is a label?")
    ] = None,
    known_split: Annotated[str, typer.Option(help="Its split: train, validation or test.")] = "validation",
    precision: Annotated[
        float, typer.Option(min=0.01, max=0.999, help="Share of the labels that shall surely be right.")
    ] = 0.9,
    language: Annotated[
        Optional[str], typer.Option(help="Spoken language of audio files: a name or an ISO code (default: Hebrew).")
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder of the new corpus (default: INPUT-labelled).")] = None,
    json_: Json = False,
) -> None:
    """Write transcripts for speech that has none, where two recognisers agree.

    Labels are training data only: they never become validation or test data. With transcripts that are known
    (--known), every label has a confidence, and only those are kept of which the wanted share is surely right.

    Example: caspi label recordings/ --asr runs/a/train/best --asr runs/b/train/best --known runs/a/corpus
    """
    from caspi import commands
    from caspi.audit.label import LabelConfig

    config = LabelConfig(precision=precision)
    outcome = commands.label.run(inputs, asr, known, out, config, known_split=known_split, language_name=language)
    _finish(outcome, json_)


@app.command()
def plan(
    recipe: RecipeFile,
    overrides: Overrides = None,
    gpu: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="[N x ]KIND",
            help="GPU kind: a100-40gb, a100-80gb, h100, h200, l4; with a number, such as 8xh100, that many. Several "
            "are put beside each other.",
        ),
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Number of GPUs of kinds without a number.")] = 1,
    hours: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="H|SOURCE=H", help="Plan without a corpus, for this many hours of speech; by source if it is mixed."
        ),
    ] = None,
    mean_seconds: MeanSeconds = 8.0,
    sharded: Annotated[
        bool, typer.Option("--sharded", help="The GPUs share the weights (recipes/accelerate/fsdp2.yaml).")
    ] = False,
    pilot: Annotated[
        bool, typer.Option("--pilot", help="Measure a few micro-batches of every stage on this machine.")
    ] = False,
    gpu_table: GpuTable = None,
    json_: Json = False,
) -> None:
    """Predict batches, memory, hours and cost of training.

    \b
    Examples: caspi plan recipes/round2.yaml --gpu a100-40gb --gpus 2
              caspi plan recipes/round2.yaml --pilot
              caspi plan recipes/round1.yaml --hours 300 --gpu 2xa100-40gb --gpu 8xa100-40gb --gpu h100
    """
    from caspi import commands

    options = commands.plan.options(gpu or [], gpus, hours or [], mean_seconds, pilot, gpu_table, sharded)
    _finish(commands.plan.run(_recipe(recipe, overrides), options), json_)


@app.command()
def launch(
    recipe: RecipeFile,
    bucket: Annotated[
        str, typer.Option(metavar="URL", help="Where the run is kept (s3://, gs://, hf://), so that it can go on.")
    ],
    overrides: Overrides = None,
    on: Annotated[str, typer.Option(help="skypilot, hf-jobs, dstack or slurm.")] = "skypilot",
    gpu: Annotated[str, typer.Option(help="GPU kind: a100-40gb, a100-80gb, h100, h200, l4.")] = "h100",
    gpus: Annotated[int, typer.Option(min=1, help="GPUs of the machine.")] = 1,
    spot: Annotated[bool, typer.Option("--spot", help="A machine that is cheaper and may be taken away.")] = False,
    hours: Annotated[
        Optional[list[str]], typer.Option(metavar="H|SOURCE=H", help="Hours of speech, if there is no corpus here.")
    ] = None,
    mean_seconds: MeanSeconds = 8.0,
    run: Annotated[
        Optional[str], typer.Option(metavar="OPTIONS", help="Options of caspi run, such as '--budget 40 --no-audit'.")
    ] = None,
    secret: Annotated[
        Optional[list[str]],
        typer.Option(metavar="NAME", help="A further environment variable for the job; its value is not written."),
    ] = None,
    install: Annotated[
        Optional[str],
        typer.Option(metavar="COMMAND", help="How the machine installs caspi (default: as here, if from git)."),
    ] = None,
    gpu_table: GpuTable = None,
    out: Annotated[Path, typer.Option(help="Folder for the task file.")] = Path(),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write the task file and say what it costs.")] = False,
    json_: Json = False,
) -> None:
    """Run a recipe on a rented machine: write the task file, say what it costs, start it.

    \b
    Examples: caspi launch mine.yaml --on skypilot --gpu h100 --gpus 8 --spot --bucket s3://mine/round1 --dry-run
              caspi launch mine.yaml --on hf-jobs --gpu h200 --bucket hf://buckets/me/round1
    """
    from caspi import commands
    from caspi.commands.launch import LaunchOptions

    planned = commands.plan.options([gpu], gpus, hours or [], mean_seconds, False, gpu_table, False)
    _check_run_options(str(recipe), run)
    options = LaunchOptions(
        on, bucket, gpu, gpus, spot, tuple(secret or ()), install, out, dry_run, tuple(shlex.split(run or "")),
        gpu_table, planned.assumed,
    )  # fmt: skip
    _finish(commands.launch.run(_recipe(recipe, overrides), options), json_)


def _check_run_options(recipe: str, options: str | None) -> None:
    """Raises UsageError for options that caspi run does not know: on the rented machine they would fail later."""
    command: Any = typer.main.get_command(app)
    try:
        command.commands["run"].make_context("run", [recipe, *shlex.split(options or "")])
    except Exception as error:  # of click, which typer may bring itself
        raise UsageError(f"--run {options!r}: {error}") from error


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
    page = out or default_output(made.corpus.path, "augmented")
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

    \b
    Examples: caspi train recipes/demo.yaml
              caspi train recipes/round2.yaml model.init=random model.scale=1.7b --dry-run
    """
    from caspi import commands

    loaded = _recipe(recipe, overrides)
    _finish(commands.train.dry_run(loaded) if dry_run else commands.train.run(loaded), json_)


@app.command()
def search(
    recipe: RecipeFile,
    space: Annotated[
        Path, typer.Option(metavar="FILE", help="The keys to try and their ranges: recipes/search/demo.yaml.")
    ],
    overrides: Overrides = None,
    trials: Annotated[int, typer.Option(min=1, help="Number of training runs.")] = 20,
    workers: Annotated[int, typer.Option(min=1, help="Runs at the same time; GPUs are shared out.")] = 1,
    out: Annotated[
        Optional[Path], typer.Option(help="Output folder (default: the run's folder, with -search).")
    ] = None,
    json_: Json = False,
) -> None:
    """Search for the best values of a recipe's keys, such as learning rates. Run again, it resumes.

    Runs whose validation errors are clearly more than those of others are ended early. Other machines that share the
    folder can work on the same search with the same command. Needs: pip install optuna.

    Example: caspi search recipes/demo.yaml --space recipes/search/demo.yaml --trials 20
    """
    from caspi import commands

    _finish(commands.search.run(_recipe(recipe, overrides), space, trials, workers, out), json_)


@app.command()
def average(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder made by caspi train.")],
    top: Annotated[int, typer.Option(min=1, help="Number of best checkpoints.")] = 3,
    weights: Annotated[
        Optional[str], typer.Option(help="Weights from the best checkpoint to the worst, such as 3,2,1.")
    ] = None,
    before: Annotated[
        Optional[str],
        typer.Option("--with", metavar="MODEL", help="The model before training: find one between it and the best."),
    ] = None,
    alpha: Annotated[
        Optional[list[str]],
        typer.Option(metavar="A[,GROUP=A]", help="With --with: shares of the trained weights to try; may be repeated."),
    ] = None,
    retention: Annotated[
        Optional[list[str]], typer.Option(metavar="CORPUS", help="With --with: other languages; may be repeated.")
    ] = None,
    max_forgetting: Annotated[
        float, typer.Option(min=0, help="With --with: the largest mean relative rise of other languages' WER.")
    ] = 0.05,
    json_: Json = False,
) -> None:
    """Average the best checkpoints of a run; or find a model between it and the one before, which forgets less.

    \b
    Examples: caspi average runs/demo/train --top 3
              caspi average runs/demo/train --with tiny --retention runs/demo/others --max-forgetting 0.05
    """
    from caspi import commands

    if before is None:
        _finish(commands.average.run(run, top, _weights(weights)), json_)
    else:
        _finish(commands.interpolate.run(run, before, alpha or [], retention or [], max_forgetting), json_)


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
    model: Annotated[str, typer.Argument(metavar="MODEL", help="tiny, a folder or a Hub id.")],
    corpora: Annotated[
        list[str],
        typer.Argument(
            metavar="CORPUS|MANIFEST|BENCHMARK",
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
    beams: Beams = 1,
    loop_guard: LoopGuard = False,
    previous_text: PreviousText = False,
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
    from caspi.evaluation.options import EvaluationOptions
    from caspi.inference.decoding_options import DecodingOptions

    other = [str(corpus) for corpus in retention or ()]
    decoding = DecodingOptions(beams, loop_guard, previous_text)
    options = EvaluationOptions(
        split, limit, other, stress, context, identify, decoding, equivalents, language, group_key
    )
    _finish(commands.evaluate.run(model, corpora, out, options), json_)


@app.command()
def score(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A table (csv, tsv, jsonl, json, parquet) of references and hypotheses, or a file of references.",
        ),
    ],
    hypotheses: Annotated[
        Optional[Path],
        typer.Argument(metavar="HYPOTHESES", help="Hypotheses: trn, Kaldi text, ctm (or stm), or plain lines."),
    ] = None,
    reference: Annotated[str, typer.Option(help="Column of references (default: its usual names).")] = "",
    hypothesis: Annotated[str, typer.Option(help="Column of hypotheses.")] = "",
    group: Annotated[str, typer.Option(help="Column that names the speaker.")] = "",
    id_: Annotated[str, typer.Option("--id", help="Column of ids.")] = "",
    out: Annotated[Optional[Path], typer.Option(help="Output folder (default: FILE-score).")] = None,
    language: Annotated[
        Optional[str],
        typer.Option(help="Language of rows that name none (default: Hebrew, if most letters are Hebrew)."),
    ] = None,
    equivalents: Annotated[
        Optional[Path],
        typer.Option(help="CSV of spellings that count as the same word, one set per line; reported separately."),
    ] = None,
    json_: Json = False,
) -> None:
    """Score the transcripts of any system. The scores are the same as those of evaluate.

    \b
    Examples: caspi score whisper.csv --out runs/whisper
              caspi score ref.trn hyp.trn --language English
    """
    from caspi import commands

    columns = {"reference": reference, "hypothesis": hypothesis, "group": group, "id": id_}
    place = out or _beside(file, f"{file.name}-score")
    _finish(commands.score.run(file, language, place, equivalents, hypotheses=hypotheses, columns=columns), json_)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="EVAL_A", help="A folder made by caspi evaluate or score.")],
    b: Annotated[Path, typer.Argument(metavar="EVAL_B", help="Another such folder, of the same utterances.")],
    out: Annotated[Optional[Path], typer.Option(help="Output folder of the page (default: beside B).")] = None,
    json_: Json = False,
) -> None:
    """Test whether B is better than A. Says whether the difference is significant.

    Example: caspi compare runs/demo/evaluation-start runs/demo/evaluation
    """
    from caspi import commands

    _finish(commands.compare.run(a, b, out or _beside(b, f"{a.name}-against-{b.name}")), json_)


@app.command()
def combine(
    evaluations: Annotated[
        list[Path], typer.Argument(metavar="EVAL...", help="Folders of caspi evaluate or score, the best known first.")
    ],
    out: Annotated[Path, typer.Option(help="Output folder; caspi compare takes it as it takes an evaluation.")],
    json_: Json = False,
) -> None:
    """Vote word by word over the transcripts of several systems (ROVER), with their confidences.

    Example: caspi combine runs/a/evaluation runs/b/evaluation runs/c/evaluation --out runs/voted
    """
    from caspi import commands

    _finish(commands.combine.run(evaluations, out), json_)


def _beside(path: Path, name: str) -> Path:
    """Default output folder, beside `path`. Raises UsageError if `path` has no name."""
    if not path.name:
        raise UsageError(f"{path} has no name, so there is no default output folder: give --out")
    return path.with_name(name)


@app.command()
def transcribe(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="tiny, a folder or a Hub id.")],
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="Audio or video files in any format, folders, patterns such as 'talks/*.mp3', JSONL manifests, or - "
            "for stdin.",
        ),
    ],
    format: Annotated[
        str,
        typer.Option(
            help="Output formats, separated by commas: txt, json, srt, vtt, tsv, csv, karaoke (WebVTT with the time of "
            "every word), ctm, textgrid; or all."
        ),
    ] = "txt",
    out: Annotated[
        Optional[Path], typer.Option(help="Output folder, with one file for each input and format (default: stdout).")
    ] = None,
    language: Annotated[
        Optional[str], typer.Option(help="Language of the audio: he, Hebrew, ... or auto: the model identifies it.")
    ] = None,
    hotwords: Annotated[Optional[Path], typer.Option(help="A file with a name or term per line.")] = None,
    context: Annotated[
        str, typer.Option("--context", "--initial-prompt", help="Names and terms, or the text before the audio.")
    ] = "",
    word_timestamps: Annotated[
        bool, typer.Option("--word-timestamps", help="Find the time of every word (subtitles always have them).")
    ] = False,
    aligner: Annotated[
        Optional[str], typer.Option(help="The model that finds them (default: tiny-aligner, which knows Hebrew).")
    ] = None,
    vad: Annotated[bool, typer.Option("--vad/--no-vad", help="Transcribe only where somebody speaks.")] = True,
    diarize: Annotated[
        bool, typer.Option("--diarize", help="Name the speakers; needs the package pyannote.audio.")
    ] = False,
    clip: Annotated[
        Optional[str], typer.Option(metavar="START-END", help="Only this part: 90-120, 1:30-2:00, 1:30- (to the end).")
    ] = None,
    channel: Annotated[
        Optional[int], typer.Option(min=0, help="Only this channel, from 0 (default: the mean of all).")
    ] = None,
    beams: Beams = 1,
    temperature: Temperature = "0",
    loop_guard: LoopGuard = False,
    previous_text: PreviousText = False,
    times: Annotated[
        bool,
        typer.Option("--times", help="Write the times of every phrase; needs a model trained with train.timestamps."),
    ] = False,
    batch_size: Annotated[
        str, typer.Option(metavar="N|auto", help="Windows that are decoded at once (default: what the device can use).")
    ] = "auto",
    json_: Json = False,
) -> None:
    """Transcribe audio of any length to text or subtitles.

    The same command continues a run that was stopped: files that are done are kept. A bad file is named at the end and
    costs nothing else.

    Example: caspi transcribe runs/demo/train/average talks --language he --format srt,json --out subtitles
    """
    from caspi import commands

    options = commands.transcribe.TranscribeOptions(
        formats=format, out=out, context=context, hotwords=hotwords, language=language, times=times,
        word_timestamps=word_timestamps, aligner=aligner, clip=clip, channel=channel, detect_speech=vad,
        diarize=diarize, rows=commands.transcribe.rows_option(batch_size),
        decoding=commands.transcribe.decoding_options(beams, loop_guard, previous_text, temperature),
    )  # fmt: skip
    _finish(commands.transcribe.run(model, files, options), json_)


@app.command()
def align(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="An aligner: tiny-aligner, a folder or a Hub id.")],
    source: Annotated[
        str, typer.Argument(metavar="AUDIO|CORPUS", help="An audio file, or a corpus or manifest with texts.")
    ],
    text: Annotated[Optional[Path], typer.Argument(metavar="TEXT", help="A file with the text of AUDIO.")] = None,
    out: Annotated[Optional[Path], typer.Option(help="Output folder (default for AUDIO: stdout).")] = None,
    format: Annotated[str, typer.Option(help="json, ctm, textgrid or srt.")] = "json",
    language: Annotated[Optional[str], typer.Option(help="Language of TEXT (default: Hebrew).")] = None,
    split: Annotated[str, typer.Option(help="Of a corpus: train, validation or test.")] = "test",
    json_: Json = False,
) -> None:
    """Find the times of words whose text is known.

    tiny-aligner knows Hebrew from synthetic speech; train your own with model.task: align. If a corpus has word times,
    the accuracy is measured against them.

    Example: caspi align tiny-aligner talk.mp3 talk.txt --format srt
    """
    from caspi import commands

    outcome = commands.align.run(model, source, text, out, format_name=format, split=split, spoken=language)
    _finish(outcome, json_)


@app.command()
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model folder.")],
    to: Annotated[
        str,
        typer.Option(
            help="hf (transformers, bf16), qwen-asr (original layout), or with the decoder in eight bits: int8, fp8, "
            "qwen-asr-int8, qwen-asr-fp8 (W8A8 for vLLM)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Output folder; an earlier export there is replaced.")],
    json_: Json = False,
) -> None:
    """Write a checkpoint that other programs can load.

    Example: caspi export runs/demo/train/average --to qwen-asr --out runs/demo/qwen-asr
    """
    from caspi import commands

    _finish(commands.export.run(model, to, out), json_)


@app.command()
def parity(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="tiny, or a model folder.")],
    corpus: Annotated[
        str, typer.Argument(metavar="CORPUS|MANIFEST", help="A folder made by caspi prepare, or a JSONL manifest.")
    ],
    out: Annotated[Path, typer.Option(help="Output folder for report.html and report.json.")],
    clips: Annotated[int, typer.Option(min=4, help="Number of clips; some are always longer than 30 s.")] = 50,
    backends: Annotated[
        str,
        typer.Option(
            help="Of engine, engine-plain, transformers, int8, qwen-asr, vllm; all are compared with the first."
        ),
    ] = "engine,engine-plain,transformers",
    limit: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Largest difference of the WER; 0.001 is 0.1 %.")
    ] = 0.001,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    qwen_asr_python: Annotated[
        Optional[Path], typer.Option(help="Python of an environment with the package qwen-asr.")
    ] = None,
    vllm_python: Annotated[Optional[Path], typer.Option(help="Python of an environment with vLLM.")] = None,
    json_: Json = False,
) -> None:
    """Check that a model gives the same text in every program.

    Exit code 1 if the word error rate of one differs by more than the limit; the report shows the clips that differ.

    Example: caspi parity runs/demo/train/average runs/demo/corpus --out runs/demo/parity
    """
    from caspi import commands

    names = [name.strip() for name in backends.split(",") if name.strip()]
    pythons = {"qwen-asr": qwen_asr_python, "vllm": vllm_python}
    outcome = commands.parity.run(
        model, corpus, out, clips=clips, backends=names, limit=limit, split=split, pythons=pythons
    )
    _finish(outcome, json_)


@app.command()
def publish(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model folder, or adapters (caspi export --to peft).")
    ],
    repository: Annotated[str, typer.Argument(metavar="REPO", help="Repository on the Hub: user/name.")],
    evaluation: Annotated[
        Optional[list[Path]], typer.Option(help="A folder of caspi evaluate, for the card; several times for several.")
    ] = None,
    parity: Annotated[
        Optional[str],
        typer.Option(
            metavar="CORPUS", help="A corpus on which programs must give the same text first (default: --evaluation's)."
        ),
    ] = None,
    no_parity: Annotated[bool, typer.Option("--no-parity", help="Publish without comparing programs.")] = False,
    adapters: Annotated[Optional[Path], typer.Option(help="Adapters that go beside the model.")] = None,
    base: Annotated[Optional[str], typer.Option(metavar="REPO", help="The base of adapters, on the Hub.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Make the repository public (default: private).")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the card and the files, upload nothing.")] = False,
    json_: Json = False,
) -> None:
    """Upload a model to the Hub, in either layout, or its adapters.

    First checks that it loads and that transformers gives the same text as caspi.

    Example: caspi publish runs/demo/train/average me/caspi-demo --evaluation runs/demo/evaluation --dry-run
    """
    from caspi import commands

    outcome = commands.publish.run(
        model, repository, dry_run, private=not public, evaluations=evaluation or [], parity=parity,
        skip_parity=no_parity, adapters=adapters, base=base,
    )  # fmt: skip
    _finish(outcome, json_)


@app.command()
def serve(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="tiny, a folder or a Hub id.")] = "",
    host: Annotated[str, typer.Option(help="Address to listen on; others than this machine need keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 8000,
    api_keys: Annotated[
        Optional[Path], typer.Option(help="A file with hashes of keys; CASPI_API_KEYS may have keys too.")
    ] = None,
    new_key: Annotated[Optional[str], typer.Option(metavar="NAME", help="Make a key for NAME, and end.")] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Let everybody use it who reaches it.")] = False,
    aligner: Annotated[str, typer.Option(help="The model that finds the times of words, or none.")] = "tiny-aligner",
    beams: Beams = 1,
    temperature: Temperature = "0",
    max_upload: Annotated[int, typer.Option(min=1, help="MiB of one request, at most.")] = 512,
    max_minutes: Annotated[int, typer.Option(min=1, help="Minutes of audio in one request, at most.")] = 240,
    max_requests: Annotated[int, typer.Option(min=1, help="Requests at once; further ones get 429.")] = 512,
    max_per_key: Annotated[int, typer.Option(min=1, help="Requests at once with one key.")] = 256,
    corrections: Annotated[
        Optional[Path], typer.Option(help="A folder for texts that are corrected on the page, to train on.")
    ] = None,
    allow_origin: Annotated[
        Optional[list[str]], typer.Option(help="Another site whose pages may use the server (CORS).")
    ] = None,
    log_transcripts: Annotated[
        bool, typer.Option("--log-transcripts", help="Write what was said into the log.")
    ] = False,
    backend: Annotated[str, typer.Option(help="caspi, or vllm: a vLLM server of yours that has MODEL.")] = "caspi",
    vllm_url: Annotated[
        str, typer.Option(help="Its address; VLLM_API_KEY may have its key.")
    ] = "http://127.0.0.1:8001",
) -> None:
    """Serve OpenAI's transcription API, live speech (WebSocket), and a page to try them.

    Example: caspi serve runs/demo/train/average --port 8000 --corrections corrections
    """
    from caspi.commands import serve as command
    from caspi.commands.transcribe import decoding_options
    from caspi.errors import UsageError

    if new_key is not None:
        _finish(command.new_key(new_key), as_json=False)
        return
    if not model:
        raise UsageError("caspi serve needs a MODEL: tiny, a folder or a Hub id")
    options = command.ServeOptions(
        host=host, port=port, aligner=None if aligner in ("", "none") else aligner, api_keys=api_keys,
        no_auth=no_auth, upload_mb=max_upload,
        audio_minutes=max_minutes, requests=max_requests, per_key=max_per_key, corrections=corrections,
        origins=tuple(allow_origin or ()), log_transcripts=log_transcripts, backend=backend, vllm_url=vllm_url,
        decoding=decoding_options(beams, False, False, temperature),
    )  # fmt: skip
    command.run(model, options)


@app.command()
def doctor(json_: Json = False) -> None:
    """Check this machine. Shows what it has, what is missing and how to install it.

    Example: caspi doctor
    """
    from caspi import commands

    _finish(commands.doctor.run(), json_)
