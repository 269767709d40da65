"""Kaldi-style data folders: `wav.scp`, `text`, and where there are any `segments` and `utt2spk`."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from caspi.corpus.sources.base import Source, digest, home_of, inside, opened, seconds
from caspi.corpus.utterance import FileAudio, Recording, Segment
from caspi.errors import UsageError


class KaldiSource(Source):
    """Audio paths are relative to the folder. A `wav.scp` entry that is a command (`... |`) is refused: nothing of an
    input is ever run. Recordings that share a speaker, directly or through others, are one group."""

    kind: Literal["kaldi"]
    path: Path
    name: str = ""
    allow_outside: bool = False

    def recordings(self, language: str, skip: int = 0) -> Iterator[Recording]:
        name = self.name or self.path.resolve().name
        texts = dict(self._table("text", may_be_empty=True))
        speakers = dict(self._table("utt2spk")) if (self.path / "utt2spk").is_file() else {}
        parts = self._segments(texts)
        group_of = _groups({recording: {speakers.get(s.id, "") for s in found} for recording, found in parts.items()})
        for recording, audio in itertools.islice(self._table("wav.scp"), skip, None):
            found = parts.get(recording, [])
            whole = found[0] if found and len(found) == 1 and found[0].end == float("inf") else None
            yield Recording(
                id=recording,
                audio=FileAudio(self._audio(recording, audio)),
                source=name,
                group=f"{name}/{group_of.get(recording, recording)}",
                language=language,
                text=whole.text if whole else "",
                segments=() if whole else found,
                split=self.split,
            )

    def identity(self) -> str:
        names = ("wav.scp", "text", "segments", "utt2spk")
        return " ".join(digest(self.path / name, "file") for name in names if (self.path / name).is_file())

    def count(self) -> int | None:
        return sum(1 for _ in self._table("wav.scp"))

    def _segments(self, texts: dict[str, str]) -> dict[str, list[Segment]]:
        """Segments by recording; without a `segments` file an utterance is its recording, to the end."""
        found: defaultdict[str, list[Segment]] = defaultdict(list)
        if not (self.path / "segments").is_file():
            for name, text in texts.items():
                found[name].append(Segment(0.0, float("inf"), text, id=name))
            return found
        for number, (name, rest) in enumerate(self._table("segments"), 1):
            try:
                recording, start, end = rest.split()
                # -1 is Kaldi's "to the end"; a segment must say where that is, or it cannot be checked
                found[recording].append(Segment(seconds(start), seconds(end), texts.get(name, ""), id=name))
            except ValueError as error:
                raise UsageError(f"{self.path / 'segments'}, line {number}: {error}") from error
        return found

    def _table(self, file: str, may_be_empty: bool = False) -> Iterator[tuple[str, str]]:
        for number, line in opened(self.path / file, "Kaldi file"):
            key, _, value = line.strip().partition(" ")
            if not value.strip() and not may_be_empty:
                raise UsageError(f"{self.path / file}, line {number}: {key} has no value")
            yield key, value.strip()

    def _audio(self, recording: str, written: str) -> Path:
        if written.endswith("|"):
            raise UsageError(
                f"{self.path / 'wav.scp'}: {recording} is a command ({written[:60]}); caspi runs none, "
                "make audio files of it first"
            )
        try:
            return inside(home_of(self.path), written, self.allow_outside)
        except ValueError as error:
            raise UsageError(f"{self.path / 'wav.scp'}, {recording}: {error}") from error


def _groups(speakers_of: dict[str, set[str]]) -> dict[str, str]:
    """The group of every recording: recordings are joined by speakers they share. "" is nobody."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = key = parent[parent[key]]
        return key

    for recording, speakers in speakers_of.items():
        for speaker in speakers - {""}:
            low, high = sorted((root(f"r {recording}"), root(f"s {speaker}")))
            parent[high] = low
    return {recording: root(f"r {recording}").partition(" ")[2] for recording in speakers_of}
