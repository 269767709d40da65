from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from caspi import audio, commands
from caspi.corpus.store import ROWS_PER_BATCH, SCHEMA, Corpus, ShardWriter
from caspi.corpus.store import row as row_of
from caspi.corpus.utterance import SPLITS, Utterance, Word
from caspi.errors import UsageError
from tests.conftest import manifest_recipe, tone


def all_utterances(folder: Path) -> list[tuple[str, Utterance]]:
    found = []
    for split in SPLITS:
        if list(folder.glob(f"{split}-*.arrow")):
            corpus = Corpus.open(folder, split)
            found += [(split, corpus.utterance(row)) for row in range(len(corpus))]
    return found


def test_every_input_is_kept_or_rejected_with_a_reason(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF....nonsense")
    soundfile.write(tmp_path / "silence.wav", np.zeros(32_000), 16_000)
    soundfile.write(tmp_path / "long.wav", tone(40.0), 16_000)
    extra = [
        {"audio": "broken.wav", "text": "שלום"},
        {"audio": "absent.wav", "text": "שלום"},
        {"audio": "silence.wav", "text": "שלום לכולם"},
        {"audio": "long.wav", "text": "שלום לכולם " * 5},
        {"audio": "0.wav", "text": "   "},
        {"audio": "1.wav", "text": "hello there"},
        {"audio": "2.wav", "text": "מלה " * 40},
    ]
    with manifest.open("a", encoding="utf-8") as file:
        file.writelines("\n" + json.dumps(line, ensure_ascii=False) for line in extra)
    summary = commands.prepare.run(manifest_recipe(manifest, tmp_path)).summary
    assert summary["input"] == 10 == summary["kept"] + sum(summary["rejected"].values())
    assert summary["rejected"] == {
        "corrupt_audio": 1, "empty_text": 1, "long_without_times": 1, "missing_audio": 1, "not_in_language": 1,
        "silent": 1, "too_fast": 1,
    }  # fmt: skip


def test_the_number_of_workers_changes_nothing(manifest: Path, tmp_path: Path) -> None:
    prints = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        made = manifest_recipe(manifest, folder, f"corpus.workers={workers}")
        prints.append([s["fingerprint"] for s in commands.prepare.run(made).summary["splits"].values()])
    assert prints[0] == prints[1]


def test_no_group_in_two_splits(tmp_path: Path) -> None:
    lines = []
    for n in range(160):
        soundfile.write(tmp_path / f"{n}.wav", tone(1.0, seed=n), 16_000)
        lines.append({"audio": f"{n}.wav", "text": "שלום עולם", "group": f"speaker-{n % 40}"})
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    commands.prepare.run(manifest_recipe(path, tmp_path, "corpus.splits.validation=0.3", "corpus.splits.test=0.3"))
    seen: dict[str, set[str]] = {}
    for split, utterance in all_utterances(tmp_path / "corpus"):
        seen.setdefault(utterance.group, set()).add(split)
    assert len(seen) == 40
    assert all(len(splits) == 1 for splits in seen.values())
    assert {split for splits in seen.values() for split in splits} == {"train", "validation", "test"}


def test_segments_become_utterances_with_their_own_words(tmp_path: Path) -> None:
    clip = tone(12.0)
    soundfile.write(tmp_path / "long.wav", clip, 16_000)
    words = [[f"{'אבגדהוזחטילמ'[n]}מלה", n * 1.0] for n in range(12)]
    line = {
        "audio": "long.wav",
        "segments": [
            {"start": 0.0, "end": 4.0, "text": " ".join(w for w, _ in words[:4]), "words": words[:4]},
            {"start": 4.0, "end": 12.0, "text": " ".join(w for w, _ in words[4:]), "words": words[4:]},
        ],
    }
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps(line, ensure_ascii=False), encoding="utf-8")
    commands.prepare.run(manifest_recipe(path, tmp_path, "corpus.segmentation.max_seconds=5"))
    found = [u for _, u in all_utterances(tmp_path / "corpus")]
    assert [u.seconds for u in found] == pytest.approx([4.0, 4.0, 4.0])
    assert " ".join(u.text for u in found).split() == [w for w, _ in words]
    for utterance in found:
        assert [w.text for w in utterance.words] == utterance.text.split()
        assert all(0 <= w.start < w.end <= utterance.seconds for w in utterance.words)
    split = all_utterances(tmp_path / "corpus")[0][0]
    stored = Corpus.open(tmp_path / "corpus", split).samples(1)
    assert np.abs(stored - clip[64_000:128_000]).max() < 1e-3


def test_paths_outside_the_folder_are_refused(manifest: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    path = inner / "m.jsonl"
    path.write_text(json.dumps({"audio": "../0.wav", "text": "שלום עולם"}))
    with pytest.raises(UsageError, match=r"line 1: audio '../0.wav' lies outside"):
        commands.prepare.run(manifest_recipe(path, inner))
    path.write_text(path.read_text())
    allowed = manifest_recipe(path, inner, "corpus.sources.0.allow_outside=true")
    assert commands.prepare.run(allowed).summary["kept"] == 1


def test_official_prefix_is_understood(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1.0), 16_000)
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"audio": "a.wav", "text": "language Hebrew<asr_text>שלום", "prompt": "הקשר"}))
    commands.prepare.run(manifest_recipe(path, tmp_path))
    [(_, utterance)] = all_utterances(tmp_path / "corpus")
    assert (utterance.text, utterance.language, utterance.context) == ("שלום", "Hebrew", "הקשר")


def test_an_empty_corpus_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"audio": "no.wav", "text": "שלום"}))
    with pytest.raises(UsageError, match="would be empty: missing_audio 1"):
        commands.prepare.run(manifest_recipe(path, tmp_path))
    assert not (tmp_path / "corpus").exists()
    assert not (tmp_path / "corpus.partial").exists()


def test_plain_datasets_reads_the_corpus(small_corpus: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.load_dataset(
        "arrow",
        data_files={"train": str(small_corpus / "train-*.arrow")},
        split="train",
        cache_dir=str(small_corpus / "hf"),
    )
    ours = Corpus.open(small_corpus, "train")
    assert rows.num_rows == len(ours)
    assert rows[5]["text"] == ours.utterance(5).text
    assert audio.decode_flac(rows[5]["audio"]["bytes"]).tolist() == ours.samples(5).tolist()


def test_opening_reads_little_and_rows_are_random_access(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "train")
    flac = audio.encode_flac(tone(0.5))
    count = 5 * ROWS_PER_BATCH + 7
    words = (Word("text", 0.0, 0.2),)
    rows = [row_of(Utterance(f"u{n}", f"text {n}", 0.5, "s", f"g{n}", words=words), flac) for n in range(count)]
    for start in range(0, count, ROWS_PER_BATCH):
        writer.write(pa.RecordBatch.from_pylist(rows[start : start + ROWS_PER_BATCH], schema=SCHEMA))
    writer.close()
    (tmp_path / "report.json").write_text("{}")
    started = time.perf_counter()
    corpus = Corpus.open(tmp_path, "train")
    opening = time.perf_counter() - started
    assert len(corpus) == count
    for number in (0, count - 1, ROWS_PER_BATCH, ROWS_PER_BATCH - 1, 137):
        assert corpus.utterance(number).id == f"u{number}"
    started = time.perf_counter()
    assert sum(corpus.utterance(number).seconds for number in range(count)) == count / 2
    assert opening < (time.perf_counter() - started) / 3
    with pytest.raises(IndexError):
        corpus.utterance(count)


def test_a_shard_cut_in_half_is_refused(small_corpus: Path, tmp_path: Path) -> None:
    data = (small_corpus / "train-00000.arrow").read_bytes()
    (tmp_path / "train-00000.arrow").write_bytes(data[: len(data) // 2])
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(UsageError, match="damaged"):
        Corpus.open(tmp_path, "train")


def test_synthetic_splits_share_no_sentence_and_no_voice(small_corpus: Path) -> None:
    texts, voices = {}, {}
    for split in SPLITS:
        corpus = Corpus.open(small_corpus, split)
        texts[split], voices[split] = set(corpus.column("text")), set(corpus.column("group"))
        assert all(corpus.column("synthetic"))
    for a, b in (("train", "test"), ("train", "validation"), ("validation", "test")):
        assert not texts[a] & texts[b]
        assert not voices[a] & voices[b]


def test_synthetic_word_times_match_the_speech(small_corpus: Path) -> None:
    corpus = Corpus.open(small_corpus, "train")
    for row in range(10):
        utterance = corpus.utterance(row)
        assert [w.text for w in utterance.words] == utterance.text.split()
        starts = [w.start for w in utterance.words]
        assert starts == sorted(starts)
        assert starts[-1] < utterance.seconds
        assert len(set(starts)) == len(starts)


def test_the_corpus_folder_has_report_and_recipe(small_corpus: Path) -> None:
    content = json.loads((small_corpus / "report.json").read_text())
    assert content["input"] == content["kept"] + sum(content["rejected"].values())
    assert {"revision", "libraries", "date"} <= content["environment"].keys()
    page = (small_corpus / "report.html").read_text(encoding="utf-8")
    assert "Synthetic speech" in page
    assert "http" not in page.split("<details>")[0].replace("http-equiv", "")
    assert (small_corpus / "recipe.yaml").is_file()


def test_huggingface_parquet_is_read_with_bytes_decoded_by_us(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    import io

    import pyarrow.parquet as pq

    def mp3(seed: int) -> bytes:
        buffer = io.BytesIO()
        soundfile.write(buffer, tone(1.5, seed=seed), 16_000, format="MP3")
        return buffer.getvalue()

    rows = [
        {
            "audio": {"bytes": mp3(n), "path": f"{n}.mp3"},
            "transcript": f"<|0.00|>שלום לכם {text}<|1.50|>",
            "metadata": json.dumps({"entry_id": f"entry-{n}", "quality_score": 0.9}),
            "prev_transcript": "מה שנאמר קודם",
        }
        for n, text in enumerate(["אחת", "שתיים"])
    ]
    folder = tmp_path / "crowd-recital"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "train-00000.parquet")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"name: t\ncorpus:\n  path: {tmp_path / 'corpus'}\n  workers: 1\n  sources:\n"
        f"    - {{kind: huggingface, dataset: {folder}, text_key: transcript, group_key: metadata.entry_id,"
        " previous_key: prev_transcript}\n"
    )
    from caspi import recipe

    assert commands.prepare.run(recipe.load(path)).summary["kept"] == 2
    found = [u for _, u in all_utterances(tmp_path / "corpus")]
    assert {u.text for u in found} == {"שלום לכם אחת", "שלום לכם שתיים"}
    assert {u.group for u in found} == {"crowd-recital/entry-0", "crowd-recital/entry-1"}
    assert {u.previous for u in found} == {"מה שנאמר קודם"}
    assert all(u.segments[0].text == u.text and u.segments[0].end == pytest.approx(1.5) for u in found)


def test_yiddish_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"name: t\ncorpus:\n  path: {tmp_path / 'c'}\n"
        "  sources: [{kind: huggingface, dataset: ivrit-ai/crowd-whatsapp-yi}]\n"
    )
    from caspi import recipe

    with pytest.raises(UsageError, match=r"corpus.sources.0.*is Yiddish"):
        recipe.load(path)


def test_every_verse_of_real_recordings_has_an_outcome(real_speech_folder: Path, tmp_path: Path) -> None:
    lines = (real_speech_folder / "torah" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()[:3]
    path = tmp_path / "m.jsonl"
    rows = [json.loads(line) for line in lines]
    for row in rows:
        row["audio"] = str(real_speech_folder / "torah" / row["audio"])
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    made = manifest_recipe(
        path, tmp_path, "corpus.sources.0.allow_outside=true", "corpus.sources.0.columns.speaker=recording",
        "corpus.segmentation.max_seconds=15", "corpus.filters.max_seconds=15",
    )  # fmt: skip
    summary = commands.prepare.run(made).summary
    assert summary["input"] == summary["kept"] + sum(summary["rejected"].values())
    assert summary["hours"] * 3600 > 0.9 * sum(row["seconds"] for row in rows) * 0.9
    for _, utterance in all_utterances(tmp_path / "corpus"):
        assert utterance.seconds <= 15
        assert all(0 <= w.start <= w.end <= utterance.seconds for w in utterance.words)


def test_speech_depends_only_on_text_and_voice() -> None:
    """espeak keeps state from one utterance to the next; the corpus must not depend on it."""
    from caspi.corpus.synthesis.espeak import Voice, speak

    voices = [
        Voice(name, 150 + 5 * n, 30 + 3 * n) for n, name in enumerate(["Alex", "m5", "klatt5", "grandma", "f2", "Reed"])
    ]
    forwards = [speak("buenos dias a todos", "es", voice).samples for voice in voices]
    backwards = [speak("buenos dias a todos", "es", voice).samples for voice in reversed(voices)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forwards, backwards, strict=True))


def test_synthetic_corpora_are_the_same_for_any_number_of_workers(small_recipe, small_corpus, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    again = small_recipe.model_copy(
        update={"corpus": small_recipe.corpus.model_copy(update={"path": tmp_path / "corpus", "workers": 2})}
    )
    found = commands.prepare.run(again).summary["splits"]
    expected = json.loads((small_corpus / "report.json").read_text())["splits"]
    assert found == expected


def test_a_failing_source_ends_the_command_without_hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error was once raised in the pool's own thread, and the pool waited forever."""
    from caspi.errors import MissingDependency

    def missing(self: object, language: str, skip: int = 0) -> None:
        raise MissingDependency("a source", package="nothing", extra="none")

    monkeypatch.setattr("caspi.corpus.sources.manifest.ManifestSource.recordings", missing)
    (tmp_path / "m.jsonl").write_text("{}")
    made = manifest_recipe(tmp_path / "m.jsonl", tmp_path, "corpus.workers=2")
    with pytest.raises(MissingDependency, match="a source needs the package nothing: pip install"):
        commands.prepare.run(made)


def test_errors_can_be_pickled_between_processes() -> None:
    import pickle

    from caspi.errors import MissingDependency

    for error in (MissingDependency("x", package="p", extra="e"), audio.AudioError("silent", "detail")):
        again = pickle.loads(pickle.dumps(error))
        assert str(again) == str(error)
        assert type(again) is type(error)


def test_ids_are_unique(tmp_path: Path) -> None:
    for n in range(5):
        soundfile.write(tmp_path / f"{n}.wav", tone(1.0, seed=n), 16_000)
    lines = [{"audio": f"{n}.wav", "text": f"שלום {n}", "group": "speaker"} for n in range(3)]
    lines += [
        {"audio": "3.wav", "text": "עוד שלום", "id": "same"},
        {"audio": "4.wav", "text": "שוב שלום", "id": "same"},
    ]
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    summary = commands.prepare.run(manifest_recipe(path, tmp_path)).summary
    assert summary["rejected"] == {"duplicate_id": 1}
    found = [u.id for _, u in all_utterances(tmp_path / "corpus")]
    assert len(found) == len(set(found)) == 4


def test_a_warning_is_given_if_every_utterance_is_its_own_group(tmp_path: Path) -> None:
    for n in range(3):
        soundfile.write(tmp_path / f"{n}.wav", tone(1.0, seed=n), 16_000)
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(json.dumps({"audio": f"{n}.wav", "text": f"שלום {n}"}) for n in range(3)))
    summary = commands.prepare.run(manifest_recipe(path, tmp_path)).summary
    assert "every utterance is its own group" in summary["warnings"][0]


def test_an_unknown_voice_is_an_error(tmp_path: Path) -> None:
    """espeak uses its default voice for an unknown name."""
    from caspi import recipe
    from tests.conftest import RECIPES

    made = recipe.load(RECIPES / "demo.yaml", (f"corpus.path={tmp_path / 'c'}", "corpus.sources.0.without=[lynda]"))
    with pytest.raises(UsageError, match="espeak has no voice lynda"):
        commands.prepare.run(made)


def test_a_corpus_with_too_many_rejections_must_be_allowed(tmp_path: Path) -> None:
    lines = [{"audio": "0.wav", "text": "שלום עולם" if n == 0 else "", "id": str(n)} for n in range(40)]
    soundfile.write(tmp_path / "0.wav", tone(2.0), 16_000)
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    with pytest.raises(UsageError, match=r"97.50 % of 40 utterances would be rejected \(empty_text 39\)"):
        commands.prepare.run(manifest_recipe(path, tmp_path))
    assert not (tmp_path / "corpus").exists()
    assert commands.prepare.run(manifest_recipe(path, tmp_path, "corpus.max_rejected=1")).summary["kept"] == 1
