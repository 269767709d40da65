"""Data sets of the Hugging Face hub, or the same files on disk; caspi decodes the audio bytes itself."""

from __future__ import annotations

import csv
import functools
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from caspi import hub
from caspi.config import Cited, Unit
from caspi.corpus.sources.base import Source, checked, listing, split_marks
from caspi.corpus.sources.catalogue import CATALOGUE, DataSet
from caspi.corpus.sources.rows import USUAL
from caspi.corpus.utterance import BytesAudio, Recording
from caspi.errors import MissingDependency, UsageError
from caspi.language import lookalikes

_SPLIT_WORDS = {"train", "validation", "valid", "dev", "test", "training"}
_CONVERTED = "refs%2Fconvert%2Fparquet"
_TABLES = (".parquet", ".arrow")


class HuggingFaceSource(Source):
    """A data set of the Hugging Face Hub, or the same files on disk.

    The keys that name columns replace the column names of the catalogue. A key with a dot reads a field of a struct or
    of JSON text: `metadata.entry_id`.
    """

    kind: Annotated[Literal["huggingface"], Cited("huggingface.co/docs/hub/datasets")]
    """Selects this kind of source."""
    dataset: str
    """The data set: a short name of the catalogue, a name on the Hub (owner/name), or a folder of parquet or Arrow
    files."""
    files: Path | None = None
    """A folder with a local copy of the data set, which is read with the column names of the catalogue."""
    config: str | None = None
    """The configuration (subset) of the data set. Without it, that of the catalogue, or the default one."""
    revision: str | None = None
    """The branch, tag or commit on the Hub. Without it, the newest version."""
    hub_split: str | None = None
    """The split of the data set to read. Without it, that of the catalogue, or `train`."""
    text_key: str = ""
    """The column with the transcript. Without it, that of the catalogue, or one with a usual name: text, sentence,
    transcript, transcription."""
    audio_key: str = "audio"
    """The column with the audio."""
    group_key: str = ""
    """The column with the recording or speaker (the group). Without it, that of the catalogue, or one with a usual
    name: speaker, speaker_id, spk, client_id. Else every row is its own group."""
    previous_key: str = ""
    """The column with the preceding text of the same recording. Without it, that of the catalogue, if there is one."""
    context_key: str = ""
    """The column with hotwords."""
    quality_key: str = ""
    """The column with a quality score. Without it, that of the catalogue, if there is one."""
    name: str = ""
    """The name of the source in the corpus. Without it, the last part of `dataset`."""
    limit: Annotated[int | None, Unit("rows")] = Field(None, gt=0)
    """Read only this many rows. Without it, all of them."""

    def recordings(self, language: str, skip: int = 0) -> Iterator[Recording]:
        """One Recording per row. Raises UsageError for a data set that is missing, gated or lacks a column."""
        left = None if self.limit is None else max(0, self.limit - skip)
        name = self.name or self.dataset.rstrip("/").rsplit("/", 1)[-1]
        for number, row in enumerate(itertools.islice(self._rows(skip), left), skip):
            read = functools.partial(self._recording, row, name, language)
            yield checked(read, f"{name}-{self._split}, row {number}", name, language)

    @model_validator(mode="after")
    def _no_lookalike(self) -> HuggingFaceSource:
        for other in lookalikes():
            if any(other.names.search(str(part or "")) for part in (self.dataset, self.config, self.files, self.name)):
                raise ValueError(
                    f"this data set is {other.name}, in the same letters as {other.mistaken_for}: remove it"
                )
        return self

    def identity(self) -> str:
        if folder := self._folder:
            table = self._common_voice_table()
            return listing([table] if table else self._tables(folder), folder)
        return f"{self._id}@{self._resolved()}"

    @property
    def _known(self) -> DataSet | None:
        return CATALOGUE.get(self.dataset)

    @property
    def _id(self) -> str:
        return self._known.id if self._known else self.dataset

    @property
    def _split(self) -> str:
        return self.hub_split or (self._known.split if self._known else "train")

    @property
    def _config(self) -> str | None:
        return self.config or (self._known.config if self._known else None)

    @property
    def _folder(self) -> Path | None:
        if self.files:
            return self.files
        return Path(self.dataset) if not self._known and Path(self.dataset).is_dir() else None

    def _recording(self, row: dict[str, Any], name: str, language: str) -> Recording:
        known = self._known
        audio = _audio_bytes(row[self.audio_key])
        # Not the row's number: new rows at the front would rename all utterances and move them between splits.
        key = _first(row, known.key if known else ()) or hashlib.blake2b(audio, digest_size=8).hexdigest()
        identifier = f"{name}-{self._split}-{key}"
        text = str(_first(row, self._keys(self.text_key, known.text if known else USUAL["text"])) or "")
        group = _first(row, self._keys(self.group_key, known.group if known else USUAL["speaker"]))
        quality = _first(row, self._keys(self.quality_key, known.quality if known else ()))
        return Recording(
            id=identifier,
            audio=BytesAudio(audio),
            source=name,
            group=f"{name}/{identifier if group is None else group}",
            language=language,
            text=text,
            segments=split_marks(text),
            context=str(_reach(row, self.context_key) or ""),
            previous=str(_first(row, self._keys(self.previous_key, known.previous if known else ())) or ""),
            quality=_number(quality),
            split=self.split,
        )

    @staticmethod
    def _keys(own: str, known: tuple[str, ...]) -> tuple[str, ...]:
        return (own,) if own else known

    def _rows(self, skip: int) -> Iterator[dict[str, Any]]:
        if table := self._common_voice_table():
            yield from itertools.islice(self._common_voice(table), skip, None)
            return
        try:
            import datasets
        except ImportError as error:
            raise MissingDependency("a Hugging Face data set", package="datasets", extra="hub") from error
        loaded = self._local(datasets) if self._folder else self._hub(datasets)
        columns = list(loaded.features or {})
        known = self._known
        texts = self._keys(self.text_key, known.text if known else USUAL["text"])
        missing = [] if any(key.split(".")[0] in columns for key in texts) else [texts[0]]
        missing += [] if self.audio_key in columns else [self.audio_key]
        if columns and missing:
            raise UsageError(
                f"{self.dataset} has no column {', '.join(missing)}; it has {', '.join(columns)}: "
                "name them with text_key and audio_key"
            )
        rows = iter(loaded.cast_column(self.audio_key, datasets.Audio(decode=False)).skip(skip))
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except Exception as error:  # pyarrow, fsspec and datasets have their own exceptions, while reading
                raise UsageError(f"{self._folder or self._id} cannot be read further: {_one_line(error)}") from error
            yield row

    def _tables(self, folder: Path) -> list[Path]:
        """Files of the split, by the words of their path; all files if no path names a split."""
        found = sorted(path for path in folder.rglob("*") if path.suffix in _TABLES)
        if not found:
            raise UsageError(f"{folder} has no parquet or Arrow files")
        words = {path: set(re.split(r"[^a-z]+", str(path.relative_to(folder)).lower())) for path in found}
        named = [path for path in found if self._split.lower() in words[path]]
        if not named and any(words[path] & _SPLIT_WORDS for path in found):
            raise UsageError(f"{folder} has no files of the split {self._split}: name one with hub_split")
        return named or found

    def _common_voice_table(self) -> Path | None:
        """`test.tsv` beside `clips/`, as Common Voice distributes a language."""
        table = self._folder / f"{self._split}.tsv" if self._folder else None
        return table if table and table.is_file() else None

    def _common_voice(self, table: Path) -> Iterator[dict[str, Any]]:
        with table.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                clip = table.parent / "clips" / Path(row["path"]).name
                yield {**row, self.audio_key: {"bytes": clip.read_bytes() if clip.is_file() else None}}

    def _local(self, datasets: Any) -> Any:
        assert self._folder
        tables = [str(path.resolve()) for path in self._tables(self._folder)]
        kind = "arrow" if tables[0].endswith(".arrow") else "parquet"
        try:
            return datasets.load_dataset(kind, data_files={"train": tables}, split="train", streaming=True)
        except Exception as error:  # pyarrow, fsspec and datasets have their own exceptions
            raise UsageError(f"{self._folder}: {_one_line(error)}") from error

    def _hub(self, datasets: Any) -> Any:
        revision = self._resolved()
        try:
            return datasets.load_dataset(
                self._id,
                self._config,
                split=self._split,
                revision=revision,
                streaming=True,
            )
        except Exception as error:  # as below, and exceptions of datasets
            if "scripts are no longer supported" in str(error):
                return self._converted(datasets)
            raise UsageError(self._explain(error)) from error

    def _converted(self, datasets: Any) -> Any:
        """For a data set that is a script, which datasets no longer runs: the files that the Hub converted it to, on a
        separate branch (https://huggingface.co/docs/dataset-viewer/parquet)."""
        files = f"hf://datasets/{self._id}@{_CONVERTED}/{self._config or 'default'}/{self._split}/*.parquet"
        try:
            return datasets.load_dataset("parquet", data_files={"train": files}, split="train", streaming=True)
        except Exception as error:
            raise UsageError(
                f"{self._id} is a script, and its converted files cannot be read ({_one_line(error)}): "
                "download them and name their folder"
            ) from error

    def _resolved(self) -> str:
        """The commit that a revision means today, so that a corpus records its exact source."""
        import huggingface_hub

        try:
            sha = huggingface_hub.HfApi().dataset_info(self._id, revision=self.revision).sha
        except Exception as error:  # exceptions of the hub and of the HTTP library it uses
            raise UsageError(self._explain(error)) from error
        return str(sha)

    def _explain(self, error: Exception) -> str:
        """One line: the licence page to accept and the variable to set, or another problem."""
        page = f"https://huggingface.co/datasets/{self._id}"
        text = str(error)
        named = type(error).__name__
        refused = any(mark in named + text for mark in ("Gated", "gated", "401", "403", "NotFound"))
        gated = bool(self._known and self._known.gated and not os.environ.get("HF_TOKEN"))
        if self._known and self._known.elsewhere:
            return f"{self._id} is not on the Hub any more: {self._known.elsewhere}"
        if hub.unreachable(error):
            return f"{self._id}: the Hub cannot be reached ({_one_line(error)})"
        if refused or gated:
            return f"{self._id} is missing or gated: accept its licence at {page} and set HF_TOKEN"
        return f"{self._id}: {_one_line(error)}"


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _audio_bytes(cell: dict[str, Any] | None) -> bytes:
    """Only the bytes in the row itself: caspi does not open local files that a data set names."""
    return (cell or {}).get("bytes") or b""


def _first(row: dict[str, Any], keys: Sequence[str]) -> Any:
    """The value of the first key that has one."""
    return next((value for key in keys if (value := _reach(row, key)) is not None), None)


def _reach(row: dict[str, Any], key: str) -> Any:
    """The value of a dotted key; a column with JSON text is parsed."""
    if not key:
        return None
    value: Any = row
    for part in key.split("."):
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                return None
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None
