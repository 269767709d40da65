"""The page in a real browser, with a WAV file as its microphone."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
import srt
import webvtt

from caspi import audio, commands, recipe
from caspi.alignment.align import Aligner
from caspi.alignment.transcripts import with_word_times
from caspi.audio import SAMPLE_RATE
from caspi.corpus.sources.synthetic import SyntheticSource
from caspi.corpus.store import Corpus
from caspi.model.loading import LoadedModel
from caspi.serving.access import Keys, new_key
from tests.serving.conftest import Running, running
from tests.support import CHROMIUM

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium, or playwright is not installed (extra dev)")
HEBREW = "הילד אכל תפוח, ואחר כך הלך הביתה."


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hebrew sentences with pauses, at the rate of a sound card; a browser plays the file again and again."""
    source = SyntheticSource(kind="synthetic", utterances=2, seed=3, only=("m3",))
    pause = np.zeros(int(1.2 * SAMPLE_RATE), np.float32)
    parts = [pause]
    for recording in source.recordings("Hebrew"):
        parts += [np.concatenate(list(recording.audio.open()[0].blocks)), pause]
    path = tmp_path_factory.mktemp("sound") / "sound.wav"
    samples = np.concatenate(parts)
    soundfile.write(path, np.interp(np.arange(0, len(samples), 1 / 3), np.arange(len(samples)), samples), 48_000)
    return path


@pytest.fixture(scope="module")
def corrections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corrections") / "folder"


@pytest.fixture(scope="module")
def server(tiny: LoadedModel, corrections: Path) -> Iterator[Running]:
    aligner = Aligner.of("tiny-aligner", "cpu")
    find = lambda spoken: functools.partial(with_word_times, aligner, spoken)  # noqa: E731
    with running(tiny, time_words=find, corrections=corrections) as made:
        yield made


@pytest.fixture(scope="module")
def browser(sound: Path) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    flags = [
        "--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={sound}", "--autoplay-policy=no-user-gesture-required",
    ]  # fmt: skip
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield made
        made.close()


@pytest.fixture
def page(browser: Any, server: Running) -> Iterator[Any]:
    """The page in Hebrew; the test fails if anything on it fails."""
    context = browser.new_context(locale="he-IL", permissions=["microphone"], accept_downloads=True)
    made = context.new_page()
    problems: list[str] = []
    made.on("pageerror", lambda error: problems.append(str(error)))
    made.goto(server.url)
    until(made, "document.getElementById('model').textContent !== ''")
    yield made
    context.close()
    assert not problems


def until(page: Any, condition: str, timeout: float = 30_000) -> None:
    """Waits; the page's own rules forbid Playwright's `wait_for_function`."""
    deadline = time.monotonic() + timeout / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, f"{condition}: {page.locator('#status').inner_text()}"
        time.sleep(0.05)


def words(page: Any) -> list[str]:
    return [text.strip() for text in page.locator(".word[data-start]").all_inner_texts()]


def upload(page: Any, path: Path) -> None:
    page.set_input_files("#file", path)
    until(page, "!document.getElementById('txt').disabled", timeout=30_000)


def test_a_file_becomes_words_with_times_from_right_to_left(page: Any, sound: Path) -> None:
    upload(page, sound)
    found = words(page)
    assert len(found) > 3
    assert page.evaluate("document.documentElement.dir") == "rtl"
    starts = [float(word.get_attribute("data-start")) for word in page.locator(".word[data-start]").all()]
    assert starts == sorted(starts)
    assert starts[0] > 0.5
    page.evaluate(  # `tiny` was not trained on Hebrew
        "document.querySelectorAll('.word[data-start]').forEach((word, n) => { word.textContent = 'שלום,' + n; })"
    )
    boxes = [word.bounding_box() for word in page.locator(".word[data-start]").all()[:2]]
    assert boxes[0]["x"] > boxes[1]["x"], "the second word is left of the first"
    page.locator(".word[data-start]").nth(1).click()
    until(page, "document.getElementById('player').currentTime > 0.5")


@pytest.mark.parametrize("kind", ["txt", "srt", "vtt", "json"])
def test_what_is_downloaded_has_what_was_edited(page: Any, sound: Path, kind: str, tmp_path: Path) -> None:
    upload(page, sound)
    page.locator(".word[data-start]").first.evaluate("word => { word.textContent = 'תיקון'; }")
    page.locator("#transcript").dispatch_event("input")
    with page.expect_download() as download:
        page.click(f"#{kind}")
    download.value.save_as(tmp_path / "got")
    content = (tmp_path / "got").read_text(encoding="utf-8")
    assert download.value.suggested_filename == f"sound.{kind}"
    if kind == "json":
        assert json.loads(content)["text"].startswith("תיקון")
        assert json.loads(content)["edited"]
    elif kind == "txt":
        assert content.startswith("תיקון ")
    else:
        cues = list(srt.parse(content)) if kind == "srt" else list(webvtt.from_string(content))
        first = cues[0].content if kind == "srt" else cues[0].text
        assert first.strip("\u202b\u202c").startswith("תיקון")


def test_speech_into_the_microphone_is_corrected_and_arrives_in_a_corpus(
    page: Any, corrections: Path, tmp_path: Path
) -> None:
    """The whole way: the fake microphone, text while it is spoken, a correction, the manifest, `caspi prepare`."""
    page.click("#record")
    until(page, "document.querySelector('.growing')?.textContent.length > 2", timeout=20_000)
    page.wait_for_selector(".word[data-start]", timeout=20_000)
    page.click("#record")
    until(page, "!document.getElementById('correct').disabled", timeout=30_000)
    recognised = page.locator("#transcript").inner_text()
    page.locator("#transcript").fill(HEBREW)
    page.click("#correct")
    until(page, "/1/.test(document.getElementById('status').textContent)")
    [line] = [json.loads(text) for text in (corrections / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (line["text"], line["language"], line["source"]) == (HEBREW, "Hebrew", "corrections")
    assert line["recognised"] == " ".join(recognised.split())
    (tmp_path / "corrections.yaml").write_text(
        f"name: corrections\ncorpus: {{path: {tmp_path / 'corpus'}, workers: 1, splits: {{}}, "
        f"sources: [{{kind: manifest, path: {corrections / 'manifest.jsonl'}, split: train}}]}}"
    )
    made = recipe.load(tmp_path / "corrections.yaml")
    commands.prepare.run(made)
    corpus = Corpus.open(tmp_path / "corpus", "train")
    assert [corpus.utterance(0).text, len(corpus)] == [HEBREW, 1]
    assert len(corpus.samples(0)) == pytest.approx(len(audio.decode(corrections / line["audio"])), abs=10)


def test_two_languages_labels_and_the_keyboard(page: Any) -> None:
    for name in ("להקליט", "לבחור קובץ"):
        assert page.get_by_text(name, exact=True).count() == 1
    page.click("#interface")
    assert page.evaluate("[document.documentElement.dir, document.documentElement.lang]") == ["ltr", "en"]
    assert page.get_by_role("button", name="Record").is_visible()
    assert page.get_by_role("textbox", name="Transcript").is_visible()
    unnamed = page.evaluate(
        """[...document.querySelectorAll('button, select, input, audio, [role]')].filter((e) => !e.hidden &&
        !(e.innerText || e.getAttribute('aria-label') || e.labels?.[0]?.innerText || e.getAttribute('aria-live')))
        .map((e) => e.outerHTML)"""
    )
    assert unnamed == []
    page.keyboard.press("Tab")
    reached = set()
    for _ in range(12):
        reached.add(page.evaluate("document.activeElement.id"))
        page.keyboard.press("Tab")
    assert {"record", "file", "language", "hotwords", "transcript"} <= reached


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_can_be_read(browser: Any, server: Running, sound: Path, scheme: str) -> None:
    context = browser.new_context(
        locale="he-IL", viewport={"width": 360, "height": 740}, color_scheme=scheme, is_mobile=True, has_touch=True
    )
    page = context.new_page()
    page.goto(server.url)
    until(page, "document.getElementById('model').textContent !== ''")
    upload(page, sound)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    contrasts = page.evaluate(
        """() => {
          const part = (c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
          const light = (text) => { const [r, g, b] = text.match(/[0-9.]+/g).map(Number);
            return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b); };
          const back = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
            if (c !== 'rgba(0, 0, 0, 0)') return c; } return 'rgb(255, 255, 255)'; };
          return [...document.querySelectorAll('button:not(:disabled), p, h1, h2, label span, .word')].map((e) => {
            const [a, b] = [light(getComputedStyle(e).color), light(back(e))];
            return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.outerHTML.slice(0, 80)]; });
        }"""
    )
    assert [found for found in contrasts if found[0] < 4.5] == []
    context.close()


def test_a_server_with_keys_asks_for_one(browser: Any, tiny: LoadedModel) -> None:
    key, hashed = new_key()
    with running(tiny, keys=Keys({"me": hashed})) as guarded:
        page = browser.new_page(locale="en-US")
        page.goto(guarded.url)
        page.wait_for_selector("#key", state="visible")
        assert "no valid API key" in page.locator("#status").inner_text()
        page.fill("#key", key)
        page.keyboard.press("Tab")
        until(page, "document.getElementById('model').textContent === 'tiny'")
        page.close()


def test_a_file_that_is_no_audio_is_told(page: Any, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no audio at all")
    page.set_input_files("#file", tmp_path / "a.wav")
    page.wait_for_selector("#status.problem")
    assert "corrupt_audio" in page.locator("#status").inner_text()


def test_nothing_comes_from_elsewhere(server: Running) -> None:
    answer = httpx.get(server.url)
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "http" not in answer.text.replace("http-equiv", "")
    for name in ("../app.py", "%2e%2e/app.py", "nothing.js", "page"):
        assert httpx.get(f"{server.url}/static/{name}").status_code == 404
    assert httpx.get(f"{server.url}/static/page.js").headers["content-type"].startswith("text/javascript")


def test_corrections_at_the_same_moment_are_all_kept(server: Running, corrections: Path) -> None:
    manifest = corrections / "manifest.jsonl"
    before = len(manifest.read_text(encoding="utf-8").splitlines()) if manifest.exists() else 0

    def save(number: int) -> int:
        form = {"text": f"תיקון {number}", "language": "he"}
        return httpx.post(f"{server.url}/v1/corrections", files={"file": ("a.wav", b"RIFF")}, data=form).status_code

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(save, range(60))) == {201}
    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == before + 60
    assert all((corrections / line["audio"]).is_file() for line in lines)
    assert len({line["text"] for line in lines[before:]}) == 60


@pytest.mark.slow
def test_a_long_correction_is_saved_in_its_parts(page: Any, corrections: Path, tmp_path: Path, sound: Path) -> None:
    """What is longer than a clip could not be trained on as a whole."""
    samples = np.tile(audio.decode(sound), 5)
    soundfile.write(tmp_path / "long.wav", samples, SAMPLE_RATE)
    upload(page, tmp_path / "long.wav")
    page.locator(".word[data-start]").first.evaluate("word => { word.textContent = 'תיקון'; }")
    page.locator("#transcript").dispatch_event("input")
    page.click("#correct")
    until(
        page,
        "document.getElementById('correct').disabled && /נשמר/.test(document.getElementById('status').textContent)",
    )
    line = json.loads((corrections / "manifest.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert line["segments"][0]["text"].startswith("תיקון")
    assert all(one["end"] - one["start"] <= 30 for one in line["segments"])
    assert len(line["segments"]) > 1


@pytest.mark.slow
def test_a_file_that_is_chosen_while_recording_ends_the_recording(page: Any, sound: Path) -> None:
    """Trap: the text of the microphone came over that of the file, and was saved with the file's audio."""
    page.click("#record")
    until(page, "document.querySelector('.growing')?.textContent.length > 2")
    upload(page, sound)
    assert page.get_attribute("#record", "aria-pressed") == "false"
    text = page.locator("#transcript").inner_text()
    time.sleep(2.5)
    assert page.locator("#transcript").inner_text() == text
    upload(page, sound)  # and the same file can be chosen again


def test_wrong_subtitles_are_refused_and_line_breaks_are_none(server: Running) -> None:
    good = {"start": 0.0, "end": 2.0, "text": "a", "words": [{"word": "a\n\nb", "start": 0.0, "end": 1.0}]}
    asked = {"format": "srt", "language": "he", "duration": 2.0, "segments": [good]}
    assert [cue.content for cue in srt.parse(httpx.post(f"{server.url}/v1/subtitles", json=asked).text)] == ["a b"]
    for wrong in ({**good, "end": -1}, {**good, "start": 3.0}):
        answer = httpx.post(f"{server.url}/v1/subtitles", json={**asked, "segments": [wrong]})
        assert (answer.status_code, "message" in answer.json()["error"]) == (400, True)
    endless = json.dumps({**asked, "duration": float("inf")})
    assert httpx.post(f"{server.url}/v1/subtitles", content=endless).status_code == 400


def test_corrections_are_kept_only_where_there_is_a_folder(tiny: LoadedModel, server: Running) -> None:
    form = {"text": "שלום", "language": "he"}
    sent = {"file": ("a.wav", b"RIFF")}
    with running(tiny) as other:
        answer = httpx.post(f"{other.url}/v1/corrections", files=sent, data=form)
        assert (answer.status_code, "--corrections FOLDER" in answer.json()["error"]["message"]) == (404, True)
    for wrong in ({"text": " "}, {"text": "x", "language": "Klingon"}):
        assert httpx.post(f"{server.url}/v1/corrections", files=sent, data=wrong).status_code == 400
