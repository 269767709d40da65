"""caspi transcribe: transcribes files to text and subtitles."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from caspi.commands.outcome import Outcome, language_option
from caspi.errors import UsageError
from caspi.inference.decoding_options import GREEDY, HOTTEST, DecodingOptions
from caspi.progress import Progress
from caspi.reporting.wording import plural

if TYPE_CHECKING:
    from caspi.inference.files import FileRequest, FileResult, Models, NameSpeakers, TimeWords
    from caspi.inference.inputs import AudioInput, Span
    from caspi.inference.transcripts import Transcript

_log = logging.getLogger(__name__)

DEFAULT_ALIGNER = "tiny-aligner"  # knows Hebrew


@dataclass(frozen=True, slots=True)
class TranscribeOptions:
    """Of the command line. formats: names, separated by commas, or `all`. out: None: the text goes to stdout. hotwords:
    a file with a name or term per line. times: of phrases. word_timestamps: also where the formats do not need them.
    clip: `START-END`; rows: None: as many as the device can use."""

    formats: str = "txt"
    out: Path | None = None
    context: str = ""
    hotwords: Path | None = None
    language: str | None = None
    times: bool = False
    word_timestamps: bool = False
    aligner: str | None = None
    clip: str | None = None
    channel: int | None = None
    detect_speech: bool = True
    diarize: bool = False
    rows: int | None = None
    decoding: DecodingOptions = field(default=GREEDY)


def run(model: str, given: Sequence[str], options: TranscribeOptions) -> Outcome:
    """Transcribes recordings; without `out` the text is in the summary. If one fails, the others are still transcribed,
    and the exit code is 1."""
    from caspi.inference import files as stage
    from caspi.inference.diarization import check_diarization
    from caspi.inference.inputs import audio_inputs
    from caspi.inference.speech_detection import speech_detector

    formats = _formats(options.formats)
    if len(formats) > 1 and options.out is None:
        raise UsageError(f"--format {options.formats}: for several formats give --out a folder")
    inputs = audio_inputs(given, _clip(options.clip), options.channel)
    detector = speech_detector(options.detect_speech)
    request = replace(_request(model, formats, options), detector=detector.name)
    if options.diarize:
        check_diarization(inputs)
    outputs = stage.Outputs(request, options.out)
    inputs = outputs.own_names(inputs)
    found = []
    load = functools.partial(_load, request, options.rows)
    with Progress("transcribe", unit="files", total=len(inputs)) as progress:
        for result in stage.transcribe(inputs, request, outputs, load, detector):
            for warning in result.warnings:
                _log.warning(f"{result.input.shown}: {warning}")
            found.append(result)
            progress.advance(1)
    failed = [result for result in found if result.error]
    for result in failed:
        _log.info(f"not transcribed: {result.input.shown}: {result.error}")
    _warn_of_missing_times(model, found)
    summary = {
        "stage": "transcribe", "settings": request.settings(), "files": [result.as_json() for result in found],
        "failed": len(failed),
    }  # fmt: skip
    text = "".join(text for result in found for text in result.outputs.values()) if options.out is None else ""
    return Outcome(_transcribed(found), options.out or Path(), summary, 1 if failed else 0, text=text)


def rows_option(written: str) -> int | None:
    """`--batch-size`. Raises UsageError."""
    if written == "auto":
        return None
    if not written.isdecimal() or not 1 <= int(written) <= _MOST_ROWS:
        raise UsageError(f"--batch-size {written}: give a number from 1 to {_MOST_ROWS:,}, or auto")
    return int(written)


_MOST_ROWS = 4096


def decoding_options(beams: int, loop_guard: bool, previous_text: bool, temperature: str) -> DecodingOptions:
    """Raises UsageError for values that are no temperatures, or a search with random tokens."""
    try:
        temperatures = tuple(float(part) for part in temperature.split(","))
    except ValueError as error:
        raise UsageError(f"--temperature {temperature}: give numbers, such as 0 or 0,0.2,0.4") from error
    if not all(0 <= value <= HOTTEST for value in temperatures):
        raise UsageError(f"--temperature {temperature}: give numbers from 0 to {HOTTEST:g}")
    if temperatures[0] > 0 and beams > 1:
        raise UsageError(f"--temperature {temperature}: random tokens are not searched: give no --beams")
    return DecodingOptions(beams, loop_guard, previous_text, temperatures)


def _formats(written: str) -> tuple[str, ...]:
    from caspi.inference.subtitles import FORMATS

    if written == "all":
        return tuple(FORMATS)
    names = tuple(dict.fromkeys(part.strip().lower() for part in written.split(",")))
    if unknown := [name for name in names if name not in FORMATS]:
        raise UsageError(f"--format {unknown[0]}: not one of {', '.join(FORMATS)}, all")
    return names


def _clip(written: str | None) -> Span:
    """`START-END` in seconds or as H:MM:SS; an empty END is the end of the recording."""
    from caspi.inference.inputs import WHOLE, checked_span

    if written is None:
        return WHOLE
    how = "give START-END in seconds, such as 90-120 or 1:30-2:00"
    if "-" not in written:
        raise UsageError(f"--clip {written}: {how}")
    start, _, until = written.partition("-")
    try:
        return checked_span(_seconds(start or "0"), _seconds(until) if until else None)
    except ValueError as error:
        raise UsageError(f"--clip {written}: {error}; {how}") from error


def _seconds(written: str) -> float:
    seconds = 0.0
    for part in written.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def _hotwords(file: Path) -> str:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--hotwords {file}: {error}") from error
    if not (words := [line.strip() for line in lines if line.strip()]):
        raise UsageError(f"--hotwords {file}: no line: give a name or term per line")
    return ", ".join(words)


def _request(model: str, formats: tuple[str, ...], options: TranscribeOptions) -> FileRequest:
    from caspi.inference.cues import LONGEST
    from caspi.inference.files import FileRequest
    from caspi.inference.transcriber import TranscriptionOptions
    from caspi.model.hotwords import joined

    spoken = None if options.language in (None, "auto") else language_option(options.language)
    hotwords = _hotwords(options.hotwords) if options.hotwords else ""
    asked = TranscriptionOptions(spoken, joined(hotwords, options.context), options.times, options.decoding)
    aligner = _aligner(formats, spoken, options)
    # Without the times of words a cue is a window, which must then be short enough to be read.
    longest = LONGEST if aligner is None and not options.times and _wants_cues(formats) else None
    if longest:
        _log.info(
            f"{spoken}: {DEFAULT_ALIGNER} knows Hebrew only, so cues are windows of {LONGEST:g} s at most, which may "
            "cost accuracy; an aligner of the language (--aligner) gives better ones"
        )
    return FileRequest(model, asked, formats, aligner, diarize=options.diarize, longest=longest)


def _wants_cues(formats: Sequence[str]) -> bool:
    from caspi.inference.subtitles import BETTER_WITH_WORD_TIMES

    return any(name in BETTER_WITH_WORD_TIMES for name in formats)


def _aligner(formats: Sequence[str], spoken: str | None, options: TranscribeOptions) -> str | None:
    from caspi.inference.subtitles import NEED_WORD_TIMES

    if options.aligner:
        return options.aligner
    needed = [name for name in formats if name in NEED_WORD_TIMES]
    better = _wants_cues(formats) and not options.times
    if not (options.word_timestamps or needed or better or options.diarize):
        return None
    if spoken in (None, "Hebrew"):
        return DEFAULT_ALIGNER
    if options.word_timestamps or needed:
        what = f"--format {needed[0]}" if needed else "--word-timestamps"
        raise UsageError(f"{what} in {spoken}: {DEFAULT_ALIGNER} knows Hebrew only: give --aligner one of {spoken}")
    return None


def _load(request: FileRequest, rows: int | None) -> Models:
    import torch

    from caspi.inference.engine.generator import GeneratorOptions
    from caspi.inference.files import Models
    from caspi.inference.transcriber import Transcriber

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    usual = GeneratorOptions.for_device(device)
    transcriber = Transcriber.of(request.model, options=replace(usual, rows=rows) if rows else usual)
    time_words = _time_words(request.aligner, request.options.language) if request.aligner else None
    return Models(transcriber, time_words, _name_speakers() if request.diarize else None)


def _time_words(aligner: str, spoken: str | None) -> TimeWords:
    from caspi.alignment.align import Aligner
    from caspi.alignment.transcripts import with_word_times

    return functools.partial(with_word_times, Aligner.of(aligner), spoken)


def _name_speakers() -> NameSpeakers:
    from caspi.inference.diarization import turn_finder, with_speakers
    from caspi.inference.reading import samples_of

    find = turn_finder()

    def named(taken: AudioInput, transcript: Transcript) -> Transcript:
        return with_speakers(transcript, find(samples_of(taken)), taken.span.start)

    return named


def _warn_of_missing_times(model: str, found: Sequence[FileResult]) -> None:
    said = [result.transcript for result in found if result.transcript is not None]
    if untimed := sum(transcript.untimed for transcript in said):
        _log.warning(
            f"{plural(untimed, 'window')} {'has' if untimed == 1 else 'have'} no phrase times; each is one subtitle "
            f"cue. Was {model} trained with train.timestamps?"
        )
    if unaligned := sum(transcript.unaligned for transcript in said):
        _log.warning(
            f"{plural(unaligned, 'window')} without the times of words, because the aligner does not find them: more "
            "letters than audio, or another language"
        )


def _transcribed(found: Sequence[FileResult]) -> str:
    """The result for all files in one line."""
    said = [result.transcript for result in found if result.transcript is not None]
    seconds = sum(transcript.seconds for transcript in said)
    if len(found) == len(said) == 1 and not said[0].text:
        return f"no speech ({seconds:.1f} s of audio)"
    kept, failed = sum(result.kept for result in found), sum(bool(result.error) for result in found)
    silent = sum(not transcript.text for transcript in said)
    counts = ((silent, "without speech"), (kept, "already transcribed"), (failed, "could not be transcribed"))
    more = "".join(f", {number} {what}" for number, what in counts if number)
    return f"{len(said)} of {plural(len(found), 'file')} transcribed ({seconds:.1f} s of audio){more}"
