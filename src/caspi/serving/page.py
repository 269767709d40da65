"""The page at /, and what people correct on it."""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, HTTPException, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from caspi.atomic_output import read_whole_lines, sync_to_disk
from caspi.inference.engine.words import RecognisedWord
from caspi.inference.subtitles import FORMATS
from caspi.inference.transcripts import TimedText, Transcript
from caspi.reporting.wording import plural
from caspi.serving.asked_language import asked_language

_STATIC = files("caspi.serving") / "static"
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_POLICY = "default-src 'self'; media-src 'self' blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
MANIFEST = "manifest.jsonl"


Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # in seconds
Line = Annotated[str, BeforeValidator(lambda text: " ".join(text.split()) if isinstance(text, str) else text)]


class Word(BaseModel):
    """As the transcription has it; without times where they are not known."""

    word: Line
    start: Time | None = None
    end: Time | None = None


class Segment(BaseModel):
    """A part of a text with its times in seconds."""

    start: Time
    end: Time
    text: Line
    words: list[Word] = []

    @model_validator(mode="after")
    def _in_order(self) -> Segment:
        if self.end < self.start:
            raise ValueError("end is before start")
        return self


class Subtitles(BaseModel):
    """A text that was edited, to be written as subtitles."""

    format: Literal["srt", "vtt"]
    language: str | None = None
    duration: Time
    segments: list[Segment]


_SEGMENTS = TypeAdapter(list[Segment])


def router(corrections: Path | None) -> APIRouter:
    """The files of the page, and POST /v1/corrections if there is a folder for them."""
    routes = APIRouter()

    @routes.get("/")
    async def index() -> Response:
        return _static("index.html")

    @routes.get("/static/{name}")
    async def static(name: str) -> Response:
        return _static(name)

    @routes.get("/v1/corrections")
    async def allowed() -> dict[str, bool]:
        return {"enabled": corrections is not None}

    @routes.post("/v1/subtitles")
    async def subtitles(asked: Subtitles) -> PlainTextResponse:
        return PlainTextResponse(await run_in_threadpool(_subtitles, asked))

    @routes.post("/v1/corrections")
    async def save(
        file: Annotated[UploadFile, File()],
        text: Annotated[str, Form()],
        language: Annotated[str, Form()] = "Hebrew",
        recognised: Annotated[str, Form()] = "",
        segments: Annotated[str, Form()] = "",
    ) -> JSONResponse:
        if corrections is None:
            raise HTTPException(404, "corrections are not kept here: start caspi serve with --corrections FOLDER")
        if not text.strip():
            raise HTTPException(400, "text: it is empty")
        if (spoken := asked_language(language)) is None:
            raise HTTPException(400, "language: name it, so that the text can be trained on")
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
        end = re.sub(r"[^a-z0-9]", "", (file.filename or "").rpartition(".")[2].lower())[:5] or "audio"
        line: dict[str, Any] = {"audio": f"{name}.{end}", "language": spoken, "recognised": recognised}
        line |= {"source": "corrections"} | _content(text, segments)
        count = await run_in_threadpool(_save, corrections, name, file, line)
        return JSONResponse({"saved": count, "message": f"{plural(count, 'correction')} in {MANIFEST}"}, 201)

    return routes


def _subtitles(asked: Subtitles) -> str:
    segments = tuple(
        TimedText(
            part.start, part.end, part.text, tuple(RecognisedWord(w.word, None, w.start, w.end) for w in part.words)
        )
        for part in asked.segments
    )
    text = " ".join(segment.text for segment in segments)
    spoken = asked_language(asked.language)
    return FORMATS[asked.format](Transcript(text, segments, spoken, asked.duration, truncated=0), "")


def _content(text: str, segments: str) -> dict[str, Any]:
    """For the manifest: the text, or the parts of a long recording with their times. Raises HTTPException."""
    if not segments:
        return {"text": " ".join(text.split())}
    try:
        parts = _SEGMENTS.validate_json(segments)
    except ValidationError as error:
        raise HTTPException(400, f"segments: {error.errors()[0]['msg']}") from error
    return {"segments": [part.model_dump(include={"start", "end", "text"}) for part in parts if part.text]}


def _static(name: str) -> Response:
    source = _STATIC / name
    if not re.fullmatch(r"[a-z]+\.[a-z]+", name) or not source.is_file():
        raise HTTPException(404, "Not Found")
    kind = _KINDS[name.rpartition(".")[2]]
    headers = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
    return Response(source.read_bytes(), media_type=f"{kind}; charset=utf-8", headers=headers)


def _save(folder: Path, name: str, file: UploadFile, line: dict[str, Any]) -> int:
    """Writes the audio beside the manifest, then its line; returns the number of lines."""
    audio = folder / str(line["audio"])
    partial = audio.with_name(f".{audio.name}.partial")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("wb") as out:
            while block := file.file.read(1 << 20):
                out.write(block)
        sync_to_disk(partial)
        partial.replace(audio)
        manifest = folder / MANIFEST
        with _one_writer:
            before = len(read_whole_lines(manifest))
            with manifest.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({**line, "id": name}, ensure_ascii=False) + "\n")
            sync_to_disk(manifest)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    return before + 1


_one_writer = threading.Lock()  # of the manifest
