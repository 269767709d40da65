"""Lhotse cuts: `cuts.jsonl` or `cuts.jsonl.gz`, as lhotse's `CutSet.to_file` writes them."""

from __future__ import annotations

import functools
import gzip
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from caspi.config import Cited
from caspi.corpus.sources.base import Source, checked, home_of, inside, joined_groups, opened, seconds
from caspi.corpus.utterance import FileAudio, Recording, Segment, Word
from caspi.errors import UsageError
from caspi.language import named


class LhotseSource(Source):
    """A file of lhotse cuts. Consecutive cuts of one recording become one recording; their supervisions are its
    segments.

    Sources that are commands or URLs are refused. So are cuts that change the audio first (speed, tempo, mixing),
    because their texts and times belong to the changed audio.
    """

    kind: Annotated[Literal["lhotse"], Cited("lhotse.readthedocs.io/en/latest/cuts.html")]
    """Selects this kind of source."""
    path: Path
    """The file `cuts.jsonl` or `cuts.jsonl.gz`."""
    name: str = ""
    """The name of the source in the corpus. Without it, the name of the file, without its endings."""
    root: Path | None = None
    """The folder that audio paths are relative to. Without it, the folder of the file."""
    allow_outside: bool = False
    """Whether audio files may be outside that folder."""

    def recordings(self, language: str, skip: int = 0) -> Iterator[Recording]:
        return itertools.islice(self._joined(language), skip, None)

    def default_name(self) -> tuple[str, Path] | None:
        return None if self.name else (self._name, self.path.resolve())

    def count(self) -> int | None:
        return sum(1 for _ in self._joined("Hebrew"))

    @property
    def _name(self) -> str:
        return self.name or self.path.name.split(".", maxsplit=1)[0]

    def _lines(self) -> Iterator[tuple[int, str]]:
        if self.path.suffix != ".gz":
            yield from opened(self.path, "lhotse cuts")
            return
        try:
            with gzip.open(self.path, "rt", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
        except (OSError, EOFError) as error:
            raise UsageError(f"lhotse cuts {self.path}: {error}") from error

    def _joined(self, language: str) -> Iterator[Recording]:
        groups = joined_groups(self._speakers())
        home = home_of(self.root or self.path.parent)

        def cuts() -> Iterator[Recording]:
            for number, line in self._lines():
                read = functools.partial(self._recording, line, language, home, groups)
                yield checked(read, f"{self._name}/{self.path.name}, line {number}", self._name, language)

        for _, found in itertools.groupby(cuts(), key=lambda cut: (cut.audio, cut.group, cut.language, cut.problem)):
            first, *others = found
            segments = [segment for cut in (first, *others) for segment in cut.segments]
            yield replace(first, segments=segments) if others else first

    def _speakers(self) -> dict[str, set[str]]:
        """Speakers of every recording, over all its cuts. `_recording` reports lines that are not cuts."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        for _, line in self._lines():
            try:
                cut = json.loads(line)
                speakers = {str(s["speaker"]) for s in cut.get("supervisions") or () if s.get("speaker")}
                found[str(cut["recording"]["id"])] |= speakers
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue
        return found

    def _recording(self, line: str, language: str, home: str, groups: dict[str, str]) -> Recording:
        cut = json.loads(line)
        if not isinstance(cut, dict) or "recording" not in cut:
            raise ValueError("not a cut with a recording (mixed and padded cuts have none)")
        start = seconds(cut.get("start") or 0.0)
        if changed := _changes(cut):
            raise ValueError(f"the cut changes its audio ({changed}): write the changed audio with lhotse first")
        supervisions = cut.get("supervisions") or []
        return Recording(
            id=str(cut["id"]),
            audio=FileAudio(self._audio(cut["recording"]["sources"], home), _channel(cut)),
            source=self._name,
            group=f"{self._name}/{groups[str(cut['recording']['id'])]}",
            language=named(str(next((s["language"] for s in supervisions if s.get("language")), language))),
            segments=tuple(_segment(s, start) for s in supervisions),
            split=self.split,
        )

    def _audio(self, sources: list[dict[str, Any]], home: str) -> Path:
        if len(sources) != 1 or sources[0]["type"] != "file":
            kinds = ", ".join(str(source.get("type")) for source in sources)
            raise ValueError(f"its audio is not one file but {kinds or 'nothing'}; caspi runs no commands")
        return inside(home, str(sources[0]["source"]), self.allow_outside)


_HARMLESS = frozenset(("Resample", "Volume", "volume", "resample"))


def _changes(cut: dict[str, Any]) -> str:
    """Names of the changes that lhotse would apply to the audio on reading, except for rate and volume."""
    if cut.get("type", "MonoCut") not in ("MonoCut", "MultiCut", "Cut", "DataCut"):
        return str(cut["type"])
    found = [*(cut.get("transforms") or ()), *(cut["recording"].get("transforms") or ())]
    names = [str(one.get("name")) if isinstance(one, dict) else str(one) for one in found]
    return ", ".join(name for name in names if name not in _HARMLESS)


def _channel(cut: dict[str, Any]) -> int | None:
    """The channel of the file that a cut uses, from 0; None if it uses all, or if there is only one."""
    channels = cut["recording"]["sources"][0].get("channels") or [0]
    channel = cut.get("channel")
    return channels.index(channel) if isinstance(channel, int) and len(channels) > 1 else None


def _segment(row: dict[str, Any], cut_start: float) -> Segment:
    """The segment of a supervision, whose times are relative to its cut."""
    start = cut_start + float(row["start"])
    words = tuple(
        Word(str(item[0]), cut_start + float(item[1]), cut_start + float(item[1]) + float(item[2]))
        for item in (row.get("alignment") or {}).get("word") or ()
    )
    return Segment(max(0.0, start), start + seconds(row["duration"]), str(row.get("text") or ""), words, str(row["id"]))
