"""Lhotse cuts: `cuts.jsonl` or `cuts.jsonl.gz`, as lhotse's `CutSet.to_file` writes them."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from caspi.corpus.sources.base import Source, digest, home_of, inside, opened, seconds
from caspi.corpus.utterance import FileAudio, Recording, Segment, Word
from caspi.errors import UsageError


class LhotseSource(Source):
    """One cut is one recording; its supervisions are its segments, times from the start of the audio.

    Audio paths are relative to the manifest. Sources that are commands or addresses are refused.
    """

    kind: Literal["lhotse"]
    path: Path
    name: str = ""
    allow_outside: bool = False

    def recordings(self, language: str, skip: int = 0) -> Iterator[Recording]:
        for number, line in itertools.islice(self._lines(), skip, None):
            try:
                yield self._recording(json.loads(line), language)
            except (ValueError, KeyError, TypeError, IndexError) as error:
                problem = f"no field {error}" if isinstance(error, KeyError) else str(error)
                raise UsageError(f"lhotse cuts {self.path}, line {number}: {problem}") from error

    def identity(self) -> str:
        return digest(self.path, "lhotse cuts")

    def count(self) -> int | None:
        return sum(1 for _ in self._lines())

    def _lines(self) -> Iterator[tuple[int, str]]:
        if self.path.suffix != ".gz":
            yield from opened(self.path, "lhotse cuts")
            return
        try:
            with gzip.open(self.path, "rt", encoding="utf-8", newline="\n") as file:
                yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise UsageError(f"lhotse cuts {self.path}: {error}") from error

    def _recording(self, cut: dict[str, Any], language: str) -> Recording:
        if not isinstance(cut, dict) or "recording" not in cut:
            raise ValueError("not a cut with a recording (mixed and padded cuts hold none)")
        name = self.name or self.path.name.split(".", maxsplit=1)[0]
        start = seconds(cut.get("start") or 0.0)
        supervisions = cut.get("supervisions") or []
        speakers = sorted({str(s["speaker"]) for s in supervisions if s.get("speaker")})
        group = speakers[0] if len(speakers) == 1 else cut["recording"]["id"]
        return Recording(
            id=str(cut["id"]),
            audio=FileAudio(self._audio(cut["recording"]["sources"])),
            source=name,
            group=f"{name}/{group}",
            language=str(next((s["language"] for s in supervisions if s.get("language")), language)),
            segments=[_segment(s, start) for s in supervisions],
            split=self.split,
        )

    def _audio(self, sources: list[dict[str, Any]]) -> Path:
        if len(sources) != 1 or sources[0]["type"] != "file":
            kinds = ", ".join(str(source.get("type")) for source in sources)
            raise ValueError(f"its audio is not one file but {kinds or 'nothing'}; caspi runs no commands")
        return inside(home_of(self.path.parent), str(sources[0]["source"]), self.allow_outside)


def _segment(row: dict[str, Any], cut_start: float) -> Segment:
    """A supervision; its times are from the start of its cut."""
    start = cut_start + float(row["start"])
    words = tuple(
        Word(str(item[0]), cut_start + float(item[1]), cut_start + float(item[1]) + float(item[2]))
        for item in (row.get("alignment") or {}).get("word") or ()
    )
    return Segment(max(0.0, start), start + seconds(row["duration"]), str(row.get("text") or ""), words, str(row["id"]))
