"""caspi publish: a model folder to the Hub."""

from __future__ import annotations

from pathlib import Path

from caspi.commands.outcome import Outcome


def run(model: str, repository: str, dry_run: bool, private: bool = True) -> Outcome:
    """A model folder to the Hub."""
    from caspi.export.publishing import publish as stage

    summary = stage(model, repository, private=private, dry_run=dry_run)
    size = sum(file["bytes"] for file in summary["files"])
    verb = "would be uploaded" if dry_run else "uploaded"
    return Outcome(
        f"{len(summary['files'])} files, {size / 2**20:,.1f} MiB {verb} to {repository}", Path(model), summary
    )
