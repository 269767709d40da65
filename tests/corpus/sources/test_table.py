"""Tables as Excel, pandas, Common Voice and LJSpeech write them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from caspi.corpus.sources.rows import Columns
from caspi.corpus.sources.table import TableSource
from caspi.corpus.utterance import FileAudio, Recording
from caspi.errors import UsageError
from tests.conftest import tone

TEXTS = ['צה"ל יצא, לדרך', "שלום; וברכה", "תודה | רבה"]


def source(path: Path, **options: object) -> TableSource:
    return TableSource(kind="csv", path=path, **options)  # type: ignore[arg-type]


def read(path: Path, **options: object) -> list[Recording]:
    return list(source(path, **options).recordings("Hebrew"))


def path_of(recording: Recording) -> Path:
    assert isinstance(recording.audio, FileAudio)
    return recording.audio.path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "windows-1255"])
@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_a_table_in_any_encoding_and_with_any_delimiter(tmp_path: Path, encoding: str, delimiter: str) -> None:
    path = tmp_path / "data.csv"
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["file_name", "transcription", "speaker"])
        writer.writerows([f"{n}.wav", text, f"s{n % 2}"] for n, text in enumerate(TEXTS))
    options = {"encoding": encoding} if encoding == "windows-1255" else {}
    found = read(path, **options)
    assert [one.text for one in found] == TEXTS
    assert [one.group.rsplit("/", 1)[1] for one in found] == ["s0", "s1", "s0"]
    assert [path_of(one) for one in found] == [tmp_path / f"{n}.wav" for n in range(3)]


@given(
    rows=st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0", exclude_categories=["Cc"]), min_size=1),
            st.sampled_from(["a", "b"]),
        ),
        min_size=1,
        max_size=6,
    ),
    delimiter=st.sampled_from([",", "\t", ";"]),
)
def test_every_text_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], delimiter: str
) -> None:
    path = tmp_path_factory.mktemp("table") / "data.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["audio", "text", "speaker"])
        writer.writerows([f"{n}.wav", text, speaker] for n, (text, speaker) in enumerate(rows))
    assert [one.text for one in read(path)] == [text.strip() for text, _ in rows]


def test_columns_by_the_names_that_the_recipe_gives(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("recording,said,who,from,to\na.wav,שלום,anna,0.5,1.5\na.wav,עולם,anna,1.5,2.5\n", encoding="utf-8")
    columns = Columns(audio="recording", text="said", speaker="who", start="from", end="to")
    [one] = read(path, columns=columns)  # parts of one file are one recording
    assert [(s.start, s.end, s.text) for s in one.segments] == [(0.5, 1.5, "שלום"), (1.5, 2.5, "עולם")]
    assert source(path, columns=columns).grouped_by() == "who"


def test_ljspeech(tmp_path: Path) -> None:
    """Three columns without a header, audio by its name alone, quotation marks that are only that."""
    path = tmp_path / "metadata.csv"
    path.write_text('LJ001-0001|"Printing, in 1450|"Printing, in fourteen fifty\nLJ001-0002|b|bee\n', encoding="utf-8")
    found = read(
        path,
        header=("audio", "written", "text"),
        delimiter="|",
        quoting=False,
        audio_folder="wavs",
        audio_ending=".wav",
    )
    assert [one.text for one in found] == ['"Printing, in fourteen fifty', "bee"]
    assert path_of(found[0]) == tmp_path / "wavs" / "LJ001-0001.wav"


def test_common_voice(tmp_path: Path) -> None:
    path = tmp_path / "validated.tsv"
    path.write_text(
        "client_id\tpath\tsentence_id\tsentence\tup_votes\tlocale\n"
        'abc\tcommon_voice_he_1.mp3\t7\t"אני כאן\t2\the\nabd\tcommon_voice_he_2.mp3\t8\tהוא "שם\t2\the\n',
        encoding="utf-8",
    )
    found = read(path, quoting=False, audio_folder="clips")
    assert [one.text for one in found] == ['"אני כאן', 'הוא "שם']
    assert [one.language for one in found] == ["Hebrew", "Hebrew"]
    assert path_of(found[0]) == tmp_path / "clips" / "common_voice_he_1.mp3"
    assert len({one.group for one in found}) == 2


def test_a_quotation_mark_that_is_not_closed_hides_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text('audio,text\na.wav,"שלום\nb.wav,"עולם\nc.wav,כן\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"line 3: .*is a quotation mark before it not closed"):
        read(path)
    assert [one.text for one in read(path, quoting=False)] == ['"שלום', '"עולם', "כן"]
    path.write_text('audio,text\na.wav,"שלום\nb.wav,כן\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"unexpected end of data: is a quotation mark"):
        read(path)


def test_rows_that_cannot_be_used_are_told_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("audio,text\na.wav,שלום\nb.wav\n,עולם\n../c.wav,כן\n", encoding="utf-8")
    found = read(path)
    assert [one.problem.split(": ", 1)[-1] for one in found] == [
        "", "1 cells, but 2 columns", "no field 'audio'",
        f"audio '../c.wav' lies outside {tmp_path}; set allow_outside: true to read it",
    ]  # fmt: skip
    assert "line 3" in found[1].problem


def test_hebrew_in_another_encoding_is_told(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes("audio,text\na.wav,שלום\n".encode("windows-1255"))
    [one] = read(path)
    assert "encoding: windows-1255" in one.problem


def test_durations_of_whole_files_do_not_cut_them(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("audio,text,duration\na.wav,שלום,1.2\n", encoding="utf-8")
    assert read(path)[0].end is None
    assert read(path, columns=Columns(duration="duration"))[0].end == 1.2


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"name,words\na,b\n", {}, r"no column for the audio .* are 'name', 'words'.*columns: \{audio: NAME\}"),
        (b"audio,words\na,b\n", {}, r"no column for the text"),
        (b"audio,text\na,b\n", {"columns": Columns(text="said")}, r"no column 'said'"),
        (b"audio,text\na,b\n", {"columns": Columns(speaker="who")}, r"no column 'who'"),
        (b"audio,text,text\na,b,c\n", {}, "two columns have the same name"),
        (b"", {}, "its columns are none"),
        (b"audio,text\na,b\n", {"encoding": "hebrew-1"}, "no encoding 'hebrew-1'"),
        ("audio,text\na,b\n".encode("utf-16-le"), {}, "may be UTF-16"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_table(tmp_path: Path, content: bytes, options: dict[str, object], message: str) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read(path, **options)
    with pytest.raises(UsageError, match=r"check sources\.path"):
        read(tmp_path / "none.csv")


def test_a_table_that_changes_has_another_identity(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    soundfile.write(tmp_path / "a.wav", tone(1.0), 16_000)
    path.write_text("audio,text\na.wav,שלום\n", encoding="utf-8")
    before = source(path).identity()
    path.write_text("audio,text\na.wav,עולם\n", encoding="utf-8")
    assert source(path).identity() != before
