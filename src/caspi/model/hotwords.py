"""What is given to the model before it listens: words to expect, rare ones of the text itself among others of the
corpus, and the text before."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from caspi.errors import UsageError
from caspi.model.config import Hotwords
from caspi.model.prompt import Prompt

_LETTERS = 3  # shorter words are no names
_SAMPLE = 5_000  # words whose tokens are counted for the plan
_PREVIOUS_CHARACTERS = 200  # of the text before an utterance, about twice an utterance's own


def tail(text: str) -> str:
    """The last words of a text that may be long."""
    return text if len(text) <= _PREVIOUS_CHARACTERS else text[-_PREVIOUS_CHARACTERS:].partition(" ")[2]


def joined(*parts: str) -> str:
    """A system turn of what there is."""
    return " ".join(part for part in parts if part)


def listed(words: Sequence[str], draw: np.random.Generator) -> str:
    """With commas between, in random order."""
    return ", ".join(_some(words, len(words), draw))


class HotwordPool:
    """The rare words of all texts. Raises UsageError where there are none."""

    def __init__(self, texts: Iterable[str], how: Hotwords) -> None:
        self._how = how
        counts = Counter(word for text in texts for word in set(_words(text)))
        self._rare = {word for word, count in counts.items() if count <= how.at_most}
        self._pool = sorted(self._rare)
        if not self._pool:
            raise UsageError(f"train.hotwords: no word stands in {how.at_most} texts or fewer; raise at_most")

    def draw(self, text: str, draw: np.random.Generator) -> str:
        """Words with commas between, in random order; nothing for most utterances, as the configuration says."""
        how = self._how
        if draw.random() >= how.probability:
            return ""
        own, others = self.choose(text, draw, absent=bool(draw.random() < how.absent))
        return listed([*own, *others], draw)

    def choose(self, text: str, draw: np.random.Generator, *, absent: bool = False) -> tuple[list[str], list[str]]:
        """Rare words of the text, none where they are to be absent, and rare words of others that it does not hold."""
        how, said = self._how, sorted(set(_words(text)))
        own = [] if absent else [word for word in said if word in self._rare]
        chosen = _some(own, int(draw.integers(how.words[0], how.words[1] + 1)), draw)
        wanted = int(draw.integers(how.distractors[0], how.distractors[1] + 1))
        # More than are wanted: some are drawn twice, or are said here.
        drawn = draw.integers(0, len(self._pool), 2 * wanted + len(said)).tolist()
        others = dict.fromkeys(self._pool[place] for place in drawn)
        return chosen, list(itertools.islice((word for word in others if word not in said), wanted))

    def most_tokens(self, prompt: Prompt) -> int:
        """About what the longest list takes, for the plan."""
        lengths = prompt.text_lengths([f", {word}" for word in self._pool[:: 1 + len(self._pool) // _SAMPLE]])
        return math.ceil((self._how.words[1] + self._how.distractors[1]) * float(np.quantile(lengths, 0.9)))


def _words(text: str) -> list[str]:
    return [word for word in (part.strip(".,:;!?\"'()[]-–״׳…") for part in text.split()) if len(word) >= _LETTERS]


def _some(words: Sequence[str], count: int, draw: np.random.Generator) -> list[str]:
    return [words[place] for place in draw.permutation(len(words))[:count].tolist()]
