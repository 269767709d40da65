"""References in one file and hypotheses in another: formats of NIST's tools and Kaldi, and plain lines."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from caspi.audio import Seconds
from caspi.errors import UsageError

_TRN = re.compile(r"^(.*?)\s*\(([^()]+)\)\s*$")


def paired_files(references: Path, hypotheses: Path) -> list[tuple[str, str, str]]:
    """Id, reference and hypothesis of every utterance of two files: .trn, .stm with .ctm, Kaldi's `text` (an id at the
    start of every line), or plain lines in the same order. Raises UsageError, also if an id is in only one file."""
    kinds = {references.suffix.lower(), hypotheses.suffix.lower()}
    if kinds == {".trn"}:
        return _joined(_trn(references), _trn(hypotheses), references, hypotheses)
    if kinds == {".stm", ".ctm"}:
        return _by_time(references, hypotheses)
    ours, theirs = _lines(references), _lines(hypotheses)
    keyed = [_keyed(lines) for lines in (ours, theirs)]
    if keyed[0] and keyed[1]:
        return _joined(keyed[0], keyed[1], references, hypotheses)
    if len(ours) != len(theirs):
        raise UsageError(f"{references} has {len(ours):,} lines and {hypotheses} has {len(theirs):,}, and no ids match")
    return [(f"line-{n}", one, other) for n, (one, other) in enumerate(zip(ours, theirs, strict=True), 1)]


def _lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8-sig")
    return [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def _trn(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(_lines(path), 1):
        if not line.strip() or line.startswith(";;"):
            continue
        if (match := _TRN.match(line)) is None:
            raise UsageError(f"{path}, line {number}: no (id) at the end, as a trn file needs")
        if match[2] in found:
            raise UsageError(f"{path}, line {number}: the id {match[2]} occurs twice")
        found[match[2]] = match[1]
    return found


def _keyed(lines: list[str]) -> dict[str, str]:
    """Lines by their first word, as in Kaldi. Empty if the first words are not ids: one occurs twice, or one has no
    digit."""
    split = [line.split(maxsplit=1) for line in lines if line.strip()]
    found = {words[0]: words[1].strip() if len(words) > 1 else "" for words in split}
    are_ids = len(found) == len(split) and all(any(letter.isdigit() for letter in key) for key in found)
    return found if are_ids else {}


def _joined(
    references: dict[str, str], hypotheses: dict[str, str], first: Path, second: Path
) -> list[tuple[str, str, str]]:
    if only := sorted(references.keys() ^ hypotheses.keys()):
        raise UsageError(
            f"{first} and {second} have different utterances, {len(only)} of them in only one, such as {only[0]}"
        )
    return [(key, text, hypotheses[key]) for key, text in references.items()]


def _by_time(references: Path, hypotheses: Path) -> list[tuple[str, str, str]]:
    """Assigns each word of a ctm to the stm segment that contains the middle of the word. Words outside all segments
    are insertions of the nearest one: no word is dropped. A ctm recording that the stm does not have is an error."""
    stm, ctm = (references, hypotheses) if references.suffix.lower() == ".stm" else (hypotheses, references)
    segments: defaultdict[tuple[str, str], list[tuple[Seconds, Seconds, str, str]]] = defaultdict(list)
    for number, cells in _columns(stm, 5):
        if cells[2].lower() == "inter_segment_gap":
            continue
        labels = cells[5:6] if cells[5:] and cells[5].startswith("<") else []
        text = " ".join(cells[5 + len(labels) :])
        start, end = _time(cells[3], stm, number), _time(cells[4], stm, number)
        ignored = "ignore_time_segment_in_scoring" in text.lower()
        segments[cells[0], cells[1]].append((start, end, f"{cells[0]}-{cells[1]}-{start:g}", "" if ignored else text))
    words_of: defaultdict[str, list[str]] = defaultdict(list)
    for number, cells in _columns(ctm, 5):
        of_file = segments.get((cells[0], cells[1])) or segments.get((cells[0], "A"))
        if not of_file:
            raise UsageError(f"{ctm}, line {number}: {stm} has no segment of {cells[0]}, channel {cells[1]}")
        middle = _time(cells[2], ctm, number) + _time(cells[3], ctm, number) / 2
        nearest = min(of_file, key=lambda segment: max(segment[0] - middle, middle - segment[1], 0.0))
        words_of[nearest[2]].append(cells[4])
    found = [(key, text, " ".join(words_of[key])) for of_file in segments.values() for _, _, key, text in of_file]
    if len({key for key, *_ in found}) < len(found):
        raise UsageError(f"{stm}: two segments of one recording and channel begin at the same time")
    return found


def _columns(path: Path, least: int) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(_lines(path), 1):
        if line.strip() and not line.startswith(";;"):
            cells = line.split()
            if len(cells) < least:
                raise UsageError(f"{path}, line {number}: {len(cells)} columns, expected {least} or more")
            yield number, cells


def _time(text: str, path: Path, number: int) -> Seconds:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"{path}, line {number}: {text} is not a time") from error
