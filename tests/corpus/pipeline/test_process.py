from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caspi import audio
from caspi.audio import SAMPLE_RATE, Stream
from caspi.corpus.pipeline.process import Accepted, Rejected, Rules, process, timed
from caspi.corpus.pipeline.segmentation import Segmentation, spans
from caspi.corpus.utterance import Recording, Segment, Word
from tests.conftest import tone

WHOLE = tone(20.0)


@dataclass(frozen=True)
class Blocks:
    """A recording in blocks of the given sizes that counts how far it was read."""

    sizes: tuple[int, ...]
    samples: np.ndarray
    read: list[int]

    def open(self) -> tuple[Stream, tuple[Word, ...]]:
        return Stream(SAMPLE_RATE, 1, None, self._blocks()), ()

    def _blocks(self) -> Iterator[np.ndarray]:
        start, number = 0, 0
        while start < len(self.samples):
            size = self.sizes[number % len(self.sizes)]
            self.read.append(start)
            yield self.samples[start : start + size]
            start, number = start + size, number + 1


def recording(segments: list[Segment], sizes: tuple[int, ...] = (4_096,), **fields: object) -> Recording:
    return Recording("r", Blocks(sizes, WHOLE, []), "s", "g", "Hebrew", segments=segments, **fields)  # type: ignore[arg-type]


@given(
    st.lists(st.tuples(st.floats(0, 18), st.floats(0.5, 2)), min_size=1, max_size=12),
    st.lists(st.integers(1, 70_000), min_size=1, max_size=5).map(tuple),
)
def test_streamed_clips_equal_slices(parts: list[tuple[float, float]], sizes: tuple[int, ...]) -> None:
    """Segments may overlap, touch or leave gaps; blocks may have any size."""
    segments = [Segment(start, start + length, f"שלום {n}", id=f"{n}") for n, (start, length) in enumerate(parts)]
    found = {o.utterance.id: o for o in process(recording(segments, sizes), Rules()) if isinstance(o, Accepted)}
    for segment in segments:
        if segment.id in found:
            first, last = round(segment.start * SAMPLE_RATE), round(segment.end * SAMPLE_RATE)
            stored = audio.decode_flac(found[segment.id].flac)
            assert np.abs(stored - WHOLE[first:last]).max() < 1e-4
    assert len(found) == len(segments)


def test_a_clip_is_read_only_up_to_the_maximum_length() -> None:
    """Three hours of audio without times must not be decoded just to find that it is too long."""
    source = Blocks((16_000,), np.tile(WHOLE, 30), [])
    made = Recording("r", source, "s", "g", "Hebrew", text="שלום לכם")
    [outcome] = process(made, Rules())
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "long_without_times"
    assert max(source.read) <= 31 * SAMPLE_RATE


def test_damage_in_the_middle_rejects_only_later_utterances() -> None:
    class Broken(Blocks):
        def _blocks(self) -> Iterator[np.ndarray]:
            yield self.samples[: 5 * SAMPLE_RATE]
            raise audio.AudioError("corrupt_audio", "a damaged frame")

    made = Recording(
        "r", Broken((1,), WHOLE, []), "s", "g", "Hebrew",
        segments=[Segment(2.0 * n, 2.0 * n + 2, f"שלום {n}") for n in range(5)],
    )  # fmt: skip
    outcomes = list(process(made, Rules()))
    assert [getattr(outcome, "reason", "kept") for outcome in outcomes] == ["kept"] * 2 + ["corrupt_audio"] * 3


def test_times_after_the_end_are_rejected() -> None:
    outcomes = list(process(recording([Segment(0, 2, "שלום לכם"), Segment(19, 23, "תודה רבה")]), Rules()))
    assert [getattr(o, "reason", "kept") for o in outcomes] == ["kept", "times_outside_audio"]


def test_an_utterance_has_the_previous_text_of_its_recording() -> None:
    segments = [
        Segment(0, 2, "אחת שתיים"),
        Segment(2, 4, "hello there"),
        Segment(4, 6, "שלוש ארבע"),
        Segment(6, 8, "חמש"),
    ]
    kept = [o.utterance for o in process(recording(segments, previous="לפני הכול"), Rules()) if isinstance(o, Accepted)]
    assert [u.previous for u in kept] == ["לפני הכול", "", "שלוש ארבע"]


PAUSES = st.lists(st.tuples(st.floats(0.1, 1.5), st.floats(0, 2)), min_size=2, max_size=60)


@given(PAUSES, st.floats(3, 10))
def test_long_segments_are_cut_between_words_and_fit(parts: list[tuple[float, float]], limit: float) -> None:
    words, time = [], 0.0
    for number, (length, pause) in enumerate(parts):
        words.append(Word(f"w{number}", time, time + length))
        time += length + pause
    segment = Segment(0.0, words[-1].end, " ".join(w.text for w in words), tuple(words))
    pieces = list(spans([segment], Segmentation(max_seconds=limit)))
    assert [w for piece in pieces for w in piece.words] == words
    for piece in pieces:
        assert piece.end is not None
        assert piece.text.split() == ([w.text for w in piece.words] if len(pieces) > 1 else piece.text.split())
        assert piece.end - piece.start <= limit + 1e-6 or len(piece.words) == 1
        assert all(piece.start - 1e-6 <= w.start and w.end <= piece.end + 1e-6 for w in piece.words)


def test_cuts_prefer_pauses() -> None:
    starts = [0, 1, 2, 3.8, 4.9, 6, 7, 8, 9]
    words = tuple(Word(f"w{n}", start, start + 0.9) for n, start in enumerate(starts))
    first, second = spans([Segment(0, 10, " ".join(w.text for w in words), words)], Segmentation(max_seconds=7))
    assert (len(first.words), len(second.words)) == (3, 6)
    assert first.end == second.start == pytest.approx(3.35)  # the middle of the pause, although 4.8 is nearer to half


def test_segments_far_apart_are_not_joined() -> None:
    segments = [Segment(0, 2, "א"), Segment(2.5, 4, "ב"), Segment(8, 9, "ג")]
    found = list(spans(segments, Segmentation(by="pack", max_seconds=30)))
    assert [(s.start, s.end, s.text) for s in found] == [(0, 4, "א ב"), (8, 9, "ג")]


def test_a_segment_with_untimed_words_is_not_cut() -> None:
    """A cut would lose the words without times."""
    words = tuple(Word(f"w{n}", float(n), n + 0.9) for n in range(9))
    [whole] = spans([Segment(0, 10, " ".join(w.text for w in words) + " more", words)], Segmentation(max_seconds=7))
    assert whole.text.endswith("more")


@pytest.mark.parametrize(("start", "end"), [(20.0, 21.0), (3.0, 2.0)])
def test_impossible_word_times_are_dropped(start: float, end: float) -> None:
    [span] = spans([Segment(0, 8, "a b", (Word("a", 0.0, 1.0), Word("b", start, end)))], Segmentation())
    assert (span.text, span.words) == ("a b", ())


def test_a_long_segment_is_rejected_without_reading_it() -> None:
    source = Blocks((16_000,), np.tile(WHOLE, 30), [])
    made = Recording("r", source, "s", "g", "Hebrew", text="שלום לכם", start=10.0, end=590.0)
    [outcome] = process(made, Rules())
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "long_without_times"
    assert max(source.read) <= 42 * SAMPLE_RATE


@pytest.mark.parametrize("name", ["he", "Hebrew", "yi", "Arabic"])
def test_yiddish_is_detected_under_any_language_name(name: str) -> None:
    made = Recording(
        "r", Blocks((4_096,), WHOLE[:48_000], []), "s", "g", name, text="איך ווייס נישט וואס צו טאן מיט דעם בוך"
    )
    [outcome] = process(made, Rules())
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "yiddish"


@pytest.mark.parametrize(
    ("written", "text", "expected"),
    [
        ("שלום לכם", "שלום לכם", [("שלום", 0.0, 1.0), ("לכם", 1.0, 2.0)]),
        ("רעש שלום לכם", "שלום לכם", [("שלום", 1.0, 2.0), ("לכם", 2.0, 3.0)]),
        ("בשנת 1948 קמה", "בשנת אלף תשעה קמה", [
            ("בשנת", 0.0, 1.0), ("אלף", 1.0, pytest.approx(1.4285, abs=1e-3)),
            ("תשעה", pytest.approx(1.4285, abs=1e-3), 2.0), ("קמה", 2.0, 3.0),
        ]),
        ("שלום", "שלום לכם", []),  # the second has no time
    ],
)  # fmt: skip
def test_word_times_follow_the_cleaned_text(written: str, text: str, expected: list[object]) -> None:
    words = [Word(word, float(n), n + 1.0) for n, word in enumerate(written.split())]
    assert [tuple(word) for word in timed(words, text)] == expected


@given(
    st.lists(
        st.sampled_from(["שלום", "[רעש]", "(מחיאות", "כפיים)", "1948", "בשנת", "צה'ל", "–", "a"]),
        min_size=1,
        max_size=8,
    )
)
def test_timed_words_equal_the_text_or_are_empty(tokens: list[str]) -> None:
    words = tuple(Word(token, 1.0 * n, 1.0 * n + 1) for n, token in enumerate(tokens))
    rules = Rules.model_validate(
        {"text": {"numbers": "spell"}, "filters": {"min_script_share": 0, "rate_deviations": 0}}
    )
    segment = Segment(0.0, float(len(tokens)), " ".join(tokens), words)
    for outcome in process(recording([segment]), rules):
        if isinstance(outcome, Accepted) and outcome.utterance.words:
            assert [word.text for word in outcome.utterance.words] == outcome.utterance.text.split()
            times = [time for word in outcome.utterance.words for time in (word.start, word.end)]
            assert times == sorted(times)


def test_a_slice_of_exactly_the_maximum_length_is_kept() -> None:
    """Decoded mp3 slices of 30 s have 0.05 to 0.1 s of padding."""
    for seconds, kept in ((20.0, True), (20.09, True), (20.3, False)):
        rules = Rules.model_validate({"filters": {"max_seconds": 20.0, "min_characters_per_second": 0}})
        whole = Recording("r", Blocks((4_096,), tone(seconds), []), "s", "g", "Hebrew", text="שלום לכם")
        [outcome] = process(whole, rules)
        assert isinstance(outcome, Accepted) == kept
        assert not isinstance(outcome, Accepted) or outcome.utterance.seconds == 20.0
