"""Finds copies: the same audio twice, the same text many times, and utterances that are also in an evaluation set.

The first of several copies, in the order of the recipe, is kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from rapidfuzz import fuzz

from caspi.corpus.dedup import acoustic_fingerprint
from caspi.corpus.dedup.acoustic_fingerprint import COPY, SHORTEST, WORDS_PER_SECOND
from caspi.randomness import seeded

_SLOTS = 1 << 28  # maximum number of slots in the key table: 2.7 GB, reached at 1,200 hours
_AT_ONCE = 1 << 20  # slots moved at a time when it grows
_COMMON = 64  # maximum number of positions of a key, or utterances of a text, that are checked
_COVERED = 0.8  # share of an utterance that must be a copy
_LEAKED = 0.5  # an utterance is a leak if this share of it, or two seconds, is in an evaluation set
_LEAKED_SECONDS = 2.0
_WORDS_TO_COUNT = 4  # many people say shorter phrases
_SAME_TEXT = 90.0  # rapidfuzz ratio, of 100
_HASHES, _BANDS = 16, 4
_SHINGLE = 4  # characters
_LEAK_WORDS, _LEAK_GRAM, _LEAK_SHARE = 8, 4, 0.5
_PRIME = np.uint64((1 << 61) - 1)


class _KeyTable:
    """Maps fingerprint keys to their first position; two possible slots per key, ten bytes per slot.

    Has at most `_SLOTS` slots, half of them filled. When that is reached, half of all keys are dropped and no longer
    added, the same half in every copy. 1,200 hours fit with all keys; docs/log/2026-11-26.md has measurements.
    """

    def __init__(self) -> None:
        self._thinned = 0
        self._make(1 << 14)

    def _make(self, slots: int) -> None:
        self._keys = np.zeros(slots, np.uint32)
        self._owners = np.zeros(slots, np.int32)
        self._places = np.zeros(slots, np.uint16)
        self._filled = 0

    def _chosen(self, keys: np.ndarray) -> np.ndarray:
        """Positions of the keys that are stored: not silence, and not in the dropped half."""
        spread = keys * np.uint32(2654435761)
        return np.flatnonzero((keys != 0) & ((spread >> np.uint32(32 - self._thinned)) == 0 if self._thinned else True))

    def _slots(self, keys: np.ndarray) -> np.ndarray:
        """uint32 [2, n]."""
        mask = np.uint32(len(self._keys) - 1)
        first = keys * np.uint32(0x9E3779B1)
        second = (keys ^ np.uint32(0x5BD1E995)) * np.uint32(0x85EBCA6B)
        return np.stack([(first ^ (first >> np.uint32(15))) & mask, (second ^ (second >> np.uint32(13))) & mask])

    def find(self, keys: np.ndarray) -> set[tuple[int, int]]:
        """For each key found: the utterance and the offset that aligns it."""
        chosen = self._chosen(keys)
        found: set[tuple[int, int]] = set()
        for slots in self._slots(keys[chosen]):
            same = np.flatnonzero(self._keys[slots] == keys[chosen])
            offsets = self._places[slots[same]].astype(np.int64) - chosen[same]
            found.update(zip(self._owners[slots[same]].tolist(), offsets.tolist(), strict=True))
        return found

    def add(self, keys: np.ndarray, owner: int) -> None:
        """Adds the keys of an utterance; a key that is already stored keeps its first position."""
        chosen = self._chosen(keys)
        self._insert(keys[chosen], np.full(len(chosen), owner, np.int32), np.minimum(chosen, 65535).astype(np.uint16))
        while 2 * self._filled > len(self._keys):
            self._grow()

    def _insert(self, keys: np.ndarray, owners: np.ndarray, places: np.ndarray) -> None:
        for choice in (0, 1):
            slots = self._slots(keys)[choice]
            free = np.flatnonzero(self._keys[slots] == 0)
            self._keys[slots[free]] = keys[free]
            self._owners[slots[free]] = owners[free]
            self._places[slots[free]] = places[free]
            self._filled += len(np.unique(slots[free]))
            left = self._keys[slots] != keys
            keys, owners, places = keys[left], owners[left], places[left]

    def _grow(self) -> None:
        keys, owners, places = self._keys, self._owners, self._places
        slots = len(keys)
        if slots >= _SLOTS:
            self._thin()
            return
        self._make(2 * slots)
        for first in range(0, slots, _AT_ONCE):  # in pieces: copying the whole table would double the memory
            some = slice(first, first + _AT_ONCE)
            held = np.flatnonzero(keys[some])
            self._insert(keys[some][held], owners[some][held], places[some][held])

    def _thin(self) -> None:
        """Drops half of the keys in place."""
        self._thinned += 1
        self._filled = 0
        for first in range(0, len(self._keys), _AT_ONCE):
            some = self._keys[first : first + _AT_ONCE]
            kept = self._chosen(some)
            left = some[kept]
            some[:] = 0
            some[kept] = left
            self._filled += len(kept)


class AudioCopies:
    """Finds utterances whose audio, or nearly all of it, is in an earlier utterance."""

    def __init__(self) -> None:
        self._exact: set[bytes] = set()
        self._words: list[np.ndarray] = []
        self._table = _KeyTable()
        self._by_text: defaultdict[str, list[int]] = defaultdict(list)

    def is_copy(self, audio_hash: bytes, phases: Sequence[np.ndarray], text: str) -> bool:
        """Whether an utterance is a copy of an added one. Candidates share a key or the whole text.

        phases: its words, and those of its audio some milliseconds later, as a copy may be cut between two frames.
        """
        if audio_hash in self._exact:
            return True
        same_text = [(number, offset) for number in self._by_text.get(text, ()) for offset in range(-3, 4)]
        return any(
            self._covers(*candidate, words)
            for words in phases
            for candidate in sorted(self._table.find(acoustic_fingerprint.keys(words)).union(same_text))
        )

    def add(self, audio_hash: bytes, words: np.ndarray, text: str) -> None:
        """Adds an utterance for comparison with later ones."""
        number = len(self._words)
        self._exact.add(audio_hash)
        self._words.append(words)
        self._table.add(acoustic_fingerprint.keys(words), number)
        if len(self._by_text[text]) < _COMMON:
            self._by_text[text].append(number)

    def _covers(self, number: int, offset: int, words: np.ndarray) -> bool:
        share, length = acoustic_fingerprint.difference(self._words[number], words, offset)
        return share < COPY and length >= max(SHORTEST, _COVERED * np.count_nonzero(words))


class TextRepeats:
    """Counts how often nearly the same text occurred before: MinHash over characters, then the edit ratio."""

    def __init__(self) -> None:
        draw = seeded(0)
        self._a = draw.integers(1, 1 << 31, (_HASHES, 1), dtype=np.uint64)
        self._b = draw.integers(0, 1 << 31, (_HASHES, 1), dtype=np.uint64)
        self._counts: list[int] = []  # for the first text of each cluster
        self._texts: list[str] = []
        self._first: dict[int | str, int] = {}

    def before(self, text: str) -> int:
        """How many added texts are nearly the same; short ones must be identical."""
        number = self._cluster(text)
        return 0 if number is None else self._counts[number]

    def add(self, text: str) -> None:
        """Adds a text for comparison with later ones."""
        number = self._cluster(text)
        if number is not None:
            self._counts[number] += 1
            return
        for key in self._keys(text):
            self._first.setdefault(key, len(self._counts))
        self._counts.append(1)
        self._texts.append(text)

    def _cluster(self, text: str) -> int | None:
        if (number := self._first.get(text)) is not None:
            return number
        for key in self._keys(text):
            number = self._first.get(key)
            if number is not None and fuzz.ratio(text, self._texts[number]) >= _SAME_TEXT:
                return number
        return None

    def _keys(self, text: str) -> Sequence[int | str]:
        return [text, *self._band_keys(text)] if len(text) > 2 * _SHINGLE else [text]

    def _band_keys(self, text: str) -> list[int]:
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64)
        shingles = codes[: len(codes) - _SHINGLE + 1].copy()
        for step in range(1, _SHINGLE):
            shingles = shingles * np.uint64(1_000_003) + codes[step : len(codes) - _SHINGLE + 1 + step]
        lowest = ((self._a * (shingles & np.uint64(0xFFFFFFFF)) + self._b) % _PRIME).min(axis=1)
        rows = lowest.reshape(_BANDS, _HASHES // _BANDS)
        return [hash((band, *map(int, row))) for band, row in enumerate(rows)]


def is_long_enough_to_repeat(text: str) -> bool:
    """Many people say short phrases; only longer repeats look like a template or a transcriber's mistake."""
    return text.count(" ") + 1 >= _WORDS_TO_COUNT


@dataclass(slots=True)
class EvaluationSets:
    """Evaluation data that must not be trained on: audio, at several phases of the fingerprint's frames, and text."""

    exact: set[bytes] = field(default_factory=set)
    texts: TextRepeats = field(default_factory=TextRepeats)
    grams: set[int] = field(default_factory=set)
    _words: list[np.ndarray] = field(default_factory=list)
    _keys: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint32))
    _places: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    _pending: list[tuple[np.ndarray, int]] = field(default_factory=list)

    def add(self, audio_hash: bytes, phases: Sequence[np.ndarray], text: str) -> None:
        """Adds one evaluation recording: its text normalised for comparison, its words at each phase."""
        self.exact.add(audio_hash)
        if is_long_enough_to_repeat(text):
            self.texts.add(text)
        self.grams.update(_grams(text))
        for words in phases:
            self._pending.append((acoustic_fingerprint.keys(words), len(self._words)))
            self._words.append(words)

    def leaks(self, audio_hash: bytes, words: np.ndarray, text: str) -> bool:
        """Whether an utterance's audio or text is in an evaluation set."""
        return audio_hash in self.exact or self._text_leaks(text) or self.has_audio(words)

    def _text_leaks(self, text: str) -> bool:
        """Whether a text is nearly equal to an evaluation text, or a part of one: half of its 4-grams are known, or all
        of them if it is short."""
        if is_long_enough_to_repeat(text) and self.texts.before(text):
            return True
        grams = _grams(text)
        known = sum(gram in self.grams for gram in grams)
        if text.count(" ") + 1 >= _LEAK_WORDS:
            return known >= _LEAK_SHARE * len(grams)
        return len(grams) > 1 and known == len(grams)

    def has_audio(self, words: np.ndarray) -> bool:
        """Whether two seconds of an utterance, or half of it, are in an evaluation set, wherever they are cut."""
        self._index()
        keys = acoustic_fingerprint.keys(words)
        at = np.minimum(np.searchsorted(self._keys, keys), max(0, len(self._keys) - 1))
        hits = np.flatnonzero((self._keys[at] == keys) & (keys != 0)) if len(self._keys) else ()
        tried: set[tuple[int, int]] = set()
        needed = max(SHORTEST, min(_LEAKED * len(words), _LEAKED_SECONDS * WORDS_PER_SECOND))
        for place in hits:
            for entry in range(int(at[place]), min(int(at[place]) + _COMMON, len(self._keys))):
                if self._keys[entry] != keys[place]:
                    break
                number, where = self._places[entry].tolist()
                candidate = (number, where - int(place))
                if candidate not in tried:
                    tried.add(candidate)
                    share, length = acoustic_fingerprint.difference(self._words[number], words, candidate[1])
                    if share < COPY and length >= needed:
                        return True
        return False

    def _index(self) -> None:
        if not self._pending:
            return
        keys = [self._keys, *(keys for keys, _ in self._pending)]
        places = [self._places]
        for found, number in self._pending:
            places.append(np.stack([np.full(len(found), number), np.arange(len(found))], axis=1))
        joined, where = np.concatenate(keys), np.concatenate(places)
        order = np.argsort(joined, kind="stable")
        self._keys, self._places = joined[order], where[order]
        self._pending.clear()


def _grams(text: str) -> list[int]:
    """Hashes of the word 4-grams of a text."""
    words = text.split()
    return [hash(tuple(words[n : n + _LEAK_GRAM])) for n in range(len(words) - _LEAK_GRAM + 1)]
