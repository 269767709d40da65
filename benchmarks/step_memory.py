"""Memory and time of one optimizer step of the 1.7B, by trained groups and by seconds of audio in a micro-batch.

    python benchmarks/step_memory.py [--out step_memory.json] [--only NAME ...]

Random weights, random audio, 4.4 target tokens per second, clips of 8 s on average (log-normal, 1 to 15 s). The
constants of `caspi plan` for memory and time are fitted to this output (training/planning/costs.py). Needs a GPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen3ASRForConditionalGeneration

from caspi.model.architectures import configuration
from caspi.model.batch import Item, collate
from caspi.model.config import GroupTraining, ModelConfig
from caspi.model.forward import use_packed_attention
from caspi.model.groups import select
from caspi.model.loading import LoadedModel, load
from caspi.model.tensors import to_device
from caspi.training.config import StageConfig
from caspi.training.objectives.cross_entropy import CrossEntropy
from caspi.training.optim import build
from caspi.training.stage_setup import drops, set_up

_ALL = {"audio_front": 1e-4, "audio_layers": 1e-4, "projector": 1e-4, "decoder_layers": 1e-4, "embeddings": 1e-4}
_STAGES: dict[str, dict[str, Any]] = {
    "all": _ALL,
    "round2-decoder": {"projector": 2e-4, "decoder_layers": {"top": 0.43, "lr": 5e-5}, "embeddings": 1e-4},
    "round2-encoder": {
        "projector": 1e-4, "audio_layers": {"top": 0.333, "lr": 3e-5}, "decoder_layers": {"top": 0.43, "lr": 3e-5},
        "embeddings": 1e-4,
    },
    "decoder-top": {"decoder_layers": {"top": 12, "lr": 5e-5}},
    "lora": {
        "projector": 1e-4, "audio_layers": {"lr": 1e-4, "lora": {"dropout": 0.1}},
        "decoder_layers": {"lr": 1e-4, "lora": {"dropout": 0.1}},
    },
}  # fmt: skip
# Stage, activation_checkpointing_every, micro-batches per step, seconds of audio in each.
_RUNS = [
    ("all", 0, 1, (60, 120, 240)), ("all", 1, 1, (120, 480)), ("all", 2, 1, (240,)), ("all", 0, 2, (120,)),
    ("all", 1, 2, (240,)), ("round2-decoder", 0, 1, (60, 120, 240, 480)), ("round2-decoder", 0, 2, (240,)),
    ("round2-encoder", 0, 1, (60, 240)), ("round2-encoder", 1, 1, (240,)), ("decoder-top", 0, 1, (120, 480)),
    ("lora", 0, 1, (60, 240)), ("lora", 1, 1, (240,)),
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("step_memory.json"))
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--optimizers", nargs="+", default=["adamw"], choices=["adamw", "muon", "normuon"])
    parser.add_argument("--most-seconds", type=int, default=480, help="longest micro-batch to measure")
    options = parser.parse_args()
    device = torch.device("cuda")
    loaded = _released_shape(device)
    rows = []
    for name, every, micro_batches, budgets in _RUNS:
        if options.only and name not in options.only:
            continue
        runs = [(s, optimizer) for s in budgets for optimizer in options.optimizers if s <= options.most_seconds]
        for seconds, optimizer in runs:
            if name == "lora":  # adapters cannot be removed from a model, so load it again
                del loaded
                torch.cuda.empty_cache()
                loaded = _released_shape(device)
            row = {
                "stage": name,
                "activation_checkpointing_every": every,
                "micro_batches": micro_batches,
                "seconds": seconds,
                "optimizer": optimizer,
                "groups": _STAGES[name],
                **_measure(loaded, name, every, micro_batches, seconds, optimizer),
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
            where = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "date": f"{date.today()}"}
            options.out.write_text(json.dumps(where | {"command": " ".join(sys.argv), "rows": rows}, indent=1))


def _released_shape(device: torch.device) -> LoadedModel:
    """The 1.7B with its vocabulary of 151,936 and random weights; texts are tokenised with the tokenizer of tiny."""
    tiny = load(ModelConfig(start="tiny"))
    with device:
        model = Qwen3ASRForConditionalGeneration(configuration("1.7b"))
    use_packed_attention(model)
    return LoadedModel(model, tiny.prompt, tiny.processor)


def _measure(
    loaded: LoadedModel, name: str, every: int, micro_batches: int, seconds: int, kind: str
) -> dict[str, float]:
    learn = {group: GroupTraining.model_validate(how) for group, how in _STAGES[name].items()}
    stage = StageConfig.model_validate({"name": "s", "groups": _STAGES[name], "optimizer": kind})
    groups = select(loaded.model, learn)  # type: ignore[arg-type]
    # With activation checkpointing, adapters with dropout are never compiled (`training/stage_setup.compiles`).
    set_up(loaded.model, groups, torch.bfloat16, every, compiled=not (every and drops(stage)))
    device = next(loaded.model.parameters()).device
    optimizer = build.build(loaded.model, groups, stage)
    objective = CrossEntropy(loaded.model, torch.bfloat16).train()
    # Other clips each time, as in training: what libraries cache for one shape does not help with the next.
    batches = [to_device(collate(_items(seconds, seed), loaded.prompt), device) for seed in range(5)]
    batch = batches[-1]
    found: dict[str, float] = {
        "audio_seconds": batch.seconds, "clips": len(batch.sequences.bounds) - 1,
        "tokens": len(batch.sequences.input_ids), "audio_tokens": len(batch.sequences.audio_positions),
        "labels": len(batch.labels),
        "trained": sum(p.numel() for p in loaded.model.parameters() if p.requires_grad),
    }  # fmt: skip
    try:
        times = []
        for batch in batches:
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
            started = time.perf_counter()
            for _ in range(micro_batches):
                (objective(batch) / len(batch.labels)).backward()
            torch.cuda.synchronize()
            computed = time.perf_counter()
            optimizer.step()
            optimizer.zero_grad()
            torch.cuda.synchronize()
            times.append((computed - started, time.perf_counter() - computed))
        found |= {
            "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
            "reserved_gib": torch.cuda.max_memory_reserved() / 2**30,
            "forward_backward_s": float(np.median([one for one, _ in times[2:]])) / micro_batches,
            "optimizer_s": float(np.median([other for _, other in times[2:]])),
        }
    except torch.OutOfMemoryError:
        found |= {"peak_gib": float("inf")}
    del optimizer, batch, batches
    loaded.model.zero_grad(set_to_none=True)
    gc.collect()
    torch.cuda.empty_cache()
    return found


def _items(seconds: int, seed: int) -> list[Item]:
    draw = np.random.default_rng(seed)
    items, held = [], 0.0
    while held < seconds:
        length = float(np.clip(draw.lognormal(2.0, 0.5), 1, min(15, max(1.0, seconds - held))))
        text = "".join(
            draw.choice(list("אבגדהוזחטיכלמנסעפצקרשת"), int(4.4 * length))
        )  # tiny's tokenizer: one token per letter
        items.append(Item(draw.standard_normal(int(length * 16_000)).astype(np.float32) * 0.1, text, "Hebrew"))
        held += length
    return items


if __name__ == "__main__":
    main()
