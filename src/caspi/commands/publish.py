"""caspi publish: uploads a model folder to the Hub."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from caspi.commands.outcome import Outcome
from caspi.errors import CaspiError, UsageError
from caspi.reporting.wording import plural

if TYPE_CHECKING:
    from caspi.hub import Upload

_log = logging.getLogger(__name__)
_PARITY_CLIPS = 20
_BACKENDS = ("engine", "transformers")


def run(
    model: str,
    repository: str,
    dry_run: bool,
    private: bool = True,
    *,
    evaluations: Sequence[Path] = (),
    parity: str | None = None,
    skip_parity: bool = False,
    adapters: Path | None = None,
    base: str | None = None,
) -> Outcome:
    """Uploads a model folder, or adapters. parity: a corpus or benchmark on which all programs must give the same text
    first; without it the set of the first evaluation. A dry run shows the card and the files."""
    from caspi.export.publishing import is_adapter, publication, publish
    from caspi.hub import Upload

    made = publication(model, repository, evaluations=evaluations, adapters=adapters, base=base)
    compared = _parity_set(parity, evaluations)
    if compared and not skip_parity and not is_adapter(Path(model)):
        _check_parity(model, compared)
    elif not dry_run and not skip_parity:
        raise UsageError(
            f"{model}: is its text the same in every program? Give --parity a corpus, --evaluation, or --no-parity"
        )
    if not dry_run:
        publish(made, private=private)
    upload = Upload(repository, dry_run, private, made.sizes())
    summary = upload.as_json() | {"card": made.card}
    if not dry_run:
        return Outcome(upload_line(upload), Path(model), summary)
    if not compared:
        _log.warning("programs were not compared: give --parity or --evaluation, as publishing itself needs")
    return Outcome(upload_line(upload), Path(), summary, tables=upload_files(upload), text=f"{made.card}\n")


def _parity_set(given: str | None, evaluations: Sequence[Path]) -> str | None:
    from caspi.export.evaluated_card import read_summary

    if given or not evaluations:
        return given
    return str(read_summary(evaluations[0])["evaluated"][0]["corpus"])


def _check_parity(model: str, corpus: str) -> None:
    """Raises CaspiError if the programs differ."""
    from caspi.commands import parity
    from caspi.model.loading import is_original_layout

    if is_original_layout(Path(model)):
        raise UsageError(
            f"{model} is in the layout of qwen-asr: compare the model that it was exported from (caspi parity MODEL "
            f"{corpus} --backends engine,qwen-asr), then give --no-parity"
        )
    with tempfile.TemporaryDirectory(prefix="caspi-publish-") as folder:
        outcome = parity.run(model, corpus, Path(folder) / "parity", clips=_PARITY_CLIPS, backends=_BACKENDS)
    _log.info(outcome.line)
    if outcome.exit_code:
        raise CaspiError(f"{model} is not published: {outcome.line}; see caspi parity {model} {corpus}")


def upload_line(upload: Upload) -> str:
    """`3 files, 1.2 MiB uploaded to me/model`."""
    verb = "would be uploaded" if upload.dry_run else "uploaded"
    size = sum(upload.files.values()) / 2**20
    visible = "private" if upload.private else "public"
    return f"{plural(len(upload.files), 'file')}, {size:,.1f} MiB {verb} to {upload.repository} ({visible})"


def upload_files(upload: Upload) -> tuple[str, ...]:
    """`config.json: 1,204 bytes`, one line per file; only for a dry run."""
    return tuple(f"{name}: {size:,} bytes" for name, size in upload.files.items()) if upload.dry_run else ()
