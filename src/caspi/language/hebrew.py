"""Hebrew: cleaning of training text, normalisation for scoring. All Hebrew rules are in this file.

Code points: U+0591-05AF cantillation, U+05B0-05BD and 05BF-05C7 vowels and dots, and among them
four characters that are punctuation, not marks: maqaf U+05BE, paseq U+05C0, sof pasuq U+05C3, nun hafukha U+05C6.
A range that includes them joins words by mistake: בית־ספר becomes ביתספר.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from num2words import num2words

from caspi.language import markup
from caspi.language.base import ConfusableLetters, Language, Lookalike, TextPolicy, TextReason
from caspi.language.hebrew_numbers import as_digits, other_numbers, units_unified
from caspi.language.plain import whisper_basic, without_punctuation

MAQAF = "\u05be"
GERESH = "\u05f3"
GERSHAYIM = "\u05f4"
PASEQ = "\u05c0"

_LETTER = "\u05d0-\u05ea"
_VOWEL = re.compile("[\u05b0-\u05bb]")
_MARKS = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]")
_SOF_PASUQ = re.compile(r"\s*\u05c3")
_PRESENTATION = re.compile("[\ufb1d-\ufb4f]")
_DOUBLE = '"\u201c\u201d\u201e\u201f\u2033\u05f4'
_SINGLE = "'\u2018\u2019\u201a\u201b\u2032`\u00b4\u05f3"
_INNER_DOUBLE = re.compile(f"(?<=[{_LETTER}])(?:[{_DOUBLE}]|[{_SINGLE}]{{2}})(?=[{_LETTER}])")
_BEFORE_LAST = re.compile(rf"{_INNER_DOUBLE.pattern}(?=[{_LETTER}](?![{_LETTER}]))")  # the mark of acronyms: צה"ל
_PREFIX = f"(?<![{_LETTER}])[ובהלמשכ]{{0,3}}"
_QUOTED = rf"(?:[^{_DOUBLE}]|(?<=[{_LETTER}]){GERSHAYIM}(?=[{_LETTER}]))"
_QUOTATION = re.compile(rf"({_PREFIX})[{_DOUBLE}](?=\S)({_QUOTED}{{2,80}}?)(?<=\S)[{_DOUBLE}](?![{_LETTER}])")
_SINGLE_QUOTATION = re.compile(
    rf"({_PREFIX})[{_SINGLE}](?=[{_LETTER}])([^{_SINGLE}{_DOUBLE}]{{2,80}}?)(?<=[{_LETTER}.,!?])[{_SINGLE}](?![{_LETTER}])"
)
_DOUBLE_PLACEHOLDER, _SINGLE_PLACEHOLDER = "\ue000", "\ue001"  # private use: never in a cleaned text
_AFTER_LETTER = re.compile(f"(?<=[{_LETTER}])[{_SINGLE}](?![{_SINGLE}])")
_OTHER_DOUBLE = re.compile(f"(?<![{_LETTER}])[{_DOUBLE}]|[{_DOUBLE}](?![{_LETTER}])")

_FILLED_PAUSE = re.compile(
    rf"(?<![{_LETTER}{GERESH}{GERSHAYIM}'\"-])(?:אה+|אהמ+|אהם|אמ{{2,}}ם?|ה?מ{{2,}}ם?|אא{{2,}}ה*)"
    rf"(?![{_LETTER}{GERESH}{GERSHAYIM}'\"-])(?:\s*(?:,|…|\.\.\.))?"
)
_FINALS = "ךםןףץ"
_FINAL_OF = dict(zip("כמנצ", "ךםןץ", strict=True))  # not פ: loan words end in it (קליפ)
# Three letters or more, not prolonged (אממ), followed by another word: before punctuation it may be a truncated word.
_WORD_END = re.compile(rf"(?<=[{_LETTER}]{{2}})(?!(?<=(.))\1)[כמנצ](?= [{_LETTER}])")
_INNER_FINAL = re.compile(rf"(?<=[{_LETTER}][{_LETTER}][{_FINALS}])(?=[א-יל-מנס-עפצק-ת][{_LETTER}])(?![{_FINALS}])")
_NUMBER = re.compile(
    rf"(?<![\w.,:/%$€₪#+*=-])(?P<prefix>(?:(?<![{_LETTER}])[ובהלמשכ]{{1,3}}[-{MAQAF}–]?)?)"
    r"(?P<digits>\d{1,3}(?:,\d{3})+|\d{1,9})(?!\s*[\d%$€₪°£]|[.,:/-]\d|\w)"
)
_BEFORE_A_YEAR = ("שנת", "מאז", "קיץ", "חורף", "אביב", "סתיו")
_LATIN = re.compile(r"[A-Za-zÀ-ɏ]")
_MIXED_WORD = re.compile(rf"[{_LETTER}][A-Za-zÀ-ɏ]|[A-Za-zÀ-ɏ][{_LETTER}]")

# Order of marks in a cluster for espeak-ng: dagesh, then shin or sin dot, then the vowel. Unicode's canonical order
# puts the vowel first, and espeak then spells the letter out by name.
_ESPEAK_ORDER = {"\u05bc": 0, "\u05c1": 1, "\u05c2": 1}


def without_niqqud(text: str) -> str:
    """Vowel points and cantillation removed; maqaf, paseq and sof pasuq stay."""
    return _MARKS.sub("", text)


def espeak_order(text: str) -> str:
    """Marks of every letter in the order that espeak-ng needs: letter, dagesh, shin or sin dot, vowel."""

    def reorder(match: re.Match[str]) -> str:
        return "".join(sorted(match[0], key=lambda mark: _ESPEAK_ORDER.get(mark, 2)))

    return re.sub("[\u05b0-\u05bd\u05bf\u05c1\u05c2\u05c7]{2,}", reorder, text)


def training_text(text: str, policy: TextPolicy) -> str:
    """The transcript as training target. Idempotent; letters change only by a named rule."""
    while (cleaned := _cleaned(text, policy)) != text:
        text = cleaned  # one rule may create a match for another: rules are applied until nothing changes
    return text


def _cleaned(text: str, policy: TextPolicy) -> str:
    text = _PRESENTATION.sub(lambda match: unicodedata.normalize("NFKD", match[0]), text)
    text = markup.cleaned(text, policy)
    if policy.niqqud == "strip":
        text = without_niqqud(text)
    if policy.maqaf != "keep":
        text = text.replace(MAQAF, " " if policy.maqaf == "space" else "-")
    if policy.sof_pasuq == "plain":
        text = _SOF_PASUQ.sub(".", text).replace(PASEQ, " ")
    if policy.quotes == "unify":
        text = _unified_quotes(text)
    if policy.filled_pauses == "drop":
        text = _FILLED_PAUSE.sub(" ", text)
    if policy.numbers == "spell":
        text = _NUMBER.sub(_spelled, text)
    if policy.final_letters == "fix":
        text = _INNER_FINAL.sub(" ", _WORD_END.sub(lambda match: _FINAL_OF[match[0]], text))
    if policy.repeated_punctuation == "collapse":
        text = markup.collapsed(text)
    if policy.punctuation == "strip":
        text = markup.without_punctuation(text, keep=f"{MAQAF}{GERESH}{GERSHAYIM}'-")
    return " ".join(text.split())


def _unified_quotes(text: str) -> str:
    """Quotation marks become ASCII; the marks of abbreviations and of letters like צ׳ become ״ and ׳.

    A mark that opens after a prefix and closes after a word (ב"הארץ") is a quotation, not an abbreviation.
    """
    text = _BEFORE_LAST.sub(GERSHAYIM, text)
    text = _QUOTATION.sub(rf"\1{_DOUBLE_PLACEHOLDER}\2{_DOUBLE_PLACEHOLDER}", text)
    text = _SINGLE_QUOTATION.sub(rf"\1{_SINGLE_PLACEHOLDER}\2{_SINGLE_PLACEHOLDER}", text)
    text = _AFTER_LETTER.sub(GERESH, _INNER_DOUBLE.sub(GERSHAYIM, text))
    text = _OTHER_DOUBLE.sub('"', text)
    return text.replace(_DOUBLE_PLACEHOLDER, '"').replace(_SINGLE_PLACEHOLDER, "'")


def _spelled(match: re.Match[str]) -> str:
    """The number in words, with its prefix letters, if it has only one reading; else unchanged.

    Units and teens agree in gender with a noun, which we do not parse. Years are always feminine; a number is a year if
    the context says so (בשנת 1948, ב-1948).
    """
    value = int(match["digits"].replace(",", ""))
    prefix = match["prefix"].rstrip(f"-–{MAQAF}")
    may_be_year = prefix.endswith(("ב", "מ", "ל")) or match.string[: match.start()].rstrip().endswith(_BEFORE_A_YEAR)
    is_year = may_be_year and 1900 <= value <= 2099 and "," not in match["digits"]
    is_genderless = value == 0 or (value >= 20 and (value % 100 == 0 or (value % 100 >= 20 and value % 10 == 0)))
    if not (is_year or is_genderless) or (match["digits"].startswith("0") and match["digits"] != "0"):
        return match[0]
    return prefix + num2words(value, lang="he")


def rejection_reason(cleaned: str, policy: TextPolicy) -> TextReason | None:
    """The reason not to train on a transcript that `training_text` has cleaned."""
    if (reason := markup.rejection_reason(cleaned, policy)) is not None:
        return reason
    if _is_reversed(cleaned):
        return "visual_order"
    if policy.latin == "reject" and _LATIN.search(cleaned):
        return "latin_letters"
    if policy.mixed_words == "reject" and _MIXED_WORD.search(cleaned):
        return "mixed_script"
    return None


_BEGINS_WITH_FINAL = re.compile(rf"(?<![{_LETTER}{GERESH}{GERSHAYIM}'\"])[{_FINALS}](?=[{_LETTER}]{{2}})")
_ENDS_WITH_FINAL = re.compile(rf"(?<=[{_LETTER}]{{2}})[{_FINALS}](?![{_LETTER}])")


def _is_reversed(text: str) -> bool:
    """Whether letters are in visual order from left to right, as in old files and some PDF readers (םולש): words then
    begin with final letters, which no Hebrew word does."""
    return len(_BEGINS_WITH_FINAL.findall(text)) > len(_ENDS_WITH_FINAL.findall(text))


def loses_points(text: str) -> bool:
    """Whether most words are pointed. Without points, such a text has defective spelling: חכמה for חוכמה."""
    words = text.split()
    return sum(bool(_VOWEL.search(word)) for word in words) > 0.5 * len(words)


# Frequent words of Yiddish that are not Hebrew words.
_YIDDISH_WORDS = frozenset(
    "און איז דער דאס דאָס ניט נישט מיט פון פֿון האט האָט זיך אויף "
    "אױף וואס װאָס וואָס זענען געווען געװען אויך האבן האָבן ווען װען אונז אונדז "
    "זייער פאַר פֿאַר נאך נאָך אַז אַלע קיין קײן דעם ווערן װערן וועט װעט "
    "גוט מענטשן היינט הײַנט הײנט מאכסטו טאג טאָג גוטן אייך אײַך געגאנגען געקומען געזאגט "
    "געמאכט געקויפט אריין ארײן ארויס איבער אונטער קינדער מענטש וועלט ארבעט אנדערע גאנצע זאגן "
    "קומען שוין נישטא".split()
)


_NAME_PARTICLES = re.compile("(?:פון|ואן) (?:דער|דן|דה) ")  # Hebrew texts have names such as Ursula von der Leyen


def is_yiddish(text: str) -> bool:
    """Detects Yiddish in Hebrew letters by its letters and function words.

    Looks for its digraphs (װ ױ ײ), vowels on alef only, and words that Hebrew does not have: at least two, because one
    may be a name.
    """
    text = unicodedata.normalize("NFKD", _PRESENTATION.sub(lambda m: unicodedata.normalize("NFKD", m[0]), text))
    letters = sum("\u05d0" <= c <= "\u05ea" or "\u05f0" <= c <= "\u05f2" for c in text)
    if letters < 4:
        return False
    digraphs = sum("\u05f0" <= c <= "\u05f2" for c in text)
    vowels_on_alef = len(re.findall("א[\u05b7\u05b8]", text))
    vowels_elsewhere = len(re.findall("[ב-ת][\u05b0-\u05bb]", text))
    text = _NAME_PARTICLES.sub(" ", text)
    words = re.findall(f"[{_LETTER}\u05f0-\u05f2\u0591-\u05c7]+", text)
    yiddish_words = sum(word in _YIDDISH_WORDS or without_niqqud(word) in _YIDDISH_WORDS for word in words)
    has_yiddish_vowels = vowels_on_alef + digraphs >= 2 and vowels_elsewhere == 0
    return digraphs >= 2 or has_yiddish_vowels or (yiddish_words >= 2 and yiddish_words >= 0.15 * len(words))


def script_share(text: str) -> float:
    """Share of the letters that are Hebrew; 0 if there are no letters."""
    letters = [c for c in text if c.isalpha()]
    return sum("\u05d0" <= c <= "\u05ea" for c in letters) / len(letters) if letters else 0.0


# What hebrew.Hebrew(text).no_niqqud() removes (PyPI `hebrew` 0.8.1): not cantillation, meteg or rafe.
_LEADERBOARD_REMOVED = re.compile(
    "[\u061c\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\u05b0-\u05bc\u05c1\u05c2\u05c4\u05c5\u05c7\"']"
)


def leaderboard(text: str) -> str:
    """The exact text normalisation of ivrit.ai's evaluator, including its oddities.

    Delete bidi controls, niqqud as the package `hebrew` does, ASCII quotes; then Whisper's basic normaliser
    (openai/whisper, whisper/normalizers/basic.py). A typographic gershayim becomes a space, but the ASCII one is
    deleted: this is their rule, and the reason for our score `fair`.
    """
    return whisper_basic(_LEADERBOARD_REMOVED.sub("", text))


_SIGNS = {"%": "אחוז", "₪": "שקל", "$": "דולר", "€": "אירו", "£": "פאונד", "°": "מעלות"}
_AFTER_NUMBER = re.compile(r"(?<=\d)\s*([%₪$€£°])(?:\s?C(?![A-Za-z]))?")
_BEFORE_NUMBER = re.compile(r"(?<!\d)(?<!\d\s)([₪$€£°])\s*(\d+(?:[.,]\d+)*)")
_THOUSANDS_COMMA = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_HYPHEN_AFTER_PREFIX = re.compile(rf"(?<![{_LETTER}])([ובהלמשכ]{{1,4}})[-–{MAQAF}](?=[0-9A-Za-z₪$€£°])")


def fair(text: str) -> str:
    """Unifies spelling conventions that are not audible (version 2).

    Removes tags ([...], <...>, (laughter)), niqqud, cantillation and controls, and geresh and gershayim, however typed,
    inside and after Hebrew words; a prefix is one word with the number or the Latin word it is written on
    (ב-1948 is ב1948); 1,250 is 1250; signs after numbers are words (50% is 50 אחוז, 25 ₪ is 25 שקל); maqaf and other
    hyphens are spaces; other punctuation is a space; NFKC; case folded.
    """
    text = markup.without_tags(markup.TIME_MARK.sub(" ", text))
    text = markup.without_controls(unicodedata.normalize("NFKC", text))
    text = _AFTER_LETTER.sub("", _INNER_DOUBLE.sub("", without_niqqud(text)))
    text = _THOUSANDS_COMMA.sub("", _HYPHEN_AFTER_PREFIX.sub(r"\1", text))
    text = _BEFORE_NUMBER.sub(lambda match: f"{match[2]} {_SIGNS[match[1]]} ", text)
    text = _AFTER_NUMBER.sub(lambda match: f" {_SIGNS[match[1]]} ", text)
    return units_unified(without_punctuation(text))


_PAUSES = re.compile(r"(?<!\S)(?:אה+מ*ם?|אמ+ם?|ה?מ{2,}ם?|א{2,}ה*|[uea]h+m*|u+m+|h?m{2,})(?!\S)")


def without_filled_pauses(text: str) -> str:
    """For a text that `fair` has normalised."""
    return " ".join(_PAUSES.sub(" ", text).split())


_VOWEL_LETTERS = re.compile(f"(?<=[{_LETTER}])[וי]+(?=[{_LETTER}])")


def vowel_letters_dropped(text: str) -> str:
    """Removes ו and י inside words if three letters remain: אימא is אמא, תוכנית is תכנית.

    Different words that differ only in such a letter also become equal (שלום, שלם). So the reduction of the word error
    rate is an upper bound for the effect of spelling.
    """
    return " ".join(short if len(short := _VOWEL_LETTERS.sub("", word)) >= 3 else word for word in text.split())


_NAME_LIKE = re.compile(rf"[A-Za-z]|(?:{_INNER_DOUBLE.pattern})|[גזצץת][{_SINGLE}]")  # NATO, צה"ל, ג'ורג'
_TITLES = frozenset(
    "מר גברת גב' אדון רב הרב שר השר שרה השרה ח\"כ ד\"ר דוקטור פרופ' פרופסור רחוב כביש קיבוץ מושב".split()
)
_ASCII_QUOTES = str.maketrans(dict.fromkeys(_DOUBLE, '"') | dict.fromkeys(_SINGLE, "'"))


def name_like(words: Sequence[str]) -> list[bool]:
    """Acronyms, Latin letters, foreign sounds (ג׳ ז׳ צ׳ ת׳), words after a title; Hebrew has no capital letters."""
    unified = [word.translate(_ASCII_QUOTES) for word in words]
    titles = [False, *(word.strip(".,:") in _TITLES for word in unified)]
    return [after_title or bool(_NAME_LIKE.search(word)) for word, after_title in zip(unified, titles, strict=False)]


YIDDISH = Lookalike(
    name="Yiddish",
    mistaken_for="Hebrew",
    names=re.compile(r"(^|[-_/.])yi($|[-_/.])|yiddish", re.IGNORECASE),
    recognises=is_yiddish,
)

LANGUAGE = Language(
    name="Hebrew",
    code="he",
    training_text=training_text,
    rejection_reason=rejection_reason,
    script_share=script_share,
    rules=frozenset(TextPolicy.model_fields),
    normalisers={"leaderboard": leaderboard, "fair": fair},
    standard="the ivrit.ai leaderboard's normaliser",
    relaxations={
        "numerals": as_digits,
        "spelling": vowel_letters_dropped,
        "filled pauses": without_filled_pauses,
    },
    confusable_letters=ConfusableLetters(
        alike=("חכ", "טת", "אעה", "סש", "כק", "בו", "צס"), prefixes="ובהלמשכ", name_like=name_like
    ),
    loses_points=loses_points,
    other_numbers=other_numbers,
    lookalikes=(YIDDISH,),
    right_to_left=True,
)
