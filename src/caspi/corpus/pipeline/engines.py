"""Engines that run the blocks: local processes, or Ray. Both run the same function and write the same parts."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Literal

from caspi.corpus.pipeline.process import Rules
from caspi.corpus.pipeline.shards import Block, MadeShard, make_crashed, make_shard
from caspi.errors import MissingDependency

EngineName = Literal["local", "ray"]
Engine = Callable[[Iterable[Block], Path, Rules, int], Iterator[MadeShard]]
_AHEAD = 3  # queued blocks per worker: enough to keep it busy, few enough for memory


def local(blocks: Iterable[Block], folder: Path, rules: Rules, workers: int) -> Iterator[MadeShard]:
    """Runs blocks in local processes. If a worker dies (decoder crash, out-of-memory killer), only the recording that
    killed it is lost."""
    work = functools.partial(make_shard, folder=folder, rules=rules)
    if workers == 1:
        yield from map(work, blocks)
        return
    source = iter(blocks)
    while True:
        taken: dict[str, Block] = {}  # submitted to the pool and not yet finished
        try:
            with _pool(workers) as pool:
                yield from _keep_busy(pool, source, work, workers * _AHEAD, taken)
            return
        except BrokenExecutor:
            yield from _one_by_one(list(taken.values()), folder, rules)


def _keep_busy(
    pool: ProcessPoolExecutor,
    source: Iterator[Block],
    work: Callable[[Block], MadeShard],
    ahead: int,
    taken: dict[str, Block],
) -> Iterator[MadeShard]:
    running: dict[Future[MadeShard], str] = {}

    def submit(count: int) -> None:
        for block in itertools.islice(source, count):
            taken[block.name] = block
            running[pool.submit(work, block)] = block.name

    try:
        submit(ahead)
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                made = future.result()
                del taken[running.pop(future)]
                yield made
                submit(1)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def _one_by_one(blocks: list[Block], folder: Path, rules: Rules) -> Iterator[MadeShard]:
    """Runs every block in its own process. If a block kills it, runs its recordings one by one to find the cause."""
    for block in blocks:
        if (folder / block.name).exists():
            yield MadeShard(len(block.recordings), 0.0)
        elif (made := _alone(block, folder, rules)) is not None:
            yield made
        else:
            singles = [Block(block.first + n, [recording]) for n, recording in enumerate(block.recordings)]
            for single in singles:
                yield _alone(single, folder, rules) or make_crashed(single, folder)


def _alone(block: Block, folder: Path, rules: Rules) -> MadeShard | None:
    with contextlib.suppress(BrokenExecutor), _pool(1) as pool:
        return pool.submit(make_shard, block, folder, rules).result()
    return None


def _pool(workers: int) -> ProcessPoolExecutor:
    # spawn: a forked child inherits FFmpeg's and torch's threads in an undefined state
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start)


def _start() -> None:
    """Runs in a worker: makes it end with the parent, even if that is killed, and silences messages of decoders."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libmpg123 prints every damaged frame


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def on_ray(blocks: Iterable[Block], folder: Path, rules: Rules, workers: int) -> Iterator[MadeShard]:
    """Runs blocks with Ray Data on a cluster, or on this machine without one. Every node must see `folder`.

    `workers` bounds the blocks in flight: a source is a stream, and Ray Data takes lists.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingDependency("caspi prepare --engine ray", package="ray", extra="ray") from error
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # we print one line per execution ourselves

    home = folder.resolve()

    def work(item: dict[str, Block]) -> dict[str, float]:
        done = make_shard(item["item"], home, rules)
        return {"recordings": done.recordings, "seconds": done.seconds}

    source = iter(blocks)
    while window := list(itertools.islice(source, max(16, workers * _AHEAD))):
        for done in ray.data.from_items(window, override_num_blocks=len(window)).map(work).iter_rows():
            yield MadeShard(int(done["recordings"]), float(done["seconds"]))


ENGINES: dict[EngineName, Engine] = {"local": local, "ray": on_ray}
