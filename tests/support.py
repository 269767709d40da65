"""What several tests share: small corpora and runs, their logs and weights, processes under torchrun."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
import soundfile
import torch
import yaml
from safetensors.torch import load_file

from caspi import audio, recipe
from caspi.corpus.store import Corpus
from caspi.corpus.synthesis.espeak import Voice, speak
from caspi.corpus.utterance import SPLITS, Utterance
from caspi.inference.engine.requests import DecodeRequest
from caspi.model.batch import AudioBatch, Batch, Item, collate
from caspi.model.features import pad_clips
from caspi.model.forward import encode
from caspi.model.loading import LoadedModel
from caspi.model.tensors import to_device
from caspi.training.checkpoint import files as checkpoints
from caspi.training.objectives.cross_entropy import CrossEntropy
from tests.conftest import RECIPES, small_overrides

# The browser, if it can be driven; None on a machine without it, or with the `test` extra only.
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser")
    if importlib.util.find_spec("playwright") is not None
    else None
)


def needs(module: str) -> pytest.MarkDecorator:
    """Skips a test where a package of the `dev` extra is missing."""
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"{module} is not installed (extra dev)")


def encoded(samples: np.ndarray, rate: int, container: str, codec: str, bit_rate: int | None = None) -> bytes:
    """float32 [n] at `rate` as the bytes of a file."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        if bit_rate:
            stream.bit_rate = bit_rate
        pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(
            format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size or None
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    return buffer.getvalue()


def voice(text: str, number: int = 0) -> np.ndarray:
    """A sentence spoken, float32 at 16 kHz; another voice for every number."""
    spoken = speak(text, "es", Voice("m1", 140 + number % 60, 30 + number % 40))
    return audio.resample(spoken.samples, spoken.sample_rate)


def utterances(folder: Path) -> dict[str, Utterance]:
    """Everything a corpus holds, by id."""
    found = {}
    for split in SPLITS:
        if list(folder.glob(f"{split}-*.arrow")):
            corpus = Corpus.open(folder, split)
            found |= {u.id: u for u in (corpus.utterance(row) for row in range(len(corpus)))}
    return found


def fingerprints_of(folder: Path) -> dict[str, str]:
    report = json.loads((folder / "report.json").read_text())
    return {name: split["fingerprint"] for name, split in report["splits"].items()}


def write_manifest(folder: Path, clips: Sequence[tuple[np.ndarray, str]], name: str = "m", **fields: object) -> Path:
    """FLAC files and their manifest; every clip its own group."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (samples, text) in enumerate(clips):
        file = f"{name}-{number}.flac"
        soundfile.write(folder / file, samples, 16_000)
        lines.append({"audio": file, "text": text, "id": f"{name}-{number}", **fields})
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    return path


def run_recipe(folder: Path, corpus: Path, *overrides: str) -> recipe.Recipe:
    return recipe.load(
        RECIPES / "demo.yaml",
        (*small_overrides(folder), f"corpus.path={corpus}", f"train.path={folder / 'train'}", *overrides),
    )


def metrics(run: Path, key: str) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row[key] for row in rows if key in row]


def logged(run: Path, key: str, stage: str) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl of a stage that have a key."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if key in row and row["stage"] == stage]


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(Path(json.loads((run / "report.json").read_text())["final"]) / "model.safetensors")


def items(*seconds: float) -> list[Item]:
    draw = np.random.default_rng(0)
    texts = ["שלום", "מה שלומך היום", "תודה רבה", "זה משפט ארוך יותר מן האחרים כאן"]
    return [
        Item((draw.standard_normal(int(s * 16_000)) * 0.1).astype(np.float32), texts[n % 4], "Hebrew", "הקשר" * (n % 2))
        for n, s in enumerate(seconds)
    ]


def gradients(loaded: LoadedModel, batches: list[list[Item]]) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients per target token over all micro-batches."""
    model = loaded.model
    model.zero_grad()
    objective = CrossEntropy(model)
    collated = [collate(batch, loaded.prompt) for batch in batches]
    tokens = sum(len(batch.labels) for batch in collated)
    total = 0.0
    for batch in collated:
        loss = objective(batch) / tokens
        loss.backward()
        total += float(loss.detach())
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def accelerate_environment(kind: str) -> dict[str, str]:
    """What `accelerate launch` makes of a shipped configuration; torchrun does the rest."""
    config = yaml.safe_load((RECIPES / "accelerate" / f"{kind}.yaml").read_text())
    if kind == "zero3":
        variables = {name.upper(): str(value).lower() for name, value in config["deepspeed_config"].items()}
        variables = {f"ACCELERATE_DEEPSPEED_{name}": value for name, value in variables.items()}
        return {"ACCELERATE_USE_DEEPSPEED": "true", "OMP_NUM_THREADS": "1", **variables}
    variables = {name.upper(): str(value).lower() for name, value in config["fsdp_config"].items()}
    for name in ("FSDP_AUTO_WRAP_POLICY", "FSDP_STATE_DICT_TYPE"):
        variables[name] = variables[name].upper()
    return {"ACCELERATE_USE_FSDP": "true", "OMP_NUM_THREADS": "1", **variables}


def command(folder: Path, made: recipe.Recipe) -> list[str]:
    folder.mkdir(exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(recipe.dump(made), encoding="utf-8")
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return [*run, "-m", "caspi", "train", str(path)]


def kill_a_rank(command: list[str], environment: dict[str, str], run: Path) -> None:
    """Starts two processes and kills the second one once the second stage has a checkpoint."""
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 120
    while not checkpoints.complete_checkpoints(run / "2-all"):
        assert time.monotonic() < deadline
        assert started.poll() is None
        time.sleep(0.005)
    ranks = [child for child in psutil.Process(started.pid).children() if "caspi" in " ".join(child.cmdline())]
    assert len(ranks) == 2
    ranks[1].send_signal(signal.SIGKILL)
    assert started.wait(timeout=90) != 0
    assert not (run / "report.json").exists()


Forward = Callable[[CrossEntropy, Batch], torch.Tensor]


def lines(run: Path, key: str) -> list[dict]:  # type: ignore[type-arg]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if key in row]


def short(folder: Path, corpus: Path, *overrides: str) -> recipe.Recipe:
    """Two steps of projector and embeddings, then two of everything."""
    return run_recipe(
        folder,
        corpus,
        "train.stages.0.epochs=0.34",
        "train.stages.1.epochs=0.34",
        "train.evaluate.every=2",
        "train.precision=fp32",
        *overrides,
    )


def spoil(monkeypatch: pytest.MonkeyPatch, replacement: Callable[[Forward, CrossEntropy, Batch], torch.Tensor]) -> None:
    real = CrossEntropy.forward

    def forward(self: CrossEntropy, batch: Batch) -> torch.Tensor:
        return replacement(real, self, batch) if torch.is_grad_enabled() else real(self, batch)  # training only

    monkeypatch.setattr(CrossEntropy, "forward", forward)


@torch.no_grad()
def generated(loaded: LoadedModel, request: DecodeRequest, **options: Any) -> Any:
    """The tokens of transformers' own `generate` for one clip alone, with transformers' attention; a list for each of
    several returned sequences."""
    model, prompt = loaded.model.eval(), loaded.prompt
    batch = to_device(AudioBatch.of(*pad_clips([request.samples])), model.device)
    forced = prompt.language_prefix(request.language) if request.language else []
    ids = torch.tensor([prompt.prefix(batch.tokens[0], request.context) + forced], device=model.device)
    embeddings = model.get_input_embeddings()(ids)
    audio_at = (ids == prompt.audio)[:, :, None].expand_as(embeddings)
    embeddings = embeddings.masked_scatter(audio_at, encode(model, batch))
    config = model.config.text_config
    with pytest.MonkeyPatch.context() as patch:  # generation, with its cache, needs transformers' own attention
        patch.setattr(config, "_attn_implementation", "sdpa")
        tokens = model.generate(
            inputs_embeds=embeddings, attention_mask=torch.ones_like(ids), eos_token_id=prompt.end,
            pad_token_id=prompt.pad, **{"max_new_tokens": request.limit, "do_sample": False} | options,
        )  # fmt: skip
    lists = [row[: row.index(prompt.end) + 1] if prompt.end in row else row for row in tokens.tolist()]
    return lists if options.get("num_return_sequences") else lists[0]
