from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from caspi.corpus.pipeline.segmentation import Segmentation, spans
from caspi.corpus.utterance import Segment, Word


@st.composite
def recordings(draw: st.DrawFn) -> list[Segment]:
    """Consecutive segments, with words of increasing start times."""
    segments, at, number = [], 0.0, 0
    for _ in range(draw(st.integers(1, 6))):
        words, start = [], at
        for _ in range(draw(st.integers(1, 30))):
            length = draw(st.floats(0.1, 3.0))
            words.append(Word(f"w{number}", at, at + length))
            number, at = number + 1, at + length
        segments.append(Segment(start, at, " ".join(w.text for w in words), tuple(words)))
        at += draw(st.floats(0.0, 2.0))
    return segments


@given(recordings(), st.floats(3.0, 20.0), st.sampled_from(["segment", "pack"]))
def test_every_word_is_in_exactly_one_utterance_that_fits(segments: list[Segment], limit: float, by: str) -> None:
    cut = list(spans(segments, Segmentation(max_seconds=limit, by=by)))
    said = [word for span in cut for word in span.text.split()]
    assert said == [word for segment in segments for word in segment.text.split()]
    for span in cut:
        assert span.end - span.start <= limit + 1e-9
        assert [word.text for word in span.words] == span.text.split()
        assert all(span.start - 1e-9 <= word.start < span.end for word in span.words)


def test_a_long_segment_without_words_is_not_cut() -> None:
    """Trap: a clip cut without times kept its whole transcript on every piece."""
    [span] = spans([Segment(0.0, 60.0, "a long text")], Segmentation(max_seconds=15.0))
    assert (span.start, span.end, span.text) == (0.0, 60.0, "a long text")


def test_words_timed_without_punctuation_are_sufficient_to_cut() -> None:
    """Aligners and lhotse time words without punctuation; the text keeps its commas and separate dashes."""
    bare = [f"w{n}" for n in range(20)]
    text = " ".join(f"{word}," if n % 5 == 0 else word for n, word in enumerate(bare)).replace("w7 ", "w7 – ") + "."
    words = tuple(Word(word, float(n), n + 0.9) for n, word in enumerate(bare))
    cut = list(spans([Segment(0.0, 20.0, text, words)], Segmentation(max_seconds=8.0)))
    assert len(cut) > 1
    assert " ".join(span.text for span in cut) == text
    other = Segment(0.0, 20.0, text.replace("w3", "something"), words)
    assert len(list(spans([other], Segmentation(max_seconds=8.0)))) == 1
