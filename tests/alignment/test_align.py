"""`caspi align`: files and corpora, formats that other programs read, errors in one line."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from caspi import commands
from caspi.alignment.accuracy import accuracy, evenly_spaced
from caspi.alignment.align import AlignedWord, Aligner, Alignment, AlignmentRequest
from caspi.alignment.formats import FORMATS
from caspi.commands.transcribe import TranscribeOptions
from caspi.errors import UsageError
from caspi.evaluation.transcript_files import paired_files
from caspi.model.aligner import LoadedAligner
from caspi.training.checkpoint.files import save_model
from tests.support import needs, voice

TEXT = "שלום, עולם! מה - שלומך"


@pytest.fixture(scope="module")
def model(aligner: LoadedAligner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose classifier is untrained: its times mean nothing, but all else is as it is."""
    folder = tmp_path_factory.mktemp("model")
    save_model(aligner, {name: p.detach() for name, p in aligner.model.named_parameters()}, folder, 30.0)
    return folder


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.wav"
    soundfile.write(path, voice("buenos dias a todos"), 16_000)
    return path


def aligned(model: Path, *requests: AlignmentRequest) -> list[Alignment]:
    return Aligner.of(str(model), "cpu").align(requests)


def test_written_words_come_back_in_order_with_times_inside_of_the_clip(model: Path) -> None:
    [found] = aligned(model, AlignmentRequest(voice("hola"), TEXT, "Hebrew"))
    assert [word.text for word in found.words] == ["שלום,", "עולם!", "מה -", "שלומך"]
    times = [time for word in found.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= found.seconds
    assert all(0 < word.confidence <= 1 for word in found.words)


def test_neighbours_in_a_batch_change_nothing(model: Path) -> None:
    requests = [
        AlignmentRequest(voice("una ciudad muy antigua", n)[: 9_000 * (n + 1)], text, "Hebrew")
        for n, text in enumerate((TEXT, "אחת", "אחת שתיים שלוש ארבע"))
    ]
    together = aligned(model, *requests)
    for request, found in zip(requests, together, strict=True):
        [alone] = aligned(model, request)
        assert [word.text for word in alone.words] == [word.text for word in found.words]
        assert [word.start for word in alone.words] == pytest.approx([word.start for word in found.words], abs=1e-3)


def test_a_file_with_its_text(model: Path, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    given = {"format_name": "ctm", "split": "test", "spoken": None}
    shown = commands.align.run(str(model), str(clip), tmp_path / "text.txt", None, **given)
    assert shown.text.startswith("clip 1 ")
    written = commands.align.run(str(model), str(clip), tmp_path / "text.txt", tmp_path / "out", **given)
    assert written.path.read_text(encoding="utf-8") == shown.text
    (tmp_path / "text.stm").write_text(f"clip 1 speaker 0.0 99.0 {TEXT}\n", encoding="utf-8")
    assert [said for _, _, said in paired_files(tmp_path / "text.stm", written.path)] == ["שלום, עולם! מה- שלומך"]


def test_a_corpus_is_measured_against_its_own_word_times(model: Path, small_corpus: Path, tmp_path: Path) -> None:
    outcome = commands.align.run(
        str(model), str(small_corpus), None, tmp_path / "out", format_name="textgrid", split="test", spoken=None
    )
    found = outcome.summary["accuracy"]
    assert found["starts"]["times"] == found["even_starts"]["times"] > 20
    lines = [json.loads(line) for line in (tmp_path / "out" / "words.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == outcome.summary["utterances"] == len(list((tmp_path / "out" / "textgrid").iterdir()))
    assert "Accuracy" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


WORDS = (
    AlignedWord('צה"ל', 0.5, 0.5, 0.9),
    AlignedWord("מה -", 0.5, 1.25, 0.8, True),
    AlignedWord("סוף", 1.5, 2.0, 1.0),
)


@needs("praatio")
def test_praats_format_is_read_by_another_library(tmp_path: Path) -> None:
    from praatio import textgrid

    path = tmp_path / "words.TextGrid"
    path.write_text(FORMATS["textgrid"](Alignment(WORDS, 2.5, 1.0), "clip"), encoding="utf-8")
    tier = textgrid.openTextgrid(str(path), includeEmptyIntervals=False).getTier("words")
    assert [entry.label for entry in tier.entries] == ['צה"ל', "מה -", "סוף"]
    assert tier.entries[2].start == 1.5
    assert all(entry.end > entry.start for entry in tier.entries)


def test_json_has_times_in_milliseconds() -> None:
    found = json.load(io.StringIO(FORMATS["json"](Alignment(WORDS, 2.5, 1.0), "clip")))
    assert found["words"][1] == {"text": "מה -", "start": 0.5, "end": 1.25, "confidence": 0.8, "repaired": True}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            AlignmentRequest(np.zeros(50 * 16_000, np.float32), TEXT, "Hebrew"),
            "clips of up to 30.0 s; only one by letters",
        ),
        (AlignmentRequest(np.zeros(16_000, np.float32), " - … ", "Hebrew"), "has no word"),
    ],
)
def test_what_cannot_be_aligned_is_refused(request_: AlignmentRequest, message: str, model: Path) -> None:
    with pytest.raises(UsageError, match=message):
        aligned(model, request_)


def test_a_recogniser_is_no_aligner() -> None:
    with pytest.raises(UsageError, match=r"tiny is not an aligner: give tiny-aligner, or train one"):
        Aligner.of("tiny", "cpu")


def test_accuracy_by_hand() -> None:
    found = accuracy([1.0, 2.03, 3.5, 4.0], [1.0, 2.0, 3.0, 4.1], ["a", "a", "b", "b"])
    assert found.mean == pytest.approx(0.1575)
    assert found.median == pytest.approx(0.065)
    assert found.bias == pytest.approx(0.1075)
    assert found.within == {"20 ms": 0.25, "40 ms": 0.5, "80 ms": 0.5, "200 ms": 0.75}
    assert found.mean_ci is not None
    assert found.mean_ci[0] == 0.0
    assert evenly_spaced(2, 3.0) == ([0.0, 1.5], [1.5, 3.0])


def test_an_aligner_neither_transcribes_nor_is_exported(model: Path, clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is an aligner: it finds the times of words"):
        commands.transcribe.run(str(model), [str(clip)], TranscribeOptions())
    with pytest.raises(UsageError, match="is an aligner"):
        commands.export.run(str(model), "hf", tmp_path / "out")
