"""What caspi knows of a language: how its text is cleaned for training and normalised for scoring.

The next language is the next file here and one line in `_LANGUAGES`.
"""

from __future__ import annotations

import functools

from caspi.language import hebrew, plain
from caspi.language.base import Language, TextPolicy
from caspi.language.hebrew import is_yiddish

_LANGUAGES: dict[str, Language] = {"Hebrew": hebrew.LANGUAGE}


_NAMES = {"he": "Hebrew", "heb": "Hebrew", "iw": "Hebrew", "yi": "Yiddish", "yid": "Yiddish"} | {
    code: name for name, code in plain.CODES.items()
}


@functools.cache
def named(written: str) -> str:
    """A language as prompts say it: `he`, `he-IL`, `HEBREW` and `Hebrew` are one."""
    code = written.strip().lower().replace("_", "-").partition("-")[0]
    return _NAMES.get(code) or written.strip().capitalize()


def language(name: str) -> Language:
    """The language by the English name that stands in the prompt; one without a file of its own gets `plain`."""
    return _LANGUAGES.get(name) or plain.plain_language(name)


__all__ = ["Language", "TextPolicy", "is_yiddish", "language", "named"]
