"""How many clients `caspi serve` serves, and how fast: clients that each send one clip after another.

    python benchmarks/serving_load.py runs/demo/train/average runs/demo/corpus --clients 1 8 32 128 200
    python benchmarks/serving_load.py runs/demo/train/average runs/demo/corpus --soak 30
    python benchmarks/serving_load.py 1.7b CORPUS --tokenizer DIR --clients 1 32 128 --processes 4

--soak MINUTES: eight clients for so long; memory of all processes, every minute. --tokenizer: MODEL is a size, of which
random weights are made; they never end a text, so every clip takes the 4.4 tokens a second of Hebrew speech.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from server_process import PATH, Server, serving
from speechlike import random_start

from caspi import audio
from caspi.corpus.store import Corpus

SOAK_CLIENTS = 8


@dataclass
class Tally:
    """Of one load. seconds: of each request; audio: seconds that were transcribed."""

    seconds: list[float] = field(default_factory=list)
    audio: float = 0.0
    failed: int = 0
    wrong: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.seconds + other.seconds, self.audio + other.audio, self.failed + other.failed, self.wrong + other.wrong
        )


Clips = Sequence[tuple[bytes, float]]  # files, and their seconds


async def one_client(
    http: httpx.AsyncClient, clips: Clips, texts: list[str | None], tally: Tally, until: float
) -> None:
    """Asks for one clip after another; the same clip always has the same text."""
    draw = np.random.default_rng(time.perf_counter_ns())
    while time.monotonic() < until:
        number = int(draw.integers(len(clips)))
        content, length = clips[number]
        began = time.monotonic()
        answer = await http.post(PATH, files={"file": ("a.flac", content)}, data={"language": "he"})
        tally.seconds.append(time.monotonic() - began)
        if answer.status_code != 200:
            tally.failed += 1
            continue
        tally.audio += length
        text = answer.json()["text"]
        tally.wrong += texts[number] is not None and texts[number] != text
        texts[number] = text


async def load(url: str, clips: Clips, clients: int, seconds: float) -> Tally:
    tally, texts = Tally(), [None] * len(clips)
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as http:
        until = time.monotonic() + seconds
        await asyncio.gather(*(one_client(http, clips, texts, tally, until) for _ in range(clients)))
    return tally


def loaded(url: str, clips: Clips, clients: int, seconds: float) -> Tally:
    """One process's share of the clients."""
    return asyncio.run(load(url, clips, clients, seconds))


def described(clients: int, tally: Tally, seconds: float) -> str:
    middle, late = np.quantile(tally.seconds, [0.5, 0.95])
    return (
        f"{clients:4} clients: {tally.audio / seconds:7.1f} audio s/s, {len(tally.seconds) / seconds:6.1f} requests/s, "
        f"p50 {middle:.3f} s, p95 {late:.3f} s, {tally.failed} failed, {tally.wrong} with another text"
    )


def soak(server: Server, clips: Clips, minutes: int) -> None:
    """Memory after each minute; the first three warm up."""
    used = []
    for minute in itertools.count(1):
        tally = loaded(server.url, clips, SOAK_CLIENTS, 60)
        used.append(server.memory() / 2**20)
        print(f"minute {minute}: {used[-1]:.0f} MiB; {described(SOAK_CLIENTS, tally, 60)}", flush=True)
        if minute == minutes:
            break
    settled = used[3:] or used
    first, last = np.mean(settled[:3]), np.mean(settled[-3:])
    print(f"memory from {first:.0f} to {last:.0f} MiB: {100 * (last / first - 1):+.1f} %, highest {max(used):.0f} MiB")


@contextmanager
def model_of(options: argparse.Namespace) -> Iterator[str]:
    if options.tokenizer is None:
        yield options.model
        return
    with tempfile.TemporaryDirectory(prefix="caspi-bench-") as folder:
        random_start(Path(folder), options.tokenizer, options.model)
        yield folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128, 200])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    parser.add_argument("--soak", type=int, metavar="MINUTES")
    parser.add_argument("--tokenizer", type=Path, help="MODEL is a size: random weights")
    parser.add_argument("--processes", type=int, default=1, help="of clients")
    options = parser.parse_args()
    corpus = Corpus.open(options.corpus, "test")
    sounds = [corpus.samples(number) for number in range(min(200, len(corpus)))]
    clips = [(audio.encode_flac(sound), len(sound) / audio.SAMPLE_RATE) for sound in sounds]
    print(f"{len(clips)} clips of {np.mean([length for _, length in clips]):.1f} s")
    with (
        model_of(options) as model,
        serving(model, fixed_lengths=options.tokenizer is not None) as server,
        ProcessPoolExecutor(options.processes) as pool,
    ):
        loaded(server.url, clips, 4, 5)  # warms up
        if options.soak:
            soak(server, clips, options.soak)
            return
        for clients in options.clients:
            shares = [len(range(number, clients, options.processes)) for number in range(options.processes)]
            given = [pool.submit(loaded, server.url, clips, share, options.seconds) for share in shares if share]
            tally = sum((one.result() for one in given), Tally())
            print(described(clients, tally, options.seconds), flush=True)


if __name__ == "__main__":
    main()
