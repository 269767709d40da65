"""The report page of parity."""

from __future__ import annotations

from caspi.evaluation.evaluation_page import difference
from caspi.evaluation.pairs import TranscriptPair
from caspi.parity.clips import LENGTHS
from caspi.parity.compare import BackendResult, ParityResult
from caspi.reporting.report import Page, Table
from caspi.reporting.wording import percent, plural, rate

_SHOWN = 50  # clips that differ, of each backend


def parity_page(title: str, result: ParityResult, language: str) -> Page:
    """The table of backends, and for each the clips whose text differs."""
    return Page(
        title=title,
        headline=headline(result),
        facts=[
            ("clips", f"{result.clips:,}"),
            ("audio", f"{result.seconds / 60:,.1f} min"),
            ("longest", f"{result.longest:.1f} s"),
            ("limit", percent(result.limit)),
        ],
        parts=[
            _backends(result),
            *_failures(result),
            *(_different(one, language) for one in result.backends if one.different),
        ],
    )


def headline(result: ParityResult) -> str:
    """The verdict in one line."""
    parts = []
    if result.outside:
        verb = "differs" if len(result.outside) == 1 else "differ"
        parts.append(f"{_named(result.outside)} {verb} by more than {percent(result.limit)} of WER")
    if result.failed:
        parts.append(f"{_named(result.failed)} failed")
    if not parts:
        count, most = plural(len(result.backends), "backend"), max(len(one.different) for one in result.backends)
        same = "all texts are the same" if not most else f"at most {most:,} texts differ"
        parts.append(f"{count} agree within {percent(result.limit)} of WER on {plural(result.clips, 'clip')}; {same}")
    return "; ".join(parts)


def _named(results: list[BackendResult]) -> str:
    return ", ".join(one.name for one in results)


def _backends(result: ParityResult) -> Table:
    rows = [
        (
            one.name, one.about,
            rate(one.score.wer, one.score.wer_ci) if one.score else "failed",
            signed(one) if one.score else "",
            percent(one.apart) if one.score else "",
            f"{result.clips - len(one.different):,} of {result.clips:,}" if one.score else "",
            f"{one.seconds:.1f}",
        )
        for one in result.backends
    ]  # fmt: skip
    note = (
        "Difference: of the WER, to the first row. Words apart: WER of the texts with those of the first row as "
        "references. The model identifies the language. "
        f"Clips beyond {' and '.join(f'{length:.0f} s' for length in reversed(LENGTHS))} are always among them; those "
        "beyond one window are cut by caspi for all, and their texts joined with spaces."
    )
    columns = ("backend", "what", "WER [95 %]", "difference", "words apart", "same text", "seconds")
    return Table("Backends", columns, rows, note=note)


def _failures(result: ParityResult) -> list[Table]:
    rows = [(one.name, one.error) for one in result.failed]
    return [Table("Failed", ("backend", "error"), rows)] if rows else []


def signed(result: BackendResult) -> str:
    """`+0.25 points`."""
    return f"{100 * result.difference:+.2f} points"


def _different(result: BackendResult, language: str) -> Table:
    rows = [
        (
            clip.id, f"{clip.seconds:.1f}",
            difference(TranscriptPair(clip.id, clip.first, clip.other, language=language), clip.other),
            clip.reference,
        )
        for clip in result.different[:_SHOWN]
    ]  # fmt: skip
    note = "Struck out: only from the first backend. Green background: only from this one."
    if len(rows) < len(result.different):
        note += f" The first {len(rows)} of {len(result.different):,}."
    return Table(f"Where {result.name} differs", ("id", "seconds", "texts", "reference"), rows, text=(2, 3), note=note)
