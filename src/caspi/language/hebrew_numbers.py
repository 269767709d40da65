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
# Number words of the same form (gender, spelling), one form a row.
_FORMS = (
    ("שלוש", "ארבע", "חמש", "שש", "שבע", "שמונה", "תשע", "עשר"),
    ("שלושה", "ארבעה", "חמישה", "שישה", "שבעה", "תשעה", "עשרה"),
    ("שלשה", "ארבעה", "חמשה", "ששה", "שבעה", "תשעה", "עשרה"),
    ("עשרים", "שלושים", "ארבעים", "חמישים", "שישים", "שבעים", "שמונים", "תשעים"),
    ("אלף", "מיליון", "מיליארד"),
    ("מאה", "מאתיים"),
)
_TEN, _HUNDREDS, _THOUSANDS = ("עשר", "עשרה"), "מאות", ("אלף", "אלפים")
_MILLIONS = (
    dict.fromkeys(("מיליון", "מליון"), 10**6) | dict.fromkeys(("מיליארד", "מליארד"), 10**9) | {"טריליון": 10**12}
)
_SCALES = _MILLIONS | {"אלף": 1000}
_FRACTIONS = {"חצי": 2, "רבע": 4}
_AND_HALF, _POINT = "וחצי", "נקודה"
_PREFIXED = re.compile("([ובהלמשכ]{1,3})(?=[א-ת]{3})")
_UNITS = {"אחוזים": "אחוז", "שקלים": "שקל", "שח": "שקל", "דולרים": "דולר", "יורו": "אירו", "פאונדים": "פאונד"}
_UNIT = re.compile(rf"(?<=\d) ({'|'.join(_UNITS)})(?!\S)")
_DECIMAL = re.compile(rf"(?<!\S)(\d+) (\d{{1,3}}) ({'|'.join((*_THOUSANDS, *_MILLIONS))})(?!\S)")  # 2.5 million
_STANDALONE_HUNDREDS = {"מאה": 100, "מאתיים": 200, "מאתים": 200}
_YEARS = "שנים"  # means two only in שנים עשר
_TWO_THOUSAND = "אלפיים"
_SPACED_THOUSANDS = re.compile(r"(?<!\d )(?<!\d)(\d{1,3})((?: \d{3})+)(?! ?\d)")  # 1,948 without its comma


def other_numbers(word: str) -> tuple[str, ...]:
    """The other number words of the same form; none if the word is not a number word."""
    forms = next((forms for forms in _FORMS if word in forms), ())
    return tuple(form for form in forms if form != word)


def units_unified(text: str) -> str:
    """`50 אחוזים` is `50 אחוז`, `25 שקלים` and `25 שח` are `25 שקל`."""
    return _UNIT.sub(lambda match: f" {_UNITS[match[1]]}", text)


def as_digits(text: str) -> str:
    """A text without punctuation, number words converted to digits: `שנת אלף תשע מאות ארבעים ושמונה` is `שנת 1948`,
    `בשלוש` is `ב3`, `2 5 מיליון` (2.5 without its point) is `2500000`."""
    words = _DECIMAL.sub(_scaled, _SPACED_THOUSANDS.sub(lambda match: match[0].replace(" ", ""), text)).split()
    output, position = [], 0
    while position < len(words):
        number = _number_and_half(words, position) or _prefixed_number(words, position)
        if number is None:
            output.append(words[position])
            position += 1
        else:
            value, position = number
            output.append(value)
    return units_unified(" ".join(output))


def _scaled(match: re.Match[str]) -> str:
    scale = _MILLIONS.get(match[3], 1000)
    return str(int(match[1]) * scale + int(match[2]) * scale // 10 ** len(match[2]))


def _number_and_half(words: list[str], start: int) -> tuple[str, int] | None:
    """Like `_number`, with a following half: שלוש וחצי is `3 5` (3.5 without its point)."""
    word, after = words[start], words[start + 1] if start + 1 < len(words) else ""
    if word in _FRACTIONS and after in _SCALES:
        return str(_SCALES[after] // _FRACTIONS[word]), start + 2
    number = (
        (int(word), start + 1) if word.isascii() and word.isdigit() and after == _AND_HALF else _number(words, start)
    )
    if number is None:
        return None
    value, position = number
    if position + 1 < len(words) and words[position] == _POINT and (decimals := _number(words, position + 1)):
        return f"{value} {decimals[0]}", decimals[1]
    if position == len(words) or words[position] != _AND_HALF:
        return str(value), position
    if position + 1 < len(words) and words[position + 1] in _SCALES:
        scale = _SCALES[words[position + 1]]
        return str(value * scale + scale // 2), position + 2
    if words[position - 1] in _SCALES:
        return str(value + _SCALES[words[position - 1]] // 2), position + 1
    return f"{value} 5", position + 1


def _prefixed_number(words: list[str], start: int) -> tuple[str, int] | None:
    """A number after prefix letters: ב + שלוש."""
    for size in range(1, 4):
        prefix, rest = words[start][:size], words[start][size:]
        if len(prefix) < size or not _PREFIXED.match(words[start]) or any(letter not in "ובהלמשכ" for letter in prefix):
            return None
        if number := _number_and_half([rest, *words[start + 1 : start + 12]], 0):
            return f"{prefix}{number[0]}", start + number[1]
    return None


def _number(words: list[str], start: int) -> tuple[int, int] | None:
    """The number that begins at a word, and its end; None if no number begins there."""
    total, position, scale = 0, start, 10**15
    while True:
        value, after = _below_thousand(words, position, first=position == start) or (None, position)
        word = _without_vav(words, after, first=after == start)
        if scale > (size := _MILLIONS.get(word, scale)):
            total, position, scale = total + (1 if value is None else value) * size, after + 1, size
        elif word in _THOUSANDS and scale > 1000 and not (value is None and word == "אלפים"):
            total, position, scale = total + (1 if value is None else value) * 1000, after + 1, 1000
        elif value is None and word == _TWO_THOUSAND and scale > 1000:
            total, position, scale = total + 2000, after + 1, 1000
        elif value is not None:
            return total + value, after
        else:
            return (total, position) if position > start else None


def _below_thousand(words: list[str], start: int, *, first: bool) -> tuple[int, int] | None:
    """A number below a thousand at a word; its parts decrease in size, and the last one has its ו."""
    total, position, scale = 0, start, 1000
    while position < len(words):
        number = _part(words, position, first=first and position == start)
        if number is None or number[1] >= scale:
            break
        value, size, after = number
        has_vav = words[position].startswith("ו")
        if position > start and not has_vav and size < 100 and value < 20:
            break  # שלושים ארבע is two numbers
        total, position, scale = total + value, after, size
    return (total, position) if position > start else None


def _part(words: list[str], position: int, *, first: bool) -> tuple[int, int, int] | None:
    """Value, size (100, 10 or 1) and end of hundreds, tens or ones at a word."""
    word, after = _without_vav(words, position, first=first), words[position + 1] if position + 1 < len(words) else ""
    if word.isascii() and word.isdigit() and len(word) <= 3 and after in (*_THOUSANDS, *_MILLIONS):
        return int(word), 1, position + 1
    if word in _STANDALONE_HUNDREDS:
        return _STANDALONE_HUNDREDS[word], 100, position + 1
    if word in _TENS:
        return _TENS[word], 10, position + 1
    if word not in _ONES or (word == _YEARS and after not in _TEN):
        return None
    value = _ONES[word]
    if 2 <= value <= 9 and after == _HUNDREDS:
        return value * 100, 100, position + 2
    if 1 <= value <= 9 and after in _TEN:
        return value + 10, 1, position + 2
    return value, 1, position + 1


def _without_vav(words: list[str], position: int, *, first: bool) -> str:
    """A word without the ו that joins it to the preceding number part."""
    word = words[position] if position < len(words) else ""
    return word if first or not word.startswith("ו") else word[1:]
