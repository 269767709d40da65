"""What a run would do, before it costs anything: groups and counts of every stage, decoded targets, batches, memory."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from transformers import AutoConfig, Qwen3ASRForConditionalGeneration

from caspi.errors import UsageError
from caspi.model.architectures import configuration
from caspi.model.config import ModelConfig
from caspi.model.groups import describe, partition, select
from caspi.model.loading import resolve
from caspi.model.prompt import Prompt
from caspi.training.config import StageConfig, TrainConfig
from caspi.training.data import TrainingSet, audio_hours, plan_stage

GPUS_FILE = Path(__file__).parent / "gpus.yaml"

# Bytes a parameter: fp32 weight, gradient and two Adam moments where trained; bf16 where frozen.
_BYTES_TRAINED, _BYTES_FROZEN = 16, 2


@dataclass(frozen=True, slots=True)
class Gpu:
    """memory in GiB, rate in dense bf16 TFLOP/s, price in US dollars an hour."""

    memory: float
    rate: float
    price: float
    mfu: float


def gpus() -> dict[str, Gpu]:
    """The table of GPU kinds; edit gpus.yaml to add one."""
    return {name: Gpu(**values) for name, values in yaml.safe_load(GPUS_FILE.read_text()).items()}


def on_meta_device(start: ModelConfig) -> Qwen3ASRForConditionalGeneration:
    """The model's shapes without its memory. Raises UsageError."""
    if start.scale is not None or (start.init == "random" and start.start != "tiny"):
        config = configuration(start.scale or "1.7b")
    else:
        try:
            config = AutoConfig.from_pretrained(resolve(start.start), revision=start.revision)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"model {start.start}: cannot read its configuration ({str(error).splitlines()[0]}); "
                "model.init=random model.scale=1.7b shows the released shape without it"
            ) from error
    with torch.device("meta"):
        return Qwen3ASRForConditionalGeneration(config)


def shapes(start: ModelConfig, stages: tuple[StageConfig, ...]) -> dict[str, Any]:
    """Parameters of every group, and what each stage trains of them."""
    model = on_meta_device(start)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    groups: dict[str, int] = {}
    for label, names in partition(model).items():
        stack = label.partition("[")[0]
        groups[stack] = groups.get(stack, 0) + sum(sizes[name] for name in names)
    total = sum(sizes.values())
    planned = []
    for stage in stages:
        rows = describe(model, select(model, stage.learn))
        trained = sum(row["parameters"] for row in rows)
        planned.append(
            {
                "name": stage.name,
                "groups": rows,
                "trainable": trained,
                "weights_gib": (trained * _BYTES_TRAINED + (total - trained) * _BYTES_FROZEN) / 2**30,
            }
        )
    return {"parameters": total, "groups": groups, "stages": planned}


def decoded_targets(data: TrainingSet, prompt: Prompt, count: int = 3) -> list[dict[str, str]]:
    """What the loss falls on, decoded, for a few utterances: a look at this has saved many a run."""
    shown = []
    for row in data.rows[np.linspace(0, len(data.rows) - 1, min(count, len(data.rows))).astype(int)].tolist():
        example = prompt.example(0, data.texts[row], data.languages[row], data.contexts[row])
        shown.append({"id": data.corpus.utterance(row).id, "target": prompt.tokenizer.decode(example.target)})
    return shown


def show_targets(data: TrainingSet, prompt: Prompt) -> None:
    """Prints `decoded_targets`: the last look before the first step."""
    for shown in decoded_targets(data, prompt):
        print(f"trains on {shown['id']}: {shown['target']}", file=sys.stderr)


def show_groups(stage: str, rows: list[dict[str, Any]], steps: int) -> None:
    """Prints what a stage is about to train."""
    for row in rows:
        note = f" ({row['note']})" if row["note"] else ""
        print(f"stage {stage}: {row['group']} {row['parameters']:,} at {row['lr']:g}{note}", file=sys.stderr)
    print(f"stage {stage}: {sum(row['parameters'] for row in rows):,} parameters, {steps:,} steps", file=sys.stderr)


def batches(data: TrainingSet, config: TrainConfig, ranks: int, seed: int) -> list[dict[str, Any]]:
    """Steps, micro-batches, hours of audio and imbalance of every stage."""
    planned = []
    for number, stage in enumerate(config.stages):
        plans, steps = plan_stage(data, config, stage, ranks, seed * 1000 + number)
        sizes = [len(m) for plan in plans for step in plan.steps for rank in step for m in rank]
        per_epoch = len(plans[0].steps)
        planned.append(
            {
                "name": stage.name,
                "epochs": stage.epochs,
                "steps": steps,
                "steps_per_epoch": per_epoch,
                "effective_batch": len(plans[0].rows(0)),
                "micro_batches_per_step": len(sizes) / sum(len(plan.steps) for plan in plans) / ranks,
                "mix": stage.mix or "",
                "audio_hours": audio_hours(data, plans, steps),
                "imbalance": float(np.mean([plan.imbalance for plan in plans])),
            }
        )
    return planned


def compute_seconds(
    planned: dict[str, Any], groups: dict[str, int], stage: dict[str, Any], gpu: Gpu, count: int
) -> float:
    """Seconds a stage needs: 2 FLOPs a parameter and token forward, 4 more backward where gradients flow.

    Audio is 13 tokens a second for encoder and decoder; about 9 more a second are text and prompt. Gradients flow
    through everything above the lowest group trained; the embedding table costs as the output head only.
    """
    seconds = planned["audio_hours"] * 3600
    encoder = groups["audio_front"] + groups["audio_layers"] + groups["projector"]
    decoder = groups["decoder_layers"] + groups["embeddings"] * 0.2  # logits only where there are labels
    trained = {row["group"] for row in stage["groups"]}
    encoder_factor = 6 if trained & {"audio_front", "audio_layers"} else 2
    flops = seconds * (13 * encoder * encoder_factor + 22 * decoder * 6)
    return flops / (gpu.rate * 1e12 * gpu.mfu * count)
