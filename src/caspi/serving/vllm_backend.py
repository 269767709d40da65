"""A vLLM server of the user's as the backend: our windows, and the prompt that the model was trained on.

vLLM's own /v1/audio/transcriptions drops the system turn where there is no context; /v1/chat/completions with an
explicit empty system message has it."""

from __future__ import annotations

import base64
import io
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import soundfile

from caspi.audio import SAMPLE_RATE, Seconds
from caspi.errors import CaspiError, UsageError
from caspi.inference.engine.requests import Hypothesis
from caspi.inference.engine.words import RecognisedWord
from caspi.inference.long_audio import MAX_WINDOW, Window
from caspi.inference.stitching import HeardInOrder
from caspi.inference.transcriber import TranscriptionOptions, is_silent
from caspi.inference.transcripts import HeardWindow, TimedText, joined_transcript
from caspi.language.codes import NO_SPEECH
from caspi.model.prompt import ASR_TEXT
from caspi.serving.shared import Job, OnPartial, OnWindow

_AT_ONCE = 128  # requests to vLLM
_ANSWER_SECONDS = 120.0
_PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class _Answer:
    """What vLLM made of a window of a job."""

    number: int
    content: HeardWindow | CaspiError


@dataclass(slots=True)
class _Open:
    """A job's windows. told: those that the job was given. seconds: of the recording, known after its last window."""

    order: HeardInOrder = field(default_factory=HeardInOrder)
    told: list[HeardWindow] = field(default_factory=list)
    seconds: Seconds | None = None


_Message = Window | Seconds | _Answer | None


class VllmBackend:
    """As SharedTranscriber, but vLLM recognises. It gives no probabilities of words, and no text before the end of a
    window. Many threads ask vLLM; one thread has the jobs."""

    knows_tokens = False

    def __init__(
        self, url: str, model: str, key: str | None = None, transport: httpx.BaseTransport | None = None
    ) -> None:
        """Raises UsageError if there is no vLLM with this model."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.name, self.max_window = model, MAX_WINDOW
        self._client = httpx.Client(base_url=url, headers=headers, timeout=_ANSWER_SECONDS, transport=transport)
        try:
            known = [one["id"] for one in self._client.get("/v1/models").raise_for_status().json()["data"]]
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise UsageError(f"--vllm-url {url}: no vLLM answers there: {error}") from error
        if model not in known:
            raise UsageError(f"--vllm-url {url}: it has {', '.join(known)}, not {model}")
        self._pool = ThreadPoolExecutor(_AT_ONCE, "vllm")
        self._inbox: queue.Queue[tuple[Job, _Message] | None] = queue.Queue()
        self._open: dict[Job, _Open] = {}
        self._thread = threading.Thread(target=self._run, name="vllm jobs", daemon=True)
        self._thread.start()

    def open(
        self, options: TranscriptionOptions, on_window: OnWindow | None = None, on_partial: OnPartial | None = None
    ) -> Job:
        return Job(lambda job, message: self._inbox.put((job, message)), options, on_window, on_partial)

    def written_tokens(self, hypothesis: Hypothesis) -> list[tuple[bytes, float]]:
        return []

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._inbox.put(None)
        self._thread.join()
        self._client.close()

    def _run(self) -> None:
        while (message := self._inbox.get()) is not None:
            self._take(*message)

    def _take(self, job: Job, content: _Message) -> None:
        if content is None:
            self._open[job] = _Open()
        elif (opened := self._open.get(job)) is None:
            return  # it failed or was cancelled a moment ago
        elif job.future.cancelled():
            del self._open[job]
        elif isinstance(content, Window):
            self._pool.submit(self._recognise, job, opened.order.expect(), content)
        elif not isinstance(content, _Answer):
            opened.seconds = content
            opened.order.end()
            self._tell(job, opened)
        elif isinstance(heard := content.content, HeardWindow):
            opened.order.put(content.number, heard)
            self._tell(job, opened)
        else:
            del self._open[job]
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(heard)

    def _tell(self, job: Job, opened: _Open) -> None:
        """Gives a job the windows that are next, and its transcript after the last."""
        for heard in opened.order.take():
            opened.told.append(heard)
            job.heard(heard)
        if opened.seconds is None or len(opened.told) < opened.order.expected:
            return
        del self._open[job]
        if job.future.set_running_or_notify_cancel():
            job.future.set_result(joined_transcript(opened.told, opened.seconds, job.options.language))

    def _recognise(self, job: Job, number: int, window: Window) -> None:
        if job.future.cancelled():
            return
        try:
            text, language = ("", None) if is_silent(window.samples) else self._ask(job.options, window)
        except CaspiError as error:
            self._inbox.put((job, _Answer(number, error)))
            return
        words = tuple(RecognisedWord(word, None) for word in text.split())
        segments = (TimedText(window.start, window.end, text, words, speech=window.speech),) if text else ()
        heard = HeardWindow(0, window, Hypothesis(text, language, truncated=False), segments, untimed=False)
        self._inbox.put((job, _Answer(number, heard)))

    def _ask(self, options: TranscriptionOptions, window: Window) -> tuple[str, str | None]:
        """Raises CaspiError."""
        wav = io.BytesIO()
        soundfile.write(wav, window.samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
        sound = {"data": base64.b64encode(wav.getvalue()).decode(), "format": "wav"}
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": options.context},
            {"role": "user", "content": [{"type": "input_audio", "input_audio": sound}]},
        ]
        start = ""
        more: dict[str, Any] = {}
        if options.language:
            start = f"language {options.language}{ASR_TEXT}{options.prefix}"
            messages.append({"role": "assistant", "content": start})
            more = {"continue_final_message": True, "add_generation_prompt": False}
        body = {
            "model": self.name, "messages": messages, "temperature": options.decoding.temperatures[0],
            "skip_special_tokens": False, **more,
        }  # fmt: skip
        try:
            answer = self._client.post(_PATH, json=body)
            answer.raise_for_status()
            written = str(answer.json()["choices"][0]["message"]["content"] or "")
        except httpx.HTTPStatusError as error:
            raise CaspiError(f"vLLM answered {error.response.status_code}: {error.response.text[:200]}") from error
        except (httpx.HTTPError, ValueError, LookupError) as error:
            raise CaspiError(f"vLLM did not answer: {error}") from error
        return _parsed(written if written.startswith("language ") else start + written)


def _parsed(written: str) -> tuple[str, str | None]:
    language, marker, text = written.partition(ASR_TEXT)
    name = language.removeprefix("language ").strip() if marker else ""
    spoken = name if name not in ("", NO_SPEECH) else None
    return (text if marker else written).replace("<|im_end|>", "").strip(), spoken
