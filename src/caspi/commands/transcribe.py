"""caspi transcribe: transcribes files to text and subtitles."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from caspi.commands.outcome import Outcome, language_option
from caspi.errors import UsageError
from caspi.inference.decoding_options import GREEDY, DecodingOptions
from caspi.progress import Progress
from caspi.reporting.wording import plural

if TYPE_CHECKING:
    from caspi.inference.files import FileResult, TimeWords

_log = logging.getLogger(__name__)


def run(
    model: str,
    files: Sequence[Path],
    format_name: str,
    out: Path | None,
    context: str,
    language_name: str | None,
    *,
    times: bool = False,
    word_times: str | None = None,
    decoding: DecodingOptions = GREEDY,
) -> Outcome:
    """Transcribes files, one output per file; without `out` the text is in the summary. times: of phrases; word_times:
    an aligner. If a file fails, the others are still transcribed, and the exit code is 1."""
    from caspi.inference import files as stage
    from caspi.inference.subtitles import FORMATS, NEED_WORD_TIMES
    from caspi.inference.transcriber import Transcriber

    if format_name not in FORMATS:
        raise UsageError(f"--format {format_name}: not one of {', '.join(FORMATS)}")
    if format_name in NEED_WORD_TIMES and word_times is None:
        raise UsageError(f"--format {format_name} needs the times of words: give --word-times an aligner")
    spoken = language_option(language_name)
    request = stage.FileRequest(model, format_name, context, spoken, times, decoding, word_times)
    timer = functools.partial(_timer, word_times) if word_times else None
    outputs = stage.Outputs(files, request, out)
    found = []
    with Progress("transcribe", unit="files", total=len(files)) as progress:
        for result in stage.transcribe(files, request, outputs, lambda: Transcriber.of(model), timer):
            for warning in result.warnings:
                _log.warning(f"{result.file}: {warning}")
            found.append(result)
            progress.advance(1)
    failed = [result for result in found if result.error]
    for result in failed:
        _log.info(f"not transcribed: {result.file}: {result.error}")
    summary = {"stage": "transcribe", "files": [result.as_json() for result in found], "failed": len(failed)}
    said = [result.transcript for result in found if result.transcript is not None]
    if untimed := sum(transcript.untimed for transcript in said):
        _log.warning(
            f"{plural(untimed, 'window')} {'has' if untimed == 1 else 'have'} no phrase times; each is one subtitle "
            f"cue. Was {model} trained with train.timestamps?"
        )
    if unaligned := sum(transcript.unaligned for transcript in said):
        _log.warning(f"{plural(unaligned, 'window')} with more letters than audio: without the times of words")
    text = "".join(result.output for result in found) if out is None else ""
    return Outcome(_transcribed(found), out or Path(), summary, 1 if failed else 0, text=text)


def _timer(aligner: str) -> TimeWords:
    from caspi.alignment.align import Aligner
    from caspi.alignment.transcripts import with_word_times

    return functools.partial(with_word_times, Aligner.of(aligner))


def _transcribed(found: Sequence[FileResult]) -> str:
    """The result for all files in one line."""
    said = [result.transcript for result in found if result.transcript is not None]
    seconds = sum(transcript.seconds for transcript in said)
    if len(found) == len(said) == 1:
        return f"{said[0].text or 'no speech'} ({seconds:.1f} s of audio)"
    kept, failed = sum(result.kept for result in found), sum(bool(result.error) for result in found)
    more = (f", {kept} were already transcribed" if kept else "") + (
        f", {failed} could not be transcribed" if failed else ""
    )
    return f"{len(said)} of {plural(len(found), 'file')} transcribed ({seconds:.1f} s of audio){more}"
