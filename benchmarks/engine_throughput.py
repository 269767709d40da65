"""Decoding speed of the engine on one GPU, in seconds of audio per second, with random weights.

    python benchmarks/engine_throughput.py --tokenizer DIR [--scale 1.7b] [--count 1024] [--rows 128 256 512]
        [--weights 16 int8 fp8]

Every clip gets exactly 4.4 tokens per second of audio. `corpus`: clips log-normal around 8 s (1 to 25 s), read from a
corpus on disk; everything between the files and the tokens counts. `long`: recordings of two minutes, in windows.
`parts`: the GPU's seconds in encoder, prompts and steps in one run. `alone`: the latency of one clip of 8 s and of its
first token. `evaluation`: seconds that an in-training evaluation of 200 clips takes, with a new engine over weights in
fp32, the first and the second time. `generate`: transformers' own, with the same weights, on fewer clips. Prints one
JSON line. --weights: of the decoder's linear layers; 16: bf16 on a GPU, fp32 on a CPU. `decoder_gib`: their size, with
the head's.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from train_throughput import add_corpus_options, prepared

from caspi.audio import SAMPLE_RATE
from caspi.corpus.read_ahead import read_ahead
from caspi.corpus.store import Corpus
from caspi.inference.engine.engine import Engine
from caspi.inference.engine.generator import Generator, GeneratorOptions
from caspi.inference.engine.requests import DecodeRequest
from caspi.inference.engine.step_graphs import Stepper
from caspi.inference.long_audio import windows
from caspi.model.config import ModelConfig
from caspi.model.eight_bit import DTYPES, EightBitWeight, Format, is_quantisable
from caspi.model.loading import LoadedModel, cast, load

_TOKENS_PER_SECOND = 4.4
_LANGUAGE = "Hebrew"


def forced(samples: np.ndarray) -> DecodeRequest:
    """A request that takes exactly as many tokens as speech of its length."""
    count = max(1, round(_TOKENS_PER_SECOND * len(samples) / SAMPLE_RATE))
    return DecodeRequest(samples, language=_LANGUAGE, max_tokens=count, min_tokens=count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_corpus_options(parser)
    parser.add_argument("--count", type=int, default=1024, help="clips")
    parser.add_argument("--rows", type=int, nargs="+", default=[256])
    parser.add_argument("--weights", choices=["16", *DTYPES], nargs="+", default=["16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--generate", type=int, default=0, help="clips of the baseline")
    parser.add_argument("--long", type=int, default=0, help="recordings of two minutes")
    options = parser.parse_intermixed_args()
    options.steps, options.batch, options.clips = 1, options.count, "lognormal"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory(prefix="caspi-bench-") as name:
        folder = Path(name)
        made = prepared(folder, options)
        corpus = Corpus.open(made.corpus.path, "train")
        loaded = load(ModelConfig(start=str(folder / "start")), device)
        if device.type == "cuda":
            cast(loaded.model, torch.bfloat16)
        found: dict[str, Any] = {
            "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor(),
            "torch": torch.__version__, "clips": len(corpus),
        }  # fmt: skip
        for weights in options.weights:
            model = loaded if weights == "16" else in_eight_bits(loaded, weights)
            for rows in options.rows:
                key = f"rows_{rows}" if weights == "16" else f"{weights}_rows_{rows}"
                found[key] = measure(model, corpus, rows, options)
                say(f"{key}: {found[key]}")
        found["evaluation"] = evaluation(loaded, corpus, device)
        if options.generate:
            found["generate"] = baseline(loaded, corpus, options.generate)
    print(json.dumps(found))


def in_eight_bits(loaded: LoadedModel, form: Format) -> LoadedModel:
    named = loaded.model.state_dict().items()
    return replace(loaded, eight_bit={name: EightBitWeight.of(t, form) for name, t in named if is_quantisable(name)})


def decoder_bytes(engine: Engine) -> int:
    """Of the weights that steps use."""
    weights = engine._generator._network.weights
    matrices = [part for block in weights.blocks for part in (getattr(block, f.name) for f in fields(block))]
    parts = [part if isinstance(part, torch.Tensor) else part.values for part in matrices]
    return sum(part.nbytes for part in [*parts, weights.head])


def evaluation(loaded: LoadedModel, corpus: Corpus, device: torch.device) -> list[float]:
    """Seconds of two evaluations of 200 clips, as training runs them."""
    requests = [forced(corpus.samples(row)) for row in range(min(200, len(corpus)))]
    cast(loaded.model, torch.float32)
    dtype = torch.bfloat16 if device.type == "cuda" else None
    return [timed(lambda: run(Engine(loaded, dtype=dtype), requests), device) for _ in range(2)]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(loaded: LoadedModel, corpus: Corpus, rows: int, options: argparse.Namespace) -> dict[str, Any]:
    """All figures with this number of rows."""
    device = loaded.model.device
    dtype = torch.bfloat16 if device.type == "cuda" else None
    engine = Engine(loaded, dtype=dtype, options=replace(GeneratorOptions.for_device(device), rows=rows))
    order = np.argsort(-corpus.numbers("seconds"), kind="stable").tolist()
    seconds = float(corpus.numbers("seconds").sum())
    started = time.perf_counter()
    run(engine, (forced(corpus.samples(row)) for row in order[: 2 * rows]))
    found: dict[str, Any] = {
        "first_run_seconds": time.perf_counter() - started, "decoder_gib": decoder_bytes(engine) / 2**30,
    }  # fmt: skip

    def whole() -> Iterable[DecodeRequest]:
        return read_ahead(lambda row: forced(corpus.samples(row)), order)

    speeds = [seconds / timed(lambda: run(engine, whole()), device) for _ in range(options.rounds)]
    found |= {"corpus": statistics.median(speeds), "corpus_rounds": speeds}
    in_memory = [forced(corpus.samples(row)) for row in order]
    found["from_memory"] = seconds / timed(lambda: run(engine, in_memory), device)
    if device.type == "cuda":
        found["parts"] = parts(engine, in_memory, device)
    clip = np.random.default_rng(0).standard_normal(8 * SAMPLE_RATE).astype(np.float32) * 0.1
    whole_clip, first = forced(clip), replace(forced(clip), max_tokens=1, min_tokens=1)
    for request in (whole_clip, first):
        run(engine, [request])
    found["alone"] = {
        "clip": statistics.median(timed(lambda: run(engine, [whole_clip]), device) for _ in range(9)),
        "first_token": statistics.median(timed(lambda: run(engine, [first]), device) for _ in range(9)),
    }
    if options.long:
        recording = np.random.default_rng(1).standard_normal(120 * SAMPLE_RATE).astype(np.float32) * 0.1
        pieces = [forced(recording[a:b]) for _ in range(options.long) for a, b in windows(recording)]
        found["long"] = 120 * options.long / timed(lambda: run(engine, pieces), device)
    return found


def run(engine: Engine, requests: Iterable[DecodeRequest]) -> int:
    return sum(len(hypothesis.tokens) for _, hypothesis in engine.decode_each(requests))


def timed(work: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def parts(engine: Engine, requests: Sequence[DecodeRequest], device: torch.device) -> dict[str, float]:
    """GPU seconds in each part, the host's seconds in the calls of each, and all seconds of the run."""
    marks: defaultdict[str, list[tuple[Any, Any]]] = defaultdict(list)
    host: defaultdict[str, float] = defaultdict(float)
    patched = [(Engine, "_encoded", "encoder"), (Generator, "_begin", "prompts"), (Stepper, "steps", "steps"),
               (Generator, "_collect", "collect")]  # fmt: skip
    kept = [getattr(owner, method) for owner, method, _ in patched]
    for (owner, method, part), original in zip(patched, kept, strict=True):

        def measured(*given: Any, _original: Any = original, _part: str = part, **more: Any) -> Any:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            before = time.perf_counter()
            begin.record()
            result = _original(*given, **more)
            end.record()
            host[f"host_{_part}"] += time.perf_counter() - before
            marks[_part].append((begin, end))
            return result

        setattr(owner, method, measured)
    try:
        seconds = timed(lambda: run(engine, requests), device)
    finally:
        for (owner, method, _), original in zip(patched, kept, strict=True):
            setattr(owner, method, original)
    gpu = {part: sum(begin.elapsed_time(end) for begin, end in pairs) / 1e3 for part, pairs in marks.items()}
    steps = marks["steps"]
    longest = sorted(begin.elapsed_time(end) for begin, end in steps)
    return gpu | host | {
        "all": seconds, "calls_of_steps": len(steps), "milliseconds_of_a_call_median": longest[len(longest) // 2],
        "milliseconds_of_a_call_90th": longest[9 * len(longest) // 10],
    }  # fmt: skip


def baseline(loaded: LoadedModel, corpus: Corpus, count: int) -> dict[str, float]:
    """transformers' processor and `generate`, as in its documentation, with batches of 1 and of 16."""
    processor: Any = loaded.processor
    user = [{"role": "user", "content": [{"type": "audio", "audio": ""}]}]
    text = processor.apply_chat_template(user, add_generation_prompt=True, tokenize=False)
    text += f"language {_LANGUAGE}<asr_text>"
    speeds = {}
    if loaded.model.device.type == "cuda":
        cast(loaded.model, torch.bfloat16)
    for config in (loaded.model.config.audio_config, loaded.model.config.text_config):
        config._attn_implementation = "sdpa"
    for batch in (1, 16):
        clips = [corpus.samples(row) for row in range(count if batch > 1 else max(4, count // 8))]
        started = time.perf_counter()
        with torch.inference_mode():
            for first in range(0, len(clips), batch):
                some = clips[first : first + batch]
                inputs = processor(text=[text] * len(some), audio=some, padding=True, return_tensors="pt")
                inputs = inputs.to(loaded.model.device, loaded.model.dtype)
                tokens = max(forced(clip).limit for clip in some)
                loaded.model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
        speeds[f"batch_{batch}"] = sum(map(len, clips)) / SAMPLE_RATE / (time.perf_counter() - started)
    return speeds


if __name__ == "__main__":
    main()
