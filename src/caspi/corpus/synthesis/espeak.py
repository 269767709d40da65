"""Speech synthesis in process by espeak-ng (PyPI `espeakng-loader`), with the time of every word.

Not thread-safe; run several processes to go faster.
"""

from __future__ import annotations

import _ctypes
import ctypes
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from caspi.errors import MissingDependency

# espeak-ng/speak_lib.h
_OUTPUT_SYNCHRONOUS = 2
_CHARS_UTF8 = 1
_POSITION_CHARACTER = 1
_EVENT_LIST_TERMINATED = 0
_EVENT_WORD = 1
_RATE, _PITCH = 1, 3
_IPA = 0x02
_SILENT = 1e-3  # of full scale
SPELLED = "(en)"  # espeak names letters in English
DEFAULT_RATE = 175  # words per minute, espeak's own default
DEFAULT_PITCH = 50  # 0 to 99, espeak's own default


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True, slots=True)
class Voice:
    """How a sentence is spoken: an espeak variant (a file under `voices/!v`), words per minute, pitch 0-99."""

    variant: str
    rate: int = DEFAULT_RATE
    pitch: int = DEFAULT_PITCH


@dataclass(frozen=True, slots=True)
class Speech:
    """samples: float32 mono at `sample_rate`; word_starts, word_ends: seconds, one for each word spoken."""

    samples: np.ndarray
    sample_rate: int
    word_starts: tuple[float, ...]
    word_ends: tuple[float, ...]


class _Library:
    """One load of espeak-ng, used for one utterance.

    espeak keeps state from one utterance to the next (flutter, wave phase, random numbers) and offers no way to
    reset it. With a fresh load, about 4 ms, the speech depends only on its text and voice, not on earlier utterances of
    the process. So two workers make the same corpus as one.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise MissingDependency("synthetic speech", package="espeakng-loader", extra="demo") from error
        self.data = Path(espeakng_loader.get_data_path())
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._blocks: list[np.ndarray] = []
        self._words: list[tuple[int, int]] = []
        self._callback = _Callback(self._receive)  # kept alive: C holds only the pointer
        self.sample_rate = int(self._library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, str(self.data).encode(), 0))
        if self.sample_rate <= 0:
            raise RuntimeError(f"espeak-ng could not read its data in {self.data}")
        # Seeds both sources of breath noise: espeak's own (by default seeded by the clock) and the C library's.
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        ctypes.CDLL(None).srand(1)
        self._library.espeak_SetSynthCallback(self._callback)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.espeak_Terminate()
        _ctypes.dlclose(self._library._handle)

    def _receive(self, wave: object, count: int, events: Sequence[_Event]) -> int:
        if count > 0:
            block = np.ctypeslib.as_array(wave, shape=(count,))
            self._blocks.append(block.copy())
        index = 0
        while events[index].type != _EVENT_LIST_TERMINATED:
            if events[index].type == _EVENT_WORD:
                self._words.append((events[index].text_position, events[index].audio_position))
            index += 1
        return 0

    def select(self, language: str, voice: Voice) -> None:
        name = f"{language}+{voice.variant}"
        if self._library.espeak_SetVoiceByName(name.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {name!r}")
        self._library.espeak_SetParameter(_RATE, voice.rate, 0)
        self._library.espeak_SetParameter(_PITCH, voice.pitch, 0)

    def synthesise(self, text: str) -> Speech:
        encoded = text.encode() + b"\0"
        self._library.espeak_Synth(encoded, len(encoded), 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None)
        if not self._blocks:
            raise RuntimeError(f"espeak-ng produced no audio for {text!r}")
        samples = np.concatenate(self._blocks).astype(np.float32) / 32768.0
        starts = self._starts(text)
        return Speech(samples, self.sample_rate, starts, _ends(samples, self.sample_rate, starts))

    def _starts(self, text: str) -> tuple[float, ...]:
        """Start of each written word: espeak may report a word twice or a part of one."""
        starts: list[float] = []
        position = 1  # espeak counts characters from 1
        for word in text.split():
            begin = text.index(word, position - 1) + 1
            inside = [ms for at, ms in self._words if begin <= at < begin + len(word)]
            previous = starts[-1] if starts else 0.0
            starts.append(max(previous, min(inside) / 1000.0 if inside else previous))
            position = begin + len(word)
        return tuple(starts)

    def phonemes(self, text: str) -> str:
        to_phonemes = self._library.espeak_TextToPhonemes
        to_phonemes.restype = ctypes.c_char_p
        pointer = ctypes.c_char_p(text.encode() + b"\0")
        clauses: list[str] = []
        while pointer.value:
            clause = to_phonemes(ctypes.byref(pointer), _CHARS_UTF8, _IPA)
            clauses.append((clause or b"").decode())
        return " ".join(clauses)


def _ends(samples: np.ndarray, sample_rate: int, starts: Sequence[float]) -> tuple[float, ...]:
    """Where the sound of each word ends: espeak's pauses, which it counts to the word before, are exact silence."""
    heard = np.abs(samples) > _SILENT
    ends = []
    for start, following in itertools.pairwise([*starts, len(samples) / sample_rate]):
        first, last = round(start * sample_rate), round(following * sample_rate)
        sounding = np.flatnonzero(heard[first:last])
        ends.append((first + int(sounding[-1]) + 1) / sample_rate if len(sounding) else following)
    return tuple(ends)


def speak(text: str, language: str, voice: Voice) -> Speech:
    """Speaks `text` (words separated by blanks); `language` is an espeak code such as `he`. Deterministic.

    Raises ValueError if espeak has no such voice, RuntimeError if it produces no audio.
    """
    with _Library() as library:
        library.select(language, voice)
        return library.synthesise(text)


def phonemes(text: str, language: str) -> str:
    """espeak's pronunciation of `text`, in IPA, with `SPELLED` where it names letters instead of reading them."""
    with _Library() as library:
        library.select(language, Voice("m3"))
        return library.phonemes(text)


def variants() -> tuple[str, ...]:
    """Names of the voice variants, sorted."""
    with _Library() as library:
        return tuple(sorted(path.name for path in (library.data / "voices" / "!v").iterdir()))
