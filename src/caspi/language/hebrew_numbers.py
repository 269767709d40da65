"""Converts Hebrew number words to digits, for the score that accepts both."""

from __future__ import annotations

import re

# Both genders, construct forms, and spellings with and without vowel letters.
_ONES = {
    word: value
    for value, words in enumerate(
        (
            "אפס", "אחת אחד", "שתיים שתים שניים שנים שתי שני", "שלוש שלושה שלושת שלשה", "ארבע ארבעה ארבעת",
            "חמש חמישה חמשה חמשת חמישת", "שש שישה ששה ששת שישת", "שבע שבעה שבעת", "שמונה שמונת שמנה",
            "תשע תשעה תשעת", "עשר עשרה עשרת",
        )
    )
    for word in words.split()
}  # fmt: skip
_TENS = {
    word: 10 * value
    for value, words in enumerate(
        ("עשרים", "שלושים שלשים", "ארבעים", "חמישים חמשים", "שישים ששים", "שבעים", "שמונים", "תשעים"), start=2
    )
    for word in words.split()
}
_TEN, _HUNDREDS, _THOUSANDS = ("עשר", "עשרה"), "מאות", ("אלף", "אלפים")
_MILLIONS = (
    dict.fromkeys(("מיליון", "מליון"), 10**6) | dict.fromkeys(("מיליארד", "מליארד"), 10**9) | {"טריליון": 10**12}
)
_SCALES = _MILLIONS | {"אלף": 1000}
_PARTS = {"חצי": 2, "רבע": 4}
_AND_HALF, _POINT = "וחצי", "נקודה"
_PREFIXED = re.compile("([ובהלמשכ]{1,3})(?=[א-ת]{3})")
_UNITS = {"אחוזים": "אחוז", "שקלים": "שקל", "שח": "שקל", "דולרים": "דולר", "יורו": "אירו", "פאונדים": "פאונד"}
_UNIT = re.compile(rf"(?<=\d) ({'|'.join(_UNITS)})(?!\S)")
_DECIMAL = re.compile(rf"(?<!\S)(\d+) (\d{{1,3}}) ({'|'.join((*_THOUSANDS, *_MILLIONS))})(?!\S)")  # 2.5 million
_ALONE = {"מאה": 100, "מאתיים": 200, "מאתים": 200}
_YEARS = "שנים"  # means two only in שנים עשר
_TWO_THOUSAND = "אלפיים"
_THOUSANDS_APART = re.compile(r"(?<!\d )(?<!\d)(\d{1,3})((?: \d{3})+)(?! ?\d)")  # 1,948 without its comma


def units_unified(text: str) -> str:
    """`50 אחוזים` is `50 אחוז`, `25 שקלים` and `25 שח` are `25 שקל`."""
    return _UNIT.sub(lambda match: f" {_UNITS[match[1]]}", text)


def as_digits(text: str) -> str:
    """A text without punctuation, number words converted to digits: `שנת אלף תשע מאות ארבעים ושמונה` is `שנת 1948`,
    `בשלוש` is `ב3`, `2 5 מיליון` (2.5 without its point) is `2500000`."""
    words = _DECIMAL.sub(_scaled, _THOUSANDS_APART.sub(lambda match: match[0].replace(" ", ""), text)).split()
    written, place = [], 0
    while place < len(words):
        found = _number_and_half(words, place) or _prefixed_number(words, place)
        if found is None:
            written.append(words[place])
            place += 1
        else:
            value, place = found
            written.append(value)
    return units_unified(" ".join(written))


def _scaled(match: re.Match[str]) -> str:
    scale = _MILLIONS.get(match[3], 1000)
    return str(int(match[1]) * scale + int(match[2]) * scale // 10 ** len(match[2]))


def _number_and_half(words: list[str], start: int) -> tuple[str, int] | None:
    """Like `_number`, with a following half: שלוש וחצי is `3 5` (3.5 without its point)."""
    word, after = words[start], words[start + 1] if start + 1 < len(words) else ""
    if word in _PARTS and after in _SCALES:
        return str(_SCALES[after] // _PARTS[word]), start + 2
    found = (
        (int(word), start + 1) if word.isascii() and word.isdigit() and after == _AND_HALF else _number(words, start)
    )
    if found is None:
        return None
    value, place = found
    if place + 1 < len(words) and words[place] == _POINT and (decimals := _number(words, place + 1)):
        return f"{value} {decimals[0]}", decimals[1]
    if place == len(words) or words[place] != _AND_HALF:
        return str(value), place
    if place + 1 < len(words) and words[place + 1] in _SCALES:
        scale = _SCALES[words[place + 1]]
        return str(value * scale + scale // 2), place + 2
    if words[place - 1] in _SCALES:
        return str(value + _SCALES[words[place - 1]] // 2), place + 1
    return f"{value} 5", place + 1


def _prefixed_number(words: list[str], start: int) -> tuple[str, int] | None:
    """A number after prefix letters: ב + שלוש."""
    for size in range(1, 4):
        prefix, rest = words[start][:size], words[start][size:]
        if len(prefix) < size or not _PREFIXED.match(words[start]) or any(letter not in "ובהלמשכ" for letter in prefix):
            return None
        if found := _number_and_half([rest, *words[start + 1 : start + 12]], 0):
            return f"{prefix}{found[0]}", start + found[1]
    return None


def _number(words: list[str], start: int) -> tuple[int, int] | None:
    """The number that begins at a word, and its end; None if no number begins there."""
    total, place, scale = 0, start, 10**15
    while True:
        value, after = _below_thousand(words, place, first=place == start) or (None, place)
        word = _bare(words, after, first=after == start)
        if scale > (size := _MILLIONS.get(word, scale)):
            total, place, scale = total + (1 if value is None else value) * size, after + 1, size
        elif word in _THOUSANDS and scale > 1000 and not (value is None and word == "אלפים"):
            total, place, scale = total + (1 if value is None else value) * 1000, after + 1, 1000
        elif value is None and word == _TWO_THOUSAND and scale > 1000:
            total, place, scale = total + 2000, after + 1, 1000
        elif value is not None:
            return total + value, after
        else:
            return (total, place) if place > start else None


def _below_thousand(words: list[str], start: int, *, first: bool) -> tuple[int, int] | None:
    """A number below a thousand at a word; its parts decrease in size, and the last one has its ו."""
    total, place, scale = 0, start, 1000
    while place < len(words):
        found = _part(words, place, first=first and place == start)
        if found is None or found[1] >= scale:
            break
        value, size, after = found
        joined = words[place].startswith("ו")
        if place > start and not joined and size < 100 and value < 20:
            break  # שלושים ארבע is two numbers
        total, place, scale = total + value, after, size
    return (total, place) if place > start else None


def _part(words: list[str], place: int, *, first: bool) -> tuple[int, int, int] | None:
    """Value, size (100, 10 or 1) and end of hundreds, tens or ones at a word."""
    word, after = _bare(words, place, first=first), words[place + 1] if place + 1 < len(words) else ""
    if word.isascii() and word.isdigit() and len(word) <= 3 and after in (*_THOUSANDS, *_MILLIONS):
        return int(word), 1, place + 1
    if word in _ALONE:
        return _ALONE[word], 100, place + 1
    if word in _TENS:
        return _TENS[word], 10, place + 1
    if word not in _ONES or (word == _YEARS and after not in _TEN):
        return None
    value = _ONES[word]
    if 2 <= value <= 9 and after == _HUNDREDS:
        return value * 100, 100, place + 2
    if 1 <= value <= 9 and after in _TEN:
        return value + 10, 1, place + 2
    return value, 1, place + 1


def _bare(words: list[str], place: int, *, first: bool) -> str:
    """A word without the ו that joins it to the preceding number part."""
    word = words[place] if place < len(words) else ""
    return word if first or not word.startswith("ו") else word[1:]
