"""Encoders and little corpora that several tests of this folder use."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from caspi import recipe
from caspi.corpus.store import Corpus
from caspi.corpus.synthesis.espeak import Voice, speak
from caspi.corpus.utterance import SPLITS, Utterance


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
    from caspi import audio

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


@pytest.fixture
def recipe_of(tmp_path: Path) -> Callable[..., recipe.Recipe]:
    """Writes and reads a recipe: `recipe_of(sources=[...], filters={...})`, the corpus in `tmp_path/corpus`."""

    def make(sources: list[dict[str, object]], *overrides: str, **corpus: object) -> recipe.Recipe:
        content = {"path": str(tmp_path / "corpus"), "workers": 1, "sources": sources, **corpus}
        path = tmp_path / "recipe.yaml"
        path.write_text(json.dumps({"name": "t", "corpus": content}, default=str), encoding="utf-8")  # JSON is YAML
        return recipe.load(path, overrides)

    return make
