"""Speed of `caspi prepare` in hours of audio per minute, against a usual script and against bare decoding.

    python benchmarks/prepare_throughput.py [--speech ../shared/speech/torah] [--hours 1.5] [--workers 2]

One run makes the inputs from the same recordings: 44.1 kHz stereo mp3, 48 kHz stereo Opus, and one 16 kHz mono mp3 per
utterance, as in the crowd-sourced sets. Then it measures the following in turn, `--rounds` times, and takes medians:

- usual: librosa.load at 16 kHz, a WAV file per utterance, regular expressions, one process;
- bare: only decode to mono and resample to 16 kHz, in `--workers` processes: soundfile + soxr in the obvious way
  (read, mean of the channels, resample), a tuned version (in blocks that stay in the cache, columns added; this is
  also how caspi decodes mp3), and PyAV; the fastest one is the baseline;
- caspi: `caspi prepare` with its defaults: cut at segment times, clean, measure, fingerprint, filter, encode FLAC,
  decide duplicates and splits, write the corpus.
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

from caspi.corpus.pipeline.prepare import CorpusConfig, prepare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", type=Path, default=Path("../shared/speech/torah"))
    parser.add_argument("--hours", type=float, default=1.5, help="hours of audio for each codec")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", help="measure only one input: mp3, opus or clips")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="caspi-bench-"))
    try:
        for name, make in _INPUTS.items():
            if options.only in (None, name):
                manifest, hours = _input(options.speech, folder / name, options.hours, make)
                _report(name, hours, manifest, options)
    finally:
        shutil.rmtree(folder)


def _report(name: str, hours: float, manifest: Path, options: argparse.Namespace) -> None:
    ways: dict[str, Callable[[], object]] = {
        "usual": lambda: _usual(manifest),
        "bare soundfile+soxr": lambda: _bare(manifest, options.workers, _bare_soundfile),
        "bare, tuned": lambda: _bare(manifest, options.workers, _bare_tuned),
        "bare PyAV": lambda: _bare(manifest, options.workers, _bare_av),
        "caspi": lambda: _ours(manifest, options.workers),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, run in ways.items():
            started = time.perf_counter()
            run()
            seconds[way].append(time.perf_counter() - started)
    median = {way: statistics.median(found) for way, found in seconds.items()}
    plain = min(median["bare soundfile+soxr"], median["bare PyAV"])
    tuned = min(plain, median["bare, tuned"])
    for way, found in median.items():
        spread = ", ".join(f"{s:.1f}" for s in seconds[way])
        print(f"{name:5} {way:20} {hours / found * 60:7.1f} hours per minute  (seconds: {spread})")
    print(f"{name:5} caspi is {median['usual'] / median['caspi']:.1f} times as fast as the usual script")
    print(
        f"{name:5} caspi takes {median['caspi'] / plain:.2f} times as long as bare decoding, "
        f"{median['caspi'] / tuned:.2f} times as long as the tuned one",
        flush=True,
    )


def _input(
    speech: Path, folder: Path, hours: float, make: Callable[..., list[dict[str, object]]]
) -> tuple[Path, float]:
    """Converts recordings until there are enough hours. Returns their manifest and the number of hours."""
    folder.mkdir(parents=True)
    held = 0.0
    with (folder / "manifest.jsonl").open("w", encoding="utf-8") as file:
        for line in (speech / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            for made in make(speech / row["audio"], folder, row):
                file.write(json.dumps(made, ensure_ascii=False) + "\n")
            held += row["seconds"] / 3600
            if held >= hours:
                break
    return folder / "manifest.jsonl", held


def _copy(path: Path, folder: Path, row: dict[str, object]) -> list[dict[str, object]]:
    shutil.copy(path, folder)
    return [row]


def _opus(path: Path, folder: Path, row: dict[str, object]) -> list[dict[str, object]]:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    resampled = soxr.resample(samples, rate, 48_000)
    with av.open(str(folder / f"{path.stem}.opus"), "w", format="ogg") as out:
        stream = out.add_stream("libopus", rate=48_000, layout="stereo")
        stream.bit_rate = 64_000
        pcm = np.ascontiguousarray((np.clip(resampled, -1, 1) * 32767).astype(np.int16).reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="stereo")
        frame.sample_rate = 48_000
        resampler = av.AudioResampler(format=stream.format, layout="stereo", rate=48_000, frame_size=stream.frame_size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    return [row | {"audio": f"{path.stem}.opus"}]


def _clips(path: Path, folder: Path, row: dict[str, object]) -> list[dict[str, object]]:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = soxr.resample(samples.mean(axis=1), rate, 16_000)
    made = []
    for number, segment in enumerate(row["segments"]):  # type: ignore[arg-type]
        clip = mono[int(segment["start"] * 16_000) : int(segment["end"] * 16_000)]
        if 0.5 <= len(clip) / 16_000 <= 30:
            name = f"{path.stem}-{number}.mp3"
            soundfile.write(folder / name, clip, 16_000, format="MP3")
            whole = {
                "start": 0.0,
                "end": len(clip) / 16_000,
                "text": segment["text"],
                "text_niqqud": segment["text_niqqud"],
            }
            made.append({"audio": name, "recording": path.stem, "id": name, "segments": [whole]})
    return made


_INPUTS = {"mp3": _copy, "opus": _opus, "clips": _clips}


def _rows(manifest: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]


def _usual(manifest: Path) -> None:
    """What ad-hoc preparation scripts do."""
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
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return len(soxr.resample(samples.mean(axis=1), rate, 16_000))


def _bare_tuned(path: Path) -> int:
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
    source = {"kind": "manifest", "path": str(manifest), "columns": {"speaker": "recording"}}
    config = CorpusConfig.model_validate({"path": str(out / "corpus"), "sources": [source], "workers": workers})
    stderr, sys.stderr = sys.stderr, open(os.devnull, "w")  # noqa: SIM115 - progress output is not measured
    try:
        summary = prepare(config, "Hebrew")
    finally:
        sys.stderr = stderr
    assert summary["kept"]
    shutil.rmtree(out)


if __name__ == "__main__":
    main()
