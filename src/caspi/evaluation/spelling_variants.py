"""A user's table of spelling variants that count as the same."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from caspi.errors import UsageError


@dataclass(frozen=True, slots=True)
class SpellingVariants:
    """spellings: words of a spelling -> the words that replace it; longest: number of words of the longest spelling."""

    spellings: dict[tuple[str, ...], tuple[str, ...]]
    longest: int

    @classmethod
    def read(cls, path: Path, normalise: Callable[[str], str]) -> Self:
        """A csv file; each line lists equivalent spellings: `וואטסאפ,ווטסאפ,ווצאפ`. Raises UsageError: file, line."""
        spellings: dict[tuple[str, ...], tuple[str, ...]] = {}
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                lines = [
                    (number, [cell for cell in row if cell.strip()]) for number, row in enumerate(csv.reader(file), 1)
                ]
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from error
        except (UnicodeDecodeError, csv.Error) as error:
            raise UsageError(f"{path}: {error}") from error
        for number, cells in lines:
            if not cells:
                continue
            written = [tuple(normalise(cell).split()) for cell in cells]
            if len(set(written)) < 2 or not all(written):
                raise UsageError(f"{path}, line {number}: give two spellings or more, with commas between them")
            for spelling in dict.fromkeys(written):
                if spelling in spellings:
                    raise UsageError(f"{path}, line {number}: {' '.join(spelling)} is in an earlier line too")
                spellings[spelling] = written[0]
        if not spellings:
            raise UsageError(f"{path} contains no spellings")
        return cls(spellings, max(map(len, spellings)))

    def unify(self, text: str) -> str:
        """Replaces every spelling in a normalised text by the first of its line; the longest match wins."""
        words, place = text.split(), 0
        written: list[str] = []
        while place < len(words):
            for length in range(min(self.longest, len(words) - place), 0, -1):
                spelling = tuple(words[place : place + length])
                if spelling in self.spellings:
                    written += self.spellings[spelling]
                    place += length
                    break
            else:
                written.append(words[place])
                place += 1
        return " ".join(written)
