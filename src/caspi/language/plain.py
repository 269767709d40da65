"""Any language without a file of its own: Unicode composed, white space folded, nothing else assumed."""

from __future__ import annotations

import re
import unicodedata

from caspi.language.base import Language, TextPolicy

# ISO 639-1 codes of languages the released model knows (FACTS.md) and this project trains on.
CODES = {
    "Arabic": "ar", "Czech": "cs", "Dutch": "nl", "English": "en", "Finnish": "fi", "French": "fr", "German": "de",
    "Greek": "el", "Hungarian": "hu", "Indonesian": "id", "Italian": "it", "Polish": "pl", "Portuguese": "pt",
    "Russian": "ru", "Spanish": "es", "Swedish": "sv", "Turkish": "tr",
}  # fmt: skip


_RIGHT_TO_LEFT = {"Arabic", "Persian", "Urdu", "Yiddish"}
_TAGS = re.compile(r"[<\[][^>\]]*[>\]]")
_ASIDES = re.compile(r"\(([^)]+?)\)")


def whisper_basic(text: str) -> str:
    """Whisper's BasicTextNormalizer: <...>, [...] and (...) spans go, marks, symbols and punctuation become spaces."""
    return without_punctuation(_ASIDES.sub("", _TAGS.sub("", text.lower())))


class _Spaced(dict[int, int]):
    """For `str.translate`: marks, symbols and punctuation become spaces, everything else stays."""

    def __missing__(self, point: int) -> int:
        self[point] = 0x20 if unicodedata.category(chr(point))[0] in "MSP" else point
        return self[point]


_SPACED = _Spaced()


def without_punctuation(text: str) -> str:
    """Every mark, symbol and punctuation character becomes a space; spaces collapse; NFKC; lower case."""
    return " ".join(unicodedata.normalize("NFKC", text.lower()).translate(_SPACED).lower().split())


def _training_text(text: str, policy: TextPolicy) -> str:
    composed = unicodedata.normalize("NFC", text)
    if policy.punctuation == "strip":
        composed = "".join(" " if unicodedata.category(c)[0] in "SP" else c for c in composed)
    return " ".join(composed.split())


def _script_share(text: str) -> float:
    return 1.0 if any(c.isalpha() for c in text) else 0.0


def plain_language(name: str) -> Language:
    """`name` with rules that suit any alphabet."""
    return Language(
        name=name,
        code=CODES.get(name, "und"),
        training_text=_training_text,
        objection=lambda cleaned, policy: None,
        script_share=_script_share,
        normalisers={"leaderboard": whisper_basic, "fair": without_punctuation},
        right_to_left=name in _RIGHT_TO_LEFT,
    )
