"""How fast `caspi prepare` is: hours of audio a minute, against the usual way and against bare decoding.

    python benchmarks/prepare_throughput.py [--speech ../shared/speech/torah] [--hours 1.5] [--workers 2]

One run makes the input (the same recordings as 44.1 kHz stereo mp3 and as 48 kHz opus, in clips of 10 minutes at
most), then measures, each in turn, `--rounds` times, and takes medians:

- usual: librosa.load at 16 kHz, a WAV file an utterance, regular expressions, one process;
- bare: decode to mono and resample to 16 kHz and nothing else, in `--workers` processes, with soundfile + soxr and
  with PyAV; the faster one of each input counts;
- caspi: `caspi prepare`'s stage with its defaults: cut at segment times, clean, measure, fingerprint, filter, encode
  FLAC, decide duplicates and splits, write the corpus.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from caspi.corpus.prepare import CorpusConfig, prepare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", type=Path, default=Path("../shared/speech/torah"))
    parser.add_argument("--hours", type=float, default=1.5, help="of each codec")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="caspi-bench-"))
    try:
        for codec, make in (("mp3", _copy), ("opus", _opus)):
            manifest, hours = _input(options.speech, folder / codec, options.hours, make)
            _report(codec, hours, manifest, options)
    finally:
        shutil.rmtree(folder)


def _report(codec: str, hours: float, manifest: Path, options: argparse.Namespace) -> None:
    ways: dict[str, Callable[[], object]] = {
        "usual": lambda: _usual(manifest),
        "bare soundfile+soxr": lambda: _bare(manifest, options.workers, _bare_soundfile),
        "bare PyAV": lambda: _bare(manifest, options.workers, _bare_av),
        "caspi": lambda: _ours(manifest, options.workers),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(found) for name, found in seconds.items()}
    bare = min(median["bare soundfile+soxr"], median["bare PyAV"])
    for name, found in median.items():
        spread = ", ".join(f"{s:.1f}" for s in seconds[name])
        print(f"{codec:5} {name:20} {hours / found * 60:7.1f} hours a minute  (seconds: {spread})")
    print(f"{codec:5} caspi against the usual way: {median['usual'] / median['caspi']:.1f} times as fast")
    print(f"{codec:5} caspi against bare decoding: {median['caspi'] / bare:.2f} times its time", flush=True)


def _input(speech: Path, folder: Path, hours: float, make: Callable[[Path, Path], Path]) -> tuple[Path, float]:
    """Recordings until there are enough hours, and their manifest."""
    folder.mkdir(parents=True)
    held = 0.0
    with (folder / "manifest.jsonl").open("w", encoding="utf-8") as file:
        for line in (speech / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            row["audio"] = make(speech / row["audio"], folder).name
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            held += row["seconds"] / 3600
            if held >= hours:
                break
    return folder / "manifest.jsonl", held


def _copy(path: Path, folder: Path) -> Path:
    return Path(shutil.copy(path, folder))


def _opus(path: Path, folder: Path) -> Path:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    target = folder / f"{path.stem}.opus"
    resampled = soxr.resample(samples, rate, 48_000)
    with av.open(str(target), "w", format="ogg") as out:
        stream = out.add_stream("libopus", rate=48_000, layout="stereo")
        stream.bit_rate = 64_000
        pcm = np.ascontiguousarray((np.clip(resampled, -1, 1) * 32767).astype(np.int16).reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="stereo")
        frame.sample_rate = 48_000
        resampler = av.AudioResampler(format=stream.format, layout="stereo", rate=48_000, frame_size=stream.frame_size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    return target


def _rows(manifest: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]


def _usual(manifest: Path) -> None:
    """What the pile of scripts did."""
    import librosa

    out = Path(tempfile.mkdtemp(prefix="caspi-usual-"))
    number = 0
    with (out / "train.jsonl").open("w", encoding="utf-8") as file:
        for row in _rows(manifest):
            samples, rate = librosa.load(manifest.parent / str(row["audio"]), sr=16_000)
            for segment in row["segments"]:  # type: ignore[attr-defined]
                text = re.sub(r"[\u0591-\u05C7]", "", segment["text_niqqud"])
                text = re.sub(r"<\|[^|]*\|>", "", text)
                text = re.sub(r"\s+", " ", text).strip()
                clip = samples[int(segment["start"] * rate) : int(segment["end"] * rate)]
                if 0.5 <= len(clip) / rate <= 30 and text:
                    soundfile.write(out / f"{number:08d}.wav", clip, rate)
                    file.write(json.dumps({"audio": f"{number:08d}.wav", "text": text}, ensure_ascii=False) + "\n")
                    number += 1
    shutil.rmtree(out)


def _bare(manifest: Path, workers: int, decode: Callable[[Path], int]) -> None:
    paths = [manifest.parent / str(row["audio"]) for row in _rows(manifest)]
    with multiprocessing.get_context("spawn").Pool(workers, initializer=_quiet) as pool:
        assert sum(pool.imap_unordered(decode, paths)) > 0


def _quiet() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _bare_soundfile(path: Path) -> int:
    """Blocks, because a whole recording leaves the cache: the fastest way we know."""
    total = 0
    with soundfile.SoundFile(path) as file:
        stream = soxr.ResampleStream(file.samplerate, 16_000, 1, dtype="float32")
        while len(block := file.read(1 << 16, dtype="float32", always_2d=True)):
            mono = (block[:, 0] + block[:, 1]) * 0.5 if block.shape[1] == 2 else block[:, 0]
            total += len(stream.resample_chunk(mono, last=len(block) < 1 << 16))
    return total


def _bare_av(path: Path) -> int:
    resampler = av.AudioResampler(format="flt", layout="mono", rate=16_000, frame_size=1 << 16)
    total = 0
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.audio[0]):
            frame.pts = None
            total += sum(part.to_ndarray().shape[1] for part in resampler.resample(frame))
        total += sum(part.to_ndarray().shape[1] for part in resampler.resample(None))
    return total


def _ours(manifest: Path, workers: int) -> None:
    out = Path(tempfile.mkdtemp(prefix="caspi-ours-"))
    source = {"kind": "manifest", "path": str(manifest), "group_key": "recording"}
    config = CorpusConfig.model_validate({"path": str(out / "corpus"), "sources": [source], "workers": workers})
    stderr, sys.stderr = sys.stderr, open(os.devnull, "w")  # noqa: SIM115 - progress is not what is measured
    try:
        summary = prepare(config, "Hebrew")
    finally:
        sys.stderr = stderr
    assert summary["kept"]
    shutil.rmtree(out)


if __name__ == "__main__":
    main()
