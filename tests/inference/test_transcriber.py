from __future__ import annotations

import html
import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caspi import audio
from caspi.corpus.synthesis.espeak import Voice, speak
from caspi.corpus.utterance import Word
from caspi.inference.decoding_options import DecodingOptions
from caspi.inference.engine.engine import Engine
from caspi.inference.engine.requests import DecodeRequest, Hypothesis
from caspi.inference.engine.words import RecognisedWord
from caspi.inference.long_audio import windows
from caspi.inference.subtitles import FORMATS
from caspi.inference.transcriber import Recording, Transcriber
from caspi.inference.transcripts import TimedText, Transcript
from caspi.language import language
from caspi.model.loading import LoadedModel
from caspi.model.timestamps import phrases, shift_times, text_with_times, without_times
from caspi.scoring.error_rates import score_corpus

SPANISH = ["la casa grande", "el perro come pan", "muchas gracias señor", "una ciudad muy antigua"]


def spoken(text: str) -> np.ndarray:
    speech = speak(text, "es", Voice("f3", 160, 50))
    return audio.resample(speech.samples, speech.sample_rate)


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    return [spoken(text) for text in SPANISH]


def test_the_base_model_recognises_its_training_language(tiny: LoadedModel, clips: list[np.ndarray]) -> None:
    said = Engine(tiny).decode([DecodeRequest(samples) for samples in clips])
    assert [hypothesis.language for hypothesis in said].count("Spanish") >= 3
    scores = score_corpus(
        SPANISH, [hypothesis.text for hypothesis in said], SPANISH, [language("Spanish")] * len(SPANISH)
    )
    assert scores["leaderboard"].cer < 0.35


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 200.0), st.floats(5.0, 40.0))
def test_windows_cover_all_samples_once_and_fit(seed: int, seconds: float, longest: float) -> None:
    samples = np.random.default_rng(seed).standard_normal(int(seconds * 16_000)).astype(np.float32)
    cut = windows(samples, longest)
    assert cut[0][0] == 0
    assert cut[-1][1] == len(samples)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(cut))
    assert all(last - first <= longest * 16_000 for first, last in cut)


def test_cuts_are_in_pauses() -> None:
    samples = np.random.default_rng(0).standard_normal(50 * 16_000).astype(np.float32) * 0.1
    samples[27 * 16_000 : int(27.8 * 16_000)] *= 0.001
    [(_, cut), _] = windows(samples, 30.0)
    assert 27.0 <= cut / 16_000 <= 27.8


def test_windows_of_long_audio_are_joined_with_spaces(tiny: LoadedModel, clips: list[np.ndarray]) -> None:
    """Trap: joining windows with "" merges words."""
    pause = np.zeros(16_000, np.float32)
    long = np.concatenate([part for _ in range(4) for clip in clips for part in (clip, pause)])
    assert len(long) > 35 * 16_000
    transcript = Transcriber(tiny).transcribe([Recording(long, "Spanish")])[0]
    assert len(transcript.segments) >= 2
    assert transcript.text == " ".join(segment.text for segment in transcript.segments)
    assert transcript.segments[0].end == transcript.segments[1].start


TRANSCRIPT = Transcript(
    "שלום עולם", (TimedText(0.0, 2.5, "שלום"), TimedText(3661.0, 3662.0416, "עולם")), "Hebrew", 3663.0, 0
)


def test_subtitles() -> None:
    assert FORMATS["txt"](TRANSCRIPT, "") == "שלום עולם\n"
    assert FORMATS["srt"](TRANSCRIPT, "") == (
        "1\n00:00:00,000 --> 00:00:02,500\nשלום\n\n2\n01:01:01,000 --> 01:01:02,042\nעולם\n\n"
    )
    assert FORMATS["vtt"](TRANSCRIPT, "").startswith("WEBVTT\n\n00:00:00.000 --> 00:00:02.500\nשלום\n")
    assert '"language": "he"' in FORMATS["json"](TRANSCRIPT, "")


NOISE = 0.1 * np.random.default_rng(0).standard_normal(80_000).astype(np.float32)


class Scripted:
    """An engine that answers with given hypotheses; keeps the requests."""

    wants_more = True

    def __init__(self, answer: Callable[[DecodeRequest, int], Hypothesis]) -> None:
        self.requests: list[DecodeRequest] = []
        self._answer = answer
        self._done: list[tuple[int, Hypothesis]] = []

    def submit(self, request: DecodeRequest) -> int:
        number = len(self.requests)
        self.requests.append(request)
        self._done.append((number, self._answer(request, number)))
        return number

    def poll(self) -> list[tuple[int, Hypothesis]]:
        """The last one first: windows end in any order."""
        return [self._done.pop()]


def test_phrase_times_come_from_the_model(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three windows: one with times, one with impossible times, one without times."""
    answers = ["<0.3>שלום לכולם<1.2> <1.5>ותודה<2.0>", "<1.0>מה<0.5>", "נשמע"]
    engine = Scripted(lambda _, number: Hypothesis(answers[number % 3], "Hebrew", False))
    transcriber = Transcriber(tiny, engine=engine)  # type: ignore[arg-type]
    monkeypatch.setattr(
        "caspi.inference.transcriber.windows", lambda *_: [(0, 40_000), (40_000, 64_000), (64_000, 80_000)]
    )
    [said] = transcriber.transcribe([Recording(NOISE, context="שמות", times=True)])
    assert [request.context for request in engine.requests] == ["timestamps\nשמות"] * 3
    assert said.text == "שלום לכולם ותודה מה נשמע"
    assert said.segments == (
        TimedText(0.3, 1.2, "שלום לכולם"), TimedText(1.5, 2.0, "ותודה"),
        TimedText(2.5, 4.0, "מה"), TimedText(4.0, 5.0, "נשמע"),
    )  # fmt: skip
    assert said.untimed == 2
    [plain] = transcriber.transcribe([Recording(NOISE)])
    assert [request.context for request in engine.requests[3:]] == [""] * 3
    assert plain.untimed == 0


def test_a_split_window_keeps_its_times(tiny: LoadedModel) -> None:
    engine = Scripted(lambda clip, _: Hypothesis("<0.5>מילה<1.0>", "Hebrew", truncated=clip.seconds > 5))
    samples = np.random.default_rng(0).standard_normal(8 * 16_000).astype(np.float32)
    [said] = Transcriber(tiny, engine=engine).transcribe([Recording(samples, times=True)])  # type: ignore[arg-type]
    cut = windows(samples, 6.0)[0][1] / 16_000
    assert [segment.start for segment in said.segments] == [0.5, pytest.approx(0.5 + cut, abs=0.06)]
    assert said.retried == 1
    assert said.untimed == 0


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30), st.sampled_from(["שלום", "מה נשמע", "a b"])), max_size=5)
)
def test_training_and_inference_use_the_same_time_format(parts: list[tuple[int, int, str]]) -> None:
    words, end = [], 0
    for pause, length, text in parts:
        words.append(Word(text, (end + pause) / 10, (end + pause + length) / 10))
        end += pause + length
    text = " ".join(word.text for word in words)
    marked = text_with_times(text, words, ())
    found = phrases(marked or "", end / 10)
    assert [(one.text, one.start, one.end) for one in found] == [(w.text, w.start, w.end) for w in words]
    assert phrases(f"{marked} עוד", end / 10) == []
    if marked:
        assert phrases(marked, end / 10 - 0.5) == []
        assert without_times(shift_times(marked, 3.0)) == text
        assert [one.start for one in phrases(shift_times(marked, 3.0), 100)] == pytest.approx(
            [w.start + 3 for w in words]
        )


@pytest.mark.parametrize(
    ("said", "seconds", "found"),
    [
        (
            "<0.1>שלום<2.1>",
            2.0,
            [(0.1, 2.0)],
        ),  # times have a resolution of 0.1 s: the end may be slightly after the clip
        ("<2.1>שלום<2.2>", 2.0, []),
        ("<0.1>שלום<2.5>", 2.0, []),
        ("<0.0> <1.0>", 2.0, []),
        ("<0.5>שלום<0.5>", 2.0, []),
        ("<0.5>שלום<1.0> <0.9>מה<1.5>", 2.0, []),
    ],
)
def test_impossible_times_are_dropped(said: str, seconds: float, found: list[tuple[float, float]]) -> None:
    assert [(one.start, one.end) for one in phrases(said, seconds)] == found


@pytest.mark.parametrize("samples", [np.zeros(60 * 16_000, np.float32), NOISE[:1], NOISE * 1e-3])
def test_silent_audio_gives_no_text(samples: np.ndarray, tiny: LoadedModel) -> None:
    [said] = Transcriber(tiny).transcribe([Recording(samples.astype(np.float32))])
    assert said.text == ""
    assert said.segments == ()
    assert said.silent >= 1


def test_truncated_and_looping_windows_give_warnings(tiny: LoadedModel) -> None:
    engine = Scripted(lambda *_: Hypothesis("אור " * 9, "Hebrew", True))
    [said] = Transcriber(tiny, engine=engine).transcribe([Recording(NOISE)])  # type: ignore[arg-type]
    assert (said.truncated, said.retried, said.looping) == (1, 1, 1)
    assert said.warnings() == [
        "1 window hit the limit of tokens, so text is missing", "1 window repeats the same words over and over",
    ]  # fmt: skip


def test_the_loop_guard_decodes_what_repeats_itself_once_more_and_counts_it(tiny: LoadedModel) -> None:
    engine = Scripted(lambda clip, _: Hypothesis("אור גדול" if clip.no_loops else "אור " * 9, "Hebrew", False))
    transcriber = Transcriber(tiny, engine=engine)  # type: ignore[arg-type]
    [said] = transcriber.transcribe([Recording(NOISE, decoding=DecodingOptions(loop_guard=True))])
    assert (said.text, said.guarded, said.looping) == ("אור גדול", 1, 0)
    assert said.warnings() == ["1 window repeated the same words over and over and was decoded again"]
    [free] = transcriber.transcribe([Recording(NOISE)])
    assert (free.guarded, free.looping) == (0, 1)
    assert [request.no_loops for request in engine.requests] == [False, True, False]


def test_the_loop_guard_sees_loops_between_times(tiny: LoadedModel) -> None:
    looping = " ".join(f"<{n}.0>כן<{n}.5>" for n in range(5))
    engine = Scripted(lambda clip, _: Hypothesis("<0.0>כן<0.5>" if clip.no_loops else looping, "Hebrew", False))
    transcriber = Transcriber(tiny, engine=engine)  # type: ignore[arg-type]
    [said] = transcriber.transcribe([Recording(NOISE, times=True, decoding=DecodingOptions(loop_guard=True))])
    assert (said.text, said.guarded, said.looping) == ("כן", 1, 0)


def test_a_split_window_has_the_words_of_both_halves_and_says_that_it_was_guarded(tiny: LoadedModel) -> None:
    def answer(clip: DecodeRequest, _: int) -> Hypothesis:
        if clip.seconds > 4:
            return Hypothesis("", "Hebrew", truncated=True)
        text = "אור" if clip.no_loops else "אור " * 9
        words = tuple(RecognisedWord(word, 0.5) for word in text.split())
        return Hypothesis(text, "Hebrew", False, tokens=(1, 2), log_probabilities=(-1.0, -2.0), words=words)

    transcriber = Transcriber(tiny, engine=Scripted(answer))  # type: ignore[arg-type]
    [said] = transcriber.transcribe([Recording(NOISE, decoding=DecodingOptions(loop_guard=True))])
    assert (said.text, said.retried, said.guarded) == ("אור אור", 1, 1)
    assert [word.text for segment in said.segments for word in segment.words] == ["אור", "אור"]


def test_every_window_is_given_the_text_before_it_but_no_loop(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = ["<0.1>בוקר טוב<1.0>", " ".join(["לא"] * 9), "ערב טוב", "לילה טוב"]
    engine = Scripted(lambda _, number: Hypothesis(answers[number], "Hebrew", False))
    spans = [(0, 20_000), (20_000, 40_000), (40_000, 60_000), (60_000, 80_000)]
    monkeypatch.setattr("caspi.inference.transcriber.windows", lambda *_: spans)
    transcriber = Transcriber(tiny, engine=engine)  # type: ignore[arg-type]
    asked = Recording(NOISE, context="שמות", decoding=DecodingOptions(previous_text=True))
    [said] = transcriber.transcribe([asked])
    assert [request.context for request in engine.requests] == ["שמות", "שמות בוקר טוב", "שמות", "שמות ערב טוב"]
    assert said.text == " ".join(answers)


@pytest.mark.parametrize("text", ["a --> b & <c>", "one\n\ntwo", "שלום\u2028עולם", "1\n00:00:01,000 --> 00:00:02,000"])
def test_subtitles_can_be_parsed_by_other_libraries(text: str) -> None:
    import srt
    import webvtt

    made = Transcript(text, (TimedText(0.0, 1.0, text), TimedText(1.0, 2.0, "ועוד")), "Hebrew", 2.0, 0)
    flat = " ".join(text.split())
    cues = list(srt.parse(FORMATS["srt"](made, "")))
    assert [cue.content.strip("\u202b\u202c") for cue in cues] == [flat.replace("-->", "→"), "ועוד"]
    vtt = list(webvtt.from_string(FORMATS["vtt"](made, "")))
    assert [html.unescape(cue.raw_text).strip("\u202b\u202c") for cue in vtt] == [flat, "ועוד"]


def test_a_steady_sound_is_cut_late_and_where_it_is_quietest() -> None:
    """Without a pause, cuts must not be every ten seconds at arbitrary places."""
    level = 1 + 0.3 * np.sin(2 * np.pi * np.arange(100 * 16_000) / 16_000 / 0.5)
    sound = (0.1 * level * np.random.default_rng(0).standard_normal(len(level))).astype(np.float32)
    cuts = [last for _, last in windows(sound)][:-1]
    assert all(last - first >= 20 * 16_000 for first, last in windows(sound)[:-1])
    assert all(level[cut] < 0.8 for cut in cuts)
