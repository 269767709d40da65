"""Training throughput in seconds of audio per second: `caspi train` against a baseline on the same clips.

    python benchmarks/train_throughput.py --tokenizer DIR [--scale tiny] [--clips uniform|lognormal] [key=value ...]

The baseline (`plain`) is transformers' Trainer with the processor called in the collator, padded batches and full
logits. Both read the clips from disk (caspi from the corpus that `caspi prepare` made), train all parameters with AdamW
from the same random weights, and take turns, `--rounds` times. Whole steps are timed, without the first ones. On a CPU
both compute in fp32, on a GPU in bf16 under autocast over fp32 weights. Overrides apply to the recipe of caspi. Prints
one JSON line. For caspi, `fifths` are the speeds of five parts of the run, and `waited` is the share of time spent
waiting for data. On a GPU, `idle` describes the times without a kernel in the last steps, which are not counted
(torch's profiler).
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from speechlike import FILTERS, HELD_OUT, clips, random_start, sources, watch

from caspi import commands, recipe

_WATCHED = (
    5 if torch.cuda.is_available() else 0
)  # the last steps, run under the profiler; not counted for caspi or the baseline
_LEARN = "{audio_front: 1e-4, audio_layers: 1e-4, projector: 1e-4, decoder_layers: 1e-4, embeddings: 1e-4}"


def add_corpus_options(parser: argparse.ArgumentParser) -> None:
    """Options that define the corpus and the recipe."""
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--scale", default="tiny")
    parser.add_argument("--clips", choices=["uniform", "lognormal"], default="uniform")
    parser.add_argument("--batch", type=int, default=16, help="clips per step")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument(
        "--passes", type=int, default=1, help="passes over the clips; the number of clips is divided by this"
    )
    parser.add_argument("--warm-up", type=int, default=3, help="number of first steps that are not counted")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("overrides", nargs="*")


def prepared(folder: Path, options: argparse.Namespace) -> recipe.Recipe:
    """Makes random weights, a corpus of clips (uniform from 2 to 8 s, or log-normal around 8 s) and a recipe for them.
    `clips.json` lists the clips."""
    draw = np.random.default_rng(0)
    count = options.steps // options.passes * options.batch + HELD_OUT
    uniform = options.clips == "uniform"
    seconds = draw.uniform(2, 8, count) if uniform else np.clip(draw.lognormal(2.08, 0.5, count), 1, 25)
    made = clips(folder, seconds.tolist())
    (folder / "clips.json").write_text(json.dumps([[str(path), text] for path, text in made[HELD_OUT:]]))
    random_start(folder / "start", options.tokenizer, options.scale)
    ours = _recipe(folder, made, options)
    commands.prepare.run(ours)
    (folder / "recipe.yaml").write_text(recipe.dump(ours), encoding="utf-8")
    return ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_corpus_options(parser)
    parser.add_argument("--plain-batch", type=int, help="clips per step of the baseline, if memory holds fewer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["ours", "plain"])
    options = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory(prefix="caspi-bench-") as name:
        folder = Path(name)
        prepared(folder, options)
        speeds: dict[str, list[float]] = {"ours": [], "plain": []}
        how: list[dict[str, Any]] = []
        for _ in range(options.rounds):
            if options.only != "plain":
                speed, seen = _ours(folder, options)
                speeds["ours"].append(speed)
                how.append(seen)
                print(f"ours: {speed:.1f} audio s/s, {seen}", file=sys.stderr, flush=True)
            if options.only != "ours":
                speeds["plain"].append(_plain(folder, options))
    medians = {name: statistics.median(found) for name, found in speeds.items() if found}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    print(json.dumps({
        "scale": options.scale, "clips": options.clips, "batch": options.batch, "overrides": options.overrides,
        "device": device, "processor": platform.processor() or platform.machine(), "torch": torch.__version__,
        "plain_batch": options.plain_batch or options.batch, "audio_s_per_s": medians, "rounds": speeds, "ours": how,
        "ratio": medians["ours"] / medians["plain"] if len(medians) == 2 else None,
    }))  # fmt: skip


def _recipe(folder: Path, made: list[tuple[Path, str]], options: argparse.Namespace) -> recipe.Recipe:
    text = f"""
name: throughput
language: Hebrew
corpus: {{path: {folder / "corpus"}, sources: {sources(folder, made)}, filters: {FILTERS}}}
model: {{start: {folder / "start"}}}
train:
  path: {folder / "train"}
  effective_batch: {options.batch}
  workers: {options.workers}
  log_every: 1
  track: []
  evaluate: {{every: 100000, utterances: 4}}
  stages: [{{name: all, epochs: {options.passes}, groups: {_LEARN}, schedule: {{kind: constant}}}}]
"""
    path = folder / "made.yaml"
    path.write_text(text, encoding="utf-8")
    return recipe.load(path, tuple(options.overrides))


def _ours(folder: Path, options: argparse.Namespace) -> tuple[float, dict[str, Any]]:
    """Seconds of audio per second, and further measurements."""
    run = folder / "train"
    shutil.rmtree(run, ignore_errors=True)
    command = [sys.executable, __file__, "ours", str(folder), str(options.steps - _WATCHED)]
    lines = watch(command, run, options.steps).lines[options.warm_up : options.steps - _WATCHED]
    # Each line covers one step; its time is its audio divided by its speed. All steps have the same number of clips.
    times = np.array([1 / line["audio_seconds_per_second"] for line in lines])
    seen: dict[str, Any] = {
        "steps": len(lines),
        "fifths": [float(1 / part.mean()) for part in np.array_split(times, 5) if len(part)],
        "waited": float(np.average([line["waited"] for line in lines], weights=times)),
    }
    idle = folder / "idle.json"
    return float(1 / times.mean()), seen | {"idle": json.loads(idle.read_text()) if idle.is_file() else None}


def train_ours(folder: Path, first: int) -> None:
    """Runs `caspi train`, with torch's profiler on the GPU from step `first` on."""
    from torch.profiler import ProfilerActivity, profile

    from caspi.training.loop import StageLoop

    seen = profile(activities=[ProfilerActivity.CUDA])
    gradient, take = StageLoop._gradient, StageLoop._apply_gradient

    def watched_gradient(self: StageLoop, *of: Any) -> Any:
        if self.step == first:
            seen.start()
        return gradient(self, *of)

    def watched_take(self: StageLoop, *of: Any) -> Any:
        found = take(self, *of)
        if self.step + 1 == first + _WATCHED:
            torch.cuda.synchronize()
            seen.stop()
            (folder / "idle.json").write_text(json.dumps(idle_times(seen)))
        return found

    if torch.cuda.is_available():
        StageLoop._gradient, StageLoop._apply_gradient = watched_gradient, watched_take  # type: ignore[method-assign]
    commands.train.run(recipe.load(folder / "recipe.yaml"))


def idle_times(seen: Any) -> dict[str, Any]:
    """`share`: the share of time without a kernel, between the first kernel and the last. `longest_ms`: the longest of
    these gaps in ms, each with the kernel before and after it."""
    spans = sorted(
        (event.time_range.start, event.time_range.end, event.name[:40])
        for event in seen.events()
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation
    )
    gaps, last, until = [], spans[0][2], spans[0][0]
    for start, end, name in spans:
        if start > until:
            gaps.append(((start - until) / 1000, last, name))
        if end > until:
            last, until = name, end
    share = sum(gap for gap, *_ in gaps) * 1000 / (until - spans[0][0])
    return {"share": share, "gaps": len(gaps), "longest_ms": sorted(gaps, reverse=True)[:12]}


def _plain(folder: Path, options: argparse.Namespace) -> float:
    """Runs the baseline in its own process, as caspi is run. Returns seconds of audio per second."""
    batch = options.plain_batch or options.batch
    command = [sys.executable, __file__, "plain", str(folder)]
    command += [str(number) for number in (batch, options.steps - _WATCHED, options.warm_up, options.workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the baseline failed:\n{done.stderr[-4000:]}")
    return float(done.stdout.splitlines()[-1])


def train_plainly(folder: Path, batch: int, steps: int, warm_up: int, workers: int) -> float:
    """transformers, used as in its documentation. Returns seconds of audio per second, without the warm-up steps."""
    from transformers import AutoProcessor, Qwen3ASRForConditionalGeneration, Trainer, TrainerCallback
    from transformers import TrainingArguments as Arguments

    clips_once = json.loads((folder / "clips.json").read_text(encoding="utf-8"))
    made = (clips_once * (1 + steps * batch // len(clips_once)))[: steps * batch]
    processor = AutoProcessor.from_pretrained(folder / "start")
    model = Qwen3ASRForConditionalGeneration.from_pretrained(folder / "start", dtype=torch.float32)
    user = [{"role": "user", "content": [{"type": "audio", "audio": ""}]}]
    prompt = processor.apply_chat_template(user, add_generation_prompt=True, tokenize=False)
    ended: list[float] = []

    def collate(rows: list[list[str]]) -> Any:
        return processor(
            text=[f"{prompt}language Hebrew<asr_text>{text}<|im_end|>" for _, text in rows],
            audio=[soundfile.read(path, dtype="float32")[0] for path, _ in rows],
            output_labels=True,
            padding=True,
        )

    class Ordered(Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(made)

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            ended.append(time.perf_counter())

    gpu = torch.cuda.is_available()
    arguments = Arguments(
        output_dir=str(folder / "plain"), per_device_train_batch_size=batch, max_steps=steps, learning_rate=1e-4,
        lr_scheduler_type="constant", bf16=gpu, use_cpu=not gpu, dataloader_num_workers=workers, report_to=[],
        save_strategy="no", logging_strategy="no", disable_tqdm=True, remove_unused_columns=False, adam_beta2=0.98,
        weight_decay=0.01,
    )  # fmt: skip
    Ordered(model=model, args=arguments, train_dataset=made, data_collator=collate, callbacks=[Clock()]).train()
    counted = made[warm_up * batch : len(ended) * batch]
    audio = sum(soundfile.info(path).duration for path, _ in counted)
    return audio / (ended[-1] - ended[warm_up - 1])


if __name__ == "__main__":
    if sys.argv[1:2] == ["ours"]:
        train_ours(Path(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1:2] == ["plain"]:
        print(train_plainly(Path(sys.argv[2]), *map(int, sys.argv[3:])))
    else:
        main()
