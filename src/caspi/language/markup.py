"""Parts of transcripts that are not spoken, in any language: tags, time codes, labels, pictures."""

from __future__ import annotations

import html
import re
import unicodedata
from functools import lru_cache

from caspi.language.base import TextPolicy, TextReason

RULES = frozenset(
    "punctuation repeated_punctuation noise_tags brackets html symbols time_codes speaker_labels numbers".split()
)
SPOKEN_SIGNS = "%°℃℉$€£₪"  # spoken after or before a number
LOST = "\ufffd"  # replacement character of a failed conversion
_IN_NUMBERS = ".,:/#+*=" + SPOKEN_SIGNS

_CONTROLS = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
)
TIME_MARK = re.compile(r"<\|\d+(?:\.\d+)?\|>")
# In angle brackets: tags of HTML and Whisper anywhere; other text only if "<" cannot mean "less than".
_TAG = re.compile(r"\[[^\[\]]*\]|</?[A-Za-z_|]+ ?/?>|(?<!\w)<[^<>\s][^<>]*>|\{[^{}]*\}")
_NOISES = (
    "laughter|laughs|laughing|music|applause|noise|inaudible|unintelligible|crosstalk|silence|sighs?|coughs?|breath|"
    "ב?צחוק|צוחק|צוחקת|צוחקים|צוחקות|מוזיקה|מוסיקה|מחיאות כפיים|כפיים|לא ברור|לא נשמע|לא מובן|שיעול|משתעל|משתעלת|רעש|"
    "רעשים|שקט|שתיקה|נשימה|אנחה|נאנח|נאנחת|בכי|בוכה|צעקות|צועק|צועקת|לוחש|לוחשת|מהנהן|מהנהנת"
)
_NOISE = re.compile(
    rf"\(\s*(?:{_NOISES})(?:\s[^()]{{0,20}})?\)|\*\s*(?:{_NOISES})(?:\s[^*]{{0,20}})?\*|#[\w ]{{2,30}}#", re.IGNORECASE
)
_STARRED = re.compile(r"(?<![\w*])\*[^\W\d][^*\d]{0,30}\*(?![\w*])")  # *sighs*, not 2*3*4
_ASIDE = re.compile(r"\([^()]*\)")
_BRACKETS = re.compile(r"[()\[\]{}<>]")
_TIME_CODE = re.compile(r"(?<![\d:])\d{1,2}:[0-5]\d:[0-5]\d(?:[.,]\d{1,3})?(?![\d:])(?:\s*-->)?")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|\w{2,32});")
_SPEAKER = re.compile(
    r"(?:^|(?<=\n))\s*(?:speaker|spk|דוברת?|דובר/ת|מראיינת?|מרואיינת?|משתתפת?)[ _]*(?:\d{1,3}|[א-ת]['׳]?)\s*:",
    re.IGNORECASE,
)
_REPEATED = re.compile(r"([!?,;:\-–—\u05be])\1+")
_DOTS = re.compile(r"\.{4,}|(?<!\.)\.\.(?!\.)")
_PICTURES = frozenset("♩♪♫♬♭♮♯\u200d\u20e3\ufe0e\ufe0f")


def without_controls(text: str) -> str:
    """NFC, without control and direction marks."""
    return _CONTROLS.sub("", unicodedata.normalize("NFC", text))


def cleaned(text: str, policy: TextPolicy) -> str:
    """The text after the rules about markup; line breaks are kept."""
    if policy.html == "unescape":
        text = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
    text = without_controls(TIME_MARK.sub(" ", text))
    if policy.time_codes == "drop":
        text = _TIME_CODE.sub(" ", text)
    if policy.speaker_labels == "drop":
        text = _SPEAKER.sub(" ", text)
    if policy.noise_tags == "drop":
        text = without_tags(text)
    if policy.brackets == "drop":
        text = _ASIDE.sub(" ", text)
    if policy.brackets != "keep":
        text = _BRACKETS.sub(" ", text)
    if policy.symbols == "drop":
        text = "".join(" " if _is_picture(character) else character for character in text)
    return text


def without_tags(text: str) -> str:
    """Removes tags, the innermost first, because tags may be nested."""
    while True:
        stripped = _STARRED.sub(" ", _NOISE.sub(" ", _TAG.sub(" ", text)))
        if stripped == text:
            return text
        text = stripped


@lru_cache(maxsize=4096)
def _is_picture(character: str) -> bool:
    is_symbol = unicodedata.category(character) == "So" and character not in (*SPOKEN_SIGNS, LOST)
    return character in _PICTURES or is_symbol


def collapsed(text: str) -> str:
    """Collapses repeated punctuation: `!!!` to `!`, `..` to `.`, more dots to three."""
    return _DOTS.sub(lambda match: "." if len(match[0]) == 2 else "...", _REPEATED.sub(r"\1", text))


def without_punctuation(text: str, keep: str = "") -> str:
    """Punctuation and symbols become spaces, except for `keep`, spoken signs, and separators inside numbers: otherwise
    3.20 would become two numbers."""
    return "".join(
        character
        if character in (*keep, LOST) or unicodedata.category(character)[0] not in "SP" or _in_number(text, index)
        else " "
        for index, character in enumerate(text)
    )


def _in_number(text: str, index: int) -> bool:
    character = text[index]
    return character in SPOKEN_SIGNS or (character in _IN_NUMBERS and text[index + 1 : index + 2].isdigit())


def rejection_reason(cleaned_text: str, policy: TextPolicy) -> TextReason | None:
    """The reason not to train on a cleaned transcript: letters lost in a conversion, or forbidden digits."""
    if LOST in cleaned_text:
        return "lost_letters"
    if policy.numbers != "keep" and any(unicodedata.category(character)[0] == "N" for character in cleaned_text):
        return "digits"
    return None
