"""Split, mix and plan a manifest of a million rows: seconds and memory.

    python benchmarks/million_rows.py [--rows 1000000]

Rows are synthetic metadata as `caspi prepare` writes it: three sources, 40,000 recordings, 1 to 15 s. It measures the
time to read the JSONL, to decide the boundaries and the split of every row, to draw one epoch of a mix over the
training rows, and to plan that epoch for 8 ranks.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from caspi.corpus.pipeline.splits import Splits, boundary_of, split_of
from caspi.corpus.sources.manifest import ManifestSource
from caspi.training.config import Budget, EffectiveBatch, Mix, Share
from caspi.training.data.batch_plan import plan_epoch, shuffled
from caspi.training.data.mixing import Mixer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory(prefix="caspi-bench-") as folder:
        path = Path(folder) / "manifest.jsonl"
        _write(path, rows)
        started = last = time.perf_counter()

        def lap(what: str) -> None:
            nonlocal last
            now = time.perf_counter()
            print(f"{what:28} {now - last:6.2f} s")
            last = now

        read = list(_read(path))
        lap("read the manifest")
        groups = [group for group, _, _ in read]
        sources = [source for _, source, _ in read]
        seconds = np.array([length for _, _, length in read])
        splits = _splits(groups, sources, seconds)
        train = np.flatnonzero(splits == "train")
        lap("split")
        mix = Mix(sources={"knesset": 0.5, "crowd": 0.3, "recital": Share(weight=0.2, max_epochs=4)})
        epoch = Mixer(mix, train, seconds, sources, 0).epoch(0)
        lap("mix")
        plan = plan_epoch(seconds, shuffled(epoch, 0, 0), batch=EffectiveBatch(256), budget=Budget(240.0), ranks=8)
        lap("plan")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{rows:,} rows, {len(plan.steps):,} steps: {time.perf_counter() - started:.1f} s, peak {peak:.2f} GiB")


def _splits(groups: list[str], sources: list[str], seconds: np.ndarray) -> np.ndarray:
    """As `selection.Selector` does: hours by group, a boundary for each source, then the split of every row."""
    shares = Splits(validation=0.02, test=0.02, min_validation_hours=5)
    hours: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for group, source, length in zip(groups, sources, seconds.tolist(), strict=True):
        hours[source][group] += length / 3600
    ends = {source: boundary_of(found, shares) for source, found in hours.items()}
    return np.array([split_of(g, shares, ends[s]) for g, s in zip(groups, sources, strict=True)], dtype=object)


def _read(path: Path) -> list[tuple[str, str, float]]:
    source = ManifestSource(kind="manifest", path=path)
    return [(r.group, r.source, r.end or 0.0) for r in source.recordings("Hebrew")]


def _write(path: Path, rows: int) -> None:
    draw = np.random.default_rng(0)
    names = np.array(["knesset", "crowd", "recital"])[draw.choice(3, rows, p=[0.8, 0.15, 0.05])]
    lengths, recordings = draw.uniform(1, 15, rows), draw.integers(0, 40_000, rows)
    with path.open("w", encoding="utf-8") as file:
        for n in range(rows):
            name = str(names[n])
            line = {
                "audio": f"{n}.flac", "text": "שלום לכם", "id": f"u{n}", "source": name,
                "group": f"{name}-{recordings[n]}", "end": round(float(lengths[n]), 3),
            }  # fmt: skip
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
