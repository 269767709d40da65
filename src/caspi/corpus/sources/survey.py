"""What is in somebody's data: how much, how long, whose, and in which script."""

from __future__ import annotations

import itertools
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from caspi.audio import AudioError, Seconds
from caspi.corpus.sources.base import Source
from caspi.corpus.utterance import BytesAudio, Recording

_OPENED = 200  # audio files, for length and sample rate
_MOST_ROWS = 500_000
_LONG: Seconds = 30.0
_EXAMPLES = 3


@dataclass(slots=True)
class Survey:
    """What is in sources. audio_files: opened ones; hours: all, from their mean length. speakers: utterances of each.
    scripts: letters of the texts. untimed: long recordings whose text has no times. problems: rows that cannot be used,
    with examples."""

    utterances: int = 0
    texts: int = 0
    audio_files: int = 0
    hours: float = 0.0
    longest: Seconds = 0.0
    sample_rates: Counter[int] = field(default_factory=Counter)
    speakers: Counter[str] = field(default_factory=Counter)
    scripts: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    untimed: int = 0
    problems: list[str] = field(default_factory=list)
    bad: int = 0

    @property
    def names_speakers(self) -> bool:
        """Whether utterances share groups: else each is probably its own for lack of a speaker."""
        return 0 < len(self.speakers) < max(2, self.utterances)

    def add_problem(self, problem: str) -> None:
        """Counts a row that cannot be used; the first ones are examples."""
        self.bad += 1
        if len(self.problems) < _EXAMPLES:
            self.problems.append(problem)


def survey(sources: Sequence[Source], language: str) -> Survey:
    """Reads all rows, and opens some of the audio files. Raises UsageError if a file cannot be read."""
    found = Survey()
    seconds: list[Seconds] = []
    files = 0
    for source in sources:
        sampled: list[Recording] = []
        for number, recording in enumerate(itertools.islice(source.recordings(language), _MOST_ROWS)):
            _note(found, recording)
            if recording.problem:
                continue
            files += 1
            if len(sampled) < _OPENED:
                sampled.append(recording)
            elif isinstance(recording.audio, BytesAudio):
                break  # every further row costs its audio
            elif number % 97 == 0:
                sampled[number % _OPENED] = recording
        for recording in sampled:
            _note_audio(found, recording, seconds)
    found.audio_files = len(seconds)
    found.longest = max(seconds, default=0.0)
    found.hours = files * sum(seconds) / max(1, len(seconds)) / 3600
    return found


def _note(found: Survey, recording: Recording) -> None:
    if recording.problem:
        found.add_problem(recording.problem)
        return
    parts = [segment.text for segment in recording.segments] or [recording.text]
    found.utterances += len(parts)
    found.texts += sum(bool(text.strip()) for text in parts)
    found.speakers[recording.group] += len(parts)
    if recording.split:
        found.splits[recording.split] += len(parts)
    if sum(found.scripts.values()) < 100_000:
        found.scripts.update(script for text in parts for letter in text if (script := script_of(letter)))


def _note_audio(found: Survey, recording: Recording, seconds: list[Seconds]) -> None:
    try:
        stream, _ = recording.audio.open()
    except AudioError as error:
        found.add_problem(f"{recording.id}: {error}")
        return
    found.sample_rates[stream.sample_rate] += 1
    if stream.declared is None:
        return
    length = (recording.end or stream.declared) - recording.start
    seconds.append(length)
    found.untimed += not recording.segments and length > _LONG


def script_of(letter: str) -> str:
    """The script of a letter by its Unicode name, such as HEBREW; "" for other characters."""
    return unicodedata.name(letter, "").partition(" ")[0] if letter.isalpha() else ""
