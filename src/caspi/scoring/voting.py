"""Votes word by word over the transcripts of several systems (ROVER; Fiscus 1997, doi:10.1109/ASRU.1997.659110)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

FREQUENCY = 0.6  # weight of the number of systems; the rest is of their confidence
NOTHING = 0.5  # confidence of a system that says nothing at a place


@dataclass(frozen=True, slots=True)
class Heard:
    """A word of one system's transcript. key: what it is compared by; confidence: the probability of being right."""

    word: str
    key: str
    confidence: float


Place = list[Heard | None]  # what every system has there; None: nothing


def places(systems: Sequence[Sequence[Heard]]) -> list[Place]:
    """Aligns transcripts, one after another, with what is there of those before: places that have a word of any."""
    network: list[Place] = [[word] for word in systems[0]] if systems else []
    for number, words in enumerate(systems[1:], 1):
        network = _added(network, words, number)
    return network


def vote(place: Place, frequency: float = FREQUENCY, nothing: float = NOTHING) -> Heard | None:
    """The word with most votes at a place, None if that is no word. A word's votes are the share of systems that have
    it, and the mean confidence of these; of equal ones the first system's is taken."""
    options: dict[str | None, list[Heard | None]] = {}
    for heard in place:
        options.setdefault(None if heard is None else heard.key, []).append(heard)

    def votes(key: str | None) -> float:
        sure = [nothing if heard is None else heard.confidence for heard in options[key]]
        return frequency * len(sure) / len(place) + (1 - frequency) * sum(sure) / len(sure)

    best = max(options, key=votes)  # the first of equal ones
    return options[best][0]


def combined(systems: Sequence[Sequence[Heard]], frequency: float = FREQUENCY, nothing: float = NOTHING) -> list[Heard]:
    """The words that win at their places."""
    won = (vote(place, frequency, nothing) for place in places(systems))
    return [heard for heard in won if heard is not None]


def heard_words(
    text: str, probabilities: Sequence[float], key: Callable[[str], str], unknown: float = NOTHING
) -> list[Heard]:
    """The words of a transcript. probabilities: of its words; `unknown` where there are none. key: the form that words
    are compared in; words whose form is empty, such as a dash alone, are left out."""
    words = text.split()
    sure = probabilities if len(probabilities) == len(words) else [unknown] * len(words)
    keys = [key(word) for word in words]
    return [Heard(word, form, float(p)) for word, form, p in zip(words, keys, sure, strict=True) if form]


def _added(network: list[Place], words: Sequence[Heard], number: int) -> list[Place]:
    """The network with the words of another system, aligned with the fewest edits. number: of systems before."""
    forms = [{heard.key for heard in place if heard is not None} for place in network]
    may_be_empty = [any(heard is None for heard in place) for place in network]
    costs = [[0.0] * (len(words) + 1) for _ in range(len(network) + 1)]
    for column in range(1, len(words) + 1):
        costs[0][column] = costs[0][column - 1] + 1
    for row in range(1, len(network) + 1):
        skip = _SKIPPED if may_be_empty[row - 1] else 1.0
        costs[row][0] = costs[row - 1][0] + skip
        for column, word in enumerate(words, 1):
            other = 0.0 if word.key in forms[row - 1] else 1.0
            costs[row][column] = min(
                costs[row - 1][column - 1] + other, costs[row - 1][column] + skip, costs[row][column - 1] + 1
            )
    return _traced(network, words, number, costs, forms, may_be_empty)


_SKIPPED = 0.1  # cost of passing a place where some system has nothing


def _traced(
    network: list[Place],
    words: Sequence[Heard],
    number: int,
    costs: list[list[float]],
    forms: list[set[str]],
    may_be_empty: list[bool],
) -> list[Place]:
    """Follows the costs back from the end."""
    row, column, found = len(network), len(words), list[Place]()
    while row or column:
        if row and column:
            other = 0.0 if words[column - 1].key in forms[row - 1] else 1.0
            if costs[row][column] == costs[row - 1][column - 1] + other:
                found.append([*network[row - 1], words[column - 1]])
                row, column = row - 1, column - 1
                continue
        skip = (_SKIPPED if may_be_empty[row - 1] else 1.0) if row else 0.0
        if row and costs[row][column] == costs[row - 1][column] + skip:
            found.append([*network[row - 1], None])
            row -= 1
        else:
            found.append([*([None] * number), words[column - 1]])
            column -= 1
    return found[::-1]
