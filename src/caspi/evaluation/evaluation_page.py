"""The report page of evaluate and score."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from caspi.evaluation.published import Published
from caspi.language import language
from caspi.language.base import Normaliser
from caspi.reporting.charts import Bar, Bars, Chart, Line
from caspi.reporting.report import AudioCell, Browser, DifferenceCell, Page, Table
from caspi.reporting.wording import FEW, SYNTHETIC_NOTE, counted, percent, plural, rate
from caspi.scoring.edits import align

WORST = 50
_CHARTS = (
    ("source", "source"), ("duration", "duration"), ("noise", "signal-to-noise ratio"), ("script", "script"),
    ("names", "names"),
    ("language", "language"), ("group", "group: recording or speaker"),
)  # fmt: skip


def worst(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows with the most errors."""
    return sorted((row for row in rows if row["errors"]), key=lambda row: (-row["errors"], row["id"]))[:WORST]


def evaluate_page(
    title: str,
    summary: dict[str, Any],
    rows: Sequence[Mapping[str, Any]],
    clips: Mapping[str, bytes],
    published: Sequence[Published] = (),
) -> Page:
    """The verdict, breakdowns, kinds of errors, and the worst utterances. clips: FLAC by utterance."""
    leaderboard, fair = summary["leaderboard"], summary["fair"]
    return Page(
        title=title,
        headline=f"WER {rate(leaderboard['wer'], leaderboard['wer_ci'])} on {counted(summary)}",
        facts=[
            ("leaderboard WER", percent(leaderboard["wer"])),
            ("fair WER", percent(fair["wer"])),
            ("leaderboard CER", percent(leaderboard["cer"])),
            ("empty", f"{leaderboard['empty']:,}"),
            ("cut off", f"{summary['truncated']:,}"),
            ("speed", f"{summary['rtfx']:.0f} x real time" if summary["rtfx"] else "not measured"),
        ],
        synthetic=SYNTHETIC_NOTE if summary["synthetic"] else "",
        parts=[
            *_evaluated(summary),
            _scores(summary),
            *_published(summary, published),
            *_worst(worst(rows), clips),
            *(_bars(what, key, summary) for key, what in _CHARTS if len(summary[f"by_{key}"]) > 1),
            *_error_types(summary),
            *_hard_words(summary["by_word"]),
            *_retention(summary),
            *_stress(summary),
            *_context(summary),
            _all(rows),
        ],
    )


def _evaluated(summary: dict[str, Any]) -> list[Table]:
    rows = [
        (what["corpus"], what["split"], f"{what['utterances']:,} of {what['of']:,}", what["revision"] or "")
        for what in summary.get("evaluated", ())
    ]
    return [Table("What was evaluated", ("corpus", "split", "utterances", "revision"), rows)] if rows else []


def _scores(summary: dict[str, Any]) -> Table:
    rows = [
        (
            name, rate(s["wer"], s["wer_ci"]), rate(s["cer"]), rate(s["wil"]), f"{s['words']:,}",
            f"{s['substitutions']:,}", f"{s['deletions']:,}", f"{s['insertions']:,}",
        )
        for name, s in ((name, summary[name]) for name in ("leaderboard", "fair"))
    ]  # fmt: skip
    rows += [
        (
            f"fair, {name} ignored",
            f"{percent(found['wer'])}, {percent(found['removed'])} less",
            "",
            "",
            "",
            "",
            "",
            "",
        )
        for name, found in summary["relaxations"].items()
    ]
    columns = ("score", "WER [95 %]", "CER", "WIL", "words", "substituted", "deleted", "inserted")
    note = (
        f"Empty hypotheses count as deletions. fair: version {summary['fair_version']}; ignoring a "
        f"difference lowers the fair score by at most what this difference contributes. leaderboard: by "
        f"{summary['standard']}. {_other_rates(summary)} {_over(summary)}"
    )
    return Table("Scores", columns, rows, note=note)


def _other_rates(summary: dict[str, Any]) -> str:
    """Other rates of the leaderboard score that other tools report beside the corpus rate."""
    found = summary["leaderboard"]
    macro = f", mean of the sets {percent(summary['macro']['leaderboard'])}" if len(summary["by_source"]) > 1 else ""
    return (
        f"Utterances with an error {percent(found['sentence_error_rate'])}, mean of the utterances' own rates "
        f"{percent(found['mean_wer'])}{macro}."
    )


def _over(summary: dict[str, Any]) -> str:
    """The unit that the confidence intervals are computed over."""
    independent, utterances = summary["independent"], summary["utterances"]
    if independent == utterances:
        unnamed = "" if summary["groups"] else ", because no recordings or speakers are named"
        return f"Intervals are over utterances{unnamed}.{_dominated(summary)}"
    if independent == 1:
        return "No intervals: all utterances are in one group (recording or speaker), so other groups are unknown."
    few = "; with so few groups they are only rough" if independent < FEW else ""
    return f"Intervals are over {independent:,} groups (recordings or speakers){few}.{_dominated(summary)}"


def _dominated(summary: dict[str, Any]) -> str:
    if summary["leaderboard"]["wer_ci"] is not None:
        return ""
    return " There is no interval: one of them has most of the errors, and more errors than words (is it a loop?)."


def _published(summary: dict[str, Any], published: Sequence[Published]) -> list[Table]:
    if any(what["utterances"] < what["of"] for what in summary.get("evaluated", ())):
        return []  # a part of a set is not what others measured
    sets = [name for name in summary["by_source"] if any(found.set == name for found in published)]
    rows = [
        ("this model", name, rate(part["leaderboard"]["wer"], part["leaderboard"]["wer_ci"]), "measured here", "")
        for name, part in summary["by_source"].items()
        if name in sets
    ]
    rows += [
        (found.system, found.set, rate(found.wer), found.source, found.date) for found in published if found.set in sets
    ]
    note = "Other systems: published, not measured here."
    return (
        [Table("Beside published results", ("system", "set", "WER", "source", "date"), rows, note=note)] if sets else []
    )


def _stress(summary: dict[str, Any]) -> list[Bars | Chart]:
    """A curve for every family of conditions with more than one level, and a bar for every condition."""
    if not (stress := summary.get("stress")):
        return []
    conditions = stress["conditions"]
    clean = conditions["clean"]
    curves = [_curve(name, levels, conditions) for name, levels in stress["families"].items() if len(levels) > 1]
    curves = [curve for curve in curves if len(curve.lines[0].points) > 2]  # for two points the bars show as much
    bars = [Bar(name, found["wer"], found["wer_ci"], _subsets(found)) for name, found in conditions.items()]
    note = (
        f"The same {plural(clean['utterances'], 'utterance')} under each; in grey, the WER of those among them with "
        "name-like words, Latin letters or digits."
    )
    return [*curves, Bars("WER on degraded audio", bars, note)]


def _context(summary: dict[str, Any]) -> list[Table]:
    """How the model used its context."""
    rows = [
        (
            shown,
            f"{found['utterances']:,}",
            rate(found["wer"], found["wer_ci"]),
            _of(found["expected"]),
            _of(found["others"]),
        )
        for shown, found in summary.get("context", {}).items()
    ]
    columns = ("context", "utterances", "WER [95 %]", "hotwords recognised", "distractors in the output")
    note = (
        "The same utterances, each with its own list: up to four rare words that are spoken (hotwords), and up to "
        "twelve that are not (distractors). Every row counts both; the model sees them only in the row that says so."
    )
    return [Table("Use of context", columns, rows, note=note)] if rows else []


def _of(counted: dict[str, int]) -> str:
    return f"{counted['heard']:,} of {counted['words']:,}"


def _curve(family: str, levels: Sequence[str], conditions: dict[str, Any]) -> Chart:
    """WER over a family's level, which its conditions name: `noise (pink), 20 dB`."""
    values = [(float(name.removeprefix(f"{family}, ").split()[0]), 100 * conditions[name]["wer"]) for name in levels]
    unit = levels[0].removeprefix(f"{family}, ").split()[1]
    clean = 100 * conditions["clean"]["wer"]
    if family == "speed":
        values.append((1.0, clean))
    values.sort()
    lines = [Line(family, values), Line("clean", [(values[0][0], clean), (values[-1][0], clean)])]
    return Chart(f"WER by {family}", lines, unit, "WER, %")


def _subsets(found: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {percent(part['leaderboard']['wer'])} ({part['utterances']:,})"
        for name, part in found["subsets"].items()
    )


def _bars(what: str, key: str, summary: dict[str, Any]) -> Bars:
    parts, of = summary[f"by_{key}"], summary["parts"][key]
    bars = [
        Bar(
            name, part["leaderboard"]["wer"], part["leaderboard"]["wer_ci"],
            plural(part["utterances"], "utterance") + _rough(part["groups"]),
        )
        for name, part in parts.items()
    ]  # fmt: skip
    note = "Leaderboard score, with 95 % intervals."
    if len(parts) < of:
        note += f" The {len(parts):,} of {of:,} with the most errors."
    return Bars(f"WER by {what}", bars, note)


def _rough(groups: int) -> str:
    """A warning for an interval over few groups."""
    if groups == 1:
        return ", one group"
    return f", rough: {groups} groups" if groups < FEW else ""


_ROWS_AT_MOST = 20_000  # of a page: some megabytes


def _all(rows: Sequence[Mapping[str, Any]]) -> Browser:
    """Every utterance with its reference and hypothesis."""
    shown = sorted(rows, key=lambda row: (-row["errors"], row["id"]))[:_ROWS_AT_MOST]
    note = "Original texts, including what the score ignores. Click a column to sort."
    if len(shown) < len(rows):
        note += f" The {len(shown):,} of {len(rows):,} with the most errors; results.jsonl has them all."
    columns = ("errors", "of", "seconds", "reference", "heard", "source", "group", "signs", "id")
    return Browser(
        "All utterances",
        columns,
        [
            (
                row["errors"], row["words"], round(row["seconds"], 1) if row["seconds"] is not None else "",
                row["reference"], row["hypothesis"], row["source"], row["group"], ", ".join(row["made_up"]), row["id"],
            )
            for row in shown
        ],
        text=(3, 4),
        note=note,
    )  # fmt: skip


def _hard_words(by_word: dict[str, Any]) -> list[Bars]:
    bars = [
        Bar(kind, found["rate"], found["rate_ci"], plural(found["words"], "word"))
        for kind, found in by_word.items()
        if kind != "left_out"
    ]
    note = (
        "Share that was not recognised. rare: once in all references; name-like: acronyms, Latin letters, foreign "
        "sounds, after a title."
    )
    if by_word["left_out"]:
        note += f" {by_word['left_out']:,} utterances are skipped because they cannot be counted word by word."
    return [Bars("Hard words", bars, note)] if bars else []


def _error_types(summary: dict[str, Any]) -> list[Table | Bars]:
    errors = summary["errors"]
    total = sum(errors["kinds"].values())
    parts: list[Table | Bars] = []
    if total:
        bars = [Bar(kind, count / total, note=f"{count:,}") for kind, count in errors["kinds"].items() if count]
        parts.append(Bars("Kinds of errors", bars, "Share of all errors, fair score; the first match counts."))
    for title, key in (
        ("Confused words", "confused"), ("Confused letters", "letters"), ("Prefixes", "prefixes"),
    ):  # fmt: skip
        if errors[key]:
            rows = [(one or "none", other or "none", count) for one, other, count in errors[key]]
            parts.append(Table(title, ("expected", "recognised", "times"), rows))
    for title, key in (("Words deleted", "deleted"), ("Words inserted", "inserted")):
        if errors[key]:
            parts.append(Table(f"{title} most often", ("word", "times"), errors[key]))
    if summary["made_up"]:
        note = "Signs that a hypothesis is a hallucination. Counted here, and scored like all others."
        parts.append(Table("Hallucinations?", ("sign", "utterances"), list(summary["made_up"].items()), note=note))
    if summary["named"]:
        rows = [(spoken, name, n) for spoken, found in summary["named"].items() for name, n in found.items()]
        parts.append(Table("Language, as the model named it", ("spoken", "named", "utterances"), rows))
    return parts


def _retention(summary: dict[str, Any]) -> list[Table]:
    rows = [
        (folder, spoken, f"{found['utterances']:,}", rate(found["wer"], found["wer_ci"]), rate(found["cer"]))
        for folder, languages in summary.get("retention", {}).items()
        for spoken, found in languages.items()
    ]
    columns = ("corpus", "language", "utterances", "WER [95 %]", "CER")
    return [Table("Retention of other languages", columns, rows)] if rows else []


def difference(row: Mapping[str, Any], hypothesis: str) -> DifferenceCell:
    """Reference against hypothesis, aligned by word as in the leaderboard score, in their original spelling."""
    spoken = language(str(row.get("language") or "Hebrew"))
    normalise = spoken.normalisers["leaderboard"]
    expected, said = normalise(row["reference"]).split(), normalise(hypothesis).split()
    written = iter(_spelt(row["reference"], expected, normalise))
    heard = iter(_spelt(hypothesis, said, normalise))
    steps: list[tuple[str, str, str]] = []
    for step in align(expected, said):
        ours, theirs = itertools.islice(written, len(step.expected)), itertools.islice(heard, len(step.said))
        steps += [(step.kind, one, other) for one, other in itertools.zip_longest(ours, theirs, fillvalue="")]
    return DifferenceCell(tuple(steps), "rtl" if spoken.right_to_left else "ltr")


def _spelt(text: str, treated: list[str], normalise: Normaliser) -> list[str]:
    """The original word for every normalised word. If one word became several, it is at the first of these. A word that
    normalisation removes joins its neighbour. Returns the normalised words if the text is not normalised word by word.
    """
    found: list[str] = []
    before = ""
    for word in text.split():
        parts = normalise(word).split()
        if parts:
            found += [f"{before}{word}", *[""] * (len(parts) - 1)]
            before = ""
        elif found:
            found[-1] = f"{found[-1]} {word}".strip()
        else:
            before += f"{word} "
    return found if len(found) == len(treated) else treated


def _worst(rows: Sequence[Mapping[str, Any]], clips: Mapping[str, bytes]) -> list[Table]:
    if not rows:
        return []
    table = Table(
        f"The {plural(len(rows), 'utterance')} with the most errors",
        ("errors", "of", "reference and hypothesis", "listen", "seconds", "signs", "id"),
        [
            (
                row["errors"], row["words"], difference(row, row["hypothesis"]), audio_cell(row, clips),
                f"{row['seconds']:.1f}" if row["seconds"] is not None else "", ", ".join(row["made_up"]), row["id"],
            )
            for row in rows
        ],
        text=(2,),
        note="Struck out: only in the reference. Green background: only in the hypothesis.",
    )  # fmt: skip
    return [table]


def audio_cell(row: Mapping[str, Any], clips: Mapping[str, bytes]) -> AudioCell | str:
    return AudioCell(clips[row["id"]]) if row["id"] in clips else ""
