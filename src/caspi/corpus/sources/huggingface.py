"""Data sets of the Hugging Face hub, or the same files on disk; audio bytes are decoded by us."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any, Literal

from caspi.config import Config
from caspi.corpus.utterance import BytesAudio, Recording, Split
from caspi.errors import MissingDependency, UsageError

_YIDDISH = ("-yi", "yiddish")


class HuggingFaceSource(Config):
    """`dataset` is a hub id or a folder of parquet files. `group_key` may reach into JSON: `metadata.entry_id`.

    `context_key` names the column with the previous transcript; `limit` stops after that many rows.
    """

    kind: Literal["huggingface"]
    dataset: str
    config: str | None = None
    revision: str | None = None
    hub_split: str = "train"
    text_key: str = "text"
    audio_key: str = "audio"
    group_key: str = ""
    context_key: str = ""
    name: str = ""
    limit: int | None = None
    split: Split | None = None

    def recordings(self, language: str) -> Iterator[Recording]:
        """One Recording a row. Raises UsageError for a data set that is missing, gated or lacks a column."""
        if any(mark in self.dataset.lower() for mark in _YIDDISH):
            raise UsageError(f"{self.dataset} is Yiddish, not {language}: remove it from corpus.sources")
        name = self.name or self.dataset.rstrip("/").rsplit("/", 1)[-1]
        for number, row in enumerate(itertools.islice(self._rows(), self.limit)):
            identifier = f"{name}-{self.hub_split}-{number:08d}"
            yield Recording(
                id=identifier,
                audio=BytesAudio(_audio_bytes(row[self.audio_key])),
                source=name,
                group=f"{name}/{_reach(row, self.group_key) or identifier}",
                language=language,
                text=str(row[self.text_key] or ""),
                context=str(_reach(row, self.context_key) or ""),
                split=self.split,
            )

    def _rows(self) -> Iterator[dict[str, Any]]:
        try:
            import datasets
        except ImportError as error:
            raise MissingDependency("a Hugging Face data set", package="datasets", extra="hub") from error
        try:
            rows = datasets.load_dataset(
                self.dataset, self.config, split=self.hub_split, revision=self.revision, streaming=True
            )
        except datasets.exceptions.DatasetNotFoundError as error:
            where = f"https://huggingface.co/datasets/{self.dataset}"
            raise UsageError(
                f"{self.dataset} is missing or gated: accept its licence at {where} and set HF_TOKEN"
            ) from error
        except (ValueError, OSError) as error:
            raise UsageError(f"{self.dataset}: {error}") from error
        wanted = {self.text_key, self.audio_key} - set(rows.features or {self.text_key, self.audio_key})
        if wanted:
            columns = ", ".join(rows.features)
            raise UsageError(f"{self.dataset} has no column {', '.join(sorted(wanted))}; it has {columns}")
        yield from rows.cast_column(self.audio_key, datasets.Audio(decode=False))


def _audio_bytes(cell: dict[str, Any] | None) -> bytes:
    """Only bytes that the row itself holds: a path in somebody's data set is not a file of ours to open."""
    return (cell or {}).get("bytes") or b""


def _reach(row: dict[str, Any], key: str) -> Any:
    """The value of a dotted key; a column that holds JSON text is parsed on the way."""
    value: Any = row
    for part in key.split(".") if key else ():
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                return None
        value = value.get(part) if isinstance(value, dict) else None
    return None if value is row else value
