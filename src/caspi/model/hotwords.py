"""Context for the system turn: hotwords (rare words of the text itself, mixed with rare words of other texts), and the
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

_MIN_LETTERS = 3  # of a hotword; shorter words are not names
_SAMPLE_SIZE = 5_000  # number of words whose tokens are counted for the plan
_MAX_PREVIOUS_CHARACTERS = 200  # of the previous text, about twice the text of an utterance


def tail(text: str) -> str:
    """The last words of a text, at most 200 characters."""
    return text if len(text) <= _MAX_PREVIOUS_CHARACTERS else text[-_MAX_PREVIOUS_CHARACTERS:].partition(" ")[2]


def joined(*parts: str) -> str:
    """The non-empty parts, joined to a system turn."""
    return " ".join(part for part in parts if part)


def listed(words: Sequence[str], rng: np.random.Generator) -> str:
    """The words in random order, separated by commas."""
    return ", ".join(_random_subset(words, len(words), rng))


class HotwordPool:
    """The rare words of all texts. Raises UsageError if there are none."""

    def __init__(self, texts: Iterable[str], config: Hotwords) -> None:
        self._config = config
        counts = Counter(word for text in texts for word in set(_words(text)))
        self._rare = {word for word, count in counts.items() if count <= config.at_most}
        self._pool = sorted(self._rare)
        if not self._pool:
            raise UsageError(f"train.hotwords: no word occurs in {config.at_most} texts or fewer: increase at_most")

    def draw(self, text: str, rng: np.random.Generator) -> str:
        """Hotwords in random order, separated by commas; "" if the utterance is not drawn to get hotwords."""
        config = self._config
        if rng.random() >= config.probability:
            return ""
        own, others = self.choose(text, rng, absent=bool(rng.random() < config.absent))
        return listed([*own, *others], rng)

    def choose(self, text: str, rng: np.random.Generator, *, absent: bool = False) -> tuple[list[str], list[str]]:
        """Rare words of the text (none if `absent`), and distractors: rare words of other texts that are not in it."""
        config, words = self._config, sorted(set(_words(text)))
        own = [] if absent else [word for word in words if word in self._rare]
        chosen = _random_subset(own, int(rng.integers(config.words[0], config.words[1] + 1)), rng)
        count = int(rng.integers(config.distractors[0], config.distractors[1] + 1))
        # Draw more than needed: some are drawn twice, or occur in this text.
        drawn = rng.integers(0, len(self._pool), 2 * count + len(words)).tolist()
        others = dict.fromkeys(self._pool[index] for index in drawn)
        return chosen, list(itertools.islice((word for word in others if word not in words), count))

    def max_tokens(self, prompt: Prompt) -> int:
        """Approximate tokens of the longest list of hotwords, for the plan."""
        lengths = prompt.text_lengths([f", {word}" for word in self._pool[:: 1 + len(self._pool) // _SAMPLE_SIZE]])
        return math.ceil((self._config.words[1] + self._config.distractors[1]) * float(np.quantile(lengths, 0.9)))


def _words(text: str) -> list[str]:
    return [word for word in (part.strip(".,:;!?\"'()[]-–״׳…") for part in text.split()) if len(word) >= _MIN_LETTERS]


def _random_subset(words: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    return [words[index] for index in rng.permutation(len(words))[:count].tolist()]
