"""caspi init: looks at somebody's data and writes a recipe for it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.table import Table

from caspi import recipe
from caspi.audio import Seconds
from caspi.commands.outcome import Outcome, language_option
from caspi.errors import UsageError
from caspi.reporting.wording import hours_or_minutes, plural

if TYPE_CHECKING:
    from caspi.corpus.sources.discovery import FoundSource
    from caspi.corpus.sources.survey import Survey

RELEASED = "Qwen/Qwen3-ASR-1.7B-hf"
SCHEMA = "recipe.schema.json"
_LANGUAGE_OF = {
    "HEBREW": "Hebrew", "ARABIC": "Arabic", "CYRILLIC": "Russian", "GREEK": "Greek", "HANGUL": "Korean",
    "DEVANAGARI": "Hindi", "THAI": "Thai", "HIRAGANA": "Japanese", "CJK": "Chinese",
}  # fmt: skip
_LENGTHS = (6, 10, 15, 20, 30)  # seconds, of the longest utterance
_LORA_GIB = 60  # GPUs with less train adapters
_STEPS = 200  # of the tiny model, about, where there is little data


def run(data: Path, out: Path | None, spoken: str | None, model: str | None) -> Outcome:
    """Writes a recipe for the data. Raises UsageError if there is no data that caspi knows, or the recipe exists."""
    from pydantic import TypeAdapter

    from caspi.corpus.sources import SourceConfig
    from caspi.corpus.sources.discovery import discover
    from caspi.corpus.sources.survey import survey

    name = (
        re.sub(r"[^\w-]+", "-", (data.resolve().stem if data.is_file() else data.resolve().name)).strip("-") or "mine"
    )
    out = out or Path(f"{name}.yaml")
    if out.exists():
        raise UsageError(f"{out} exists: give another file with --out, or remove it")
    asked = language_option(spoken)
    found = discover(data)
    adapter: TypeAdapter[Any] = TypeAdapter(SourceConfig)
    measured = survey([adapter.validate_json(json.dumps(one.config)) for one in found], asked or "Hebrew")
    if not measured.texts:
        reasons = "; ".join(measured.problems) or "every text is empty"
        raise UsageError(f"{data}: no row can be used: {reasons}")
    language = asked or _language(measured)
    model = model or (RELEASED if _gpu_gib() else "tiny")
    text = _recipe(name, data, out, found, measured, language, model)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    (out.parent / SCHEMA).write_text(json.dumps(recipe.schema(), indent=1), encoding="utf-8")
    recipe.load(out)
    summary = {"stage": "init", "recipe": str(out), "language": language, "model": model, **_figures(found, measured)}
    line = f"next: caspi run {out}"
    return Outcome(line, out, summary, tables=(_table(found, measured), *_advice(measured, model)))


def run_official(command: str, out: Path | None, spoken: str | None) -> Outcome:
    """Writes a recipe for what a command of the official script does. Raises UsageError."""
    from caspi.commands.official import read_command, recipe_of

    read = read_command(command)
    out = out or Path(f"{read.output_dir.name or 'official'}.yaml")
    if out.exists():
        raise UsageError(f"{out} exists: give another file with --out, or remove it")
    text = recipe_of(read, SCHEMA, language_option(spoken) or "Hebrew")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    (out.parent / SCHEMA).write_text(json.dumps(recipe.schema(), indent=1), encoding="utf-8")
    try:
        made = recipe.load(out)
    except UsageError:
        out.unlink()
        raise
    summary = {"stage": "init", "recipe": str(out), "language": made.language, "model": made.model.start}
    return Outcome(f"next: caspi run {out}", out, summary)


def _gpu_gib() -> float:
    """Memory of the GPU; 0 if there is none."""
    import torch

    return torch.cuda.get_device_properties(0).total_memory / 2**30 if torch.cuda.is_available() else 0.0


def _language(measured: Survey) -> str:
    """By the script of most letters. Raises UsageError where that names no language."""
    script, _ = max(measured.scripts.items(), key=lambda item: item[1], default=("", 0))
    if (found := _LANGUAGE_OF.get(script)) is None:
        raise UsageError(f"the texts are in {script.lower() or 'no'} letters: name their language with --language")
    return found


def _recipe(
    name: str, data: Path, out: Path, found: Sequence[FoundSource], measured: Survey, language: str, model: str
) -> str:
    longest = next((length for length in _LENGTHS if measured.longest <= length), _LENGTHS[-1])
    kind = "tiny" if model == "tiny" else "lora" if 0 < _gpu_gib() < _LORA_GIB else "layers"
    batch = 16 if kind == "tiny" else 64
    steps = math.ceil(0.8 * max(1, measured.utterances, measured.hours * 3600 / longest) / batch)
    epochs = max(1, min(20, round(_STEPS / steps))) if kind == "tiny" else 3 if kind == "lora" else 2
    every = max(10, min(500, epochs * steps // 6))
    official = bool(measured.splits) or all("split" in one.config for one in found)
    environment = Environment(
        loader=PackageLoader("caspi"), undefined=StrictUndefined, trim_blocks=True, autoescape=False,  # noqa: S701
        keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template("recipe.yaml.j2").render(
        schema=SCHEMA, data=data, date=date.today().isoformat(), file=out, name=name, language=language,
        facts=[f"{what}: {value}" for what, value in _facts(found, measured)], runs=f"runs/{name}",
        sources=[{"config": _inline(one.config), "notes": one.notes} for one in found], max_seconds=longest,
        align="tiny-aligner" if measured.untimed and language == "Hebrew" else None,
        official_splits=official or all(one.config["kind"] == "corpus" for one in found),
        splits=_splits(measured),
        model=model, batch=batch, batch_seconds=max(120, 4 * longest) if kind == "tiny" else 240, every=every,
        evaluated=100 if kind == "tiny" else 400, epochs=epochs, kind=kind,
    )  # fmt: skip


_SHARES = (0.1, 0.15, 0.2, 0.25, 0.3)  # of the speakers, for validation and for test
_SEEDS = 100
_WANTED = 0.03  # share of the utterances that each has at least


def _splits(measured: Survey) -> str:
    """Shares with which validation and test data are not empty: which speaker is in which depends on a hash."""
    from caspi.corpus.pipeline.splits import Splits, split_of

    total = sum(measured.speakers.values())
    for share in _SHARES:
        for seed in range(_SEEDS if len(measured.speakers) < _FEW_SPEAKERS else 1):
            shares = Splits(validation=share, test=share, seed=seed)
            counts = dict.fromkeys(("train", "validation", "test"), 0)
            for group, count in measured.speakers.items():
                counts[split_of(group, shares)] += count
            if min(counts["validation"], counts["test"]) >= max(1, _WANTED * total) and counts["train"] >= total / 3:
                return f"{{validation: {share:g}, test: {share:g}{f', seed: {seed}' if seed else ''}}}"
    return "{validation: 0.1, test: 0.1}"


_FEW_SPEAKERS = 200  # with more, the shares of a hash are near those of the recipe


def _inline(config: dict[str, Any]) -> str:
    """A source on one line of YAML; JSON is YAML, but its keys need no quotation marks."""
    parts = (f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in config.items())
    return "{" + ", ".join(parts) + "}"


def _facts(found: Sequence[FoundSource], measured: Survey) -> list[tuple[str, str]]:
    speakers = f"{len(measured.speakers):,}" if measured.names_speakers else "not named"
    total = max(1, sum(measured.scripts.values()))
    scripts = ", ".join(
        f"{script.capitalize()} {100 * count / total:.0f} %" for script, count in measured.scripts.most_common(3)
    )
    rates = ", ".join(f"{rate:,} Hz" for rate, _ in measured.sample_rates.most_common(3))
    return [
        *((one.config.get("path") or one.config.get("dataset") or "source", one.what) for one in found),
        ("utterances", f"{measured.utterances:,}, {measured.texts:,} with a text"),
        ("audio", f"about {hours_or_minutes(measured.hours)}, longest {_length(measured.longest)} of "
                  f"{plural(measured.audio_files, 'file')} that were opened"),
        ("sample rates", rates or "unknown"),
        ("speakers or recordings", speakers),
        ("letters", scripts or "none"),
        *([("rows that cannot be used", f"{measured.bad:,}: {'; '.join(measured.problems)}")] if measured.bad else []),
    ]  # fmt: skip


def _length(seconds: Seconds) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else hours_or_minutes(seconds / 3600)


def _table(found: Sequence[FoundSource], measured: Survey) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    for what, value in _facts(found, measured):
        table.add_row(str(what), value)
    for note in (note for one in found for note in one.notes):
        table.add_row("note", note)
    return table


def _advice(measured: Survey, model: str) -> list[str]:
    advice = []
    if not measured.names_speakers:
        advice.append(
            "no speakers are named: one may be in training and in test data, and intervals take every utterance as "
            "independent; name their column with columns: {speaker: NAME}"
        )
    if measured.untimed:
        advice.append(
            f"{plural(measured.untimed, 'recording')} of those opened are longer than 30 s and have no times: an "
            "aligner has to cut them (segmentation: {align: MODEL})"
        )
    if model == "tiny":
        advice.append(
            "the recipe trains the tiny model (no GPU here), which shows whether data and pipeline work; for the real "
            f"one: caspi init --model {RELEASED}"
        )
    return advice


def _figures(found: Sequence[FoundSource], measured: Survey) -> dict[str, Any]:
    return {
        "sources": [{"config": one.config, "what": one.what, "notes": list(one.notes)} for one in found],
        "utterances": measured.utterances, "texts": measured.texts, "hours": measured.hours,
        "longest": measured.longest, "sample_rates": dict(measured.sample_rates),
        "speakers": len(measured.speakers) if measured.names_speakers else None,
        "scripts": dict(measured.scripts), "unusable": measured.bad, "problems": measured.problems,
    }  # fmt: skip
