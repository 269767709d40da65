"""The HTTP server: OpenAI's transcription API, live speech, a page to try it, health and metrics."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from caspi.audio import AudioError
from caspi.errors import CaspiError, UsageError
from caspi.inference.decoding_options import GREEDY, DecodingOptions
from caspi.inference.files import TimeWords
from caspi.serving import live, page, transcriptions
from caspi.serving.access import Gate, Keys, Limits
from caspi.serving.admission import Admission, error_response
from caspi.serving.decoding_workers import DecodingLimits, DecodingWorkers
from caspi.serving.metrics import Metrics
from caspi.serving.shared import Backend
from caspi.serving.transcriptions import Service


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """workers: processes that decode uploads. corrections: a folder for what people correct on the page; None:
    they cannot. origins: of pages of others that may use the server (CORS). hosts: names by which it may be called;
    None: any."""

    keys: Keys = field(default_factory=lambda: Keys({}))
    limits: Limits = field(default_factory=Limits)
    workers: int = field(default_factory=lambda: max(2, min(8, os.cpu_count() or 1)))
    time_words: Callable[[str | None], TimeWords] | None = None
    corrections: Path | None = None
    origins: tuple[str, ...] = ()
    hosts: frozenset[str] | None = None
    log_transcripts: bool = False
    decoding: DecodingOptions = GREEDY


def application(backend: Backend, options: ServerOptions | None = None) -> FastAPI:
    """The application; it closes the backend when it ends."""
    options = options or ServerOptions()
    gate = Gate(options.limits)
    metrics = Metrics(lambda: gate.open)
    workers = DecodingWorkers(options.workers, backend.max_window, DecodingLimits(longest=options.limits.seconds))
    feeders = ThreadPoolExecutor(options.limits.requests, "feeder")  # they wait for a process, and for the disk
    service = Service(backend, workers, feeders, metrics, options.time_words, options.log_transcripts, options.decoding)
    draining = False

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        nonlocal draining
        yield
        draining = True
        backend.close()
        workers.close()
        feeders.shutdown(cancel_futures=True)

    app = FastAPI(title="caspi", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        free = not draining and gate.open < options.limits.requests
        return JSONResponse({"status": "ready" if free else "busy", "model": backend.name}, 200 if free else 503)

    @app.get("/metrics")
    async def figures() -> PlainTextResponse:
        return PlainTextResponse(metrics.as_text().decode())

    app.include_router(transcriptions.router(service))
    app.include_router(live.router(service))
    app.include_router(page.router(options.corrections))
    _answer_errors(app)
    app.add_middleware(
        Admission, keys=options.keys, limits=options.limits, gate=gate, metrics=metrics, origins=options.origins,
        hosts=options.hosts,
    )  # fmt: skip
    if options.origins:
        app.add_middleware(CORSMiddleware, allow_origins=options.origins, allow_methods=["*"], allow_headers=["*"])
    return app


def _answer_errors(app: FastAPI) -> None:
    """In OpenAI's format."""

    @app.exception_handler(StarletteHTTPException)
    def failed(request: Request, error: StarletteHTTPException) -> JSONResponse:
        if isinstance(error.__cause__, OSError):  # while the body was stored
            return no_room(request, error.__cause__)
        return error_response(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return error_response(400, f"{where}: {first['msg']}", param=where)

    @app.exception_handler(CaspiError)
    def not_done(request: Request, error: CaspiError) -> JSONResponse:
        if isinstance(error, AudioError):
            return error_response(413 if error.reason == "too_long" else 400, f"file: {error}", param="file")
        return error_response(400 if isinstance(error, UsageError) else 500, str(error))

    @app.exception_handler(Exception)
    def broken(request: Request, error: Exception) -> JSONResponse:
        return error_response(500, "the server failed; its log says why")

    @app.exception_handler(OSError)
    def no_room(request: Request, error: OSError) -> JSONResponse:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return error_response(507 if full else 500, "the server's disk is full" if full else "the server failed")
