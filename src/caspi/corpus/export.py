"""Exports a corpus for other programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import soundfile

from caspi.audio import SAMPLE_RATE
from caspi.corpus.inspection import splits_of
from caspi.corpus.store import Corpus
from caspi.corpus.utterance import Utterance


def to_jsonl(folder: Path, out: Path, final: Path) -> dict[str, int]:
    """Writes the official script's input: `SPLIT.jsonl` with `audio`, `text`, `prompt`, and 16-bit WAV files.

    final: the later path of `out`; paths are absolute, because the official script may run in any folder.
    File names are numbers, because ids may contain any character. Returns the number of utterances by split.
    """
    written: dict[str, int] = {}
    for corpus in splits_of(folder):
        audio = out / "wav" / corpus.split
        audio.mkdir(parents=True)
        with (out / f"{corpus.split}.jsonl").open("w", encoding="utf-8") as file:
            for row, utterance in _utterances(corpus):
                name = f"{row:08d}.wav"
                soundfile.write(audio / name, corpus.samples(row), SAMPLE_RATE, subtype="PCM_16")
                line = {
                    "audio": str((final / "wav" / corpus.split / name).resolve()),
                    "text": f"language {utterance.language}<asr_text>{utterance.text}",
                    "prompt": utterance.context,
                    "id": utterance.id,
                    "group": utterance.group,
                    "source": utterance.source,
                } | ({"labelled": True} if utterance.labelled else {})
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        written[corpus.split] = len(corpus)
    return written


def _utterances(corpus: Corpus) -> Iterator[tuple[int, Utterance]]:
    return ((row, corpus.utterance(row)) for row in range(len(corpus)))
