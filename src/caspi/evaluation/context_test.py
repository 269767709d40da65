"""What a model makes of its context: the same utterances as they are, with words to expect in the system turn, with
words that nobody says, and with the text before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from caspi.evaluation.pairs import TranscriptPair
from caspi.evaluation.stress import drawn_for
from caspi.language import language
from caspi.model.config import Hotwords
from caspi.model.hotwords import HotwordPool, joined, listed, tail

NOTHING, EXPECTED, OTHERS, BEFORE = "nothing", "words to expect", "words that nobody says", "the text before"
_RARE = 0.01  # of the texts hold a word that is worth expecting, or two of them


@dataclass(frozen=True, slots=True)
class Words:
    """Rare words of an utterance, none for many, and words of others that it does not hold."""

    own: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContextConditions:
    """Of the first utterances of a corpus: their lists of words, and by what is shown the system turn of each."""

    words: list[Words]
    turns: dict[str, list[str]]


def context_conditions(corpus: Corpus, count: int) -> ContextConditions:
    """As many words and distractors as `train.hotwords` draws by default; which ones follows from the utterance's id.
    Raises UsageError where no word of the split is rare."""
    texts = corpus.column("text")
    try:
        pool = HotwordPool(texts, Hotwords(at_most=max(2, int(_RARE * len(texts)))))
    except UsageError as error:
        raise UsageError(f"--context: no word is rare in corpus {corpus.folder}, split {corpus.split}") from error
    utterances = [corpus.utterance(row) for row in range(min(count, len(corpus)))]
    words: list[Words] = []
    turns: dict[str, list[str]] = {EXPECTED: [], OTHERS: []}
    before = [tail(utterance.previous) for utterance in utterances]
    for utterance in utterances:
        draw = drawn_for(EXPECTED, utterance.id)
        found = Words(*map(tuple, pool.choose(utterance.text, draw)))
        words.append(found)
        turns[EXPECTED].append(joined(utterance.context, listed([*found.own, *found.others], draw)))
        turns[OTHERS].append(joined(utterance.context, ", ".join(found.others)))
    if any(before):
        turns[BEFORE] = [joined(u.context, text) for u, text in zip(utterances, before, strict=True)]
    return ContextConditions(words, turns)


def with_context(pairs: Sequence[TranscriptPair], words: Sequence[Words]) -> dict[str, dict[str, int]]:
    """How many of the words to expect were heard, and of the others that nobody said; words as `fair` treats them."""
    found = {"expected": {"words": 0, "heard": 0}, "others": {"words": 0, "heard": 0}}
    for pair, of in zip(pairs, words, strict=True):
        fair = language(pair.language).normalisers["fair"]
        said = f" {fair(pair.hypothesis)} "
        for name, given in (("expected", of.own), ("others", of.others)):
            found[name]["words"] += len(given)
            found[name]["heard"] += sum(f" {fair(word)} " in said for word in given)
    return found
