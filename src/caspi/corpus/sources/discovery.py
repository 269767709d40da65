"""Looks at a folder or a file of somebody's data: which sources it is, and what is in them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caspi.atomic_output import REPORT
from caspi.corpus.sources.folder import audio_files, text_beside
from caspi.corpus.sources.rows import SPLITS
from caspi.corpus.sources.table import open_table
from caspi.corpus.sources.table_columns import table_source
from caspi.corpus.sources.webdataset import TAR_ENDINGS, tar_files
from caspi.errors import UsageError

_TABLES = (".csv", ".tsv")
_COMMON_VOICE = {"train": "train", "dev": "validation", "test": "test"}  # its tables, and the splits they are


@dataclass(frozen=True, slots=True)
class FoundSource:
    """A source as the recipe writes it. what: its kind, in words. notes: what was assumed."""

    config: dict[str, Any]
    what: str
    notes: tuple[str, ...] = ()


def discover(path: Path) -> list[FoundSource]:
    """The sources that a folder or a file is. Raises UsageError if it is none."""
    if path.is_file():
        return [_file(path)]
    if not path.is_dir():
        raise UsageError(f"{path} does not exist")
    for look in (_corpus, _kaldi, _common_voice, _ljspeech, _listed, _data_set, _web_data_set, _texts_beside):
        if found := look(path):
            return found
    audio = len(audio_files(path))
    if audio:
        raise UsageError(
            f"{path} has {audio:,} audio files and no transcripts: a table (.csv), a manifest (.jsonl) or a text file "
            "beside each is needed; caspi label writes transcripts for speech that has none"
        )
    raise UsageError(f"{path} has no data that caspi knows: no table, manifest, Kaldi, parquet or audio files")


# --- what a folder may be


def _corpus(folder: Path) -> list[FoundSource]:
    if not any(folder.glob("*-*.arrow")) or not (folder / REPORT).is_file():
        return []
    return [FoundSource({"kind": "corpus", "path": str(folder)}, "a corpus of caspi prepare")]


def _kaldi(folder: Path) -> list[FoundSource]:
    if not ((folder / "wav.scp").is_file() and (folder / "text").is_file()):
        return []
    return [FoundSource({"kind": "kaldi", "path": str(folder)}, "a Kaldi data folder")]


def _common_voice(folder: Path) -> list[FoundSource]:
    if not (folder / "clips").is_dir():
        return []
    tables = [name for name in _COMMON_VOICE if (folder / f"{name}.tsv").is_file()]
    if len(tables) < len(_COMMON_VOICE):
        tables = ["validated"] if (folder / "validated.tsv").is_file() else []
    base = {"kind": "csv", "quoting": False, "audio_folder": "clips"}
    return [
        FoundSource(
            {**base, "path": str(folder / f"{name}.tsv"), "name": f"{folder.name}-{name}"}
            | ({"split": _COMMON_VOICE[name]} if name in _COMMON_VOICE else {}),
            f"Common Voice, {name}.tsv",
        )
        for name in tables
    ]


def _ljspeech(folder: Path) -> list[FoundSource]:
    table = folder / "metadata.csv"
    if not table.is_file() or not (folder / "wavs").is_dir():
        return []
    with open_table(table, "utf-8") as file:
        cells = file.readline().count("|") + 1
    if cells not in (2, 3):
        return []
    header = ["audio", "text"] if cells == 2 else ["audio", "written", "text"]
    config = {
        "kind": "csv", "path": str(table), "delimiter": "|", "quoting": False, "header": header,
        "audio_folder": "wavs", "audio_ending": ".wav",
    }  # fmt: skip
    return [FoundSource(config, "LJSpeech's layout", ("the last column of metadata.csv is the text",))]


def _listed(folder: Path) -> list[FoundSource]:
    """Manifests and tables at the top of the folder."""
    names = sorted(path for path in folder.iterdir() if path.suffix in (".jsonl", *_TABLES) or _is_cuts(path))
    return [_file(path) for path in names if path.is_file()]


def _data_set(folder: Path) -> list[FoundSource]:
    if not any(path.suffix in (".parquet", ".arrow") for path in folder.rglob("*")):
        return []
    splits = [path.parent.name for path in sorted(folder.glob("*/state.json"))]  # of DatasetDict.save_to_disk
    if not splits:
        return [FoundSource({"kind": "huggingface", "dataset": str(folder)}, "parquet or Arrow files of a data set")]
    return [
        FoundSource(
            {"kind": "huggingface", "dataset": str(folder), "hub_split": name, "name": f"{folder.name}-{name}"}
            | ({"split": SPLITS[name]} if name in SPLITS else {}),
            f"a data set saved by datasets, {name}",
        )
        for name in splits
    ]


def _web_data_set(folder: Path) -> list[FoundSource]:
    tars = len(tar_files(folder))
    return [FoundSource({"kind": "webdataset", "path": str(folder)}, f"WebDataset, {tars:,} tar files")] if tars else []


def _texts_beside(folder: Path) -> list[FoundSource]:
    audio = audio_files(folder)
    texts = sum(text_beside(path) is not None for path in audio)
    if not texts:
        return []
    notes = (f"{len(audio) - texts:,} audio files have no text beside them",) if texts < len(audio) else ()
    return [FoundSource({"kind": "folder", "path": str(folder)}, "audio files with texts beside them", notes)]


# --- what a file may be


def _is_cuts(path: Path) -> bool:
    return path.name.endswith(".jsonl.gz")


def _file(path: Path) -> FoundSource:
    if path.suffix in _TABLES or path.suffix == ".txt":
        config, what, notes = table_source(path)
        return FoundSource(config, what, tuple(notes))
    if _is_cuts(path) or path.suffix == ".jsonl":
        return _lines(path)
    if path.name.endswith(TAR_ENDINGS):
        return FoundSource({"kind": "webdataset", "path": str(path)}, "WebDataset")
    raise UsageError(f"{path} is not a table (.csv, .tsv) or a manifest (.jsonl): give a folder or such a file")


def _lines(path: Path) -> FoundSource:
    if _is_cuts(path):
        return FoundSource({"kind": "lhotse", "path": str(path)}, "lhotse cuts")
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = file.readline()
    try:
        row = json.loads(first)
    except ValueError as error:
        raise UsageError(f"{path}: line 1 is not JSON ({first.strip()[:40]!r})") from error
    if isinstance(row, dict) and "recording" in row and "supervisions" in row:
        return FoundSource({"kind": "lhotse", "path": str(path)}, "lhotse cuts")
    what = "a NeMo manifest" if "audio_filepath" in row else "a JSONL manifest"
    return FoundSource({"kind": "manifest", "path": str(path), "name": path.parent.resolve().name}, what)
