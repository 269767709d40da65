"""caspi export: writes a checkpoint in another program's format."""

from __future__ import annotations

from pathlib import Path

from caspi.commands.outcome import Outcome
from caspi.reporting import report
from caspi.reporting.report import Page, Table


def export_page(model: str, to: str, files: dict[str, int]) -> Page:
    """The files written."""
    return Page(
        title=f"caspi export · {model}",
        headline=f"{to}, {sum(files.values()) / 2**20:,.1f} MiB",
        facts=[("files", str(len(files)))],
        parts=[Table("Files", ("file", "bytes"), [(name, f"{size:,}") for name, size in files.items()])],
    )


def run(model: str, to: str, out: Path) -> Outcome:
    """Exports the checkpoint and writes the report."""
    from caspi.export.formats import export as stage

    stage(model, to, out)
    files = {path.name: path.stat().st_size for path in sorted(out.iterdir())}
    summary = {"stage": "export", "model": model, "to": to, "files": files, "fingerprint": report.fingerprint(out)}
    report.write_report(out, export_page(model, to, files), summary)
    return Outcome(f"{to}, {sum(files.values()) / 2**20:,.1f} MiB", out, summary)
