"""HTTP server with the transcription endpoint of OpenAI's API, so that existing clients need only another address."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import Future
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, HTTPException, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from caspi import audio
from caspi.errors import CaspiError, UsageError
from caspi.inference.subtitles import FORMATS
from caspi.inference.transcriber import Recording, Transcriber, Transcript
from caspi.language import named
from caspi.serving.shared import SharedTranscriber

MAX_UPLOAD = 512 * 2**20  # bytes
_MAX_FORM_BYTES = 2**20  # bytes of the other fields and separators
_LOOK_SECONDS = 0.25  # between two looks at whether a client is still there


def application(transcriber: Transcriber) -> FastAPI:
    """POST /v1/audio/transcriptions (file, prompt, language, response_format, timestamp_granularities) and GET
    /health. Segments are phrases if their times are requested, otherwise windows. All requests share the engine."""
    shared = SharedTranscriber(transcriber)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        shared.close()

    app = FastAPI(title="caspi", lifespan=lifespan)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.exception_handler(StarletteHTTPException)
    def failed(request: Request, error: StarletteHTTPException) -> JSONResponse:
        return _error(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return _error(400, f"{'.'.join(str(part) for part in first['loc'][1:])}: {first['msg']}")

    app.add_middleware(_LimitSize)

    @app.post("/v1/audio/transcriptions")
    async def transcriptions(
        request: Request,
        file: Annotated[UploadFile, File()],
        prompt: Annotated[str, Form()] = "",
        language: Annotated[str | None, Form()] = None,
        response_format: Annotated[str, Form()] = "json",
        granularities: Annotated[list[str] | None, Form(alias="timestamp_granularities[]")] = None,
        stream: Annotated[bool, Form()] = False,
    ) -> Response:
        if unknown := set(granularities or ()) - {"segment"}:
            raise HTTPException(400, f"timestamp_granularities: {', '.join(sorted(unknown))} is not segment")
        if stream:
            raise HTTPException(400, "stream: not supported; send the request without it")
        if response_format not in _RESPONSES:
            raise HTTPException(400, f"response_format: {response_format!r} is not one of {', '.join(_RESPONSES)}")
        try:
            language_name = named(language) if language else None
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        data = await file.read(MAX_UPLOAD + 1)
        if len(data) > MAX_UPLOAD:
            raise HTTPException(413, f"file: larger than {MAX_UPLOAD >> 20} MiB")
        try:
            samples, notes = await run_in_threadpool(audio.read, data)
        except audio.AudioError as error:
            raise HTTPException(400, f"file: {error}") from error
        recording = Recording(samples, language_name, prompt, times=bool(granularities))
        try:
            transcript = await _finished(request, shared.submit(recording))
        except UsageError as error:
            raise HTTPException(400, str(error)) from error
        except CaspiError as error:
            raise HTTPException(500, str(error)) from error
        return _respond(transcript, response_format, [audio.MEANING[note] for note in notes])

    return app


async def _finished(request: Request, future: Future[Transcript]) -> Transcript:
    """The result of a future, which is cancelled when the client has gone. Raises CaspiError."""
    waiting = asyncio.wrap_future(future)
    try:
        while not (await asyncio.wait({waiting}, timeout=_LOOK_SECONDS))[0]:
            if await request.is_disconnected():
                raise ClientDisconnect
        return waiting.result()
    finally:
        waiting.cancel()  # does nothing if it is done


class _LimitSize:
    """Refuses requests that are too large, before the body is received if a header states its size."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        refusal = _error(413, f"file: larger than {MAX_UPLOAD >> 20} MiB")
        if not declared.isdigit() or int(declared) > MAX_UPLOAD + _MAX_FORM_BYTES:
            await refusal(scope, receive, send)
            return
        received, refused = 0, False

        async def receive_counted() -> Message:
            nonlocal received, refused
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_UPLOAD + _MAX_FORM_BYTES and not refused:
                refused = True
                await refusal(scope, receive, send)
                return {"type": "http.disconnect"}
            return message

        async def send_unless_refused(message: Message) -> None:
            if not refused:
                await send(message)

        try:
            await self._app(scope, receive_counted, send_unless_refused)
        except ClientDisconnect:
            if not refused:
                raise


_RESPONSES = ("json", "verbose_json", "text", "srt", "vtt")


def _error(status: int, message: str) -> JSONResponse:
    """An error in the format that OpenAI's clients read."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": None}}, status)


def _respond(transcript: Transcript, response_format: str, notes: list[str]) -> Response:
    if response_format == "json":
        return JSONResponse({"text": transcript.text})
    if response_format == "verbose_json":
        segments: list[dict[str, Any]] = [
            {"id": number, "start": s.start, "end": s.end, "text": s.text}
            for number, s in enumerate(transcript.segments)
        ]
        return JSONResponse(
            {
                "text": transcript.text,
                "language": transcript.language,
                "duration": transcript.seconds,
                "segments": segments,
                "warnings": [*notes, *transcript.warnings()],
            }
        )
    return PlainTextResponse(FORMATS[{"text": "txt"}.get(response_format, response_format)](transcript, ""))
