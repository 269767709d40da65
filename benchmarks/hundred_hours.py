"""`caspi prepare` on a source of a hundred hours: seconds, and memory of all its processes.

    python benchmarks/hundred_hours.py [--speech ../shared/speech/torah] [--speeds 14] [--workers 2]

The recordings are copied at each of `--speeds` speeds from 0.8 to 1.25, as 16 kHz FLAC (6 GB in the temporary folder).
Memory is the sum of the private memory of the command and its workers, measured twice a second.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import soxr
import yaml

from caspi import audio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", type=Path, default=Path("../shared/speech/torah"))
    parser.add_argument("--speeds", type=int, default=14)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="caspi-bench-") as folder:
        rows = [json.loads(line) for line in (options.speech / "manifest.jsonl").open(encoding="utf-8")]
        jobs = [
            (options.speech, Path(folder), row, round(float(speed), 3))
            for speed in np.linspace(0.8, 1.25, options.speeds)
            for row in rows
        ]
        with multiprocessing.Pool(options.workers) as pool:
            made = pool.starmap(_at_speed, jobs, chunksize=4)
        (Path(folder) / "manifest.jsonl").write_text("\n".join(json.dumps(line) for line in made), encoding="utf-8")
        source = {"kind": "manifest", "path": f"{folder}/manifest.jsonl", "columns": {"speaker": "recording"}}
        corpus = {"path": f"{folder}/corpus", "sources": [source], "workers": options.workers}
        recipe = Path(folder) / "recipe.yaml"
        recipe.write_text(yaml.safe_dump({"name": "hundred-hours", "language": "Hebrew", "corpus": corpus}))
        started = time.perf_counter()
        peak = _watch(subprocess.Popen([sys.executable, "-m", "caspi", "prepare", str(recipe)]))
        seconds = time.perf_counter() - started
        report = json.loads((Path(folder) / "corpus/report.json").read_text(encoding="utf-8"))
        hours = sum(row["seconds"] / speed for _, _, row, speed in jobs) / 3600
        print(
            f"{hours:.1f} hours in {seconds:.0f} s, peak {peak / 2**30:.2f} GiB; "
            f"{report['input']:,} = {report['kept']:,} kept + {report['rejected']}"
        )


def _at_speed(speech: Path, folder: Path, row: dict[str, object], speed: float) -> dict[str, object]:
    name = f"{Path(str(row['audio'])).stem}-{speed}"
    samples = audio.decode(speech / str(row["audio"]))
    soundfile.write(
        folder / f"{name}.flac", soxr.resample(samples, speed * audio.SAMPLE_RATE, audio.SAMPLE_RATE), 16_000
    )
    segments = [
        {"start": s["start"] / speed, "end": s["end"] / speed, "text": s["text"], "id": f"{s['id']}-{speed}"}
        for s in row["segments"]  # type: ignore[attr-defined]
    ]
    return {"audio": f"{name}.flac", "recording": row["recording"], "segments": segments}


def _watch(process: subprocess.Popen[bytes]) -> int:
    """Waits for a process. Returns the peak private memory, in bytes, of the process and its children."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(_private, [process.pid, *_children(process.pid)])))
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(process.returncode)
    return peak


def _children(pid: int) -> list[int]:
    try:
        found = [int(c) for t in Path(f"/proc/{pid}/task").iterdir() for c in (t / "children").read_text().split()]
    except OSError:
        return []
    return found + [grandchild for child in found for grandchild in _children(child)]


def _private(pid: int) -> int:
    """Private memory of a process in bytes: its anonymous pages, without pages of files."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


if __name__ == "__main__":
    main()
