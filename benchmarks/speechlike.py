"""Shared by the training benchmarks: clips with speech-like lengths and texts, and runs monitored through their log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
import torch
from transformers import Qwen3ASRForConditionalGeneration

from caspi.model.architectures import configuration
from caspi.model.loading import load_processor

_CHARACTERS_PER_SECOND = 12  # of Hebrew: about 4.4 tokens of the released tokenizer
_WORDS = "שלום עולם ילדים הולכים אל הים בבוקר של יום חם ורואים אוניות גדולות מאוד ליד החוף הישן".split()
HELD_OUT = 8  # clips of the validation split


def clips(folder: Path, seconds: Sequence[float]) -> list[tuple[Path, str]]:
    """16 kHz WAV files of noise with the given seconds, each with a text."""
    draw = np.random.default_rng(1)
    made = []
    for number, length in enumerate(seconds):
        path = folder / f"{number}.wav"
        soundfile.write(path, draw.standard_normal(int(length * 16_000)) * 0.1, 16_000)
        text = ""
        while len(text) < _CHARACTERS_PER_SECOND * length:
            text += draw.choice(_WORDS) + " "
        made.append((path, text.strip()))
    return made


def sources(folder: Path, made: list[tuple[Path, str]], held_out: int = HELD_OUT) -> str:
    """Writes manifests of the clips, the first `held_out` for validation. Returns a recipe's `corpus.sources`."""
    entries = []
    for split, chosen in (("validation", made[:held_out]), ("train", made[held_out:])):
        lines = [json.dumps({"audio": path.name, "text": text, "id": path.stem}) for path, text in chosen]
        (folder / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        entries.append(f"{{kind: manifest, name: {split}, path: {folder / split}.jsonl, split: {split}}}")
    return f"[{', '.join(entries)}]"


# Filters on silence and speaking rate would reject noise.
FILTERS = "{max_seconds: 30, max_silence: 1, rate_deviations: 1000, max_repeats: 100000}"


def random_start(folder: Path, tokenizer: Path, scale: str) -> None:
    """Writes a checkpoint of random weights in bf16, made on the GPU if there is one."""
    processor = load_processor(str(tokenizer))
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen3ASRForConditionalGeneration(configuration(scale, processor.tokenizer))
    model.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()  # frees the GPU for the measurement that follows


@dataclass(frozen=True, slots=True)
class Watched:
    """Log lines of a run's steps, and the seconds from the signal until it exited."""

    lines: list[dict[str, Any]]
    left_after: float


def watch(
    command: Sequence[str], run: Path, steps: int, *, leave: bool = False, environment: Mapping[str, str] | None = None
) -> Watched:
    """Starts a `caspi train` that logs every step into `run`, and ends it after `steps`: with SIGKILL, or with SIGTERM
    if `leave`, as in a preemption. If the run ends by itself, raises SystemExit with its output."""
    with tempfile.TemporaryFile("w+") as output:
        started = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | (environment or {}))
        lines: list[dict[str, Any]] = []
        while len(lines) < steps:
            time.sleep(0.2)
            log = run / "metrics.jsonl"
            text = log.read_text(encoding="utf-8") if log.is_file() else ""
            lines = [line for line in map(json.loads, text.splitlines()[:-1]) if "loss" in line]
            if started.poll() is not None and len(lines) < steps:
                output.seek(0)
                raise SystemExit(f"{' '.join(command)} failed:\n{output.read()[-4000:]}")
        signalled = time.monotonic()
        everyone = [psutil.Process(started.pid), *psutil.Process(started.pid).children(recursive=True)]
        for process in everyone:  # processes of torchrun are in their own process groups
            process.send_signal(signal.SIGTERM if leave else signal.SIGKILL)
        psutil.wait_procs(everyone)
        started.wait()
        return Watched(lines, time.monotonic() - signalled)
