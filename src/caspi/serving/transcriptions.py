"""POST /v1/audio/transcriptions and GET /v1/models, as OpenAI's API has them."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, HTTPException, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect

from caspi.inference.decoding_options import GREEDY, HOTTEST, DecodingOptions
from caspi.inference.files import TimeWords
from caspi.inference.reading import Ended
from caspi.inference.subtitles import FORMATS, segment_as_json
from caspi.inference.transcriber import TranscriptionOptions
from caspi.inference.transcripts import HeardWindow, Transcript, with_timed_windows
from caspi.serving.asked_language import asked_language
from caspi.serving.decoding_workers import DecodingWorkers
from caspi.serving.metrics import Metrics
from caspi.serving.shared import Backend, Job

RESPONSE_FORMATS = ("json", "verbose_json", "text", "srt", "vtt")
_SUBTITLES = ("srt", "vtt")
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Service:
    """What requests are answered with. decoding: of requests that name no temperature. time_words: finds the times of
    words, in a language or the identified one."""

    backend: Backend
    workers: DecodingWorkers
    feeders: ThreadPoolExecutor
    metrics: Metrics
    time_words: Callable[[str | None], TimeWords] | None = None
    log_transcripts: bool = False
    decoding: DecodingOptions = GREEDY


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked request. details: what verbose_json has, with the last event of a stream."""

    options: TranscriptionOptions
    response_format: str
    granularities: frozenset[str] = frozenset()
    log_probabilities: bool = False
    detect_speech: bool = True
    details: bool = False

    @property
    def needs_word_times(self) -> bool:
        return "word" in self.granularities or self.response_format in _SUBTITLES


@dataclass(slots=True)
class Heard:
    """What a job has heard so far."""

    windows: list[HeardWindow] = field(default_factory=list)
    notes: tuple[str, ...] = ()


def router(service: Service) -> APIRouter:
    """The two paths."""
    routes = APIRouter()

    @routes.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [await model(service.backend.name)]}

    @routes.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        if name != service.backend.name:
            raise HTTPException(404, f"the model {name!r} is not here, but {service.backend.name!r}")
        return {"id": name, "object": "model", "created": 0, "owned_by": "caspi"}

    @routes.post("/v1/audio/transcriptions")
    async def transcriptions(
        request: Request,
        file: Annotated[UploadFile, File()],
        prompt: Annotated[str, Form()] = "",
        language: Annotated[str | None, Form()] = None,
        response_format: Annotated[str, Form()] = "json",
        temperature: Annotated[float | None, Form()] = None,
        granularities: Annotated[list[str] | None, Form(alias="timestamp_granularities[]")] = None,
        include: Annotated[list[str] | None, Form(alias="include[]")] = None,
        stream: Annotated[bool, Form()] = False,
        details: Annotated[bool, Form()] = False,
        vad: Annotated[bool, Form()] = True,
    ) -> Response:
        asked = _checked(
            service, prompt, language, response_format, temperature, granularities or (), include or (), vad=vad
        )
        if stream and response_format != "json":
            raise HTTPException(400, f"stream: only with response_format json, not {response_format}")
        upload = await run_in_threadpool(_stored, file)
        if stream:
            events = _events(request, service, replace(asked, details=details), upload)
            return StreamingResponse(events, media_type="text/event-stream")
        with upload:
            heard, transcript = await _transcribed(request, service, asked, upload.path)
        _note(request, service, transcript)
        return await run_in_threadpool(_response, service, asked, heard, transcript)

    return routes


def _checked(
    service: Service,
    prompt: str,
    language: str | None,
    response_format: str,
    temperature: float | None,
    granularities: Sequence[str],
    include: Sequence[str],
    *,
    vad: bool,
) -> Asked:
    """Raises HTTPException or UsageError for what cannot be done."""
    if unknown := set(granularities) - {"segment", "word"}:
        raise HTTPException(400, f"timestamp_granularities: {', '.join(sorted(unknown))} is not segment or word")
    if unknown := set(include) - {"logprobs"}:
        raise HTTPException(400, f"include: {', '.join(sorted(unknown))} is not logprobs")
    if response_format not in RESPONSE_FORMATS:
        raise HTTPException(400, f"response_format: {response_format!r} is not one of {', '.join(RESPONSE_FORMATS)}")
    if include and response_format != "json":
        raise HTTPException(400, "include: logprobs only with response_format json")
    if include and not service.backend.knows_tokens:
        raise HTTPException(400, "include: vLLM's answers have no log-probabilities of the text alone")
    if granularities and response_format != "verbose_json":
        raise HTTPException(400, "timestamp_granularities: only with response_format verbose_json")
    if temperature is not None and not 0 <= temperature <= HOTTEST:
        raise HTTPException(400, f"temperature: {temperature:g} is not from 0 to {HOTTEST:g}")
    spoken = asked_language(language)
    if "word" in granularities and (service.time_words is None or spoken not in (None, "Hebrew")):
        raise HTTPException(400, f"timestamp_granularities: no aligner here finds words of {spoken or 'any language'}")
    decoding = service.decoding if temperature is None else DecodingOptions(temperatures=(temperature,))
    options = TranscriptionOptions(spoken, prompt, decoding=decoding)
    return Asked(options, response_format, frozenset(granularities), bool(include), vad)


class _Upload:
    """The file of a request, on disk until it is left."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> _Upload:
        return self

    def __exit__(self, *_: object) -> None:
        self.path.unlink(missing_ok=True)


def _stored(file: UploadFile) -> _Upload:
    """Raises OSError where the disk is full, without leaving anything."""
    handle, name = tempfile.mkstemp(prefix="caspi-upload-")
    path = Path(name)
    try:
        with os.fdopen(handle, "wb") as out:
            while block := file.file.read(_COPY_BYTES):
                out.write(block)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return _Upload(path)


async def _transcribed(request: Request, service: Service, asked: Asked, path: Path) -> tuple[Heard, Transcript]:
    """Raises CaspiError, or ClientDisconnect when the client has gone."""
    heard = Heard()
    job = service.backend.open(asked.options, heard.windows.append)
    feeding = asyncio.get_running_loop().run_in_executor(service.feeders, _feed, service, asked, path, job, heard)
    both = asyncio.gather(feeding, asyncio.wrap_future(job.future))
    both.add_done_callback(lambda done: done.cancelled() or done.exception())  # also where nobody waits any more
    leaving = asyncio.ensure_future(_leaving(request))
    either: set[asyncio.Future[Any]] = {both, leaving}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not both.done():
            raise ClientDisconnect
        _, transcript = both.result()
    finally:
        leaving.cancel()
        job.future.cancel()  # does nothing if it is done
        both.cancel()
    return heard, transcript


async def _leaving(request: Request) -> None:
    """Ends when the client leaves; its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _feed(service: Service, asked: Asked, path: Path, job: Job, heard: Heard) -> None:
    """Gives a job the windows of a file. Raises AudioError."""
    if job.future.done():
        return
    pieces = service.workers.pieces(path, detect_speech=asked.detect_speech)
    try:
        for piece in pieces:
            if isinstance(piece, Ended):
                heard.notes = piece.notes
                job.end(piece.seconds)
            elif not job.add(piece):
                return
    finally:
        pieces.close()


def _note(request: Request, service: Service, transcript: Transcript) -> None:
    """For metrics and log."""
    service.metrics.audio.inc(transcript.seconds)
    service.metrics.windows.inc(len(transcript.segments))
    figures = request.scope["state"]["call"].figures
    figures["audio_seconds"] = round(transcript.seconds, 2)
    if service.log_transcripts:
        figures["text"] = transcript.text


def _response(service: Service, asked: Asked, heard: Heard, transcript: Transcript) -> Response:
    if asked.needs_word_times:
        transcript = _with_word_times(service, asked, heard, transcript)
    if asked.response_format == "json":
        content: dict[str, Any] = {"text": transcript.text}
        if asked.log_probabilities:
            content["logprobs"] = _log_probabilities(service, heard)
        return JSONResponse(content)
    if asked.response_format == "verbose_json":
        return JSONResponse(_verbose(asked, heard, transcript))
    written = FORMATS[{"text": "txt"}.get(asked.response_format, asked.response_format)](transcript, "")
    return PlainTextResponse(written)


def _with_word_times(service: Service, asked: Asked, heard: Heard, transcript: Transcript) -> Transcript:
    """As it is, where no aligner was loaded."""
    if service.time_words is None:
        return transcript
    return with_timed_windows(transcript, service.time_words(asked.options.language)(heard.windows))


def _verbose(asked: Asked, heard: Heard, transcript: Transcript) -> dict[str, Any]:
    segments = [segment_as_json(number, segment) for number, segment in enumerate(transcript.segments)]
    words = [word for segment in segments for word in segment["words"]]
    content = {
        "task": "transcribe", "language": (transcript.language or "").lower(), "duration": transcript.seconds,
        "text": transcript.text, "segments": segments, "warnings": [*heard.notes, *transcript.warnings()],
    }  # fmt: skip
    if "word" in asked.granularities:
        content["words"] = [word for word in words if "start" in word]
    return content


def _log_probabilities(service: Service, heard: Heard) -> list[dict[str, Any]]:
    """Of the tokens that write the text. A token may be a part of a character: `bytes` are exact."""
    return [
        {"token": written.decode("utf-8", "replace"), "logprob": log_probability, "bytes": list(written)}
        for window in heard.windows
        for written, log_probability in service.backend.written_tokens(window.hypothesis)
    ]


async def _events(request: Request, service: Service, asked: Asked, upload: _Upload) -> AsyncIterator[str]:
    """Server-sent events: what is added to the text, then the whole of it. Leaving ends the work."""
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

    def put(kind: str, content: Any) -> None:
        loop.call_soon_threadsafe(events.put_nowait, (kind, content))

    heard = Heard()

    def on_window(window: HeardWindow) -> None:
        heard.windows.append(window)
        put("window", " ".join(segment.text for segment in window.segments))

    job = service.backend.open(asked.options, on_window, lambda text: put("partial", text))
    job.future.add_done_callback(lambda future: put("done", future))
    feeding = loop.run_in_executor(service.feeders, _feed, service, asked, upload.path, job, heard)
    feeding.add_done_callback(lambda done: events.put_nowait(("fed", done)))
    shown = GrowingText()
    try:
        with upload:
            while True:
                kind, content = await events.get()
                if kind in ("partial", "window"):
                    if delta := shown.grow(content, complete=kind == "window"):
                        yield _event("transcript.text.delta", delta=delta)
                elif (error := content.exception()) is not None:
                    request.scope["state"]["call"].figures["error"] = str(error)
                    yield _event("error", error={"message": str(error), "type": "invalid_request_error"})
                    return
                elif kind == "done":
                    transcript: Transcript = content.result()
                    _note(request, service, transcript)
                    more: dict[str, Any] = {}
                    if asked.log_probabilities:
                        more["logprobs"] = _log_probabilities(service, heard)
                    if asked.details:
                        timed = await run_in_threadpool(_with_word_times, service, asked, heard, transcript)
                        more["details"] = _verbose(asked, heard, timed)
                    yield _event("transcript.text.done", text=transcript.text, **more)
                    return
    finally:
        if job.future.cancel():
            service.metrics.cancelled.inc()


def _event(kind: str, **content: Any) -> str:
    return f"data: {json.dumps({'type': kind, **content}, ensure_ascii=False)}\n\n"


class GrowingText:
    """The text of windows as it grows: what was shown is never taken back. A window that is decoded anew may begin
    otherwise; then nothing more of it is shown until the end."""

    def __init__(self) -> None:
        self._before, self._shown = "", ""

    def grow(self, text: str, *, complete: bool) -> str:
        """What to add for the beginning of a window's text, or for all of it."""
        whole = " ".join(part for part in (self._before, text) if part)
        if complete:
            self._before = whole
        if not whole.startswith(self._shown):
            return ""
        added, self._shown = whole[len(self._shown) :], whole
        return added
