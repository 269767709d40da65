"""Kaldi-style data folders: `wav.scp`, `text`, and optionally `segments` and `utt2spk`."""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from caspi.config import Cited
from caspi.corpus.sources.base import Source, checked, home_of, inside, joined_groups, opened, seconds
from caspi.corpus.utterance import BytesAudio, FileAudio, Recording, Segment
from caspi.errors import UsageError


class KaldiSource(Source):
    """A data folder of Kaldi: `wav.scp`, `text`, and optionally `segments` and `utt2spk`.

    Audio paths are relative to the folder. A `wav.scp` entry that is a command (`... |`) is refused: caspi never runs
    commands of an input. Recordings of one speaker are one group. Utterances without audio count as bad rows.
    """

    kind: Annotated[Literal["kaldi"], Cited("kaldi-asr.org/doc/data_prep.html")]
    """Selects this kind of source."""
    path: Path
    """The data folder."""
    name: str = ""
    """The name of the source in the corpus. Without it, the name of the folder."""
    allow_outside: bool = False
    """Whether audio files may be outside the folder."""

    def recordings(self, language: str, skip: int = 0) -> Iterator[Recording]:
        return itertools.islice(self._all(language), skip, None)

    def default_name(self) -> tuple[str, Path] | None:
        home = self.path.resolve()
        return None if self.name else (home.name, home)

    def count(self) -> int | None:
        return sum(1 for _ in self._all("Hebrew"))

    def _all(self, language: str) -> Iterator[Recording]:
        name = self.name or self.path.resolve().name
        texts = dict(self._table("text", may_be_empty=True))
        speakers = dict(self._table("utt2spk")) if (self.path / "utt2spk").is_file() else {}
        parts, bad = self._segments(texts)
        groups = joined_groups({r: {speakers[s.id] for s in found if s.id in speakers} for r, found in parts.items()})
        home = home_of(self.path)
        for recording, audio in self._table("wav.scp"):
            group = f"{name}/{groups.get(recording, recording)}"
            read = functools.partial(self._recording, recording, audio, parts.pop(recording, []), group, language, home)
            yield checked(read, f"{name}/wav.scp, {recording}", name, language)
        for recording, found in parts.items():
            for segment in found:
                bad.append((segment.id, f"{segment.id}: wav.scp has no {recording}"))
        for identifier, problem in bad:
            yield Recording(identifier, BytesAudio(b""), name, name, language, problem=problem)

    def _recording(
        self, recording: str, audio: str, found: list[Segment], group: str, language: str, home: str
    ) -> Recording:
        if audio.endswith("|"):
            raise ValueError(f"{audio[:60]!r} is a command; caspi runs no commands: write audio files with it first")
        whole = found[0] if len(found) == 1 and found[0].end == float("inf") else None
        return Recording(
            id=recording,
            audio=FileAudio(inside(home, audio, self.allow_outside)),
            source=self.name or self.path.resolve().name,
            group=group,
            language=language,
            text=whole.text if whole else "",
            segments=() if whole else tuple(found),
            split=self.split,
        )

    def _segments(self, texts: dict[str, str]) -> tuple[dict[str, list[Segment]], list[tuple[str, str]]]:
        """Segments by recording, and (id, problem) of the invalid ones.

        Without a `segments` file, an utterance is its complete recording.
        """
        found: defaultdict[str, list[Segment]] = defaultdict(list)
        bad: list[tuple[str, str]] = []
        if not (self.path / "segments").is_file():
            for name, text in texts.items():
                found[name].append(Segment(0.0, float("inf"), text, id=name))
            return found, bad
        seen = set()
        for number, (name, rest) in enumerate(self._table("segments"), 1):
            seen.add(name)
            try:
                recording, start, end = rest.split()
                # -1 means "to the end" in Kaldi; refused, because such a segment cannot be checked
                found[recording].append(Segment(seconds(start), seconds(end), texts.get(name, ""), id=name))
            except ValueError as error:
                bad.append((name, f"segments, line {number}: {error}"))
        bad += [(name, f"text has {name}, but segments does not") for name in texts if name not in seen]
        return found, bad

    def _table(self, file: str, may_be_empty: bool = False) -> Iterator[tuple[str, str]]:
        for number, line in opened(self.path / file, "Kaldi file"):
            key, *rest = line.split(maxsplit=1)
            if not rest and not may_be_empty:
                raise UsageError(f"{self.path / file}, line {number}: {key} has no value")
            yield key, rest[0].strip() if rest else ""
