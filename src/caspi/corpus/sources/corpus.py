"""A corpus that caspi made, such as one of `caspi repair` or `caspi label`, as a source of another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from caspi.atomic_output import REPORT
from caspi.corpus.sources.base import Source, listing
from caspi.corpus.store import Corpus
from caspi.corpus.utterance import SPLITS, BytesAudio, Recording, Segment
from caspi.errors import UsageError


class CorpusSource(Source):
    """The utterances of a corpus that caspi made. Each stays in its split, and in its group. Texts that recognisers
    wrote (`caspi label`) are training data, whatever `split` says."""

    kind: Literal["corpus"]
    """Selects this kind of source."""
    path: Path
    """The folder of the corpus."""

    def recordings(self, language: str, skip: int = 0) -> Iterator[Recording]:
        for corpus in self._splits():
            if skip >= len(corpus):
                skip -= len(corpus)
                continue
            for row in range(skip, len(corpus)):
                yield self._recording(corpus, row)
            skip = 0

    def _recording(self, corpus: Corpus, row: int) -> Recording:
        one = corpus.utterance(row)
        return Recording(
            id=one.id,
            audio=BytesAudio(corpus.flac(row)),
            source=one.source,
            group=one.group,
            language=one.language,
            text="" if one.words else one.text,
            segments=[Segment(0.0, one.seconds, one.text, one.words, one.id)] if one.words else (),
            context=one.context,
            previous=one.previous,
            synthetic=one.synthetic,
            quality=one.quality,
            split=self.split or corpus.split,
            labelled=one.labelled,
        )

    def identity(self) -> str:
        self._check()
        return listing([self.path / REPORT, *sorted(self.path.glob("*.arrow"))], self.path)

    def count(self) -> int | None:
        return sum(map(len, self._splits()))

    def default_name(self) -> tuple[str, Path] | None:
        return self.path.name, self.path.resolve()

    def _check(self) -> None:
        if not (self.path / REPORT).is_file():
            raise UsageError(f"{self.path} is not a corpus: check sources.path in the recipe")

    def _splits(self) -> list[Corpus]:
        self._check()
        return [Corpus.open(self.path, split) for split in SPLITS if any(self.path.glob(f"{split}-*.arrow"))]
