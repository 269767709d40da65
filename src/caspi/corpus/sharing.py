"""A finished corpus looked into, handed to other programs, and put on the Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id

from caspi.audio import SAMPLE_RATE
from caspi.corpus.signals import SIGNALS
from caspi.corpus.store import METADATA, Corpus
from caspi.corpus.utterance import SPLITS, Split, Utterance
from caspi.errors import CaspiError, UsageError, first_line
from caspi.folders import REPORT, stage_of
from caspi.language import language

CARD = "README.md"
_NO_LICENCE = "unknown to caspi: see where it came from"
_PERCENTILES = (0, 5, 25, 50, 75, 95, 100)


def splits_of(folder: Path) -> list[Corpus]:
    """The splits that hold something. Raises UsageError where the folder is no corpus."""
    if stage_of(folder) != "prepare":
        raise UsageError(f"{folder} is not a corpus: make one with caspi prepare RECIPE")
    return [Corpus.open(folder, split) for split in SPLITS if any(folder.glob(f"{split}-*.arrow"))]


def info(folder: Path) -> dict[str, Any]:
    """Hours and utterances by split, source and group; how lengths, rates and signals are distributed."""
    report = json.loads((folder / REPORT).read_text(encoding="utf-8")) if (folder / REPORT).is_file() else {}
    opened = splits_of(folder)
    seconds = np.concatenate([split.numbers("seconds") for split in opened])
    texts = [text for split in opened for text in split.column("text")]
    distributions = {
        "seconds": seconds,
        "characters_per_second": np.array([len(text) for text in texts]) / seconds,
        **{name: np.concatenate([split.numbers(name) for split in opened]) for name in SIGNALS},
    }
    return {
        "folder": str(folder),
        "splits": {
            split.split: {
                "utterances": len(split),
                "hours": float(split.numbers("seconds").sum()) / 3600,
                "groups": len(set(split.column("group"))),
                "bytes": sum(path.stat().st_size for path in folder.glob(f"{split.split}-*.arrow")),
            }
            for split in opened
        },
        "hours_by_source": report.get("hours_by_source", {}),
        "rejected": report.get("rejected", {}),
        "text_policy": report.get("text_policy", {}),
        "columns": METADATA,
        "percentiles": list(_PERCENTILES),
        "distributions": {
            name: np.percentile(values[np.isfinite(values)], _PERCENTILES).tolist() if len(values) else []
            for name, values in distributions.items()
        },
    }


@dataclass(frozen=True, slots=True)
class Drawn:
    """An utterance to listen to."""

    split: Split
    utterance: Utterance
    flac: bytes


def sample(folder: Path, count: int, seed: int, split: Split | None = None) -> list[Drawn]:
    """`count` utterances drawn evenly from all that there are, or from one split."""
    opened = [corpus for corpus in splits_of(folder) if split in (None, corpus.split)]
    if not opened:
        raise UsageError(f"corpus {folder} has no utterances in its {split} split")
    where = [(corpus, row) for corpus in opened for row in range(len(corpus))]
    chosen = np.random.default_rng(seed).permutation(len(where))[:count]
    return [Drawn(where[n][0].split, where[n][0].utterance(where[n][1]), where[n][0].flac(where[n][1])) for n in chosen]


def to_jsonl(folder: Path, out: Path, final: Path) -> dict[str, int]:
    """Writes the official script's input: `SPLIT.jsonl` with `audio`, `text`, `prompt`, and 16-bit WAV files.

    final: where `out` is going to lie; paths are absolute, because the official script reads them from anywhere.
    Names are numbers, because ids may hold anything. Returns utterances by split.
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
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        written[corpus.split] = len(corpus)
    return written


def _utterances(corpus: Corpus) -> Iterator[tuple[int, Utterance]]:
    return ((row, corpus.utterance(row)) for row in range(len(corpus)))


def push(folder: Path, repository: str, *, private: bool, dry_run: bool) -> dict[str, Any]:
    """Uploads a corpus as a data set of the Hub, with a card. Raises CaspiError where the Hub refuses."""
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UsageError(f"{repository!r} is no name of a data set: {first_line(error)}") from error
    opened = splits_of(folder)
    card = _card(folder, opened, repository)
    files = sorted(path for split in opened for path in folder.glob(f"{split.split}-*.arrow"))
    files += [folder / name for name in (REPORT, "report.html", "recipe.yaml") if (folder / name).is_file()]
    listed = [{"file": path.name, "bytes": path.stat().st_size} for path in files]
    listed.append({"file": CARD, "bytes": len(card.encode())})
    if not dry_run:
        _upload(folder, repository, private, [path.name for path in files], card)
    return {"repository": repository, "dry_run": dry_run, "private": private, "files": listed, "card": card}


def _upload(folder: Path, repository: str, private: bool, names: list[str], card: str) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = HfApi()
    try:
        api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, repo_type="dataset", folder_path=folder, allow_patterns=names)
        api.upload_file(path_or_fileobj=card.encode(), path_in_repo=CARD, repo_id=repository, repo_type="dataset")
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
        reason = first_line(error)
        raise CaspiError(f"upload to {repository} failed: {reason}; set HF_TOKEN with write access") from error


def _card(folder: Path, opened: list[Corpus], repository: str) -> str:
    """The data set's page: what it is made of, how it was cleaned, whose licences hold."""
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    files = "\n".join(f"  - split: {split.split}\n    path: {split.split}-*.arrow" for split in opened)
    splits = "\n".join(
        f"| {split.split} | {len(split):,} | {split.numbers('seconds').sum() / 3600:.2f} |" for split in opened
    )
    spoken = sorted({language(name).code for split in opened for name in set(split.column("language"))})
    languages = "".join(f"- {code}\n" for code in spoken)
    policy = "\n".join(f"- {name}: {value}" for name, value in report["text_policy"].items())
    sources = "\n".join(
        f"- {source}: {hours:.2f} hours; licence: {report['licences'].get(source, _NO_LICENCE)}"
        for source, hours in report["hours_by_source"].items()
    )
    return (
        f"---\nlanguage:\n{languages}task_categories:\n- automatic-speech-recognition\nconfigs:\n"
        f"- config_name: default\n  data_files:\n{files}\n---\n"
        f"# {repository.rpartition('/')[2]}\n\nMade by `caspi prepare` from recipe `{report['name']}`; "
        "`report.html` says what was kept and why.\n\n"
        f"| split | utterances | hours |\n|---|---|---|\n{splits}\n\n"
        f"## Sources\n{sources}\n\nRedistribution is subject to these licences.\n\n## Text policy\n{policy}\n\n"
        'Audio is FLAC, 16 kHz mono, in `audio.bytes`: `load_dataset(...).cast_column("audio", Audio())` decodes it.\n'
    )
