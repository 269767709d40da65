"""OpenAI's API, with its own client and real sockets."""

from __future__ import annotations

import functools
import http.client
import io
import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import srt
import webvtt
from hypothesis import given
from hypothesis import strategies as st
from openai.types.audio import TranscriptionSegment, TranscriptionVerbose, TranscriptionWord

from caspi import audio
from caspi.audio import SAMPLE_RATE
from caspi.inference.engine.engine import Engine
from caspi.inference.transcriber import Transcriber, TranscriptionOptions
from caspi.model.loading import LoadedModel
from caspi.serving.access import Limits
from caspi.serving.transcriptions import GrowingText
from tests.conftest import tone
from tests.serving.conftest import Running, running
from tests.support import voice


@pytest.fixture(scope="module")
def client(served: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="none", base_url=f"{served.url}/v1", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def spoken(clips: list[np.ndarray]) -> bytes:
    return audio.encode_flac(clips[0])


def ask(client: openai.OpenAI, content: bytes, **form: Any) -> Any:
    return client.audio.transcriptions.create(model="tiny", file=("a.flac", content), **form)


def asked_for(monkeypatch: pytest.MonkeyPatch) -> list[TranscriptionOptions]:
    """The options of what is transcribed from now on."""
    found: list[TranscriptionOptions] = []
    real = Transcriber.begin

    def begin(self: Transcriber, options: TranscriptionOptions, *rest: Any) -> int:
        found.append(options)
        return real(self, options, *rest)

    monkeypatch.setattr(Transcriber, "begin", begin)
    return found


def test_the_formats_that_are_text(client: openai.OpenAI, spoken: bytes) -> None:
    text = ask(client, spoken, language="es").text
    assert "casa" in text
    assert ask(client, spoken, language="es", response_format="text").strip() == text
    [cue] = srt.parse(ask(client, spoken, language="es", response_format="srt"))
    [other] = webvtt.from_buffer(io.StringIO(ask(client, spoken, language="es", response_format="vtt")))
    assert cue.content == other.text == text


def test_verbose_json_has_every_field_of_the_clients_types(client: openai.OpenAI, spoken: bytes) -> None:
    found = ask(client, spoken, language="es", response_format="verbose_json")
    assert isinstance(found, TranscriptionVerbose)
    assert (found.language, found.duration) == ("spanish", pytest.approx(len(audio.decode(spoken)) / SAMPLE_RATE))
    assert found.segments is not None
    for segment in found.segments:
        TranscriptionSegment.model_validate(segment.model_dump(), strict=True)
    assert " ".join(segment.text for segment in found.segments) == found.text
    assert found.segments[0].tokens


def test_words_with_times(client: openai.OpenAI) -> None:
    """The text is none of Hebrew, but the letters' times are found where the aligner knows them."""
    from caspi.corpus.sources.synthetic import SyntheticSource

    [recording] = SyntheticSource(kind="synthetic", utterances=1, seed=3, only=("m3",)).recordings("Hebrew")
    samples = np.concatenate(list(recording.audio.open()[0].blocks))
    both = {"response_format": "verbose_json", "timestamp_granularities": ["word", "segment"]}
    found = ask(client, audio.encode_flac(samples), language="he", **both)
    assert found.words is not None
    for word in found.words:
        TranscriptionWord.model_validate(word.model_dump(), strict=True)
        assert 0 <= word.start <= word.end <= found.duration
    with pytest.raises(openai.BadRequestError, match="no aligner here finds words of Spanish"):
        ask(client, audio.encode_flac(samples), language="es", **both)


def test_the_log_probabilities_of_the_text(client: openai.OpenAI, spoken: bytes) -> None:
    found = ask(client, spoken, language="es", include=["logprobs"])
    assert found.logprobs is not None
    assert b"".join(bytes(map(int, token.bytes or ())) for token in found.logprobs).decode().strip() == found.text
    assert all(token.logprob <= 0 for token in found.logprobs)


def test_a_stream_of_deltas_is_the_text(client: openai.OpenAI, clips: list[np.ndarray]) -> None:
    gap = np.zeros(3 * SAMPLE_RATE, np.float32)
    long = audio.encode_flac(np.concatenate([part for clip in clips for part in (clip, gap)]))
    events = list(ask(client, long, language="es", stream=True))
    assert [event.type for event in events] == ["transcript.text.delta"] * (len(events) - 1) + ["transcript.text.done"]
    text = ask(client, long, language="es").text
    assert "".join(event.delta for event in events[:-1]) == events[-1].text == text
    assert len(events) > len(clips)


def test_a_stream_of_what_cannot_be_decoded_ends_with_the_reason(served: Running) -> None:
    form = {"stream": "true", "model": "tiny"}
    answer = httpx.post(f"{served.url}/v1/audio/transcriptions", files={"file": b"no audio"}, data=form)
    assert json.loads(answer.text.removeprefix("data: "))["error"]["message"].startswith("corrupt_audio")


@given(st.lists(st.tuples(st.text("ab ", max_size=6), st.booleans()), max_size=8))
def test_what_was_shown_is_never_taken_back(steps: list[tuple[str, bool]]) -> None:
    growing, shown, windows = GrowingText(), "", []
    for text, complete in steps:
        shown += growing.grow(text, complete=complete)
        if complete:
            windows.append(text)
    whole = " ".join(text for text in windows if text)
    if all(complete for _, complete in steps):
        assert shown == whole


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError, match="the model 'other' is not here, but 'tiny'"):
        client.models.retrieve("other")


def test_prompt_language_and_temperature_reach_the_model(
    client: openai.OpenAI, spoken: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asked_for(monkeypatch)
    ask(client, spoken, language="he", prompt="נועה", temperature=0.4)
    ask(client, spoken)
    [first, second] = asked
    assert (first.language, first.context, first.decoding.temperatures) == ("Hebrew", "נועה", (0.4,))
    assert (second.language, second.context, second.decoding.temperatures) == (None, "", (0.0,))


@pytest.mark.parametrize("sound", [np.zeros(60 * SAMPLE_RATE, np.float32), tone(60.0)])
def test_a_minute_without_speech_has_no_text(client: openai.OpenAI, sound: np.ndarray) -> None:
    assert ask(client, audio.encode_flac(sound), language="es").text == ""


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"response_format": "x"}, "response_format: 'x' is not one of json"),
        ({"language": "Klingon"}, "language 'Klingon' is not known"),
        ({"language": "Hebrew<asr_text>"}, "is not known"),
        ({"temperature": 9.0}, "temperature: 9 is not from 0 to 2"),
        ({"timestamp_granularities": ["letter"]}, "letter is not segment or word"),
        ({"include": ["mood"]}, "mood is not logprobs"),
        ({"stream": True, "response_format": "srt"}, "stream: only with response_format json"),
        ({"prompt": "שלום " * 5_000}, "shorten the context"),
    ],
)
def test_a_wrong_request_is_told_why(client: openai.OpenAI, spoken: bytes, form: dict[str, Any], message: str) -> None:
    with pytest.raises(openai.BadRequestError, match=message) as raised:
        ask(client, spoken, **form)
    assert raised.value.type == "invalid_request_error"
    assert ask(client, spoken).text  # and the next request is answered


def test_unknown_paths_and_methods(served: Running) -> None:
    for method, path, status in (("GET", "/v1/nothing", 404), ("GET", "/v1/audio/transcriptions", 405)):
        answer = httpx.request(method, served.url + path)
        assert (answer.status_code, answer.json()["error"]["type"]) == (status, "invalid_request_error")


def test_a_form_without_a_file_is_named(served: Running) -> None:
    answer = httpx.post(f"{served.url}/v1/audio/transcriptions", data={"model": "tiny"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")


def test_200_clients_at_once_get_their_own_text(served: Running, clips: list[np.ndarray]) -> None:
    contents = [audio.encode_flac(clip) for clip in clips]
    limits = httpx.Limits(max_connections=200)
    with openai.OpenAI(
        api_key="x", base_url=f"{served.url}/v1", max_retries=0, http_client=httpx.Client(limits=limits, timeout=120)
    ) as client:
        wanted = [ask(client, content, language="es").text for content in contents]
        with ThreadPoolExecutor(200) as pool:
            found = list(pool.map(lambda n: ask(client, contents[n % 4], language="es").text, range(200)))
    assert found == [wanted[number % 4] for number in range(200)]


def test_a_client_that_leaves_cancels_its_work(
    served: Running, clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[int] = []
    real = Engine.cancel
    monkeypatch.setattr(Engine, "cancel", lambda self, ticket: cancelled.append(ticket) or real(self, ticket))
    long = audio.encode_flac(np.tile(np.concatenate(clips), 300))
    with httpx.Client(base_url=served.url, timeout=60) as client:
        post = functools.partial(client.post, "/v1/audio/transcriptions")
        assert post(files={"file": audio.encode_flac(clips[0])}).json()["text"]
        with pytest.raises(httpx.ReadTimeout):
            post(files={"file": long}, timeout=1.5)
        assert post(files={"file": audio.encode_flac(clips[0])}).json()["text"]
    assert cancelled
    assert not served.transcriber.pending


@pytest.mark.slow
def test_a_short_recording_does_not_wait_for_long_ones(served: Running, clips: list[np.ndarray]) -> None:
    """Many more long ones than there are processes: what was decoded waits on disk, and short uploads come first."""
    long = audio.encode_flac(np.tile(np.concatenate(clips), 80))
    with ThreadPoolExecutor(12) as pool, httpx.Client(base_url=served.url, timeout=300) as client:
        post = lambda content: client.post("/v1/audio/transcriptions", files={"file": content}).json()["text"]  # noqa: E731
        slow = [pool.submit(post, long) for _ in range(10)]
        time.sleep(1.0)
        assert post(audio.encode_flac(clips[0]))
        assert sum(future.done() for future in slow) <= 2
        assert len({future.result() for future in slow}) == 1


def test_recordings_that_are_too_long_or_large(tiny: LoadedModel, clips: list[np.ndarray]) -> None:
    with running(tiny, limits=Limits(upload=2**20, seconds=3.0)) as server:
        path = f"{server.url}/v1/audio/transcriptions"
        answer = httpx.post(path, files={"file": audio.encode_flac(np.concatenate(clips))})
        assert (answer.status_code, "more than 3 s" in answer.json()["error"]["message"]) == (413, True)
        asked = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
        asked.putrequest("POST", "/v1/audio/transcriptions")
        asked.putheader("Content-Length", str(700 * 2**20))
        asked.endheaders()  # and nothing of the body
        refused = asked.getresponse()
        assert (refused.status, b"larger than 1 MiB" in refused.read()) == (413, True)
        asked.close()
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        body = (part for part in (head, *[bytes(2**16)] * 64, b"\r\n--x--\r\n"))
        answer = httpx.post(path, content=body, headers={"content-type": "multipart/form-data; boundary=x"})
        assert answer.status_code == 413
        assert httpx.post(path, files={"file": audio.encode_flac(voice("la casa"))}).status_code == 200


def test_no_upload_is_left_on_disk(
    served: Running, spoken: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for content in (spoken, b"no audio"):
        httpx.post(f"{served.url}/v1/audio/transcriptions", files={"file": content})
    assert not list(tmp_path.iterdir())
