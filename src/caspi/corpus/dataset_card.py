"""Publishes a corpus as a data set on the Hub, with its card."""

from __future__ import annotations

import json
from pathlib import Path

from caspi import hub
from caspi.atomic_output import REPORT
from caspi.corpus.inspection import splits_of
from caspi.corpus.store import Corpus
from caspi.language import language

_NO_LICENCE = "unknown to caspi: see the original source"


def push(folder: Path, repository: str, *, private: bool, dry_run: bool) -> tuple[hub.Upload, str]:
    """Uploads a corpus as a data set to the Hub, with a card; returns the card too. Raises CaspiError if the Hub
    refuses."""
    hub.check_name(repository)
    opened = splits_of(folder)
    card = _card(folder, opened, repository)
    files = sorted(path for split in opened for path in folder.glob(f"{split.split}-*.arrow"))
    files += [folder / name for name in (REPORT, "report.html", "recipe.yaml") if (folder / name).is_file()]
    sizes = {path.name: path.stat().st_size for path in files} | {hub.CARD: len(card.encode())}
    if not dry_run:
        hub.upload(repository, folder, [path.name for path in files], {hub.CARD: card}, kind="dataset", private=private)
    return hub.Upload(repository, dry_run, private, sizes), card


def _card(folder: Path, opened: list[Corpus], repository: str) -> str:
    """The data set's card: its sources, how it was cleaned, and the licences."""
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
        "`report.html` shows what was kept and why.\n\n"
        f"| split | utterances | hours |\n|---|---|---|\n{splits}\n\n"
        f"## Sources\n{sources}\n\nRedistribution is subject to these licences.\n\n## Text policy\n{policy}\n\n"
        'Audio is FLAC, 16 kHz mono, in `audio.bytes`: `load_dataset(...).cast_column("audio", Audio())` decodes it.\n'
    )
