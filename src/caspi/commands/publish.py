"""caspi publish: uploads a model folder to the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from caspi.commands.outcome import Outcome
from caspi.reporting.wording import plural

if TYPE_CHECKING:
    from caspi.hub import Upload


def run(model: str, repository: str, dry_run: bool, private: bool = True) -> Outcome:
    """Uploads a model folder."""
    from caspi.export.publishing import publish as stage

    upload = stage(model, repository, private=private, dry_run=dry_run)
    return Outcome(upload_line(upload), Path(model), upload.as_json(), tables=upload_files(upload))


def upload_line(upload: Upload) -> str:
    """`3 files, 1.2 MiB uploaded to me/model`."""
    verb = "would be uploaded" if upload.dry_run else "uploaded"
    size = sum(upload.files.values()) / 2**20
    return f"{plural(len(upload.files), 'file')}, {size:,.1f} MiB {verb} to {upload.repository}"


def upload_files(upload: Upload) -> tuple[str, ...]:
    """`config.json: 1,204 bytes`, one line per file; only for a dry run."""
    return tuple(f"{name}: {size:,} bytes" for name, size in upload.files.items()) if upload.dry_run else ()
