"""How a model uses its context. The same utterances are decoded without context, and with a system turn of hotwords, of
distractor words that are not spoken, and of the preceding text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from caspi.evaluation.pairs import TranscriptPair
from caspi.evaluation.results import WordsRecognised
from caspi.evaluation.stress import drawn_for
from caspi.language import language
from caspi.model.config import Hotwords
from caspi.model.hotwords import HotwordPool, joined, listed, tail

# Keys of summary.json; `results.context_label` has the names that people see.
NOTHING, EXPECTED, OTHERS, BEFORE = "nothing", "words to expect", "words that nobody says", "the text before"
_RARE = 0.01  # share of texts (or two texts) that may contain a word for it to serve as a hotword


@dataclass(frozen=True, slots=True)
class Words:
    """Rare words of an utterance (often none), and words of other utterances that it does not contain."""

    own: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContextConditions:
    """For the first utterances of a corpus: their word lists, and for each condition the system turn of each."""

    words: list[Words]
    turns: dict[str, list[str]]


def context_conditions(corpus: Corpus, count: int) -> ContextConditions:
    """As many hotwords and distractors as `train.hotwords` draws by default; the choice depends on the utterance's id.
    Raises UsageError if no word of the split is rare."""
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


def words_recognised(
    pairs: Sequence[TranscriptPair], words: Sequence[Words]
) -> tuple[WordsRecognised, WordsRecognised]:
    """How many hotwords, and how many distractors, are in the hypotheses. Words are normalised by `fair`."""
    own = sum(_recognised(pair, of.own) for pair, of in zip(pairs, words, strict=True))
    others = sum(_recognised(pair, of.others) for pair, of in zip(pairs, words, strict=True))
    return (
        WordsRecognised(sum(len(of.own) for of in words), own),
        WordsRecognised(sum(len(of.others) for of in words), others),
    )


def _recognised(pair: TranscriptPair, words: Sequence[str]) -> int:
    fair = language(pair.language).normalisers["fair"]
    hypothesis = f" {fair(pair.hypothesis)} "
    return sum(f" {fair(word)} " in hypothesis for word in words)
