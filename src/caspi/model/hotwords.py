"""Context for the system turn: hotwords (rare words of the text itself mixed with others of the corpus), and the
previous text."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from caspi.errors import UsageError
from caspi.model.config import Hotwords
from caspi.model.prompt import Prompt

_LETTERS = 3  # the least letters of a hotword; shorter words are not names
_SAMPLE = 5_000  # number of words whose tokens are counted for the plan
_PREVIOUS_CHARACTERS = 200  # the most characters of previous text, about twice the text of an utterance


def tail(text: str) -> str:
    """The last words of a text, at most 200 characters."""
    return text if len(text) <= _PREVIOUS_CHARACTERS else text[-_PREVIOUS_CHARACTERS:].partition(" ")[2]


def joined(*parts: str) -> str:
    """The non-empty parts, joined to a system turn."""
    return " ".join(part for part in parts if part)


def listed(words: Sequence[str], draw: np.random.Generator) -> str:
    """The words in random order, separated by commas."""
    return ", ".join(_some(words, len(words), draw))


class HotwordPool:
    """The rare words of all texts. Raises UsageError if there are none."""

    def __init__(self, texts: Iterable[str], how: Hotwords) -> None:
        self._how = how
        counts = Counter(word for text in texts for word in set(_words(text)))
        self._rare = {word for word, count in counts.items() if count <= how.at_most}
        self._pool = sorted(self._rare)
        if not self._pool:
            raise UsageError(f"train.hotwords: no word occurs in {how.at_most} texts or fewer: increase at_most")

    def draw(self, text: str, draw: np.random.Generator) -> str:
        """Hotwords in random order, separated by commas; "" unless the utterance is drawn to get hotwords."""
        how = self._how
        if draw.random() >= how.probability:
            return ""
        own, others = self.choose(text, draw, absent=bool(draw.random() < how.absent))
        return listed([*own, *others], draw)

    def choose(self, text: str, draw: np.random.Generator, *, absent: bool = False) -> tuple[list[str], list[str]]:
        """Rare words of the text (none if `absent`), and distractors: rare words of other texts that are not in it."""
        how, words = self._how, sorted(set(_words(text)))
        own = [] if absent else [word for word in words if word in self._rare]
        chosen = _some(own, int(draw.integers(how.words[0], how.words[1] + 1)), draw)
        wanted = int(draw.integers(how.distractors[0], how.distractors[1] + 1))
        # Draw more than needed: some are drawn twice, or occur in this text.
        drawn = draw.integers(0, len(self._pool), 2 * wanted + len(words)).tolist()
        others = dict.fromkeys(self._pool[place] for place in drawn)
        return chosen, list(itertools.islice((word for word in others if word not in words), wanted))

    def most_tokens(self, prompt: Prompt) -> int:
        """Approximate tokens of the longest list of hotwords, for the plan."""
        lengths = prompt.text_lengths([f", {word}" for word in self._pool[:: 1 + len(self._pool) // _SAMPLE]])
        return math.ceil((self._how.words[1] + self._how.distractors[1]) * float(np.quantile(lengths, 0.9)))


def _words(text: str) -> list[str]:
    return [word for word in (part.strip(".,:;!?\"'()[]-–״׳…") for part in text.split()) if len(word) >= _LETTERS]


def _some(words: Sequence[str], count: int, draw: np.random.Generator) -> list[str]:
    return [words[place] for place in draw.permutation(len(words))[:count].tolist()]
