"""The aligner that ships, on speech that it was not trained on: accuracy, long recordings, `prepare`, `transcribe`."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from caspi import commands, recipe
from caspi.alignment.align import Aligner, AlignmentRequest
from caspi.alignment.recordings import RecordingAligner, at_pauses
from caspi.alignment.transcripts import with_word_times
from caspi.audio import SAMPLE_RATE
from caspi.commands.transcribe import TranscribeOptions
from caspi.corpus.pipeline.segmentation import Segmentation
from caspi.corpus.sources.synthetic import SyntheticSource
from caspi.corpus.store import Corpus
from caspi.corpus.utterance import FileAudio, Recording, Word
from caspi.errors import UsageError
from caspi.inference.engine.requests import Hypothesis
from caspi.inference.engine.words import RecognisedWord
from caspi.inference.long_audio import Window
from caspi.inference.subtitles import FORMATS, described
from caspi.inference.transcripts import HeardWindow, TimedText, TimedWindow, Transcript
from caspi.model.loading import resolve

UNHEARD = ("m3", "Andrea", "Denis", "michel")
Spoken = tuple[np.ndarray, tuple[Word, ...]]


@pytest.fixture(scope="module")
def sentences() -> list[Spoken]:
    """Samples and words of sentences in voices that are in no training set."""
    source = SyntheticSource(kind="synthetic", utterances=24, seed=99, only=UNHEARD, rate=(130, 190))
    found = []
    for recording in source.recordings("Hebrew"):
        stream, words = recording.audio.open()
        found.append((np.concatenate(list(stream.blocks)), words))
    return found


@pytest.fixture(scope="module")
def aligner() -> Aligner:
    return Aligner.of("tiny-aligner", "cpu")


@pytest.fixture(scope="module")
def long_recording(sentences: list[Spoken]) -> Spoken:
    """All sentences one after another, with pauses, and noise that the clips have none of."""
    draw = np.random.default_rng(0)
    parts: list[np.ndarray] = []
    words: list[Word] = []
    at = 0.0
    for samples, spoken in sentences:
        pause = np.zeros(int(SAMPLE_RATE * draw.uniform(0.3, 0.9)), np.float32)
        words += [Word(word.text, at + word.start, at + word.end) for word in spoken]
        parts += [samples, pause]
        at += (len(samples) + len(pause)) / SAMPLE_RATE
    whole = np.concatenate(parts)
    return whole + 1e-4 * draw.standard_normal(len(whole)).astype(np.float32), tuple(words)


def text(words: tuple[Word, ...]) -> str:
    return " ".join(word.text for word in words)


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in Path(resolve("tiny-aligner")).iterdir()) < 12e6


def test_words_of_unheard_voices_are_found_within_40_ms(aligner: Aligner, sentences: list[Spoken]) -> None:
    aligned = aligner.align([AlignmentRequest(samples, text(words), "Hebrew") for samples, words in sentences])
    shifts = [
        (abs(found.start - true.start), abs(found.end - true.end))
        for alignment, (_, words) in zip(aligned, sentences, strict=True)
        for found, true in zip(alignment.words, words, strict=True)
    ]
    assert np.mean(shifts, axis=0).max() < 0.04


def test_a_recording_longer_than_a_pass_is_aligned_as_its_parts(
    aligner: Aligner, long_recording: Spoken, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, words = long_recording
    assert len(samples) / SAMPLE_RATE > 50
    monkeypatch.setattr(aligner, "longest", 12.0)
    [found] = aligner.align([AlignmentRequest(samples, text(words), "Hebrew")])
    shifts = [abs(one.start - true.start) for one, true in zip(found.words, words, strict=True)]
    assert np.mean(shifts) < 0.05
    assert max(shifts) < 0.5


@pytest.fixture
def manifest(long_recording: Spoken, tmp_path: Path) -> Path:
    """The recording with its text; and with a text of which the second half belongs to something else."""
    samples, words = long_recording
    soundfile.write(tmp_path / "long.wav", samples, SAMPLE_RATE)
    half = words[: len(words) // 2]
    wrong = text(half) + " " + " ".join("קפה טעים מאוד בלי חלב וסוכר".split() * (len(half) // 6))
    lines = [
        {"audio": "long.wav", "text": text(words), "id": "right"},
        {"audio": "long.wav", "text": wrong, "id": "wrong"},
    ]
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def prepared(manifest: Path, folder: Path, **segmentation: Any) -> Path:
    path = folder / "recipe.yaml"
    content = {
        "name": "t", "language": "Hebrew",
        "corpus": {
            "path": str(folder / "corpus"), "workers": 1, "segmentation": {"max_seconds": 12, **segmentation},
            "filters": {"max_seconds": 12, "max_repeats": 1000}, "splits": {"validation": 0, "test": 0},
            "sources": [{"kind": "manifest", "name": "long", "path": str(manifest), "split": "train"}],
        },
    }  # fmt: skip
    path.write_text(json.dumps(content), encoding="utf-8")
    commands.prepare.run(recipe.load(path))
    return folder / "corpus"


@pytest.mark.parametrize("seconds", [30, 60, 120])
def test_the_text_of_another_recording_is_rejected_whole(long_recording: Spoken, tmp_path: Path, seconds: int) -> None:
    """Some of its pieces would be taken by chance."""
    samples, words = long_recording
    samples = samples[: seconds * SAMPLE_RATE]
    spoken = [word for word in words if word.end < seconds]
    aligner = RecordingAligner.of(Segmentation(align="tiny-aligner", max_seconds=12))

    def problems(written: str) -> list[str]:
        recording = Recording("r", FileAudio(tmp_path), "", "", "Hebrew", written)
        return [piece.problem for piece in aligner.pieces(recording, samples)]

    right = problems(text(spoken))
    assert right.count("") > 0.7 * len(right)
    for seed in range(5):
        others = np.random.default_rng(seed).permutation([word.text for word in words])[: len(spoken)]
        assert "" not in problems(" ".join(others))


def test_prepare_cuts_a_long_recording_without_times(manifest: Path, long_recording: Spoken, tmp_path: Path) -> None:
    corpus = prepared(manifest, tmp_path, align="tiny-aligner")
    report = json.loads((corpus / "report.json").read_text())
    assert report["input"] == report["kept"] + sum(report["rejected"].values())
    assert report["rejected"]["not_aligned"] > 0
    assert set(report["rejected"]) <= {"not_aligned", "duplicate_audio"}
    made = Corpus.open(corpus, "train")
    utterances = [made.utterance(row) for row in range(len(made))]
    right = [utterance for utterance in utterances if utterance.id.startswith("right")]
    _, words = long_recording
    assert " ".join(utterance.text for utterance in right) == text(words)
    ends_of_sentences = {word.start for before, word in pairwise(words) if word.start - before.end > 0.25}
    at, cuts = 0.0, []
    for utterance in right[:-1]:
        at += utterance.seconds
        cuts.append(at)
        assert utterance.seconds <= 12.0
        assert " ".join(word.text for word in utterance.words) == utterance.text
    in_pauses = sum(any(start - 1.0 < cut < start for start in ends_of_sentences) for cut in cuts)
    assert in_pauses >= 0.8 * len(cuts)  # once, no pause is near enough to a share of the length


def test_without_an_aligner_it_is_rejected(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="long_without_times"):
        prepared(manifest, tmp_path)


def test_other_settings_make_another_corpus(manifest: Path, tmp_path: Path) -> None:
    """The corpus is not reused if the way of cutting has changed."""
    corpus = prepared(manifest, tmp_path, align="tiny-aligner")
    assert prepared(manifest, tmp_path, align="tiny-aligner") == corpus
    assert json.loads((corpus / "report.json").read_text())["reused"] == 1
    prepared(manifest, tmp_path, align="tiny-aligner", max_gap=1.0)
    assert json.loads((corpus / "report.json").read_text())["reused"] == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0.05, 1.0)), min_size=1, max_size=8), st.data())
def test_words_moved_to_pauses_keep_their_order(stretches: list[tuple[bool, float]], data: st.DataObject) -> None:
    draw = np.random.default_rng(0)
    parts = [draw.standard_normal(round(s * SAMPLE_RATE)) * (0.1 if heard else 1e-4) for heard, s in stretches]
    samples = np.concatenate(parts).astype(np.float32)
    times = sorted(data.draw(st.lists(st.floats(0.0, len(samples) / SAMPLE_RATE), min_size=6, max_size=6)))
    words = [Word(name, *times[2 * n : 2 * n + 2]) for n, name in enumerate("abc")]
    moved = at_pauses(words, samples)
    assert all(word.start <= word.end for word in moved)
    assert all(one.end <= other.start for one, other in pairwise(moved))
    assert (moved[0].start, moved[-1].end) == (words[0].start, words[-1].end)


def recognised(sentences: list[Spoken], number: int) -> list[HeardWindow]:
    """Two windows, with a dash that stands alone, without times."""
    (one, first), (other, second) = sentences[number], sentences[number + 1]
    texts = [text(first), f"{second[0].text} - {text(second[1:])}"]
    windows = [Window(0, one), Window(len(one), other)]
    return [heard(window, written) for window, written in zip(windows, texts, strict=True)]


def heard(window: Window, written: str) -> HeardWindow:
    words = tuple(RecognisedWord(word, 0.9) for word in written.split())
    segment = TimedText(window.start, window.end, written, words)
    return HeardWindow(0, window, Hypothesis(written, "Hebrew", truncated=False), (segment,), untimed=False)


def transcript(timed: list[TimedWindow], window: Window) -> Transcript:
    segments = tuple(segment for found in timed for segment in found.segments)
    return Transcript(" ".join(segment.text for segment in segments), segments, "Hebrew", window.end, 0)


def test_a_transcript_gets_the_times_of_its_words(aligner: Aligner, sentences: list[Spoken]) -> None:
    timed = with_word_times(aligner, "Hebrew", recognised(sentences, 2))
    found = [word for window in timed for segment in window.segments for word in segment.words]
    offset = len(sentences[2][0]) / SAMPLE_RATE
    true = [*sentences[2][1], *(Word(w.text, offset + w.start, offset + w.end) for w in sentences[3][1])]
    spoken = [word for word in found if word.text != "-"]
    assert [word.text for word in spoken] == [word.text for word in true]
    assert np.mean([abs((one.start or 0.0) - other.start) for one, other in zip(spoken, true, strict=True)]) < 0.06
    [dash] = [word for word in found if word.text == "-"]
    assert dash.start is not None
    assert [window.unaligned for window in timed] == [0, 0]


def test_formats_with_the_times_of_words(aligner: Aligner, sentences: list[Spoken]) -> None:
    windows = recognised(sentences, 4)
    timed = transcript(with_word_times(aligner, None, windows), windows[-1].window)
    first = described(timed)["segments"][0]
    assert set(first) >= {"id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob", "words"}
    assert set(first["words"][0]) == {"word", "start", "end", "probability"}
    count = len(timed.text.split())
    ctm = [line.split() for line in FORMATS["ctm"](timed, "").splitlines()]
    assert [len(line) for line in ctm] == [6] * count
    assert [line[4] for line in ctm] == timed.text.split()
    karaoke = FORMATS["karaoke"](timed, "")
    assert karaoke.startswith("WEBVTT\n\n")
    assert karaoke.count("<c>") == count
    assert max(len(line) for line in FORMATS["srt"](timed, "").splitlines()) <= 42


def test_a_long_file_with_its_text_becomes_subtitles(long_recording: Spoken, tmp_path: Path) -> None:
    samples, words = long_recording
    soundfile.write(tmp_path / "a.wav", samples, SAMPLE_RATE)
    (tmp_path / "a.txt").write_text(text(words), encoding="utf-8")
    given = {"format_name": "srt", "split": "test", "spoken": None}
    shown = commands.align.run("tiny-aligner", str(tmp_path / "a.wav"), tmp_path / "a.txt", None, **given).text
    blocks = [block.splitlines() for block in shown.strip().split("\n\n")]
    assert " ".join(line for block in blocks for line in block[2:]) == text(words)
    assert all(len(block) <= 4 for block in blocks)


def test_a_text_of_another_recording_is_doubted(
    sentences: list[Spoken], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = [one for one in sentences if len(one[1]) >= 6][:6]
    given = {"format_name": "json", "split": "test", "spoken": None}
    doubted = []
    for number, (samples, _) in enumerate(long):
        soundfile.write(tmp_path / "a.wav", samples, SAMPLE_RATE)
        for other in (number, (number + 1) % len(long)):
            (tmp_path / "a.txt").write_text(text(long[other][1]), encoding="utf-8")
            caplog.clear()
            found = commands.align.run("tiny-aligner", str(tmp_path / "a.wav"), tmp_path / "a.txt", None, **given)
            assert bool(found.summary["doubt"]) == ("may not be what is said" in caplog.text)
            doubted.append((other != number, bool(found.summary["doubt"])))
    assert len(long) >= 4
    assert not any(doubt for wrong, doubt in doubted if not wrong)
    assert sum(doubt for wrong, doubt in doubted if wrong) >= len(long) - 1
    (tmp_path / "a.txt").write_text("\n")
    with pytest.raises(UsageError, match=r"a\.txt is empty"):
        commands.align.run("tiny-aligner", str(tmp_path / "a.wav"), tmp_path / "a.txt", None, **given)


def test_a_window_that_cannot_be_aligned_stays_without_times(aligner: Aligner, sentences: list[Spoken]) -> None:
    first, second = recognised(sentences, 6)
    long, foreign = heard(first.window, " ".join(["מילה"] * 300)), heard(first.window, "la casa grande y el perro")
    timed = with_word_times(aligner, "Hebrew", [long, second, foreign])
    assert [window.unaligned for window in timed] == [1, 0, 1]
    assert (timed[0].segments, timed[2].segments) == (long.segments, foreign.segments)
    assert timed[1].segments[0].words[0].start is not None
    assert FORMATS["srt"](transcript(timed, second.window), "").count("-->") >= 3


def test_transcribe_writes_subtitles_of_words(tmp_path: Path, sentences: list[Spoken]) -> None:
    soundfile.write(tmp_path / "a.wav", sentences[0][0], SAMPLE_RATE)
    files = [str(tmp_path / "a.wav")]
    options = TranscribeOptions("karaoke", tmp_path / "out", language="Hebrew")
    assert commands.transcribe.run("tiny", files, options).exit_code == 0
    assert (tmp_path / "out" / "a.karaoke.vtt").read_text().startswith("WEBVTT")
    with pytest.raises(UsageError, match="aligner = 'tiny-aligner'"):
        commands.transcribe.run("tiny", files, replace(options, aligner="tiny"))
    with pytest.raises(UsageError, match="knows Hebrew only: give --aligner"):
        commands.transcribe.run("tiny", files, replace(options, language="Spanish"))
