"""Subtitles, TextGrids and ELAN files beside audio, written by the programs' own libraries."""

from __future__ import annotations

from pathlib import Path

import pysubs2
import pytest
import soundfile
from praatio import textgrid
from pympi.Elan import Eaf

from caspi import commands, recipe
from caspi.corpus.sources.annotations import segments_of
from caspi.corpus.sources.discovery import discover
from tests.conftest import tone
from tests.support import utterances

SAID = [(0.5, 2.0, "שלום לכם חברים"), (2.5, 4.0, "מה שלומכם היום"), (4.2, 6.0, "תודה רבה לכולם")]


def write_subtitles(path: Path) -> None:
    cues = pysubs2.SSAFile()
    for start, end, text in SAID:
        cues.append(pysubs2.SSAEvent(int(1000 * start), int(1000 * end), text.replace(" ", r"\N", 1)))
    cues.save(str(path))


def write_textgrid(path: Path, form: str = "short_textgrid") -> None:
    grid = textgrid.Textgrid()
    grid.addTier(textgrid.IntervalTier("words", [(0.5, 0.8, "שלום")], 0, 7))
    grid.addTier(textgrid.IntervalTier("sentences", SAID, 0, 7))
    grid.addTier(textgrid.PointTier("notes", [(1.0, "a very long remark that is no transcript at all")], 0, 7))
    grid.save(str(path), form, includeBlankSpaces=True)


def write_elan(path: Path) -> None:
    made = Eaf()
    made.remove_tier("default")
    made.add_tier("speaker A")
    for start, end, text in SAID:
        made.add_annotation("speaker A", int(1000 * start), int(1000 * end), text)
    made.to_file(str(path))


WRITERS = {
    "srt": write_subtitles,
    "vtt": write_subtitles,
    "TextGrid": write_textgrid,
    "eaf": write_elan,
}


@pytest.mark.parametrize("ending", WRITERS)
def test_segments_with_their_times(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"talk.{ending}"
    WRITERS[ending](path)
    found = segments_of(path)
    assert [segment.text for segment in found] == [text for *_, text in SAID]
    for segment, (start, end, _) in zip(found, SAID, strict=True):
        assert (segment.start, segment.end) == (pytest.approx(start, abs=0.002), pytest.approx(end, abs=0.002))


@pytest.mark.parametrize("form", ["short_textgrid", "long_textgrid"])
def test_another_tier(tmp_path: Path, form: str) -> None:
    path = tmp_path / "talk.TextGrid"
    write_textgrid(path, form)
    assert [segment.text for segment in segments_of(path, "words")] == ["שלום"]
    with pytest.raises(ValueError, match=r"no tier 'x'; it has 'words', 'sentences'"):
        segments_of(path, "x")


@pytest.mark.parametrize("ending", WRITERS)
def test_a_folder_becomes_a_corpus(tmp_path: Path, ending: str) -> None:
    soundfile.write(tmp_path / "talk.wav", tone(7.0), 16_000)
    WRITERS[ending](tmp_path / f"talk.{ending}")
    [one] = discover(tmp_path)
    assert one.config["kind"] == "folder"
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"name: x\ncorpus:\n  path: {tmp_path / 'corpus'}\n  workers: 1\n"
        f"  sources: [{{kind: folder, path: {tmp_path}, split: train}}]\n"
    )
    commands.prepare.run(recipe.load(path))
    made = utterances(tmp_path / "corpus")
    assert sorted(one.text for one in made.values()) == sorted(text for *_, text in SAID)
    assert sorted(round(one.seconds, 1) for one in made.values()) == [1.5, 1.5, 1.8]


@pytest.mark.parametrize("ending", WRITERS)
def test_a_damaged_file_is_told_and_costs_one_recording(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"talk.{ending}"
    path.write_bytes(b"\xff\xfe nothing \x00 of the kind")
    with pytest.raises(ValueError, match=r"talk\..*(cannot be read|is not XML|no text with times)"):
        segments_of(path)
