"""The report page of evaluate and score."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from caspi.evaluation.pairs import TranscriptPair
from caspi.evaluation.published import Published
from caspi.evaluation.results import (
    Calibration,
    EvaluationSummary,
    HardWordTable,
    ScoredUtterance,
    StressScore,
    WordsRecognised,
    context_label,
)
from caspi.language import language
from caspi.language.base import Normaliser
from caspi.reporting.charts import Bar, Bars, Chart, Line
from caspi.reporting.report import AudioCell, Browser, DifferenceCell, Page, Table
from caspi.reporting.wording import FEW, SYNTHETIC_NOTE, percent, plural, rate
from caspi.scoring.edits import align

WORST = 50
_CHARTS = (
    ("source", "source"), ("duration", "duration"), ("noise", "signal-to-noise ratio"), ("script", "script"),
    ("names", "names"),
    ("language", "language"), ("group", "group: recording or speaker"),
)  # fmt: skip


def worst(utterances: Sequence[ScoredUtterance]) -> list[ScoredUtterance]:
    """The utterances with the most errors."""
    return _most_errors([scored for scored in utterances if scored.leaderboard.errors])[:WORST]


def _most_errors(utterances: Sequence[ScoredUtterance]) -> list[ScoredUtterance]:
    return sorted(utterances, key=lambda scored: (-scored.leaderboard.errors, scored.pair.id))


def evaluate_page(
    title: str,
    summary: EvaluationSummary,
    utterances: Sequence[ScoredUtterance],
    clips: Mapping[str, bytes],
    published: Sequence[Published] = (),
) -> Page:
    """The verdict, breakdowns, kinds of errors, and the worst utterances. clips: FLAC by utterance."""
    leaderboard = summary.leaderboard
    return Page(
        title=title,
        headline=f"WER {rate(leaderboard.wer, leaderboard.wer_ci)} on {summary.counted()}",
        facts=[
            ("leaderboard WER", percent(leaderboard.wer)),
            ("fair WER", percent(summary.fair.wer)),
            ("leaderboard CER", percent(leaderboard.cer)),
            ("empty", f"{leaderboard.empty:,}"),
            ("cut off", f"{summary.truncated:,}"),
            ("speed", f"{summary.rtfx:.0f} x real time" if summary.rtfx else "not measured"),
        ],
        synthetic=SYNTHETIC_NOTE if summary.synthetic else "",
        parts=[
            *_evaluated(summary),
            _scores(summary),
            *_published(summary, published),
            *_worst(worst(utterances), clips),
            *(_bars(what, key, summary) for key, what in _CHARTS if len(summary.by[key].parts) > 1),
            *_error_types(summary),
            *_hard_words(summary.hard_words),
            *_calibration(summary.calibration),
            *_retention(summary),
            *_stress(summary),
            *_context(summary),
            _all(utterances),
        ],
    )


def _evaluated(summary: EvaluationSummary) -> list[Table]:
    rows = [
        (corpus.corpus, corpus.split, f"{corpus.utterances:,} of {corpus.of:,}", corpus.revision or "")
        for corpus in summary.evaluated
    ]
    return [Table("What was evaluated", ("corpus", "split", "utterances", "revision"), rows)] if rows else []


def _scores(summary: EvaluationSummary) -> Table:
    rows = [
        (
            name, rate(score.wer, score.wer_ci), rate(score.cer), rate(score.wil), f"{score.words:,}",
            f"{score.substitutions:,}", f"{score.deletions:,}", f"{score.insertions:,}",
        )
        for name, score in (("leaderboard", summary.leaderboard), ("fair", summary.fair))
    ]  # fmt: skip
    rows += [
        (f"fair, {name} ignored", f"{percent(relaxed.wer)}, {percent(relaxed.removed)} less", "", "", "", "", "", "")
        for name, relaxed in summary.relaxations.items()
    ]
    columns = ("score", "WER [95 %]", "CER", "WIL", "words", "substituted", "deleted", "inserted")
    note = (
        f"Empty hypotheses count as deletions. fair: version {summary.fair_version}; ignoring a "
        f"difference lowers the fair score by at most what this difference contributes. leaderboard: by "
        f"{summary.standard}. {_other_rates(summary)} {_over(summary)}"
    )
    return Table("Scores", columns, rows, note=note)


def _other_rates(summary: EvaluationSummary) -> str:
    """Other rates of the leaderboard score that other tools report beside the corpus rate."""
    score = summary.leaderboard
    several = len(summary.by["source"].parts) > 1
    macro = f", mean of the sets {percent(summary.macro['leaderboard'])}" if several else ""
    return (
        f"Utterances with an error {percent(score.sentence_error_rate)}, mean of the utterances' own rates "
        f"{percent(score.mean_wer)}{macro}."
    )


def _over(summary: EvaluationSummary) -> str:
    """The unit that the confidence intervals are computed over."""
    independent = summary.independent
    if independent == summary.utterances:
        unnamed = "" if summary.groups else ", because no recordings or speakers are named"
        return f"Intervals are over utterances{unnamed}.{_dominated(summary)}"
    if independent == 1:
        return "No intervals: all utterances are in one group (recording or speaker), so other groups are unknown."
    few = "; with so few groups they are only rough" if independent < FEW else ""
    return f"Intervals are over {independent:,} groups (recordings or speakers){few}.{_dominated(summary)}"


def _dominated(summary: EvaluationSummary) -> str:
    if summary.leaderboard.wer_ci is not None:
        return ""
    return " There is no interval: one of them has most of the errors, and more errors than words (is it a loop?)."


def _published(summary: EvaluationSummary, published: Sequence[Published]) -> list[Table]:
    if any(corpus.utterances < corpus.of for corpus in summary.evaluated):
        return []  # a part of a set is not what others measured
    sources = summary.by["source"].parts
    sets = [name for name in sources if any(result.set == name for result in published)]
    rows = [
        ("this model", name, rate(part.leaderboard.wer, part.leaderboard.wer_ci), "measured here", "")
        for name, part in sources.items()
        if name in sets
    ]
    rows += [
        (result.system, result.set, rate(result.wer), result.source, result.date)
        for result in published
        if result.set in sets
    ]
    note = "Other systems: published, not measured here."
    return (
        [Table("Beside published results", ("system", "set", "WER", "source", "date"), rows, note=note)] if sets else []
    )


def _stress(summary: EvaluationSummary) -> list[Bars | Chart]:
    """A curve for every family of conditions with more than one level, and a bar for every condition."""
    if summary.stress is None:
        return []
    conditions = summary.stress.conditions
    clean = conditions["clean"]
    curves = [_curve(name, levels, conditions) for name, levels in summary.stress.families.items() if len(levels) > 1]
    curves = [curve for curve in curves if len(curve.lines[0].points) > 2]  # for two points the bars show as much
    bars = [Bar(name, score.wer, score.wer_ci, _subsets(score)) for name, score in conditions.items()]
    note = (
        f"The same {plural(clean.utterances, 'utterance')} under each; in grey, the WER of those among them with "
        "name-like words, Latin letters or digits."
    )
    return [*curves, Bars("WER on degraded audio", bars, note)]


def _context(summary: EvaluationSummary) -> list[Table]:
    """How the model used its context."""
    rows = [
        (
            context_label(name), f"{score.utterances:,}", rate(score.wer, score.wer_ci), _of(score.expected),
            _of(score.others),
        )
        for name, score in (summary.context or {}).items()
    ]  # fmt: skip
    columns = ("context", "utterances", "WER [95 %]", "hotwords recognised", "distractors in the output")
    note = (
        "The same utterances, each with its own list: up to four rare words that are spoken (hotwords), and up to "
        "twelve that are not (distractors). Every row counts both, whether or not the model was given them."
    )
    return [Table("Use of context", columns, rows, note=note)] if rows else []


def _of(recognised: WordsRecognised) -> str:
    return f"{recognised.heard:,} of {recognised.words:,}"


def _curve(family: str, levels: Sequence[str], conditions: Mapping[str, StressScore]) -> Chart:
    """WER over a family's level, which its conditions name: `noise (pink), 20 dB`."""
    values = [(float(name.removeprefix(f"{family}, ").split()[0]), 100 * conditions[name].wer) for name in levels]
    unit = levels[0].removeprefix(f"{family}, ").split()[1]
    clean = 100 * conditions["clean"].wer
    if family == "speed":
        values.append((1.0, clean))
    values.sort()
    lines = [Line(family, values), Line("clean", [(values[0][0], clean), (values[-1][0], clean)])]
    return Chart(f"WER by {family}", lines, unit, "WER, %")


def _subsets(score: StressScore) -> str:
    return ", ".join(
        f"{name} {percent(part.leaderboard.wer)} ({part.utterances:,})" for name, part in score.subsets.items()
    )


def _bars(what: str, key: str, summary: EvaluationSummary) -> Bars:
    parts, of = summary.by[key].parts, summary.by[key].all_parts
    bars = [
        Bar(
            name, part.leaderboard.wer, part.leaderboard.wer_ci,
            plural(part.utterances, "utterance") + _rough(part.groups),
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


def _all(utterances: Sequence[ScoredUtterance]) -> Browser:
    """Every utterance with its reference and hypothesis."""
    shown = _most_errors(utterances)[:_ROWS_AT_MOST]
    note = "Original texts, including what the score ignores. Click a column to sort."
    if len(shown) < len(utterances):
        note += f" The {len(shown):,} of {len(utterances):,} with the most errors; results.jsonl has them all."
    columns = ("errors", "of", "seconds", "reference", "hypothesis", "source", "group", "signs", "id")
    return Browser(
        "All utterances",
        columns,
        [
            (
                scored.leaderboard.errors, scored.leaderboard.words,
                round(scored.pair.seconds, 1) if scored.pair.seconds is not None else "",
                scored.pair.reference, scored.pair.hypothesis, scored.pair.source, scored.pair.group,
                ", ".join(scored.signs), scored.pair.id,
            )
            for scored in shown
        ],
        text=(3, 4),
        note=note,
    )  # fmt: skip


def _hard_words(table: HardWordTable) -> list[Bars]:
    bars = [Bar(kind, words.rate, words.rate_ci, plural(words.words, "word")) for kind, words in table.classes.items()]
    note = (
        "Share that was not recognised. rare: once in all references; name-like: acronyms, Latin letters, foreign "
        "sounds, after a title."
    )
    if table.left_out:
        note += f" {table.left_out:,} utterances are skipped because they cannot be counted word by word."
    return [Bars("Hard words", bars, note)] if bars else []


def _calibration(found: Calibration | None) -> list[Chart]:
    """The reliability diagram: share of correct words over the probability that the model gave them."""
    if found is None:
        return []
    lines = [
        Line("words by probability", [(100 * one.probability, 100 * one.correct) for one in found.bins], dots=True),
        Line("perfect", [(0.0, 0.0), (100.0, 100.0)]),
    ]
    counts = ", ".join(f"{one.low:.1f}-{one.high:.1f}: {one.words:,}" for one in found.bins)
    note = (
        f"Of {plural(found.words, 'recognised word')} {percent(found.correct)} are correct; their mean probability is "
        f"{percent(found.probability)}. Expected calibration error {percent(found.expected_error)}: the mean distance "
        f"from the diagonal. Below the diagonal the model is too sure. Words by probability: {counts}."
    )
    if found.left_out:
        note += f" {found.left_out:,} utterances are skipped because they cannot be counted word by word."
    return [Chart("Confidence of words", lines, "probability, %", "correct, %", note)]


def _error_types(summary: EvaluationSummary) -> list[Table | Bars]:
    errors = summary.errors
    total = sum(errors.kinds.values())
    parts: list[Table | Bars] = []
    if total:
        bars = [Bar(kind, count / total, note=f"{count:,}") for kind, count in errors.kinds.items() if count]
        parts.append(Bars("Kinds of errors", bars, "Share of all errors, fair score; the first match counts."))
    for title, confused in (
        ("Confused words", errors.confused), ("Confused letters", errors.letters), ("Prefixes", errors.prefixes),
    ):  # fmt: skip
        if confused:
            rows = [(one or "none", other or "none", count) for one, other, count in confused]
            parts.append(Table(title, ("expected", "recognised", "times"), rows))
    for title, words in (("Words deleted", errors.deleted), ("Words inserted", errors.inserted)):
        if words:
            parts.append(Table(f"{title} most often", ("word", "times"), list(words)))
    if summary.hallucinations:
        note = "Signs that a hypothesis is a hallucination. Counted here, and scored like all others."
        parts.append(Table("Hallucinations?", ("sign", "utterances"), list(summary.hallucinations.items()), note=note))
    if summary.named:
        rows = [(spoken, name, n) for spoken, names in summary.named.items() for name, n in names.items()]
        parts.append(Table("Language that the model identified", ("spoken", "identified", "utterances"), rows))
    return parts


def _retention(summary: EvaluationSummary) -> list[Table]:
    rows = [
        (folder, spoken, f"{score.utterances:,}", rate(score.wer, score.wer_ci), rate(score.cer))
        for folder, languages in (summary.retention or {}).items()
        for spoken, score in languages.items()
    ]
    columns = ("corpus", "language", "utterances", "WER [95 %]", "CER")
    return [Table("Retention of other languages", columns, rows)] if rows else []


def difference(pair: TranscriptPair, hypothesis: str) -> DifferenceCell:
    """Reference against hypothesis, aligned by word as in the leaderboard score, in their original spelling."""
    spoken = language(pair.language or "Hebrew")
    normalise = spoken.normalisers["leaderboard"]
    reference_parts, hypothesis_parts = normalise(pair.reference).split(), normalise(hypothesis).split()
    reference_words = iter(_spelt(pair.reference, reference_parts, normalise))
    hypothesis_words = iter(_spelt(hypothesis, hypothesis_parts, normalise))
    steps: list[tuple[str, str, str]] = []
    for step in align(reference_parts, hypothesis_parts):
        left = itertools.islice(reference_words, len(step.reference))
        right = itertools.islice(hypothesis_words, len(step.hypothesis))
        steps += [(step.kind, one, other) for one, other in itertools.zip_longest(left, right, fillvalue="")]
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


def _worst(utterances: Sequence[ScoredUtterance], clips: Mapping[str, bytes]) -> list[Table]:
    if not utterances:
        return []
    table = Table(
        f"The {plural(len(utterances), 'utterance')} with the most errors",
        ("errors", "of", "reference and hypothesis", "listen", "seconds", "signs", "id"),
        [
            (
                scored.leaderboard.errors, scored.leaderboard.words, difference(scored.pair, scored.pair.hypothesis),
                audio_cell(scored.pair.id, clips),
                f"{scored.pair.seconds:.1f}" if scored.pair.seconds is not None else "", ", ".join(scored.signs),
                scored.pair.id,
            )
            for scored in utterances
        ],
        text=(2,),
        note="Struck out: only in the reference. Green background: only in the hypothesis.",
    )  # fmt: skip
    return [table]


def audio_cell(identifier: str, clips: Mapping[str, bytes]) -> AudioCell | str:
    """The audio of an utterance, "" where there is none."""
    return AudioCell(clips[identifier]) if identifier in clips else ""
