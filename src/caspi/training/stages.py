"""A run: stages one after another, the model carried over, optimizer and schedule fresh; resumes by itself."""

from __future__ import annotations

import contextlib
import gc
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.trainer_utils import set_seed

from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from caspi.folders import REPORT, claim
from caspi.model.config import ModelConfig
from caspi.model.groups import describe, select, set_trainable
from caspi.model.loading import Loaded, load, load_processor
from caspi.model.prompt import Prompt
from caspi.model.recompute import recompute
from caspi.training import checkpoints
from caspi.training.config import StageConfig, TrainConfig
from caspi.training.costs import Learning, Loads, Shape
from caspi.training.data import PlannedSteps, TrainingSet, audio_hours, plan_stage
from caspi.training.interruption import Interrupted, Interruption
from caspi.training.objectives import CrossEntropy
from caspi.training.plan import Budget
from caspi.training.preflight import require_memory, shapes, show_costs, show_devices, show_groups, show_targets
from caspi.training.processes import compute_dtype, processes, sharded, sharding
from caspi.training.provenance import Provenance
from caspi.training.tracking import Tracker
from caspi.training.trainer import LESSON, StageTrainer
from caspi.training.uploads import Uploaded, Uploads
from caspi.training.validation import Validation

DONE = "stage.json"
RUN = "run.json"
METRICS = "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run leaves: its folder, what every stage was and took, and what became of an upload."""

    path: Path
    stages: list[dict[str, Any]]
    uploaded: Uploaded | None = None

    @property
    def final(self) -> Path:
        """The last stage's last checkpoint."""
        return checkpoints.complete(Path(self.stages[-1]["path"]))[-1]


def stage_folder(run: Path, number: int, stage: StageConfig) -> Path:
    """Where a stage keeps its checkpoints."""
    return run / f"{number + 1}-{stage.name}"


@dataclass(frozen=True, slots=True)
class _Run:
    """What the stages of a run share."""

    config: TrainConfig
    data: TrainingSet
    prompt: Prompt
    validation: Validation
    dtype: torch.dtype | None
    seed: int
    interruption: Interruption
    provenance: Provenance
    uploads: Uploads | None


def train(config: TrainConfig, start: ModelConfig, provenance: Provenance, seed: int) -> RunResult:
    """Runs all stages, or what is left of them. From stage to stage the model passes through the last checkpoint, so
    that a run that was killed in between is the same run. Raises UsageError for a corpus or model that cannot be used.
    """
    state, corpus = processes(), provenance.corpus
    if sharded() and state.num_processes == 1:
        raise UsageError("sharding needs several processes: accelerate launch --num_processes, or torchrun without it")
    prompt = Prompt(load_processor(start.start, start.revision).tokenizer)
    data = TrainingSet.of(
        Corpus.open(corpus, "train"),
        prompt,
        config.max_seconds,
        shuffle_seed=seed if config.shuffle_transcripts else None,
        with_previous=config.previous_text > 0,
    )
    if not len(data.rows):
        raise UsageError(f"corpus {corpus}: no training utterance is within train.max_seconds = {config.max_seconds}")
    held_out = Corpus.open(corpus, "validation")
    shapes(start, config)  # a mistake in what the last stage trains is found before the first begins
    if sharded() and (adapted := [stage.name for stage in config.stages if any(h.lora for h in stage.learn.values())]):
        raise UsageError(
            f"stage {adapted[0]}: adapters are not trained on sharded weights; their base fits every GPU: start it "
            "with torchrun, without an accelerate configuration that shards"
        )
    if state.is_main_process:
        _claim_run(config, start, corpus, seed)
    state.wait_for_everyone()
    dtype = compute_dtype(config.precision, state.device)
    uploads = Uploads(config.hub, config.path) if config.hub is not None and state.is_main_process else None
    validation = Validation(held_out, prompt, config, dtype)
    run = _Run(config, data, prompt, validation, dtype, seed, Interruption(), provenance, uploads)
    if state.is_main_process:
        show_devices(state.num_processes)
        show_targets(data, prompt)
    finished = []
    with run.interruption.heard():
        for number, stage in enumerate(config.stages):
            folder = stage_folder(config.path, number, stage)
            if (folder / DONE).is_file():
                finished.append(json.loads((folder / DONE).read_text()))
            else:
                finished.append(_run_stage(run, stage, number, load(start, state.device)))
            start = ModelConfig(start=str(checkpoints.complete(folder)[-1]))
            gc.collect()  # the stage's model, before the next one is loaded
    uploaded = uploads.finish(Path(start.start)) if uploads is not None else None
    return RunResult(config.path, finished, uploaded)


def _claim_run(config: TrainConfig, start: ModelConfig, corpus: Path, seed: int) -> None:
    """A run folder belongs to one corpus and one way of training: going on with another would mix two runs.

    What does not change the result (workers, logging, where the run lies) may change.
    """
    content = json.loads((corpus / REPORT).read_text(encoding="utf-8"))
    identity = {
        "corpus": {name: split.get("fingerprint") for name, split in content.get("splits", {}).items()},
        "model": start.model_dump(mode="json"),
        "train": config.model_dump(mode="json", exclude={"path", "workers", "log_every", "track", "hub"}),
        "seed": seed,
        "sharding": sharding(),
    }
    marker = config.path / RUN
    if marker.is_file():
        started = json.loads(marker.read_text(encoding="utf-8"))
        changed = [name for name in identity if started.get(name) != identity[name]]
        if changed:
            raise UsageError(
                f"{config.path} holds a run with another {' and '.join(changed)}: "
                "set train.path to a new folder, or delete it"
            )
        return
    claim(config.path, "train")
    config.path.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps(identity, indent=1), encoding="utf-8")


def _run_stage(run: _Run, stage: StageConfig, number: int, loaded: Loaded) -> dict[str, Any]:
    config, data, state = run.config, run.data, processes()
    folder = stage_folder(config.path, number, stage)
    stage_seed = run.seed * 1000 + number
    set_seed(stage_seed)
    groups = select(loaded.model, stage.learn)
    set_trainable(loaded.model, groups, frozen_dtype=run.dtype or torch.float32)
    recompute(loaded.model, config.recompute_every)
    plans, steps = plan_stage(data, config, stage, state.num_processes, stage_seed)
    planned = PlannedSteps(
        data,
        plans,
        steps,
        state.process_index,
        run.prompt,
        stage.augment or config.augment,
        stage_seed,
        config.previous_text,
    )
    described = describe(loaded.model, groups)
    shape = Shape.of(loaded.model, loaded.model.config)
    learning = Learning.of(loaded.model, shape, groups, config.recompute_every)
    loads = Loads.of(data, plans, steps)
    peak = require_memory(stage.name, shape, learning, loads, config, state.num_processes)
    if state.is_main_process:
        show_groups(stage.name, described, steps)
        show_costs(stage.name, shape, learning, loads, state.num_processes, peak)
    folder.mkdir(parents=True, exist_ok=True)
    found = checkpoints.complete(folder)
    trainer = StageTrainer(
        objective=CrossEntropy(loaded.model, run.dtype),
        loaded=loaded,
        config=config,
        stage=stage,
        groups=groups,
        steps=planned,
        arguments=_arguments(config, stage, folder, steps, stage_seed, state.device, run.provenance.name),
        compute_dtype=run.dtype,
        measure=run.validation,
        metrics_file=config.path / METRICS,
        interruption=run.interruption,
        provenance=run.provenance,
        uploads=run.uploads,
    )
    for name in config.track if state.is_main_process else ():
        first_step = checkpoints.step_of(found[-1]) if found else 0
        trainer.add_callback(Tracker(name, config.path, folder.name, run.provenance, first_step))
    if (folder / LESSON).is_file():
        planned.lower(Budget(**json.loads((folder / LESSON).read_text(encoding="utf-8"))))
    started = time.monotonic()
    if state.is_main_process:
        _forget_later_steps(config.path / METRICS, stage.name, checkpoints.step_of(found[-1]) if found else 0)
    trainer.train(resume_from_checkpoint=str(found[-1]) if found else None)
    if trainer.state.global_step < steps:
        raise Interrupted(
            f"stage {stage.name} was asked to end after step {trainer.state.global_step} of {steps:,} and saved: "
            "the same command continues"
        )
    summary = {
        "name": stage.name,
        "path": str(folder),
        "steps": steps,
        "audio_hours": audio_hours(data, plans, steps),
        "groups": described,
        "seconds": time.monotonic() - started,
        "replaced": trainer.replaced,
        "checkpoints": [{"path": str(path), **checkpoints.metrics_of(path)} for path in checkpoints.complete(folder)],
    }
    if state.is_main_process:
        (folder / DONE).write_text(json.dumps(summary, indent=1))
    return summary


def _forget_later_steps(metrics: Path, stage: str, step: int) -> None:
    """Drops logged steps after the checkpoint, and a line the kill cut in half: they are taken and logged again."""
    if not metrics.is_file():
        return
    kept = []
    for line in metrics.read_text().split("\n"):
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if row["stage"] != stage or row["step"] <= step:
                kept.append(line + "\n")
    metrics.write_text("".join(kept))


class OneDevice(TrainingArguments):  # type: ignore[misc]
    """One process trains on one GPU. Trainer would spread a process over all it sees, with nn.DataParallel."""

    @property
    def n_gpu(self) -> int:
        return min(1, super().n_gpu)


def _arguments(
    config: TrainConfig, stage: StageConfig, folder: Path, steps: int, seed: int, device: torch.device, name: str
) -> TrainingArguments:
    every = min(config.evaluate.every, steps)
    return OneDevice(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=1,
        max_grad_norm=stage.max_grad_norm,
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        seed=seed,
        use_cpu=device.type == "cpu",
        disable_tqdm=True,
        run_name=f"{name}-{stage.name}",
        project=name,
        report_to=[],
        remove_unused_columns=False,
    )
