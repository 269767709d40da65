"""What each command does: run the stage, write its report, say where the result is. No argument parsing here."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caspi import folders, pages, report
from caspi import recipe as recipes
from caspi.errors import UsageError
from caspi.folders import REPORT, read_jsonl
from caspi.progress import Progress, duration
from caspi.recipe import Recipe

if TYPE_CHECKING:  # loaded by the command that needs them
    from caspi.corpus.store import Corpus
    from caspi.corpus.utterance import Split
    from caspi.evaluation.equivalents import Equivalents
    from caspi.evaluation.transcripts import Transcripts
    from caspi.inference.files import FileResult
    from caspi.language import Language


@dataclass(frozen=True, slots=True)
class Outcome:
    """line: the last line a person reads; path: where the result is; summary: what --json prints."""

    line: str
    path: Path
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int = 0


def prepare(recipe: Recipe, engine: str = "local") -> Outcome:
    """Sources to corpus."""
    from caspi.corpus import prepare as stage
    from caspi.corpus.engines import ENGINES

    if engine not in ENGINES:
        raise UsageError(f"--engine {engine}: not one of {', '.join(ENGINES)}")
    config = recipe.corpus
    summary = stage.prepare(config, recipe.language, engine)
    partial = summary.pop("partial")
    summary = {"stage": "prepare", "name": recipe.name, "engine": engine, **summary}
    report.write(partial, pages.prepare_page(recipe.name, summary), summary, recipes.dump(recipe))
    stage.finish(partial, config.path)
    rejected = sum(summary["rejected"].values())
    for warning in summary["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    line = f"{summary['kept']:,} utterances kept, {rejected:,} rejected, {summary['hours']:.2f} hours"
    return Outcome(line, config.path / report.HTML, summary)


def corpus_info(folder: Path) -> Outcome:
    """What a corpus holds."""
    from caspi.corpus import sharing

    summary = {"stage": "corpus info", **sharing.info(folder)}
    hours = sum(split["hours"] for split in summary["splits"].values())
    count = sum(split["utterances"] for split in summary["splits"].values())
    return Outcome(f"{count:,} utterances, {hours:.2f} hours", folder, summary)


def corpus_sample(folder: Path, count: int, seed: int, split: str | None, out: Path) -> Outcome:
    """Utterances drawn into a page with players."""
    from caspi.corpus import sharing
    from caspi.corpus.utterance import SPLITS

    chosen = next((known for known in SPLITS if known == split), None)
    if split is not None and chosen is None:
        raise UsageError(f"--split {split}: not one of {', '.join(SPLITS)}")
    folders.claim(out, "corpus sample")
    drawn = sharing.sample(folder, count, seed, chosen)
    ids = [d.utterance.id for d in drawn]
    summary = {"stage": "corpus sample", "corpus": str(folder), "seed": seed, "ids": ids}
    page = report.write(out, pages.sample_page(str(folder), drawn), summary)
    return Outcome(f"{len(drawn)} utterances to listen to", page, summary)


def corpus_export(folder: Path, to: str, out: Path) -> Outcome:
    """The official script's input."""
    from caspi.corpus import sharing

    if to != "jsonl":
        raise UsageError(f"--to {to}: not one of jsonl")
    partial = folders.start(out, "corpus export")
    written = sharing.to_jsonl(folder, partial, out)
    summary = {"stage": "corpus export", "corpus": str(folder), "to": to, "utterances": written}
    report.write(partial, pages.jsonl_page(str(folder), written), summary)
    folders.finish(partial, out)
    return Outcome(f"{sum(written.values()):,} utterances as JSONL and WAV", out, summary)


def corpus_push(folder: Path, repository: str, private: bool, dry_run: bool) -> Outcome:
    """A corpus to the Hub."""
    from caspi.corpus import sharing

    summary = {"stage": "corpus push", **sharing.push(folder, repository, private=private, dry_run=dry_run)}
    size = sum(file["bytes"] for file in summary["files"])
    verb = "would be uploaded" if dry_run else "uploaded"
    return Outcome(f"{len(summary['files'])} files, {size / 2**20:,.1f} MiB {verb} to {repository}", folder, summary)


def audit(corpus: Path, model: str, recipe: Recipe | None = None) -> Outcome:
    """What can be proved of a sample of the corpus."""
    from caspi.audit.audit import AuditConfig
    from caspi.audit.audit import audit as judge
    from caspi.corpus.store import Corpus
    from caspi.model.config import ModelConfig
    from caspi.model.loading import load

    summary = judge(Corpus.open(corpus, "train"), load(ModelConfig(start=model)), AuditConfig())
    summary = {
        "stage": "audit",
        "corpus": str(corpus),
        "corpus_fingerprint": report.fingerprint(corpus),
        "model": model,
        **summary,
    }
    out = corpus.with_name(corpus.name + "-audit")
    page = report.write(out, pages.audit_page(str(corpus), summary), summary, recipes.dump(recipe) if recipe else None)
    (out / "alignment_report.json").write_text(json.dumps(summary, ensure_ascii=False, indent=1), encoding="utf-8")
    line = f"{summary['decision']}: {summary['reason']}"
    return Outcome(line, page, summary)


def plan(recipe: Recipe, gpu: str | None, count: int, *, measured: bool = False, table: Path | None = None) -> Outcome:
    """Batches and memory; with a GPU kind, or measured on this machine, hours too; with a kind their cost."""
    from caspi.corpus.store import Corpus
    from caspi.model.loading import load_processor
    from caspi.model.prompt import Prompt
    from caspi.training import estimates, preflight
    from caspi.training.data import TrainingSet
    from caspi.training.pilot import Pilot

    config = recipe.require_train()
    known = estimates.gpus(table)
    if gpu is not None and gpu not in known:
        raise UsageError(f"--gpu {gpu}: not one of {', '.join(known)} (--gpu-table adds your own: {estimates.TABLE})")
    shape, stages = preflight.shapes(recipe.model, config)
    prompt = Prompt(load_processor(recipe.model.start, recipe.model.revision).tokenizer)
    data = TrainingSet.to_train_on(Corpus.open(recipe.corpus.path, "train"), prompt, config, recipe.seed)
    plans = preflight.planned(data, config, count, recipe.seed)
    pilots: Sequence[Pilot | None] = [None] * len(plans)
    if measured:
        pilots = preflight.pilots(recipe.model, config, data, plans, shape, recipe.seed)
    rows = [
        preflight.counts(data, stage, plan, count)
        | preflight.costs(shape, planned.learning, plan.loads, config, known.get(gpu or ""), count, pilot)
        for stage, planned, plan, pilot in zip(config.stages, stages, plans, pilots, strict=True)
    ]
    summary = {
        "stage": "plan", "name": recipe.name, "gpu": gpu, "gpus": count, "measured": measured, "stages": rows,
        "parameters": shape.parameters, "groups": shape.groups,
        "utterances": len(data.rows), "targets": preflight.decoded_targets(data, prompt, plans[0].plans[0].heard),
    }  # fmt: skip
    page = report.write(
        recipe.corpus.path.with_name(recipe.corpus.path.name + "-plan"),
        pages.plan_page(recipe.name, summary),
        summary,
        recipes.dump(recipe),
    )
    return Outcome(_plan_line(summary), page, summary)


def augment_preview(recipe: Recipe, stage: str | None, count: int, out: Path) -> Outcome:
    """What augmentation does, to listen to."""
    from caspi.corpus.store import Corpus
    from caspi.model.loading import load_processor
    from caspi.model.prompt import Prompt
    from caspi.training.config import stage_seed
    from caspi.training.data import TrainingSet
    from caspi.training.preview import active, listen

    config = recipe.require_train()
    numbers = {one.name: number for number, one in enumerate(config.stages)}
    if stage is not None and stage not in numbers:
        raise UsageError(f"--stage {stage}: not one of {', '.join(numbers)}")
    number = numbers[stage] if stage is not None else 0
    chosen = config.stages[number]
    how = chosen.augment or config.augment
    if not active(how):
        raise UsageError(f"stage {chosen.name} has no augmentation that is heard: train.augment names some")
    folders.claim(out, "augment-preview")
    prompt = Prompt(load_processor(recipe.model.start, recipe.model.revision).tokenizer)
    data = TrainingSet.of(Corpus.open(recipe.corpus.path, "train"), prompt, config.max_seconds)
    heard = list(listen(data, how, count, stage_seed(recipe.seed, number)))
    summary = {"stage": "augment-preview", "recipe_stage": chosen.name, "ids": sorted({one.id for one in heard})}
    page = report.write(out, pages.preview_page(recipe.name, chosen.name, heard), summary, recipes.dump(recipe))
    return Outcome(f"{len(summary['ids'])} utterances in {len(heard)} versions", page, summary)


def _plan_line(summary: dict[str, Any]) -> str:
    from caspi.training import preflight

    stages = summary["stages"]
    peak = max(stage["peak_gib"] for stage in stages)
    line = f"{sum(stage['steps'] for stage in stages):,} steps over {pages.plural(len(stages), 'stage')}"
    line += f", at most {peak:.1f} GiB" if peak >= 0.05 else f", at most {1024 * peak:.0f} MiB"
    if "hours" in stages[0]:
        where = f"{summary['gpus']} x {summary['gpu']}" if summary["gpu"] else "this machine"
        line += f", about {duration(3600 * sum(stage['hours'] for stage in stages))} on {where}"
        line += f", {sum(stage['cost'] for stage in stages):.2f} $" if summary["gpu"] else ""
        line += "" if summary["measured"] else " (with the computing speed of the GPU table: --pilot measures it)"
    line += f"; {preflight.waste_line(stages)}"
    for stage in stages:
        if not stage.get("fits", True):
            hint = "; or ".join(stage["changes"]) or "train fewer groups, or with lora"
            line += f"; stage {stage['name']} DOES NOT FIT: {hint}"
    return line


def shapes(recipe: Recipe) -> Outcome:
    """Groups and trainable counts of every stage, on the meta device."""
    from caspi.training import preflight

    config = recipe.require_train()
    shape, stages = preflight.shapes(recipe.model, config)
    summary = {
        "stage": "train",
        "dry_run": True,
        "parameters": shape.parameters,
        "groups": shape.groups,
        "stages": [
            {"name": stage.name, "groups": found.rows, "trainable": found.learning.parameters}
            for stage, found in zip(config.stages, stages, strict=True)
        ],
    }
    return Outcome(f"{shape.parameters:,} parameters, nothing allocated", Path(), summary)


def train(recipe: Recipe) -> Outcome:
    """All stages, or what is left of them."""
    from caspi.training.processes import part, processes
    from caspi.training.provenance import Provenance
    from caspi.training.stages import METRICS
    from caspi.training.stages import train as run
    from caspi.training.uploads import as_json

    config = recipe.require_train()
    text = recipes.dump(recipe)
    provenance = Provenance(recipe.name, text, recipe.language, recipe.model.start, recipe.corpus.path)
    result = run(config, recipe.model, provenance, recipe.seed)
    summary = {
        "stage": "train",
        "name": recipe.name,
        "corpus": str(recipe.corpus.path),
        "corpus_fingerprint": report.fingerprint(recipe.corpus.path),
        "synthetic": _is_synthetic(recipe.corpus.path),
        "shuffled_transcripts": config.shuffle_transcripts,
        "seed": recipe.seed,
        "stages": result.stages,
        "final": str(result.final),
        "hub": as_json(result.uploaded),
    }
    page = config.path / report.HTML
    if processes().is_main_process:
        content = pages.train_page(recipe.name, summary, config.path / METRICS)
        report.write(config.path, content, summary, text)
    last = result.stages[-1]["checkpoints"][-1]
    line = f"validation WER {last['wer']:.3f}, loss {last['loss']:.3f} per token; {result.final}"
    is_main = processes().is_main_process
    outcome = Outcome(line if is_main else "", page if is_main else Path(), summary)
    part()
    return outcome


def _is_synthetic(folder: Path) -> bool:
    content = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    return bool(content.get("synthetic"))


def average(run: Path, top: int, weights: Sequence[float] | None = None) -> Outcome:
    """The best checkpoints of a run's last stage, averaged, and measured as they were."""
    from caspi.export import averaging
    from caspi.training import checkpoints
    from caspi.training.card import card
    from caspi.training.provenance import Provenance
    from caspi.training.validation import measure_checkpoint

    if folders.stage_of(run) != "train":
        raise UsageError(f"{run} is not a finished run: caspi train makes one")
    content = json.loads((run / REPORT).read_text(encoding="utf-8"))
    recipe = recipes.load(run / report.RECIPE)
    stage = Path(content["stages"][-1]["path"])
    chosen = checkpoints.best(run / stage.name if (run / stage.name).is_dir() else stage, top)
    if weights is not None and len(weights) != len(chosen):
        raise UsageError(f"--weights: {len(weights)} given, {len(chosen)} checkpoints are averaged")
    out = run / "average"
    partial = folders.start(out, "average")
    averaging.average(chosen, partial, weights)
    measured = measure_checkpoint(partial, Path(content["corpus"]), recipe.require_train(), recipe.language)
    parts = [{"path": str(path), **checkpoints.metrics_of(path)} for path in chosen]
    summary = {
        "stage": "average", "run": str(run), "parts": parts, "weights": weights, "measured": measured,
        "better_than": sum(checkpoints.quality(measured) < checkpoints.quality(part) for part in parts),
        "fingerprint": report.fingerprint(partial),
    }  # fmt: skip
    steps = ", ".join(str(part["step"]) for part in parts)
    provenance = Provenance(
        recipe.name, content["recipe"], recipe.language, recipe.model.start, Path(content["corpus"])
    )
    what = f"average of {len(chosen)} checkpoints (steps {steps}) of stage {content['stages'][-1]['name']}"
    text = card(provenance, what, measured, report.environment(), recipe.require_train().max_seconds)
    (partial / "README.md").write_text(text, encoding="utf-8")
    report.write(partial, pages.average_page(str(run), summary), summary)
    folders.finish(partial, out)
    best = min([{"path": str(out), **measured}, *parts], key=checkpoints.quality)["path"]
    checkpoints.point_to_best(run, Path(best))
    summary["best"] = best
    use = "" if Path(best) == out else f"; use {best}, which {run / checkpoints.BEST} names"
    return Outcome(f"{pages.average_verdict(summary)}; {what}{use}", run / checkpoints.BEST, summary)


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """Beside model and corpora: see caspi.evaluation.evaluate.Asked."""

    split: str = "test"
    limit: int | None = None
    retention: Sequence[str] = ()
    stress: int = 0
    context: int = 0
    identify: bool = False
    equivalents: Path | None = None
    language: str | None = None
    group_key: str = ""


def evaluate(model: str, corpora: Sequence[str], out: Path, options: EvaluateOptions = EvaluateOptions()) -> Outcome:
    """A model on corpora, with transcripts, scores and their page. Killed and started again, it goes on."""
    from caspi.corpus.utterance import SPLITS
    from caspi.evaluation import benchmarks
    from caspi.evaluation import evaluate as stage
    from caspi.evaluation.decode import Recogniser, devices, fingerprint
    from caspi.language import language
    from caspi.model.loading import resolve

    folders.claim(out, "evaluate")
    if options.split not in SPLITS:
        raise UsageError(f"--split {options.split}: not one of {', '.join(SPLITS)}")
    spoken = _language(options.language)
    opened = [found for corpus in corpora for found in _opened(corpus, options.split, spoken, options.group_key)]
    others = [found for corpus in options.retention for found in _opened(corpus, options.split)]
    for corpus in opened:
        _say_groups(corpus)
    rules = language(opened[0].utterance(0).language)
    asked = stage.Asked(
        opened,
        others,
        options.limit,
        options.stress,
        options.context,
        options.identify,
        _equivalents(options.equivalents, rules),
    )
    folder = Path(resolve(model))
    recogniser = Recogniser(model, fingerprint(folder) if folder.is_dir() else model)
    recogniser.on(devices()[0])  # a model that is none is said before anything is written
    kept = folders.work(out, "evaluate")
    with folders.locked(kept, "evaluate"):
        _take_over(out / stage.TRANSCRIPTS, kept / stage.TRANSCRIPTS)
        partial = folders.start(out, "evaluate")
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
        _write_evaluation(partial, "evaluate", f"caspi evaluate · {model}", summary, inputs)
        folders.finish(partial, out)
    shutil.rmtree(kept)
    return Outcome(verdict(summary), out / report.HTML, summary)


def _language(asked: str | None) -> str | None:
    """As prompts say it. Raises UsageError for what is no language."""
    from caspi.language import named

    try:
        return None if asked is None else named(asked)
    except ValueError as error:
        raise UsageError(f"--language: {error}") from error


def _say_groups(corpus: Corpus) -> None:
    """Which field of a manifest said who speaks, or that none did."""
    from caspi.evaluation.benchmarks import grouped_by

    found = grouped_by(corpus)
    if found == "" and len(corpus) > 1:
        print(
            f"warning: {corpus.folder.name}: no line says who speaks, so intervals take files as independent; name the "
            "field with --group-key",
            file=sys.stderr,
        )
    elif found:
        print(f"evaluate: {corpus.folder.name}: groups by {found}", file=sys.stderr)


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


def _equivalents(path: Path | None, spoken: Language) -> Equivalents | None:
    from caspi.evaluation.equivalents import Equivalents

    return Equivalents.read(path, spoken.normalisers["fair"]) if path else None


def score(
    file: Path,
    language_name: str,
    out: Path,
    equivalents: Path | None = None,
    *,
    hypotheses: Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> Outcome:
    """Any system's transcripts, scored as `evaluate` scores ours. columns: of reference, hypothesis, id, group."""
    from caspi.evaluation.summary import Measured, summarise, write
    from caspi.evaluation.transcripts import Columns, read_transcripts
    from caspi.language import language

    spoken = language(_language(language_name) or "Hebrew")
    found = read_transcripts(file, spoken.name, Columns(**(columns or {})), hypotheses)
    _say_columns(found)
    table = _equivalents(equivalents, spoken)
    measured = Measured.of(found.pairs)
    partial = folders.start(out, "score")
    try:
        summary = summarise(measured, equivalents=table)
        write(partial, measured, summary)
        inputs = {"file": str(file), "fingerprint": report.fingerprint(file), "columns": found.used}
        if hypotheses is not None:
            inputs |= {"hypotheses": str(hypotheses), "hypotheses_fingerprint": report.fingerprint(hypotheses)}
        _write_evaluation(partial, "score", f"caspi score · {file.name}", summary, inputs)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    folders.finish(partial, out)
    return Outcome(verdict(summary), out / report.HTML, summary)


def _say_columns(found: Transcripts) -> None:
    """Which columns were taken for what, and which count for nothing."""
    other = {name: column for name, column in found.used.items() if name != column}
    if other:
        named = ", ".join(f"{name} from {column}" for name, column in other.items())
        print(f"score: {named}", file=sys.stderr)
    if found.unused:
        print(f"score: not used: {', '.join(found.unused)}", file=sys.stderr)


def _write_evaluation(out: Path, stage: str, title: str, summary: dict[str, Any], inputs: dict[str, Any]) -> None:
    from caspi.evaluation import pages as evaluation_pages
    from caspi.evaluation.published import published
    from caspi.evaluation.summary import RESULTS

    rows = read_jsonl(out / RESULTS)
    clips = clips_of(inputs, [row["id"] for row in evaluation_pages.worst(rows)])
    page = evaluation_pages.evaluate_page(title, summary, rows, clips, published())
    report.write(out, page, {"stage": stage, **inputs, **summary})


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
        f"WER {pages.rate(leaderboard['wer'], leaderboard['wer_ci'])} (fair {summary['fair']['wer']:.3f}) "
        f"on {pages.counted(summary)}"
    )


def compare(a: Path, b: Path, out: Path) -> Outcome:
    """Is B better than A, and could it be luck?"""
    from caspi.evaluation import compare as stage
    from caspi.evaluation import pages as evaluation_pages

    folders.claim(out, "compare")
    rows = stage.read_both(a, b)
    scores = stage.scores(*rows, a, b)
    changed = evaluation_pages.Changed.between(*rows)
    named = next((content for content in map(folders.report_of, (a, b)) if "corpora" in content), {})
    clips = clips_of(named, changed.shown)
    summary = {
        "stage": "compare",
        "a": str(a),
        "b": str(b),
        **{name: asdict(score) | {"sentence": score.sentence()} for name, score in scores.items()},
        "by": stage.by_part(*rows, a, b),
        "kinds": stage.by_kind(*rows, a, b),
        "differ": len(changed.all),
        "better": len(changed.better),
        "worse": len(changed.worse),
    }
    page = report.write(out, evaluation_pages.compare_page(summary, changed, clips), summary)
    return Outcome(scores["leaderboard"].sentence(), page, summary)


def transcribe(
    model: str,
    files: Sequence[Path],
    format_name: str,
    out: Path | None,
    context: str,
    language_name: str | None,
    *,
    times: bool = False,
) -> Outcome:
    """Files to text, one output a file; without `out` the text is in the summary. times: of phrases. Ends with 1 where
    a file could not be transcribed; the others are."""
    from caspi.inference import files as stage
    from caspi.inference.subtitles import FORMATS
    from caspi.inference.transcriber import Transcriber

    if format_name not in FORMATS:
        raise UsageError(f"--format {format_name}: not one of {', '.join(FORMATS)}")
    request = stage.Request(model, format_name, context, _language(language_name), times)
    outputs = stage.Outputs(files, request, out)
    found = []
    with Progress("transcribe", unit="files", total=len(files)) as progress:
        for result in stage.transcribe(files, request, outputs, lambda: Transcriber.of(model)):
            for warning in result.warnings:
                print(f"warning: {result.file}: {warning}", file=sys.stderr)
            found.append(result)
            progress.advance(1)
    failed = [result for result in found if result.error]
    for result in failed:
        print(f"not transcribed: {result.file}: {result.error}", file=sys.stderr)
    summary = {"stage": "transcribe", "files": [result.as_json() for result in found], "failed": len(failed)}
    said = [result.transcript for result in found if result.transcript is not None]
    if untimed := sum(transcript.untimed for transcript in said):
        print(
            f"warning: no times of phrases in {pages.plural(untimed, 'window')}, which are cues as a whole: was "
            f"{model} trained with train.timestamps?",
            file=sys.stderr,
        )
    return Outcome(_transcribed(found), out or Path(), summary, 1 if failed else 0)


def _transcribed(found: Sequence[FileResult]) -> str:
    """What became of all files, in one line."""
    said = [result.transcript for result in found if result.transcript is not None]
    seconds = sum(transcript.seconds for transcript in said)
    if len(found) == len(said) == 1:
        return f"{said[0].text or 'no speech'} ({seconds:.1f} s of audio)"
    kept, failed = sum(result.kept for result in found), sum(bool(result.error) for result in found)
    more = (f", {kept} were there already" if kept else "") + (f", {failed} could not be transcribed" if failed else "")
    return f"{len(said)} of {pages.plural(len(found), 'file')} transcribed ({seconds:.1f} s of audio){more}"


def export(model: str, to: str, out: Path) -> Outcome:
    """A checkpoint in another program's format."""
    from caspi.export.formats import export as stage

    stage(model, to, out)
    files = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    summary = {"stage": "export", "model": model, "to": to, "files": files, "fingerprint": report.fingerprint(out)}
    report.write(out, pages.export_page(model, to, files), summary)
    return Outcome(f"{to}, {sum(files.values()) / 2**20:,.1f} MiB", out, summary)


def publish(model: str, repository: str, dry_run: bool, private: bool = True) -> Outcome:
    """A model folder to the Hub."""
    from caspi.export.publishing import publish as stage

    summary = stage(model, repository, private=private, dry_run=dry_run)
    size = sum(file["bytes"] for file in summary["files"])
    verb = "would be uploaded" if dry_run else "uploaded"
    return Outcome(
        f"{len(summary['files'])} files, {size / 2**20:,.1f} MiB {verb} to {repository}", Path(model), summary
    )


def clean(folder: Path) -> None:
    """Removes an earlier demo's folder; refuses one that is not a demo's."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / DEMO_MARK).is_file():
            raise UsageError(f"{folder} is not empty and no demo made it: give another --out")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DEMO_MARK).write_text("made by caspi demo; deleted by the next one\n")


DEMO_MARK = ".caspi-demo"
