"""GET /v1/live, a WebSocket for live speech (docs/serving.md has the protocol): partial text while somebody speaks, of
which a beginning is stable, and final text at pauses.

The beginning on which two recognitions in a row agree is stable: the next ones are made to begin with it
(local agreement; Liu et al. 2020, arXiv:2005.11185, section 4.2)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import soxr
from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from caspi.audio import SAMPLE_RATE, Seconds
from caspi.errors import CaspiError
from caspi.inference.engine.words import RecognisedWord
from caspi.inference.long_audio import SpeechCutter, Window
from caspi.inference.speech_detection import speech_detector
from caspi.inference.stitching import overlap
from caspi.inference.subtitles import word_as_json
from caspi.inference.transcriber import TranscriptionOptions
from caspi.inference.transcripts import HeardWindow
from caspi.serving.asked_language import asked_language
from caspi.serving.transcriptions import Service

PAUSE: Seconds = 0.7  # ends an utterance
_STEP: Seconds = 0.4  # of new speech before it is recognised again
_IDLE: Seconds = 60.0  # without a message
_MOST_WAITING = 8  # utterances that are not recognised yet: then nothing more is received
_RATES = (8_000, 48_000)


class ProtocolError(Exception):
    """A message that the protocol does not have."""


@dataclass(frozen=True, slots=True)
class Start:
    """The first message of a client. rate: of its samples, in Hz."""

    options: TranscriptionOptions
    rate: int

    @classmethod
    def of(cls, message: str) -> Start:
        """Raises ProtocolError or UsageError."""
        content = _json(message)
        if content.get("type") != "start":
            raise ProtocolError('the first message is {"type": "start", "language": ..., "sample_rate": ...}')
        rate = content.get("sample_rate", SAMPLE_RATE)
        if not isinstance(rate, int) or not _RATES[0] <= rate <= _RATES[1]:
            raise ProtocolError(f"sample_rate: {rate!r} is not a number from {_RATES[0]} to {_RATES[1]}")
        language, context = content.get("language") or None, content.get("context", "")
        if not isinstance(context, str) or not (language is None or isinstance(language, str)):
            raise ProtocolError("language and context are texts")
        return cls(TranscriptionOptions(asked_language(language), context), rate)


async def _first_text(socket: WebSocket) -> str:
    message = await asyncio.wait_for(socket.receive(), _IDLE)
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    return message.get("text") or ""


def _json(message: str) -> dict[str, Any]:
    try:
        content = json.loads(message)
    except ValueError as error:
        raise ProtocolError(f"a text message is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ProtocolError("a text message is not a JSON object")
    return content


def router(service: Service) -> APIRouter:
    """The one path."""
    routes = APIRouter()

    @routes.websocket("/v1/live")
    async def live(socket: WebSocket) -> None:
        await socket.accept()
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # the client has gone, at any moment
            try:
                start = Start.of(await _first_text(socket))
                await socket.send_json({"type": "ready", "model": service.backend.name})
                session = _Session(socket, service, start)
                try:
                    await session.run()
                finally:
                    figures = socket.scope["state"]["call"].figures
                    figures["audio_seconds"] = round(session.recognised, 2)
                    if service.log_transcripts:
                        figures["text"] = " ".join(session.texts)
            except (ProtocolError, CaspiError, TimeoutError) as error:
                message = f"no message for {_IDLE:g} s" if isinstance(error, TimeoutError) else str(error)
                await socket.send_json({"type": "error", "message": message})
            await socket.close()

    return routes


class _Session:
    """One connection: receives in one task and recognises in another."""

    def __init__(self, socket: WebSocket, service: Service, start: Start) -> None:
        self._socket, self._service, self._options = socket, service, start.options
        self._resample = (
            soxr.ResampleStream(start.rate, SAMPLE_RATE, 1, "float32") if start.rate != SAMPLE_RATE else None
        )
        # Full windows only: what was shown of a window must be in it.
        self._cutter = SpeechCutter(speech_detector()(), service.backend.max_window, PAUSE, only_full=True)
        self._ended: deque[Window] = deque()
        self._stopped = False
        self._changed = asyncio.Condition()
        self._received = 0  # samples
        self._utterance = _Utterance()
        self._held: _Final | None = None
        self.recognised = 0.0  # seconds of speech
        self.texts: list[str] = []  # that were final

    async def run(self) -> None:
        recognising = asyncio.create_task(self._recognise())
        receiving = asyncio.create_task(self._receive())
        try:
            await asyncio.wait({recognising, receiving}, return_when=asyncio.FIRST_EXCEPTION)
            for task in (receiving, recognising):
                if task.done():
                    task.result()
        finally:
            for task in (receiving, recognising):
                task.cancel()
            await asyncio.gather(receiving, recognising, return_exceptions=True)

    # --- receiving

    async def _receive(self) -> None:
        while not self._stopped:
            message = await asyncio.wait_for(self._socket.receive(), _IDLE)
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1000))
            if (data := message.get("bytes")) is not None:
                self._hear(data)
            elif _json(message.get("text") or "").get("type") == "stop":
                self._end()
            else:
                raise ProtocolError('after the start come samples, and then {"type": "stop"}')
            async with self._changed:
                self._changed.notify_all()
                await self._changed.wait_for(lambda: len(self._ended) < _MOST_WAITING)

    def _hear(self, data: bytes) -> None:
        if len(data) % 2:
            raise ProtocolError("samples are of 16 bits, so a message has an even number of bytes")
        samples = np.frombuffer(data, "<i2").astype(np.float32) / 32_768
        if self._resample:
            samples = self._resample.resample_chunk(samples)
        self._received += len(samples)
        if self._received / SAMPLE_RATE > self._service.workers.longest:
            raise ProtocolError(f"more than {self._service.workers.longest:g} s: connect again")
        self._ended += self._cutter.add(samples)

    def _end(self) -> None:
        if self._resample:
            self._ended += self._cutter.add(self._resample.resample_chunk(np.zeros(0, np.float32), last=True))
        self._ended += self._cutter.end()
        self._stopped = True

    # --- recognising

    async def _recognise(self) -> None:
        while True:
            async with self._changed:
                await self._changed.wait_for(
                    lambda: self._ended or self._stopped or self._has_more() or self._waits_for_nothing()
                )
                ended = self._ended.popleft() if self._ended else None
                self._changed.notify_all()
            if ended is not None:
                await self._finish(ended)
            elif self._stopped or self._waits_for_nothing():
                await self._send_held()
                if not self._stopped:
                    continue
                await self._socket.send_json({"type": "done", "seconds": self._received / SAMPLE_RATE})
                return
            elif (window := self._cutter.open_region) is not None:
                await self._show(window)

    def _has_more(self) -> bool:
        window = self._cutter.open_region
        return window is not None and window.end >= max(window.start, self._utterance.heard) + _STEP

    def _waits_for_nothing(self) -> bool:
        """Whether a final text waits for the next words, but the speech has ended."""
        return self._held is not None and not self._ended and self._cutter.open_region is None

    async def _show(self, window: Window) -> None:
        """The partial text of what is being said."""
        heard = await self._heard(window)
        self._utterance.heard = window.end
        if heard is None:
            return
        await self._stitch(heard)
        if self._utterance.agree(heard):
            await self._socket.send_json(
                {
                    "type": "partial", "utterance": self._utterance.number, "start": round(window.start, 2),
                    "stable": self._utterance.stable, "text": self._utterance.text,
                }
            )  # fmt: skip

    async def _finish(self, window: Window) -> None:
        """The final text of what was said. One that continues waits for the first words of the next, which shares a
        second with it: its last word may be whole there."""
        heard = await self._heard(window)
        if heard is not None:
            await self._stitch(heard)
        await self._send_held()
        words = self._utterance.final_words(heard)
        if words or self._utterance.text:  # what was shown may have been no speech after all
            spoken = heard.hypothesis.language if heard else None
            self._held = _Final(self._utterance, window, words, spoken)
            if not window.continues:
                await self._send_held()
        self._service.metrics.audio.inc(window.end - window.start)
        self.recognised += window.end - window.start
        heard_until = window.end - window.shared / SAMPLE_RATE
        self._utterance = _Utterance(self._utterance.number + 1, heard=heard_until, shares=window.continues)

    async def _stitch(self, heard: HeardWindow) -> None:
        """Sends the final that waits for these words, and hides those that it has."""
        utterance, held = self._utterance, self._held
        if held is None or not utterance.shares or utterance.stitched:
            return
        if not heard.window.shared:  # the speech that was to follow was none
            await self._send_held()
            return
        words = _words_of(heard)
        before, after = ([word.text for word in some] for some in (held.words, words))
        seconds, shared = held.window.end - held.window.start, heard.window.shared / SAMPLE_RATE
        kept, left_out = overlap(before, after, seconds, shared)
        utterance.stitched, utterance.hidden = True, words[:left_out]
        await self._send_held(max(kept, len(held.utterance.words)))

    async def _send_held(self, kept: int | None = None) -> None:
        """The final that waits, or as many of its words."""
        held, self._held = self._held, None
        if held is None:
            return
        words = held.words[:kept]
        self.texts.append(" ".join(word.text for word in words))
        await self._socket.send_json(
            {
                "type": "final", "utterance": held.utterance.number, "start": round(held.window.start, 2),
                "end": round(held.window.end, 2), "text": " ".join(word.text for word in words),
                "words": [word_as_json(word) for word in words], "language": held.language,
            }
        )  # fmt: skip

    async def _heard(self, window: Window) -> HeardWindow | None:
        """A window with its text, which begins with what is stable. None: nothing is in it."""
        utterance = self._utterance
        options = replace(self._options, language=self._options.language or utterance.language, prefix=utterance.prefix)
        found: list[HeardWindow] = []
        job = self._service.backend.open(options, found.append)
        try:
            job.add(window)
            job.end(window.end - window.start)
            await asyncio.wrap_future(job.future)
        finally:
            job.future.cancel()
        return found[0] if found else None


def _words_of(heard: HeardWindow) -> tuple[RecognisedWord, ...]:
    return tuple(word for segment in heard.segments for word in segment.words)


@dataclass(slots=True)
class _Utterance:
    """What is being said. heard: end of what was recognised, in seconds of the connection. text: that was shown last;
    words: of its beginning that does not change any more. language: that was identified.
    shares: whether it begins with a second that the utterance before it has; hidden: words of that second which the
    other has; stitched: whether they are known."""

    number: int = 0
    heard: Seconds = 0.0
    text: str = ""
    words: tuple[RecognisedWord, ...] = ()
    language: str | None = None
    shares: bool = False
    stitched: bool = False
    hidden: tuple[RecognisedWord, ...] = ()

    @property
    def stable(self) -> str:
        return " ".join(word.text for word in self.words)

    @property
    def prefix(self) -> str:
        """With which the next recognition begins; nothing while the language is not known."""
        return " ".join(word.text for word in (*self.hidden, *self.words)) if self.language else ""

    def agree(self, heard: HeardWindow) -> bool:
        """Takes a new recognition; whether anything changed. The last word may still be growing: it is not stable."""
        words = self.final_words(heard)  # a recognition may have gone on with the last stable word: that stays
        self.language = self.language or heard.hypothesis.language
        before = self.text.split()
        count = 0
        while count < min(len(before), len(words) - 1) and before[count] == words[count].text:
            count += 1
        text = " ".join(word.text for word in words)
        changed = text != self.text or count > len(self.words)
        if count > len(self.words) and self.language:
            self.words = (*self.words, *words[len(self.words) : count])
        self.text = text
        return changed

    def final_words(self, heard: HeardWindow | None) -> tuple[RecognisedWord, ...]:
        """Of the last recognition; those that were stable have the probabilities with which they became it."""
        words = _words_of(heard)[len(self.hidden) :] if heard else ()
        return (*self.words, *words[len(self.words) :])


@dataclass(frozen=True, slots=True)
class _Final:
    """A final text that is not sent yet."""

    utterance: _Utterance
    window: Window
    words: tuple[RecognisedWord, ...]
    language: str | None
