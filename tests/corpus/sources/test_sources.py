"""Every kind of source, from files with the real layout."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from caspi import audio, commands, recipe
from caspi.corpus.sources.base import split_marks, split_official
from caspi.corpus.sources.catalogue import CATALOGUE
from caspi.corpus.sources.huggingface import HuggingFaceSource
from caspi.corpus.sources.kaldi import KaldiSource
from caspi.corpus.sources.manifest import ManifestSource
from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from tests.conftest import tone
from tests.support import encoded, utterances, write_manifest

CODECS = {"mp3": ("mp3", "libmp3lame", 16_000), "opus": ("ogg", "libopus", 48_000), "flac": ("flac", "flac", 44_100)}
TEXTS = ["שלום לכם חברים", "מה שלומכם היום", "תודה רבה לכולם"]


def clip(seed: int, codec: str = "mp3") -> dict[str, Any]:
    container, name, rate = CODECS[codec]
    return {"bytes": encoded(tone(1.5, rate, seed=seed), rate, container, name), "path": f"{seed}.{codec}"}


def slices(codec: str) -> list[dict[str, Any]]:
    """The layout of ivrit.ai's Whisper training: time marks, metadata as a struct, previous transcript."""
    return [
        {
            "audio": clip(n, codec),
            "transcript": f"<|0.00|>{text}<|1.40|>" if n else text,
            "metadata": {"seek": 30.0 * n, "source": "recital", "entry_id": f"e{n}", "quality_score": 0.5 + 0.2 * n},
            "has_prev": n > 0,
            "has_timestamps": n > 0,
            "prev_transcript": TEXTS[n - 1] if n else None,
        }
        for n, text in enumerate(TEXTS)
    ]


ROWS: dict[str, list[dict[str, Any]]] = {
    "crowd-transcribe-v5": [
        {"uuid": f"u{n}", "audio": clip(n), "sentence": text, "extra_data": json.dumps({"source_id": f"podcast-{n}"})}
        for n, text in enumerate(TEXTS)
    ],
    "crowd-recital-whisper-training": slices("mp3"),
    "knesset-plenums-whisper-training": slices("opus"),
    "fleurs-he": [
        {"id": n, "audio": clip(n, "flac"), "transcription": text, "raw_transcription": text, "gender": 0}
        for n, text in enumerate(TEXTS)
    ],
    "common-voice-he": [
        {"client_id": f"c{n}", "audio": clip(n), "sentence": text, "up_votes": 2} for n, text in enumerate(TEXTS)
    ],
    "kan": [{"audio": clip(n, "flac"), "sentence": text} for n, text in enumerate(TEXTS)],
    "saspeech": [{"audio": clip(n, "flac"), "text": text} for n, text in enumerate(TEXTS)],
    "eval-d1": [{"audio": clip(n, "opus"), "text": text} for n, text in enumerate(TEXTS)],
    "eval-whatsapp": [{"audio": clip(n, "opus"), "text": text} for n, text in enumerate(TEXTS)],
}


def test_every_catalogue_data_set_is_tested() -> None:
    assert ROWS.keys() == CATALOGUE.keys()


@pytest.mark.parametrize("layout", ["parquet", "arrow"])
@pytest.mark.parametrize("name", ROWS)
def test_data_sets_are_read_by_their_short_name(name: str, layout: str, tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "files" / "data"
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist(ROWS[name])
    stem = f"{CATALOGUE[name].split}-00000-of-00001"
    if layout == "parquet":
        pq.write_table(table, folder / f"{stem}.parquet", row_group_size=2)
    else:
        with pa.ipc.new_stream(str(folder / f"{stem}.arrow"), table.schema) as writer:  # as `datasets` caches it
            writer.write_table(table)
    source = {"kind": "huggingface", "dataset": name, "files": tmp_path / "files"}
    summary = commands.prepare.run(recipe_of([source])).summary
    assert summary["kept"] == 3
    found = utterances(tmp_path / "corpus")
    assert sorted(u.text for u in found.values()) == sorted(TEXTS)
    assert {u.source for u in found.values()} == {name}
    assert len({u.group for u in found.values()}) == 3
    if "whisper" in name:
        last = next(u for u in found.values() if u.text == TEXTS[2])
        assert last.previous == TEXTS[1]
        assert last.quality == pytest.approx(0.9)
        assert last.group.endswith("/e2")
        assert [(s.text, s.end) for s in last.segments] == [(TEXTS[2], pytest.approx(1.4))]


def test_a_minimum_source_quality_can_be_set(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    pq.write_table(pa.Table.from_pylist(slices("mp3")), tmp_path / "train-0.parquet")
    source = {"kind": "huggingface", "dataset": "crowd-recital-whisper-training", "files": tmp_path}
    summary = commands.prepare.run(recipe_of([source], filters={"min_quality": 0.6})).summary
    assert summary["rejected"] == {"low_quality": 1}


def test_a_missing_column_is_reported(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    pq.write_table(pa.Table.from_pylist([{"audio": clip(0), "words": "שלום"}]), tmp_path / "train.parquet")
    with pytest.raises(UsageError, match=r"has no column text; it has audio, words: name them with text_key"):
        commands.prepare.run(recipe_of([{"kind": "huggingface", "dataset": str(tmp_path)}]))


def test_rows_are_skipped_not_read_again(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS["kan"]), tmp_path / "validation.parquet")
    source = HuggingFaceSource(kind="huggingface", dataset="kan", files=tmp_path)
    whole = list(source.recordings("Hebrew"))
    assert [r.id for r in source.recordings("Hebrew", skip=1)] == [r.id for r in whole[1:]]
    limited = source.model_copy(update={"limit": 2})
    assert [r.id for r in limited.recordings("Hebrew", skip=1)] == [whole[1].id]


def test_the_error_for_a_gated_set_names_page_and_variable(recipe_of, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    def gated(self: object, *args: object, **kwargs: object) -> None:
        raise GatedRepoError("403 Client Error. Access to dataset is restricted", response=_response())

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", gated)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    expected = r"accept its licence at https://huggingface.co/datasets/ivrit-ai/eval-d1 and set HF_TOKEN$"
    with pytest.raises(UsageError, match=expected):
        commands.prepare.run(recipe_of([{"kind": "huggingface", "dataset": "eval-d1"}]))


def _response() -> Any:
    import httpx

    return httpx.Response(403, request=httpx.Request("GET", "https://huggingface.co/api"))


@pytest.mark.parametrize("name", ["ivrit-ai/crowd-whatsapp-yi", "ivrit-ai/crowd-yi-v1", "x/Yiddish-speech"])
def test_yiddish_is_refused_by_name(name: str, recipe_of) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=r"sources\.0.*is Yiddish"):
        recipe_of([{"kind": "huggingface", "dataset": name}])


def test_yiddish_is_refused_by_content_and_reported(tmp_path: Path, recipe_of, capsys) -> None:  # type: ignore[no-untyped-def]
    from tests.support import write_manifest

    yiddish = "איך ווייס נישט וואס צו טאן מיט דעם בוך"
    clips = [(tone(2.0, seed=n), text) for n, text in enumerate([*TEXTS, yiddish])]
    summary = commands.prepare.run(
        recipe_of([{"kind": "manifest", "path": write_manifest(tmp_path / "in", clips)}])
    ).summary
    assert summary["rejected"] == {"yiddish": 1}
    assert yiddish in summary["rejected_examples"]["yiddish"][0]["detail"]
    assert "25 % rejected as yiddish" in capsys.readouterr().err


def test_a_folder_of_audio_and_texts(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    talks = tmp_path / "שיחות עם רווח"
    for n, text in enumerate(TEXTS):
        folder = talks / f"speaker {n % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"קובץ '{n}'.mp3").write_bytes(clip(n)["bytes"])
        (folder / f"קובץ '{n}'.txt").write_text(text, encoding="utf-8")
    soundfile.write(talks / "no text.wav", tone(1.0, seed=9), 16_000)
    summary = commands.prepare.run(recipe_of([{"kind": "folder", "path": talks, "name": "talks"}])).summary
    assert summary["rejected"] == {"missing_text": 1}
    assert {u.group for u in utterances(tmp_path / "corpus").values()} == {"talks/speaker 0", "talks/speaker 1"}


def kaldi(folder: Path, **files: str) -> Path:
    folder.mkdir()
    soundfile.write(folder / "a.wav", tone(4.0, seed=1), 16_000)
    soundfile.write(folder / "b.wav", tone(3.0, seed=2), 16_000)
    contents = {
        "wav.scp": "rec-a a.wav\nrec-b b.wav\n",
        "text": "utt-1 שלום לכם\nutt-2 מה שלומכם\nutt-3 תודה רבה\n",
        "segments": "utt-1 rec-a 0.5 1.5\nutt-2 rec-a 2.0 4.0\nutt-3 rec-b 0 3.0\n",
        "utt2spk": "utt-1 dana\nutt-2 dana\nutt-3 dana\n",
    }
    for name, content in (contents | files).items():
        if content:
            (folder / name).write_text(content, encoding="utf-8")
    return folder


def test_kaldi_folders(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    summary = commands.prepare.run(recipe_of([{"kind": "kaldi", "path": kaldi(tmp_path / "k")}])).summary
    assert summary["kept"] == 3
    found = utterances(tmp_path / "corpus")
    assert {i: (u.text, u.seconds) for i, u in found.items()} == {
        "utt-1": ("שלום לכם", 1.0), "utt-2": ("מה שלומכם", 2.0), "utt-3": ("תודה רבה", 3.0)
    }  # fmt: skip
    assert len({u.group for u in found.values()}) == 1  # one speaker in both recordings


def test_kaldi_without_segments(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    folder = kaldi(tmp_path / "k", segments="", utt2spk="", text="rec-a שלום לכם\nrec-b תודה רבה\n")
    assert commands.prepare.run(recipe_of([{"kind": "kaldi", "path": folder}])).summary["kept"] == 2
    assert {u.seconds for u in utterances(tmp_path / "corpus").values()} == {4.0, 3.0}


def test_commands_in_an_input_are_never_run(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    folder = kaldi(tmp_path / "k", **{"wav.scp": f"rec-a touch {tmp_path / 'ran'} |\n"})
    with pytest.raises(UsageError, match=r"rec-a: 'touch .* is a command; caspi runs no commands"):
        commands.prepare.run(recipe_of([{"kind": "kaldi", "path": folder}]))
    assert not (tmp_path / "ran").exists()
    climbing = kaldi(tmp_path / "c", **{"wav.scp": "rec-a ../k/a.wav\n"})
    with pytest.raises(UsageError, match="lies outside"):
        commands.prepare.run(recipe_of([{"kind": "kaldi", "path": climbing}]))


def test_recordings_with_transitively_shared_speakers_are_one_group(tmp_path: Path) -> None:
    folder = kaldi(
        tmp_path / "k",
        **{"wav.scp": "a a.wav\nb a.wav\nc a.wav\nd a.wav\n", "text": "".join(f"u{n} שלום\n" for n in range(5))},
        segments="u0 a 0 1\nu1 b 0 1\nu2 b 1 2\nu3 c 0 1\nu4 d 0 1\n",
        utt2spk="u0 x\nu1 x\nu2 y\nu3 y\nu4 z\n",
    )
    groups = {r.id: r.group for r in KaldiSource(kind="kaldi", path=folder).recordings("Hebrew")}
    assert groups["a"] == groups["b"] == groups["c"] != groups["d"]


def lhotse_cut(source: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "cut-1", "start": 1.0, "duration": 3.0, "channel": 0, "type": "MonoCut",
        "supervisions": [
            {
                "id": "sup-1", "recording_id": "rec", "start": 0.5, "duration": 1.0, "channel": 0, "text": "שלום לכם",
                "language": "Hebrew", "speaker": "dana",
                "alignment": {"word": [["שלום", 0.5, 0.4, None], ["לכם", 1.0, 0.5, None]]},
            },
            {"id": "sup-2", "start": 1.5, "duration": 1.5, "text": "תודה רבה", "speaker": "dana"},
        ],
        "recording": {"id": "rec", "sources": [source], "sampling_rate": 16000, "num_samples": 64000, "duration": 4.0},
    }  # fmt: skip


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_lhotse_cuts(suffix: str, tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    whole = tone(4.0, seed=3)
    soundfile.write(tmp_path / "rec.wav", whole, 16_000)
    line = json.dumps(lhotse_cut({"type": "file", "channels": [0], "source": "rec.wav"}), ensure_ascii=False).encode()
    path = tmp_path / f"cuts{suffix}"
    path.write_bytes(gzip.compress(line) if suffix.endswith("gz") else line)
    assert commands.prepare.run(recipe_of([{"kind": "lhotse", "path": path}])).summary["kept"] == 2
    found = utterances(tmp_path / "corpus")
    assert [(w.text, round(w.start, 3), round(w.end, 3)) for w in found["sup-1"].words] == [
        ("שלום", 0.0, 0.4), ("לכם", 0.5, 1.0)
    ]  # fmt: skip
    assert found["sup-2"].seconds == pytest.approx(1.5)
    assert {u.group for u in found.values()} == {"cuts/dana"}


def test_lhotse_commands_are_refused(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "cuts.jsonl"
    path.write_text(json.dumps(lhotse_cut({"type": "command", "channels": [0], "source": "rm -rf /"})))
    with pytest.raises(UsageError, match=r"line 1: its audio is not one file but command"):
        commands.prepare.run(recipe_of([{"kind": "lhotse", "path": path}]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<|0.00|>שלום<|1.50|><|2.00|> לכם <|3.00|>", [(0.0, 1.5, "שלום"), (2.0, 3.0, "לכם")]),
        ("<|0.00|>שלום<|1.50|>לכם<|3.00|>", [(0.0, 1.5, "שלום"), (1.5, 3.0, "לכם")]),
        ("שלום", []),
        ("<|0.00|>שלום", []),  # no end mark
        ("לפני<|0.00|>שלום<|1.0|>", []),
        ("<|2.00|>שלום<|1.00|>", []),
        ("<|0.00|><|1.00|>", []),
    ],
)
def test_marks_become_times(text: str, expected: list[tuple[float, float, str]]) -> None:
    assert [(s.start, s.end, s.text) for s in split_marks(text)] == expected


@given(st.lists(st.tuples(st.floats(0.01, 5), st.sampled_from(TEXTS)), min_size=1, max_size=8))
def test_marks_keep_every_word(parts: list[tuple[float, str]]) -> None:
    time, text = 0.0, ""
    for length, words in parts:
        text += f"<|{time:.2f}|>{words}<|{time + length + 0.01:.2f}|>"
        time = round(time + length + 0.01, 2)
    assert " ".join(s.text for s in split_marks(text)) == " ".join(words for _, words in parts)


def test_the_official_prefix() -> None:
    assert split_official("language Hebrew<asr_text>שלום") == ("Hebrew", "שלום")
    assert split_official("language is a gift") == (None, "language is a gift")


def test_long_slices_are_packed_at_their_marks(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    samples = np.concatenate([tone(2.0, seed=n) for n in range(6)])
    soundfile.write(tmp_path / "long.wav", samples, 16_000)
    text = "".join(f"<|{2.0 * n:.2f}|>{TEXTS[n % 3]} {'אבגדהו'[n]}<|{2.0 * n + 2:.2f}|>" for n in range(6))
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"audio": "long.wav", "text": text}, ensure_ascii=False))
    made = recipe_of([{"kind": "manifest", "path": path}], segmentation={"by": "pack", "max_seconds": 5.0})
    assert commands.prepare.run(made).summary["kept"] == 3
    found = sorted(utterances(tmp_path / "corpus").values(), key=lambda u: u.id)
    assert [u.seconds for u in found] == pytest.approx([4.0] * 3)
    assert [len(u.segments) for u in found] == [2, 2, 2]
    assert found[1].previous == found[0].text
    assert found[0].previous == ""


def test_recipe_errors_are_reported(recipe_of, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="kind"):
        recipe_of([{"kind": "magic"}])
    for kind in ("manifest", "lhotse", "folder", "kaldi"):
        made: recipe.Recipe = recipe_of([{"kind": kind, "path": tmp_path / "nowhere"}])
        with pytest.raises(UsageError, match="nowhere"):
            commands.prepare.run(made)


def test_bad_rows_do_not_stop_the_run(tmp_path: Path, recipe_of, capsys) -> None:  # type: ignore[no-untyped-def]
    for n in range(3):
        soundfile.write(tmp_path / f"{n}.wav", tone(1.0, seed=n), 16_000)
    good = [json.dumps({"audio": f"{n}.wav", "text": TEXTS[n]}, ensure_ascii=False) for n in range(3)]
    bad = [
        '{"audio": "0.wav", "text": "\\ud83d"}',
        '{"audio": "' + "x" * 300 + '.wav", "text": "שלום"}',
        '{"audio": "0.wav", "text": "שלום", "quality": ' + "9" * 400 + "}",
        "[" * 100_000,
        "not json",
        "[1, 2]",
        '{"text": "שלום"}',
        '{"audio": "../../etc/passwd", "text": "שלום"}',
        '{"audio": "0.wav", "segments": [{"start": 0, "end": 1, "text": "שלום", "words": [5]}]}',
        '{"audio": "0.wav", "text": "שלום", "start": -1}',
    ]
    path = tmp_path / "m.jsonl"
    path.write_bytes(
        "\n".join([good[0], *bad, good[1]]).encode() + b'\n{"audio": "1.wav", "text": "\xff"}\n' + good[2].encode()
    )
    summary = commands.prepare.run(recipe_of([{"kind": "manifest", "path": path}])).summary
    assert summary["kept"] == 3
    assert summary["input"] == 14
    assert summary["rejected"] == {"bad_row": 10, "missing_audio": 1}
    assert "m.jsonl, line 2" in summary["rejected_examples"]["bad_row"][0]["detail"]
    assert "rejected as bad_row, are all rows of one kind?" in capsys.readouterr().err


def test_changed_audio_is_prepared_again(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    lines = []
    for n in range(3):
        soundfile.write(tmp_path / f"{n}.wav", tone(1.0, seed=n), 16_000)
        lines.append(json.dumps({"audio": f"{n}.wav", "text": TEXTS[n]}, ensure_ascii=False))
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(lines))
    (tmp_path / "2.wav").rename(tmp_path / "later.wav")
    made = recipe_of([{"kind": "manifest", "path": path}])
    assert commands.prepare.run(made).summary["rejected"] == {"missing_audio": 1}
    (tmp_path / "later.wav").rename(tmp_path / "2.wav")
    assert commands.prepare.run(made).summary["kept"] == 3
    soundfile.write(tmp_path / "1.wav", tone(2.0, seed=7), 16_000)
    commands.prepare.run(made)
    assert sorted(u.seconds for u in utterances(tmp_path / "corpus").values()) == [1.0, 1.0, 2.0]


def test_two_manifests_with_the_same_name_are_both_kept(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    sources = []
    for n, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "0.wav", tone(1.0, seed=n), 16_000)
        soundfile.write(tmp_path / name / "1.wav", tone(1.0, seed=5 + n), 16_000)
        lines = [{"audio": "0.wav", "text": TEXTS[n]}, {"audio": "1.wav", "text": TEXTS[2], "id": "same"}]
        (tmp_path / name / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
        sources.append({"kind": "manifest", "path": tmp_path / name / "train.jsonl"})
    summary = commands.prepare.run(recipe_of(sources)).summary
    assert (summary["kept"], summary["rejected"]) == (4, {})
    assert set(utterances(tmp_path / "corpus")) == {"a/0.wav", "b/0.wav", "same", "b/same"}


def test_a_file_with_several_segments_is_read_once(tmp_path: Path, recipe_of, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    from caspi import audio

    soundfile.write(tmp_path / "long.wav", np.concatenate([tone(1.0, seed=n) for n in range(3)]), 16_000)
    lines = [{"audio": "long.wav", "text": TEXTS[n], "start": n, "end": n + 1, "id": f"u{n}"} for n in range(3)]
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    opened = []
    real = audio.open_stream
    monkeypatch.setattr(audio, "open_stream", lambda source, *_: opened.append(source) or real(source))
    assert commands.prepare.run(recipe_of([{"kind": "manifest", "path": tmp_path / "m.jsonl"}])).summary["kept"] == 3
    assert len(opened) == 1
    assert {i: u.text for i, u in utterances(tmp_path / "corpus").items()} == {f"u{n}": TEXTS[n] for n in range(3)}


def test_time_marks_are_relative_to_the_start_of_the_line(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    """A part of a longer file, with Whisper's marks inside."""
    samples = np.concatenate([np.zeros(16_000 * 3, np.float32), tone(2.0, seed=1), tone(2.0, seed=2)])
    soundfile.write(tmp_path / "long.wav", samples, 16_000)
    text = f"<|0.00|>{TEXTS[0]}<|2.00|>{TEXTS[1]}<|4.00|>"
    line = {"audio": "long.wav", "start": 3.0, "end": 7.0, "text": text, "id": "u"}
    (tmp_path / "m.jsonl").write_text(json.dumps(line))
    assert commands.prepare.run(recipe_of([{"kind": "manifest", "path": tmp_path / "m.jsonl"}])).summary["kept"] == 2
    corpus = Corpus.open(tmp_path / "corpus", "train")
    found = {corpus.utterance(row).text: corpus.samples(row) for row in range(len(corpus))}
    for text, first in ((TEXTS[0], 3), (TEXTS[1], 5)):
        assert np.abs(found[text] - samples[16_000 * first : 16_000 * (first + 2)]).max() < 1e-3


def test_recordings_of_one_speaker_with_nameless_segments_are_all_kept(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    lines = []
    for n in range(3):
        soundfile.write(
            tmp_path / f"{n}.wav", np.concatenate([tone(1.0, seed=2 * n), tone(1.0, seed=2 * n + 1)]), 16_000
        )
        segments = [{"start": k, "end": k + 1, "text": f"{TEXTS[k]} {'אבג'[n]}"} for k in range(2)]
        lines.append(json.dumps({"audio": f"{n}.wav", "group": "dana", "segments": segments}))
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    summary = commands.prepare.run(recipe_of([{"kind": "manifest", "path": tmp_path / "m.jsonl"}])).summary
    assert (summary["kept"], summary["rejected"]) == (6, {})
    assert {u.group.partition("/")[2] for u in utterances(tmp_path / "corpus").values()} == {"dana"}


def test_every_channel_of_a_lhotse_recording_is_separate(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    """A telephone call: one speaker per channel, one cut per channel."""
    voices = [tone(3.0, seed=1), 0.3 * tone(3.0, seed=2)]
    soundfile.write(tmp_path / "call.wav", np.stack(voices, axis=1), 16_000)
    cuts = []
    for channel in (0, 1):
        cut = lhotse_cut({"type": "file", "channels": [0, 1], "source": "call.wav"})
        supervision = {"id": f"s{channel}", "start": 0.0, "duration": 3.0, "channel": channel, "text": TEXTS[channel]}
        cuts.append(
            json.dumps(cut | {"id": f"c{channel}", "start": 0.0, "channel": channel, "supervisions": [supervision]})
        )
    (tmp_path / "cuts.jsonl").write_text("\n".join(cuts))
    assert commands.prepare.run(recipe_of([{"kind": "lhotse", "path": tmp_path / "cuts.jsonl"}])).summary["kept"] == 2
    corpus = Corpus.open(tmp_path / "corpus", "train")
    for row in range(2):
        channel = int(corpus.utterance(row).id[1])
        assert np.abs(corpus.samples(row) - voices[channel]).max() < 1e-3


def test_incomplete_kaldi_utterances_are_counted(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    folder = kaldi(
        tmp_path / "k",
        text="utt-1 שלום לכם\nutt-2 מה שלומכם\nutt-3 תודה רבה\nutt-4 בוקר טוב\n",
        segments="utt-1 rec-a 0.5 1.5\nutt-2 rec-a 2.0 4.0\nutt-3 rec-b 0\n",
    )
    summary = commands.prepare.run(recipe_of([{"kind": "kaldi", "path": folder}])).summary
    # The second recording has no utterances left: this is reported too.
    assert (summary["input"], summary["kept"], summary["rejected"]) == (5, 2, {"bad_row": 2, "empty_text": 1})
    details = " ".join(example["detail"] for example in summary["rejected_examples"]["bad_row"])
    assert "segments, line 3" in details
    assert "text has utt-4, but segments does not" in details


def test_without_a_network_the_error_does_not_mention_a_licence(recipe_of, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    import httpx
    import huggingface_hub

    def offline(self: object, *args: object, **kwargs: object) -> None:
        raise httpx.ConnectError("[Errno -2] Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", offline)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for name, known in (("eval-d1", "ivrit-ai/eval-d1"), ("fleurs-he", "google/fleurs")):
        with pytest.raises(UsageError, match=rf"{known}: the Hub cannot be reached \(ConnectError: .* not known"):
            commands.prepare.run(recipe_of([{"kind": "huggingface", "dataset": name}]))
    with pytest.raises(UsageError, match=r"google/fleurs: the Hub cannot be reached"):
        commands.prepare.run(recipe_of([{"kind": "huggingface", "dataset": "fleurs-he"}]))


def test_sources_with_the_same_default_name_are_refused(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    """Two folders are called `data`: their speakers `1` are different people."""
    from tests.support import write_manifest

    paths = [write_manifest(tmp_path / name / "data", [(tone(1.0, seed=n), TEXTS[n])]) for n, name in enumerate("ab")]
    sources = [{"kind": "manifest", "path": path} for path in paths]
    with pytest.raises(UsageError, match=r"a/data and .*b/data would both be called data: give them `name`s"):
        recipe_of(sources)
    recipe_of([sources[0] | {"name": "a"}, sources[1]])


def test_another_recording_of_a_speaker_changes_no_group(tmp_path: Path) -> None:
    def groups(folder: Path) -> dict[str, str]:
        return {r.id: r.group for r in KaldiSource(kind="kaldi", path=folder, name="k").recordings("Hebrew")}

    before = groups(kaldi(tmp_path / "a"))
    after = groups(
        kaldi(
            tmp_path / "b",
            **{
                "wav.scp": "aaa a.wav\nrec-a a.wav\nrec-b b.wav\n",
                "text": "utt-0 כן\nutt-1 שלום\nutt-2 מה\nutt-3 תודה\n",
            },
            segments="utt-0 aaa 0 1\nutt-1 rec-a 0.5 1.5\nutt-2 rec-a 2.0 4.0\nutt-3 rec-b 0 3.0\n",
            utt2spk="utt-0 dana\nutt-1 dana\nutt-2 dana\nutt-3 dana\n",
        )
    )
    assert before.items() <= after.items()


def test_kaldi_tables_may_have_tabs_and_incomplete_rows_are_counted(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    folder = kaldi(
        tmp_path / "k",
        text="utt-1\tשלום לכם\nutt-2\tמה שלומכם\nutt-3\tתודה רבה\n",
        segments="utt-1 rec-a 0.5 1.5\nutt-2\trec-a 2.0 4.0\nutt-3 rec-x 0 3.0\n",
    )
    summary = commands.prepare.run(recipe_of([{"kind": "kaldi", "path": folder}])).summary
    assert summary["kept"] == 2
    assert summary["rejected"] == {"bad_row": 1, "empty_text": 1}  # wav.scp has no rec-x; rec-b has no text
    assert "wav.scp has no rec-x" in summary["rejected_examples"]["bad_row"][0]["detail"]


def test_rows_without_ids_keep_their_names_when_rows_are_prepended(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS["kan"][1:]), tmp_path / "validation-b.parquet")
    source = HuggingFaceSource(kind="huggingface", dataset="kan", files=tmp_path)
    before = {(r.id, r.group) for r in source.recordings("Hebrew")}
    pq.write_table(pa.Table.from_pylist(ROWS["kan"][:1]), tmp_path / "validation-a.parquet")
    assert before < {(r.id, r.group) for r in source.recordings("Hebrew")}


def test_files_of_another_split_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "latest_training_data"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS["fleurs-he"]), folder / "train-0.parquet")
    source = HuggingFaceSource(kind="huggingface", dataset="fleurs-he", files=folder)
    with pytest.raises(UsageError, match="no files of the split test"):
        list(source.recordings("Hebrew"))
    pq.write_table(pa.Table.from_pylist(ROWS["fleurs-he"][:1]), folder / "test-0.parquet")
    assert len(list(source.recordings("Hebrew"))) == 1


def test_a_damaged_parquet_file_gives_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "train-0.parquet").write_bytes(b"PAR1" + b"x" * 100)
    with pytest.raises(UsageError, match=str(tmp_path)):
        list(HuggingFaceSource(kind="huggingface", dataset=str(tmp_path)).recordings("Hebrew"))


def test_a_mostly_yiddish_source_is_refused(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    from tests.support import write_manifest

    yiddish = "איך ווייס נישט וואס צו טאן מיט דעם בוך"
    clips = [(tone(1.5, seed=n), f"{yiddish} {n}" if n < 12 else f"שלום לכם {n}") for n in range(24)]
    path = write_manifest(tmp_path / "in", clips)
    with pytest.raises(UsageError, match=r"source .* is Yiddish by its .*words \(12 of 24 utterances\)"):
        commands.prepare.run(recipe_of([{"kind": "manifest", "path": path}]))


def test_lhotse_cuts_of_one_recording_are_one_group(tmp_path: Path) -> None:
    from caspi.corpus.sources.lhotse import LhotseSource

    source = {"type": "file", "channels": [0], "source": "rec.wav"}
    cuts = []
    for n, speakers in enumerate((["a", "b"], ["a"], ["b"], ["c"])):
        cut = lhotse_cut(source)
        cut["id"] = f"cut-{n}"
        cut["recording"]["id"] = "other" if speakers == ["c"] else "rec"
        cut["supervisions"] = [cut["supervisions"][1] | {"id": f"{n}{s}", "speaker": s} for s in speakers]
        cuts.append(json.dumps(cut))
    path = tmp_path / "cuts.jsonl"
    path.write_text("\n".join(cuts))
    found = list(LhotseSource(kind="lhotse", path=path).recordings("Hebrew"))
    assert len({r.group for r in found[:-1]}) == 1
    assert found[-1].group != found[0].group


def test_sentences_can_be_given(recipe_of) -> None:  # type: ignore[no-untyped-def]
    texts = ["la casa grande", "el perro come pan"]
    common = {"kind": "synthetic", "split": "test", "only": ["f2"], "texts": texts}
    made = recipe_of([common | {"languages": ["Spanish"], "utterances": 3}])
    commands.prepare.run(made)
    assert Corpus.open(made.corpus.path, "test").column("text") == [*texts, texts[0]]
    with pytest.raises(UsageError, match="exactly one language"):
        recipe_of([common | {"languages": ["Spanish", "Italian"], "utterances": 3}])


def lines_of(folder: Path, rows: list[dict[str, object]]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def test_a_nemo_manifest_is_read_directly(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    """A duration counts from the offset, or from the start of the file."""
    soundfile.write(tmp_path / "a.wav", tone(6.0), 16_000)
    rows = [
        {"audio_filepath": "a.wav", "offset": 1.0, "duration": 2.0, "text": TEXTS[0], "speaker": "dana"},
        {"audio_filepath": "a.wav", "duration": 5.0, "text": TEXTS[1] + " " + TEXTS[2], "speaker": "dana"},
    ]
    source = {"kind": "manifest", "path": lines_of(tmp_path, rows), "split": "train"}
    commands.prepare.run(recipe_of([source]))
    found = utterances(tmp_path / "corpus")
    assert sorted(round(u.seconds, 2) for u in found.values()) == [2.0, 5.0]
    assert len({u.group for u in found.values()}) == 1
    assert next(iter(found.values())).group.endswith("/dana")


@pytest.mark.parametrize("key", ["group", "speaker", "speaker_id", "client_id", "spk"])
def test_common_names_of_speaker_fields_are_recognised(key: str, tmp_path: Path) -> None:
    path = write_manifest(tmp_path, [(tone(1.0), TEXTS[0])], **{key: "dana"})
    source = ManifestSource(kind="manifest", path=path)
    assert next(iter(source.recordings("Hebrew"))).group == f"{tmp_path.name}/dana"
    assert source.grouped_by() == key


def test_splits_in_a_manifest_are_used(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    rows = []
    for n, split in enumerate(("train", "dev", "test")):
        soundfile.write(tmp_path / f"{n}.wav", tone(1.5, seed=n), 16_000)
        rows.append({"audio": f"{n}.wav", "text": TEXTS[n], "id": split, "split": split})
    commands.prepare.run(recipe_of([{"kind": "manifest", "path": lines_of(tmp_path, rows)}]))
    for split, name in (("train", "train"), ("validation", "dev"), ("test", "test")):
        assert Corpus.open(tmp_path / "corpus", split).column("id") == [name]


def test_words_of_a_line_give_word_times(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    soundfile.write(tmp_path / "a.wav", tone(3.0), 16_000)
    first, second = TEXTS[0].split()[:2]
    row = {"audio": "a.wav", "text": f"{first} {second}", "words": [[first, 0.2, 0.9], [second, 1.0, 2.5]], "id": "a"}
    commands.prepare.run(recipe_of([{"kind": "manifest", "path": lines_of(tmp_path, [row]), "split": "train"}]))
    times = [(word.text, word.start, word.end) for word in utterances(tmp_path / "corpus")["a"].words]
    assert times == [(first, pytest.approx(0.2), pytest.approx(0.9)), (second, pytest.approx(1.0), pytest.approx(2.5))]


def test_unused_keys_are_reported_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_manifest(tmp_path, [(tone(1.0, seed=n), TEXTS[n]) for n in range(3)], emotion="sad")
    list(ManifestSource(kind="manifest", path=path).recordings("Hebrew"))
    assert capsys.readouterr().err.count("not used: emotion") == 1


def test_a_list_as_text_and_an_unknown_language_are_bad_rows(tmp_path: Path) -> None:
    rows = [{"audio": "a.wav", "text": ["a"]}, {"audio": "a.wav", "text": "a", "language": "Klingon"}]
    found = [r.problem for r in ManifestSource(kind="manifest", path=lines_of(tmp_path, rows)).recordings("Hebrew")]
    assert "['a'] is not text" in found[0]
    assert "language 'Klingon' is not known" in found[1]


def test_one_channel_of_a_source_can_be_selected(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "calls").mkdir()
    soundfile.write(tmp_path / "calls" / "x.wav", np.stack([tone(2.0, seed=1), np.zeros(32_000)], axis=1), 16_000)
    (tmp_path / "calls" / "x.txt").write_text(TEXTS[0], encoding="utf-8")
    source = {"kind": "folder", "path": tmp_path / "calls", "split": "train"}
    commands.prepare.run(recipe_of([source | {"channel": 0}]))
    assert np.std(Corpus.open(tmp_path / "corpus", "train").samples(0)) == pytest.approx(np.std(tone(2.0)), rel=0.02)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"audio": "a.wav", "text": "a"}]', "is one JSON array: it needs one object per line"),
        ('{"audio": "a.wav", "text": "שלום"}'.encode("utf-16"), "is UTF-16: iconv -f utf-16 -t utf-8"),
        ("audio,text\na.wav,שלום".encode(), "line 1 is not a JSON object ('audio,text')"),
    ],
)
def test_a_manifest_of_another_format_is_reported(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=re.escape(message)):
        list(ManifestSource(kind="manifest", path=path).recordings("Hebrew"))


def test_a_manifest_in_windows_1255_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes('{"audio": "a.wav", "text": "שלום"}'.encode("windows-1255"))
    [found] = ManifestSource(kind="manifest", path=path).recordings("Hebrew")
    assert "not UTF-8: is it windows-1255" in found.problem


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n", "a git-lfs pointer"),
        (b"\n<!DOCTYPE html><html><body>404", "an HTML page"),
    ],
)
def test_failed_downloads_are_recognised(content: bytes, message: str) -> None:
    with pytest.raises(audio.AudioError, match=message):
        audio.decode(content)


def test_file_urls_are_accepted_as_paths(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a b.wav", tone(1.0), 16_000)
    address = (tmp_path / "a b.wav").as_uri()
    path = lines_of(tmp_path, [{"audio": address, "text": "א"}])
    [found] = ManifestSource(kind="manifest", path=path).recordings("Hebrew")
    assert found.audio.open()[0].declared == pytest.approx(1.0)
    with pytest.raises(audio.AudioError, match="%20 and the like belong to URLs"):
        audio.decode(tmp_path / "a%20b.wav")


def test_upper_case_suffixes_are_found_and_missing_texts_are_reported(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "in"
    folder.mkdir()
    for n, (name, text) in enumerate((("A.WAV", "A.TXT"), ("b.wav", "b.txt"), ("c.wav", ""), ("._b.wav", ""))):
        soundfile.write(folder / name, tone(1.5, seed=n), 16_000, format="WAV")
        if text:
            (folder / text).write_text(TEXTS[n], encoding="utf-8")
    summary = commands.prepare.run(recipe_of([{"kind": "folder", "path": folder}])).summary
    assert (summary["kept"], summary["rejected"]) == (2, {"missing_text": 1})
    assert "c.txt is missing" in summary["rejected_examples"]["missing_text"][0]["detail"]


@pytest.mark.parametrize("where", ["cut", "recording"])
def test_lhotse_cuts_with_changed_speed_are_refused(where: str, tmp_path: Path) -> None:
    """perturb_speed does not change the file: at its original speed, the times would not match."""
    from caspi.corpus.sources.lhotse import LhotseSource

    cut = lhotse_cut({"type": "file", "channels": [0], "source": "rec.wav"})
    place = cut if where == "cut" else cut["recording"]
    place["transforms"] = [{"name": "Speed", "kwargs": {"factor": 1.1}}]
    path = tmp_path / "cuts.jsonl"
    path.write_text(json.dumps(cut))
    [found] = LhotseSource(kind="lhotse", path=path).recordings("Hebrew")
    assert "the cut changes its audio (Speed)" in found.problem


def test_lhotse_paths_may_be_relative_to_another_folder(tmp_path: Path) -> None:
    from caspi.corpus.sources.lhotse import LhotseSource

    (tmp_path / "manifests").mkdir()
    path = tmp_path / "manifests" / "cuts.jsonl"
    path.write_text(json.dumps(lhotse_cut({"type": "file", "channels": [0], "source": "rec.wav"})))
    soundfile.write(tmp_path / "rec.wav", tone(4.0), 16_000)
    [found] = LhotseSource(kind="lhotse", path=path, root=tmp_path).recordings("Hebrew")
    assert found.audio.open()[0].declared == pytest.approx(4.0)


def test_a_common_voice_folder_is_read(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "he" / "clips").mkdir(parents=True)
    lines = ["client_id\tpath\tsentence\tup_votes"]
    for n in range(2):
        content = encoded(tone(2.0, seed=n), 16_000, "mp3", "libmp3lame")
        (tmp_path / "he" / "clips" / f"common_voice_he_{n}.mp3").write_bytes(content)
        lines.append(f'speaker{n}\tcommon_voice_he_{n}.mp3\t"{TEXTS[n]}\t2')  # a quotation mark that is not closed
    (tmp_path / "he" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    source = {"kind": "huggingface", "dataset": "common-voice-he", "files": tmp_path / "he"}
    assert commands.prepare.run(recipe_of([source])).summary["kept"] == 2
    assert {u.group for u in utterances(tmp_path / "corpus").values()} == {
        "common-voice-he/speaker0", "common-voice-he/speaker1",
    }  # fmt: skip


def test_the_error_for_a_removed_data_set_says_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    source = HuggingFaceSource(kind="huggingface", dataset="common-voice-he")
    message = source._explain(ConnectionError("offline"))
    assert "is not on the Hub any more: download Hebrew from https://commonvoice.mozilla.org" in message
