"""A run: stages one after another; each starts from the last model, with a new optimizer and schedule. It resumes
automatically."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from caspi.atomic_output import REPORT, check_owned, locked, read_jsonl, write_whole
from caspi.augmentation.waveform import Background, WaveformAugmenter
from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from caspi.interrupts import Interrupted, Interruption
from caspi.model.aligner import prompt_for
from caspi.model.batch import AnyPrompt
from caspi.model.config import ModelConfig
from caspi.training.checkpoint import files as checkpoints
from caspi.training.checkpoint.files import point_to_best
from caspi.training.checkpoint.provenance import Provenance
from caspi.training.checkpoint.uploads import Uploaded, Uploads
from caspi.training.config import StageConfig, TrainConfig, stage_seed, with_new_keys
from caspi.training.data.dataset import TrainingSet
from caspi.training.data.stage_plan import audio_hours
from caspi.training.data.steps import PlannedSteps
from caspi.training.distributed.deepspeed import deepspeed
from caspi.training.distributed.processes import compute_dtype, processes, sharded, sharding
from caspi.training.loop import StageInputs, StageLoop
from caspi.training.metrics_log import MetricsLog
from caspi.training.objectives.build import stage_objective
from caspi.training.planning.checks import check_stage, check_task
from caspi.training.planning.preflight import StageForecast, forecast, show_devices, show_stage, show_targets
from caspi.training.results import StageResult
from caspi.training.stage_setup import load_for_stage
from caspi.training.step_recovery import learned_budget
from caspi.training.tracking import Tracker
from caspi.training.validation import AnyValidation, validation_for

_log = logging.getLogger(__name__)

DONE = "stage.json"
RUN = "run.json"
METRICS = "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of a run: its folder, a summary of every stage, and the result of an upload."""

    path: Path
    stages: list[StageResult]
    uploaded: Uploaded | None = None

    @property
    def final(self) -> Path:
        """The last stage's last checkpoint."""
        return checkpoints.complete_checkpoints(self.stages[-1].path)[-1]


def stage_folder(run: Path, number: int, stage: StageConfig) -> Path:
    """Where a stage keeps its checkpoints."""
    return run / f"{number + 1}-{stage.name}"


@dataclass(frozen=True, slots=True)
class _Run:
    """Values that all stages of a run share."""

    config: TrainConfig
    data: TrainingSet
    prompt: AnyPrompt
    validation: AnyValidation
    dtype: torch.dtype | None
    seed: int
    interruption: Interruption
    provenance: Provenance
    uploads: Uploads | None
    changed: Callable[[], None]


def train_run(
    config: TrainConfig,
    start: ModelConfig,
    provenance: Provenance,
    seed: int,
    changed: Callable[[], None] = lambda: None,
) -> RunResult:
    """Runs all stages, or those that remain. Each stage loads the last checkpoint of the one before, so that a run
    that was killed in between gives the same result. changed: called by the main process after every line of the log.
    Raises UsageError for a corpus or model that cannot be used.
    """
    if sharding() == "zero3":
        deepspeed()  # reports now if it is missing: accelerate needs it as soon as there are processes
    state, corpus = processes(), provenance.corpus
    prompt = prompt_for(start)
    check_task(config, start)
    for stage in config.stages:
        check_stage(stage, config, start, prompt)
    if sharded() and state.num_processes == 1:
        raise UsageError("sharding needs several processes: accelerate launch --num_processes, or torchrun without it")
    data = TrainingSet.to_train_on(Corpus.open(corpus, "train"), prompt, config, seed)
    if not len(data.rows):
        raise UsageError(f"corpus {corpus}: no training utterance is within train.max_seconds = {config.max_seconds}")
    if config.previous_text and not any(data.previous) and state.is_main_process:
        _log.warning("train.previous_text has no effect: no utterance of the corpus has a preceding text")
    held_out = Corpus.open(corpus, "validation")
    dtype = compute_dtype(config.precision, state.device)
    validation = validation_for(held_out, prompt, config, dtype, provenance.language)
    # Check all stages before the first one begins.
    for stage in config.stages:
        augment = stage.augment or config.augment
        WaveformAugmenter(augment)
        if augment.second_speaker is not None and len(set(data.corpus.column("group"))) < 2:
            raise UsageError(f"train.augment.second_speaker: corpus {corpus} has one recording or speaker only")
    if config.no_speech is not None:
        Background(config.no_speech)
    stages = forecast(start, config, data, state.num_processes, seed)
    with contextlib.ExitStack() as stack:
        if state.is_main_process:
            _claim_run(config, start, corpus, seed)
            stack.enter_context(locked(config.path, "train"))
        state.wait_for_everyone()
        uploads = Uploads(config.hub, config.path) if config.hub is not None and state.is_main_process else None
        run = _Run(config, data, prompt, validation, dtype, seed, Interruption(), provenance, uploads, changed)
        if state.is_main_process:
            show_devices(state.num_processes)
            show_targets(data, prompt, stages[0].plans[0].lengths)
            for stage_forecast in stages:
                show_stage(stage_forecast)
        finished = []
        with run.interruption.listening():
            for number, stage_forecast in enumerate(stages):
                folder = stage_folder(config.path, number, stage_forecast.stage)
                finished.append(_finished(folder) or _run_stage(run, stage_forecast, number, start))
                start = ModelConfig(task=start.task, start=str(checkpoints.complete_checkpoints(folder)[-1]))
                gc.collect()  # frees the stage's model before the next one is loaded
        _point_to_best(config, Path(start.start))
        uploaded = uploads.finish(Path(start.start)) if uploads is not None else None
    return RunResult(config.path, finished, uploaded)


def _point_to_best(config: TrainConfig, last: Path) -> None:
    """Points `best` in the run's folder to the last stage's best checkpoint, or its last one if none was evaluated."""
    if processes().is_main_process:
        best = checkpoints.best_checkpoints(stage_folder(config.path, len(config.stages) - 1, config.stages[-1]), 1)
        point_to_best(config.path, best[0] if best else last)


def _finished(folder: Path) -> StageResult | None:
    """The result of a stage that was trained to its end; the run's folder may have been moved since."""
    try:
        values: dict[str, Any] = json.loads((folder / DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    for checkpoint in values["checkpoints"]:
        checkpoint["path"] = str(folder / Path(checkpoint["path"]).name)
    return StageResult.from_json(values | {"path": str(folder)})


# Keys that may change when a run is resumed: the resulting weights are the same, except for rounding if micro-batches
# are cut or computed differently.
_MAY_CHANGE = {
    "path", "workers", "log_every", "save_every", "save_every_minutes", "track", "hub", "max_batch_seconds",
    "max_batch_tokens", "activation_checkpointing_every", "compile",
}  # fmt: skip


def _claim_run(config: TrainConfig, start: ModelConfig, corpus: Path, seed: int) -> None:
    """Writes the run's corpus and recipe into its folder. Raises UsageError if it belongs to another run."""
    content = json.loads((corpus / REPORT).read_text(encoding="utf-8"))
    identity = {
        "corpus": {name: split.get("fingerprint") for name, split in content.get("splits", {}).items()},
        "model": start.model_dump(mode="json"),
        "train": config.model_dump(mode="json", exclude=_MAY_CHANGE),
        "seed": seed,
        "sharding": sharding(),
    }
    marker = config.path / RUN
    try:
        if not marker.is_file():
            check_owned(config.path, "train")
            config.path.mkdir(parents=True, exist_ok=True)
            write_whole(marker, json.dumps(identity, indent=1))
        started = json.loads(marker.read_text(encoding="utf-8"))
        # A run may have started with the keys of version 0.1.
        started["train"] = with_new_keys(started.get("train"), set())
    except ValueError as error:
        raise UsageError(f"{marker} is damaged ({error}): set train.path to a new folder") from error
    except OSError as error:
        raise UsageError(
            f"{config.path} cannot be written ({error.strerror}): set train.path to another folder"
        ) from error
    if changed := list(_differences(started, identity)):
        named = "; ".join(changed[:3]) + (f"; and {len(changed) - 3} more" if len(changed) > 3 else "")
        raise UsageError(
            f"{config.path} holds another run ({named}): restore these values to resume, or set train.path to a new "
            "folder"
        )


def _differences(started: Any, requested: Any, name: str = "") -> Iterator[str]:
    """The keys whose value differs, with the new and the old value."""
    if isinstance(started, dict) and isinstance(requested, dict):
        for key in {**started, **requested}:
            yield from _differences(started.get(key), requested.get(key), f"{name}.{key}" if name else key)
    elif isinstance(started, list) and isinstance(requested, list) and len(started) == len(requested):
        for index, pair in enumerate(zip(started, requested, strict=True)):
            yield from _differences(*pair, f"{name}.{index}")
    elif started != requested and name.rpartition(".")[2] not in _MAY_CHANGE:
        yield f"{name}: {requested}, was {started}"


def _run_stage(run: _Run, stage_forecast: StageForecast, number: int, start: ModelConfig) -> StageResult:
    config, stage, steps = run.config, stage_forecast.stage, stage_forecast.steps
    folder = stage_folder(config.path, number, stage)
    loop = _stage_loop(run, stage_forecast, folder, stage_seed(run.seed, number), start)
    started = time.monotonic()
    loop.run()
    if loop.ended_early:
        raise Interrupted(
            f"stage {stage.name} was asked to end after step {loop.step:,} of {steps:,}: the same command continues"
        )
    result = StageResult(
        name=stage.name,
        path=folder,
        steps=steps,
        audio_hours=audio_hours(run.data, stage_forecast.plans, steps),
        groups=stage_forecast.groups,
        seconds=time.monotonic() - started,
        replaced=_replaced(config.path / METRICS, stage.name),
        checkpoints=[checkpoints.result_of(path) for path in checkpoints.complete_checkpoints(folder)],
    )
    if processes().is_main_process:
        write_whole(folder / DONE, json.dumps(result.as_json(), indent=1))
    return result


def _stage_loop(run: _Run, stage_forecast: StageForecast, folder: Path, seed: int, start: ModelConfig) -> StageLoop:
    """Loads the model, and sets up the loop of a stage, which resumes from the newest checkpoint in its folder."""
    config, state, stage = run.config, processes(), stage_forecast.stage
    model = load_for_stage(start, config, stage, state.device, run.dtype, seed)
    steps = PlannedSteps(
        run.data, stage_forecast.plans, stage_forecast.steps, state.process_index, run.prompt, config, stage, seed
    )
    folder.mkdir(parents=True, exist_ok=True)
    complete = checkpoints.complete_checkpoints(folder)
    first_step = checkpoints.step_of(complete[-1]) if complete else 0
    if (learned := learned_budget(folder)) is not None:
        steps.lower(learned)
    metrics = config.path / METRICS
    if state.is_main_process:
        _drop_later_steps(metrics, stage.name, first_step)
    inputs = StageInputs(
        objective=stage_objective(stage, model.loaded, start, run.dtype, seed, compiled=model.compiled),
        model=model,
        config=config,
        stage=stage,
        steps=steps,
        folder=folder,
        seed=seed,
        compute_dtype=run.dtype,
        measure=functools.partial(run.validation, should_stop=lambda: run.interruption.requested),
        log=MetricsLog(
            stage.name, metrics, enabled=state.is_main_process, on_gpu=state.device.type != "cpu", changed=run.changed
        ),
        trackers=[
            Tracker(name, config.path, folder.name, run.provenance, first_step)
            for name in (config.track if state.is_main_process else ())
        ],
        interruption=run.interruption,
        provenance=run.provenance,
        uploads=run.uploads,
    )
    return StageLoop(inputs)


def _replaced(metrics: Path, stage: str) -> int:
    """The number of utterances of a stage that could not be read, over all sessions."""
    if not metrics.is_file():
        return 0
    return sum(len(row.get("replaced", ())) for row in read_jsonl(metrics) if row["stage"] == stage)


def _drop_later_steps(metrics: Path, stage: str, step: int) -> None:
    """Removes logged steps after the checkpoint, which are repeated and logged again, and an incomplete last line."""
    if not metrics.is_file():
        return
    lines = []
    for line in metrics.read_text(encoding="utf-8").split("\n"):
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if row["stage"] != stage or row["step"] <= step:
                lines.append(line + "\n")
    write_whole(metrics, "".join(lines))
