"""Rules for any language without its own file: removes what is not spoken, composes Unicode, assumes nothing else."""

from __future__ import annotations

import re
import unicodedata

from caspi.language import markup
from caspi.language.base import Language, TextPolicy
from caspi.language.codes import CODES

_RIGHT_TO_LEFT = frozenset("Arabic Persian Urdu Yiddish Pashto Sindhi Uyghur Kashmiri Divehi Aramaic".split())
_WITHOUT_SPACES = frozenset("Chinese Cantonese Japanese Thai Lao Khmer Burmese Tibetan".split())
_DOTTED_I = frozenset("Turkish Azerbaijani Tatar Kazakh".split())  # I is the capital of ı, İ that of i
_TAGS = re.compile(r"[<\[][^>\]]*[>\]]")
_ASIDES = re.compile(r"\(([^)]+?)\)")
# Marks that are usually not written: harakat, tatweel and small Koranic signs; Hebrew points; zero-width joiners.
_OPTIONAL_MARKS = re.compile(
    "[\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed"
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u200c\u200d]"
)


class _ToSpaces(dict[int, int]):
    """For `str.translate`: characters of some categories become spaces, all others stay."""

    def __init__(self, categories: str) -> None:
        super().__init__()
        self._categories = categories

    def __missing__(self, code_point: int) -> int:
        self[code_point] = 0x20 if unicodedata.category(chr(code_point))[0] in self._categories else code_point
        return self[code_point]


_MARKS_AND_PUNCTUATION, _PUNCTUATION = _ToSpaces("MSP"), _ToSpaces("SP")


def without_punctuation_and_marks(text: str) -> str:
    """Every mark, symbol and punctuation character becomes a space; spaces collapse; NFKC; lower case. As in Whisper's
    BasicTextNormalizer, which splits words at letters with marks. Only for the Hebrew leaderboard."""
    return " ".join(unicodedata.normalize("NFKC", text.lower()).translate(_MARKS_AND_PUNCTUATION).lower().split())


def whisper_basic(text: str) -> str:
    """Whisper's BasicTextNormalizer: removes <...>, [...] and (...); marks, symbols and punctuation become spaces."""
    return without_punctuation_and_marks(_ASIDES.sub("", _TAGS.sub("", text.lower())))


def without_punctuation(text: str, name: str = "") -> str:
    """Symbols and punctuation become spaces, marks stay on their letters; spaces collapse; NFKC; case folding by the
    rules of the language."""
    if name in _DOTTED_I:
        text = text.replace("İ", "i").replace("I", "ı")
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    words = " ".join(text.translate(_PUNCTUATION).split())
    return _split_characters(words) if name in _WITHOUT_SPACES else words


def _split_characters(text: str) -> str:
    """Makes every character a word, with its combining marks."""
    return " ".join(re.findall(r"\S[\u0300-\u036f\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1-\u0ebc\u0ec8-\u0ecd]*", text))


def _training_text(text: str, policy: TextPolicy) -> str:
    while (cleaned := _cleaned(text, policy)) != text:
        text = cleaned  # one rule may create a match for another
    return text


def _cleaned(text: str, policy: TextPolicy) -> str:
    text = markup.cleaned(text, policy)
    if policy.repeated_punctuation == "collapse":
        text = markup.collapsed(text)
    if policy.punctuation == "strip":
        text = markup.without_punctuation(text, keep="'’-")
    return " ".join(text.split())


def _script_share(text: str) -> float:
    return 1.0 if any(c.isalpha() for c in text) else 0.0


def plain_language(name: str) -> Language:
    """`name` with rules that suit any alphabet. Scores count characters if it is written without spaces."""

    def fair(text: str) -> str:
        return without_punctuation(_OPTIONAL_MARKS.sub("", markup.without_tags(text)), name)

    def basic(text: str) -> str:
        return without_punctuation(_ASIDES.sub("", _TAGS.sub("", text)), name)

    return Language(
        name=name,
        code=CODES.get(name, "und"),
        training_text=_training_text,
        rejection_reason=markup.rejection_reason,
        script_share=_script_share,
        rules=markup.RULES,
        values={"numbers": ("keep", "reject")},
        normalisers={"leaderboard": basic, "fair": fair},
        standard="Whisper's basic normaliser, letters with marks kept whole",
        unit="character" if name in _WITHOUT_SPACES else "word",
        right_to_left=name in _RIGHT_TO_LEFT,
    )
