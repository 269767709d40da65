"""HTTP: the transcription endpoint of OpenAI's API, so that existing clients work by changing their address."""

from __future__ import annotations

import threading
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, HTTPException, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from caspi import audio
from caspi.inference.subtitles import FORMATS
from caspi.inference.transcriber import Transcriber, Transcript

MAX_UPLOAD = 512 * 2**20  # bytes


def application(transcriber: Transcriber) -> FastAPI:
    """POST /v1/audio/transcriptions (file, prompt, language, response_format, timestamp_granularities) and GET
    /health. Segments are phrases where their times are asked for, and windows elsewhere."""
    app = FastAPI(title="caspi")
    one_at_a_time = threading.Lock()  # one model, one device: requests queue here

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/audio/transcriptions")
    def transcriptions(
        file: Annotated[UploadFile, File()],
        prompt: Annotated[str, Form()] = "",
        language: Annotated[str | None, Form()] = None,
        response_format: Annotated[str, Form()] = "json",
        granularities: Annotated[list[str] | None, Form(alias="timestamp_granularities[]")] = None,
    ) -> Response:
        if unknown := set(granularities or ()) - {"segment"}:
            raise HTTPException(422, f"timestamp_granularities: {', '.join(sorted(unknown))} is not segment")
        data = file.file.read(MAX_UPLOAD + 1)
        if len(data) > MAX_UPLOAD:
            raise HTTPException(413, f"file: larger than {MAX_UPLOAD >> 20} MiB")
        try:
            samples = audio.decode(data)
        except audio.AudioError as error:
            raise HTTPException(422, f"file: {error}") from error
        with one_at_a_time:
            transcript = transcriber.transcribe(
                [samples], contexts=[prompt], languages=[language], times=bool(granularities)
            )[0]
        return _respond(transcript, response_format)

    return app


def _respond(transcript: Transcript, response_format: str) -> Response:
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
            }
        )
    name = {"text": "txt"}.get(response_format, response_format)
    if name not in ("txt", "srt", "vtt"):
        raise HTTPException(422, f"response_format: {response_format!r} is not json, verbose_json, text, srt or vtt")
    return PlainTextResponse(FORMATS[name](transcript))
