"""The same errors, broken down by properties of the utterances and of the words."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from caspi.audio import Seconds
from caspi.evaluation.pairs import TranscriptPair
from caspi.evaluation.results import Breakdown, HardWords, HardWordTable, Part, PartScore
from caspi.language import language
from caspi.scoring.edits import Counts, align
from caspi.scoring.error_rates import SCORES, total
from caspi.scoring.intervals import rate_interval

DURATIONS: tuple[Seconds, ...] = (0.0, 5.0, 15.0, 30.0)
NOISE_LEVELS_DB = (0.0, 10.0, 20.0, 30.0)
_PARTS_AT_MOST = 50  # a longer table is hard to read


def _step(value: float | None, bounds: Sequence[float], unit: str) -> str | None:
    """The interval of `bounds` that a value falls into: `5-15 s`, `30+ s`."""
    if value is None:
        return None
    reached = [number for number, bound in enumerate(bounds) if value >= bound]
    if not reached:
        return f"below {bounds[0]:g} {unit}"
    low = reached[-1]
    return f"{bounds[low]:g}-{bounds[low + 1]:g} {unit}" if low + 1 < len(bounds) else f"{bounds[low]:g}+ {unit}"


def duration_class(seconds: Seconds | None) -> str | None:
    """`5-15 s`."""
    return _step(seconds, DURATIONS, "s")


def _script(pair: TranscriptPair) -> str:
    latin = any(letter.isascii() and letter.isalpha() for letter in pair.reference)
    digits = any(letter.isdigit() for letter in pair.reference)
    if latin and language(pair.language).script_share("a") < 1:
        return "with Latin and digits" if digits else "with Latin"
    return "with digits" if digits else "letters of the language only"


def _names(pair: TranscriptPair) -> str:
    named = any(language(pair.language).confusable_letters.name_like(pair.reference.split()))
    return "with name-like words" if named else "without name-like words"


_KEYS: dict[str, Callable[[TranscriptPair], str | None]] = {
    "source": lambda pair: pair.source or None,
    "duration": lambda pair: duration_class(pair.seconds),
    "group": lambda pair: pair.group or None,
    "noise": lambda pair: _step(pair.snr_db, NOISE_LEVELS_DB, "dB"),
    "script": _script,
    "names": _names,
    "language": lambda pair: pair.language or None,
    "condition": lambda pair: pair.condition or None,
}


def by_utterance(
    pairs: Sequence[TranscriptPair], counts: dict[str, Counts], keys: Sequence[str] = tuple(_KEYS)
) -> dict[str, Breakdown]:
    """Property (source, duration and so on) -> the scores of each part; of more than 50 parts, the 50 with the most
    errors."""
    breakdowns: dict[str, Breakdown] = {}
    for name in keys:
        key = _KEYS[name]
        places: defaultdict[str, list[int]] = defaultdict(list)
        for place, pair in enumerate(pairs):
            if (part := key(pair)) is not None:
                places[part].append(place)
        breakdowns[name] = Breakdown(_parts(pairs, counts, places), len(places))
    return breakdowns


def _parts(pairs: Sequence[TranscriptPair], counts: dict[str, Counts], places: dict[str, list[int]]) -> dict[str, Part]:
    errors = counts["leaderboard"].errors
    most = sorted(places, key=lambda name: -int(errors[places[name]].sum()))[:_PARTS_AT_MOST]
    parts: dict[str, Part] = {}
    for name in sorted(most, key=_in_order):
        groups = [pairs[place].unit for place in places[name]]
        totals = [total(counts[score].of(places[name]), groups) for score in SCORES]
        scores = [PartScore(score.wer, score.wer_ci, score.cer, score.words) for score in totals]
        parts[name] = Part(len(groups), len(set(groups)), *scores)
    return parts


def _in_order(name: str) -> tuple[bool, list[tuple[int, str]]]:
    """Sort key in numeric order: speaker 2 before speaker 10; the class below all bounds comes first."""
    pieces = re.split(r"(\d+)", name)
    return (not name.startswith("below"), [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces])


def by_word(pairs: Sequence[TranscriptPair], treated: Sequence[tuple[str, str]]) -> HardWordTable:
    """How many words of each hard class were not recognised: name-like, rare (once in all references), with digits, in
    Latin letters. `treated`: reference and hypothesis of each pair, normalised by `fair`.

    Utterances whose text cannot be normalised word by word (a bracket around several words) are skipped and counted.
    """
    frequency = Counter(word for reference, _ in treated for word in reference.split())
    missed: defaultdict[str, list[tuple[int, int, tuple[str, str]]]] = defaultdict(list)
    left_out = 0
    for pair, (reference, hypothesis) in zip(pairs, treated, strict=True):
        kinds = _kinds(pair, reference.split(), frequency)
        if kinds is None:
            left_out += 1
            continue
        wrong = [
            step.kind != "equal" for step in align(reference.split(), hypothesis.split()) for _ in step.reference
        ]  # one row for each reference word
        for kind in {kind for of_word in kinds for kind in of_word}:
            at = [place for place, of_word in enumerate(kinds) if kind in of_word]
            missed[kind].append((sum(wrong[place] for place in at), len(at), pair.unit))
    return HardWordTable({kind: _missed(rows) for kind, rows in sorted(missed.items())}, left_out)


def _kinds(pair: TranscriptPair, treated: list[str], frequency: Counter[str]) -> list[list[str]] | None:
    """The classes of each normalised word; None if the words of the text and of its normalised form do not match."""
    spoken = language(pair.language)
    words = pair.reference.split()
    of_each = [spoken.normalisers["fair"](word).split() for word in words]
    if [part for parts in of_each for part in parts] != treated:
        return None
    kinds = []
    for word, parts, is_name in zip(words, of_each, spoken.confusable_letters.name_like(words), strict=True):
        whole = [
            kind
            for kind, applies in (
                ("name-like", is_name),
                ("with digits", any(letter.isdigit() for letter in word)),
                ("Latin", any(letter.isascii() and letter.isalpha() for letter in word)),
            )
            if applies
        ]
        kinds += [whole + (["rare"] if frequency[part] == 1 else []) for part in parts]
    return kinds


def _missed(rows: list[tuple[int, int, tuple[str, str]]]) -> HardWords:
    missed, words, groups = zip(*rows, strict=True)
    return HardWords(sum(words), sum(missed), sum(missed) / sum(words), rate_interval(missed, words, groups))
