"""caspi corpus: inspects, samples, exports and publishes a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table as TextTable

from caspi import atomic_output
from caspi.commands.outcome import Outcome, split_option
from caspi.commands.publish import upload_files, upload_line
from caspi.corpus.utterance import Utterance
from caspi.errors import UsageError
from caspi.progress import duration
from caspi.reporting import report
from caspi.reporting.report import AudioCell, Page, Table
from caspi.reporting.wording import SYNTHETIC_NOTE, plural

if TYPE_CHECKING:
    from caspi.corpus.inspection import CorpusInfo, SampledUtterance


def sample_page(folder: str, drawn: Sequence[SampledUtterance]) -> Page:
    """A table of utterances with audio players."""
    seconds = sum(d.utterance.seconds for d in drawn)
    return Page(
        title=f"caspi corpus sample · {folder}",
        headline=f"{plural(len(drawn), 'utterance')} to listen to",
        facts=[("utterances", str(len(drawn))), ("audio", duration(seconds))],
        parts=[
            Table(
                "Utterances",
                ("listen", "text", "seconds", "split", "source", "group", "peak dB", "SNR dB", "bandwidth kHz"),
                [
                    (
                        AudioCell(d.flac),
                        d.utterance.text,
                        f"{d.utterance.seconds:.1f}",
                        d.split,
                        d.utterance.source,
                        d.utterance.group,
                        *_signals(d.utterance),
                    )
                    for d in drawn
                ],
                text=(1,),
            )
        ],
        synthetic=SYNTHETIC_NOTE if any(d.utterance.synthetic for d in drawn) else "",
    )


def _signals(utterance: Utterance) -> tuple[str, str, str]:
    signals = utterance.signals
    if signals is None:
        return "", "", ""
    return f"{signals.peak_db:.0f}", f"{signals.snr_db:.0f}", f"{signals.bandwidth_hz / 1000:.1f}"


def jsonl_page(folder: str, written: dict[str, int]) -> Page:
    """The number of utterances written, by split."""
    return Page(
        title=f"caspi corpus export · {folder}",
        headline=f"{plural(sum(written.values()), 'utterance')} as JSONL and WAV",
        facts=[(split, f"{count:,}") for split, count in written.items()],
        parts=[],
    )


def info(folder: Path) -> Outcome:
    """Statistics of a corpus."""
    from caspi.corpus import inspection

    info = inspection.corpus_info(folder)
    hours = sum(split.hours for split in info.splits.values())
    count = sum(split.utterances for split in info.splits.values())
    summary = {"stage": "corpus info", **asdict(info)}
    return Outcome(f"{plural(count, 'utterance')}, {hours:.2f} hours", folder, summary, tables=_info_tables(info))


def _info_tables(info: CorpusInfo) -> tuple[TextTable, TextTable]:
    """A table of the splits and one of the distributions."""
    splits = TextTable(title="Splits", title_justify="left")
    for column in ("split", "utterances", "hours", "groups", "MiB"):
        splits.add_column(column, justify="left" if column == "split" else "right")
    for name, split in info.splits.items():
        counts = (f"{split.utterances:,}", f"{split.hours:.2f}", f"{split.groups:,}")
        splits.add_row(name, *counts, f"{split.bytes / 2**20:,.1f}")
    spread = TextTable(title="Distributions, percentiles", title_justify="left", box=box.SIMPLE, padding=(0, 0, 0, 1))
    spread.add_column("", no_wrap=True)
    for percentile in info.percentiles:
        spread.add_column(f"{percentile}", justify="right", no_wrap=True)
    for name, values in info.distributions.items():
        spread.add_row(name, *map(_short, values))
    return splits, spread


def _short(value: float) -> str:
    """A number of at most seven characters, without exponent, so that the table fits into 80 columns."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.1 else f"{value:.3f}"


def sample(folder: Path, count: int, seed: int, split: str | None, out: Path) -> Outcome:
    """Draws random utterances and writes a page with audio players."""
    from caspi.corpus import inspection

    chosen = None if split is None else split_option(split)
    atomic_output.check_owned(out, "corpus sample")
    drawn = inspection.draw_utterances(folder, count, seed, chosen)
    ids = [d.utterance.id for d in drawn]
    summary = {"stage": "corpus sample", "corpus": str(folder), "seed": seed, "ids": ids}
    page = report.write_report(out, sample_page(str(folder), drawn), summary)
    return Outcome(f"{plural(len(drawn), 'utterance')} to listen to", page, summary)


def export(folder: Path, to: str, out: Path) -> Outcome:
    """Writes a corpus as JSONL and WAV, the input of the official fine-tuning script."""
    from caspi.corpus.export import to_jsonl

    if to != "jsonl":
        raise UsageError(f"--to {to}: not one of jsonl")
    partial = atomic_output.begin_atomic(out, "corpus export")
    written = to_jsonl(folder, partial, out)
    summary = {"stage": "corpus export", "corpus": str(folder), "to": to, "utterances": written}
    report.write_report(partial, jsonl_page(str(folder), written), summary)
    atomic_output.commit_atomic(partial, out)
    return Outcome(f"{plural(sum(written.values()), 'utterance')} as JSONL and WAV", out, summary)


def push(folder: Path, repository: str, private: bool, dry_run: bool) -> Outcome:
    """Uploads a corpus to the Hub."""
    from caspi.corpus import dataset_card

    upload, card = dataset_card.push(folder, repository, private=private, dry_run=dry_run)
    summary = {"stage": "corpus push", **upload.as_json(), "card": card}
    return Outcome(upload_line(upload), folder, summary, tables=upload_files(upload))
