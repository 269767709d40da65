"""`caspi label`: two recognisers, checks, confidence from known transcripts, and labels that are only trained on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from caspi import commands, recipe
from caspi.audit.label import LabelConfig, confidence_of
from caspi.audit.label_confidence import Agreement, KnownClip, learnt
from caspi.audit.signals import Heard, Recogniser
from caspi.corpus.derived import CorpusWriter
from caspi.corpus.inspection import splits_of
from caspi.corpus.pipeline.filters import Filters
from caspi.corpus.sources.synthetic import SyntheticSource
from caspi.corpus.store import Corpus
from caspi.corpus.utterance import Utterance
from caspi.errors import UsageError
from caspi.language.stock_phrases import is_stock_phrase
from caspi.model.config import ModelConfig
from caspi.model.loading import load
from caspi.recipe import Recipe
from tests.audit.spoken import Spoken, write_corpus

CLIPS = 60


@pytest.fixture(scope="module")
def spanish() -> list[Spoken]:
    """Frequent words in any order, in a language that `tiny` knows."""
    texts = tuple(Path(__file__).with_name("spanish.txt").read_text(encoding="utf-8").splitlines())
    source = SyntheticSource(
        kind="synthetic", utterances=len(texts), texts=texts, seed=4, languages=("Spanish",), only=("m3", "f3")
    )
    found = []
    for recording in source.recordings("Spanish"):
        stream, _ = recording.audio.open()
        found.append((recording.text, np.concatenate(list(stream.blocks)), recording.group))
    return found


@pytest.fixture(scope="module")
def other_recogniser(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`tiny` with slightly other weights."""
    loaded = load(ModelConfig(start="tiny"))
    folder = tmp_path_factory.mktemp("other")
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in loaded.model.model.language_model.layers.parameters():
            weight.add_(0.02 * weight.std() * torch.randn_like(weight))
    loaded.model.save_pretrained(folder)
    loaded.processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def known(spanish: list[Spoken], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("known") / "corpus", spanish, "validation", "Spanish")


LOOSE = LabelConfig(right_below=0.1, precision=0.5, max_difference=1.0)
LOOSE_ALL = LabelConfig(max_difference=1.0, filters=Filters(min_characters_per_second=0, min_script_share=0))


def labelled(out: Path, *inputs: Path, models: tuple[str, str], **options: Any) -> dict[str, Any]:
    commands.label.run(inputs, models, options.pop("known", None), out, options.pop("config", LOOSE), **options)
    written: dict[str, Any] = json.loads((out / "report.json").read_text())
    return written


def test_a_corpus_without_transcripts_is_labelled(
    spanish: list[Spoken], known: Path, other_recogniser: str, tmp_path: Path
) -> None:
    corpus = write_corpus(
        tmp_path / "corpus", [("?", samples, group) for _, samples, group in spanish], "train", "Spanish"
    )
    models = ("tiny", other_recogniser)
    made = labelled(tmp_path / "out", corpus, models=models, known=known)
    assert made["input"] == CLIPS == made["kept"] + sum(made["rejected"].values())
    assert 5 <= made["kept"] < CLIPS
    assert [split.split for split in splits_of(tmp_path / "out")] == ["train"]
    new = Corpus.open(tmp_path / "out", "train")
    assert len(new) == made["kept"]
    assert all(new.column("labelled"))
    heard = dict(zip(Corpus.open(corpus, "train").column("id"), _heard(spanish), strict=True))
    assert new.column("text") == [heard[one] for one in new.column("id")]
    assert min(new.numbers("quality")) >= made["threshold"]
    lines = [json.loads(line) for line in (tmp_path / "out" / "labels.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == Corpus.open(corpus, "train").column("id")
    assert all(line["reason"] or line["text"] for line in lines)
    points = made["curve"]
    assert [one["coverage"] for one in points] == sorted(one["coverage"] for one in points)
    assert points[-1]["coverage"] == pytest.approx(1)
    assert all(one["right_at_least"] <= one["right"] for one in points)
    # Of its own labels again: the same.
    round_two = labelled(tmp_path / "two", tmp_path / "out", models=models, known=known)
    assert round_two["splits"]["train"]["fingerprint"] == made["splits"]["train"]["fingerprint"]


def _heard(spanish: list[Spoken]) -> list[str]:
    from caspi.audit.faults import Case

    cases = [Case(samples, "", "Spanish") for _, samples, _ in spanish]
    return [one.text for one in Recogniser.of("tiny", "").heard(cases)]


def test_files_are_cut_in_pauses_and_a_damaged_one_is_named(
    spanish: list[Spoken], other_recogniser: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without known transcripts the agreement decides, and no confidence is invented."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    pause = np.zeros(8000, np.float32)
    joined = np.concatenate([part for _, samples, _ in spanish[:12] for part in (samples, pause)])
    soundfile.write(folder / "long.wav", joined, 16_000)
    soundfile.write(folder / "short.flac", spanish[12][1], 16_000)
    (folder / "damaged.wav").write_bytes(b"RIFF no audio")
    models = ("tiny", other_recogniser)
    made = labelled(tmp_path / "out", folder, models=models, language_name="es", config=LabelConfig())
    assert made["input"] == made["kept"] + sum(made["rejected"].values())
    assert made["rejected"]["corrupt_audio"] == 1
    assert "damaged.wav" in caplog.text
    assert "how many of these labels are right is not known" in caplog.text
    new = Corpus.open(tmp_path / "out", "train")
    assert set(new.column("language")) == {"Spanish"}
    assert set(new.column("quality")) == {None}
    assert set(new.column("group")) <= {"recordings/long.wav", "recordings/short.flac"}
    lines = [json.loads(line) for line in (tmp_path / "out" / "labels.jsonl").read_text().splitlines()]
    assert all(line["difference"] <= 0.25 for line in lines if line["reason"] is None)
    assert all(line["difference"] > 0.25 for line in lines if line["reason"] == "recognisers_differ")
    assert len(lines) >= 3  # of long.wav more than one
    assert max(line["seconds"] for line in lines) <= 30


def test_after_a_kill_what_was_heard_is_not_heard_again(
    spanish: list[Spoken], other_recogniser: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(tmp_path / "corpus", spanish[:40], "train", "Spanish")
    counts: list[int] = []
    heard = Recogniser.heard

    def counted(self: Recogniser, cases: list[Any]) -> list[Heard]:
        counts.append(len(cases))
        if len(counts) == 3:
            raise KeyboardInterrupt
        return heard(self, cases)

    monkeypatch.setattr(Recogniser, "heard", counted)
    with pytest.raises(KeyboardInterrupt):
        labelled(tmp_path / "out", corpus, models=("tiny", other_recogniser))
    assert not (tmp_path / "out").exists()
    [cache] = (tmp_path / "out.work").glob("*.jsonl")
    whole = cache.read_text()
    cache.write_text(whole + whole[:40])  # killed while it wrote a line
    labelled(tmp_path / "out", corpus, models=("tiny", other_recogniser))
    assert [count for count in counts[3:] if count] == [8, 8]  # the first 32 were known


def test_labels_are_only_trained_on(spanish: list[Spoken], other_recogniser: str, tmp_path: Path) -> None:
    """Whatever the recipe says: in the split of a source, in a share of the groups, beside transcripts of the same
    speaker in validation, and after an export."""
    corpus = write_corpus(tmp_path / "corpus", spanish[:24], "train", "Spanish")
    every = LabelConfig(max_difference=1.0)
    labelled(tmp_path / "labelled", corpus, models=("tiny", other_recogniser), config=every)
    groups = set(Corpus.open(tmp_path / "labelled", "train").column("group"))
    held_out = write_corpus(
        tmp_path / "people", [one for one in spanish[24:] if one[2] == spanish[0][2]], "test", "Spanish"
    )
    commands.corpus.export(tmp_path / "labelled", "jsonl", tmp_path / "exported")

    def prepared(name: str, *sources: str) -> dict[str, list[dict[str, Any]]]:
        loaded = recipe.load(
            Path("recipes/demo.yaml"),
            (
                "language=Spanish", f"corpus.path={tmp_path / name}", f"corpus.sources=[{', '.join(sources)}]",
                "corpus.splits={validation: 0.4, test: 0.4}", "corpus.workers=1",
            ),
        )  # fmt: skip
        commands.prepare.run(loaded)
        return {
            split.split: [
                {"labelled": split.utterance(row).labelled, "group": split.utterance(row).group}
                for row in range(len(split))
            ]
            for split in splits_of(tmp_path / name)
        }

    labels = f"{{kind: corpus, path: {tmp_path / 'labelled'}, split: validation}}"
    assert set(prepared("one", labels)) == {"train"}
    manifest = f"{{kind: manifest, path: {tmp_path / 'exported' / 'train.jsonl'}, split: test}}"
    assert set(prepared("two", manifest)) == {"train"}
    both = prepared("three", f"{{kind: corpus, path: {held_out}}}", labels)
    assert not any(one["labelled"] for one in both["test"])
    assert all(one["labelled"] for one in both["train"])
    assert {one["group"] for one in both["train"]} == groups - {spanish[0][2]}
    report = json.loads((tmp_path / "three" / "report.json").read_text())
    assert report["rejected"]["held_out"] >= 5


def test_labels_of_audio_that_is_tested_are_refused_however_it_is_named_and_cut(
    spanish: list[Spoken], other_recogniser: str, tmp_path: Path
) -> None:
    """Files that are labelled have other names and cuts than the manifest of the same recording."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    joined = np.concatenate([samples for _, samples, _ in spanish[:20]])
    soundfile.write(folder / "long.wav", joined, 16_000)
    ends = np.cumsum([len(samples) for _, samples, _ in spanish[:20]]) / 16_000
    segments = [
        {"start": end - len(samples) / 16_000, "end": end, "text": text}
        for end, (text, samples, _) in zip(ends.tolist(), spanish[:20], strict=True)
    ]
    (tmp_path / "people.jsonl").write_text(json.dumps({"audio": "recordings/long.wav", "segments": segments}))
    labelled(tmp_path / "labels", folder, models=("tiny", other_recogniser), language_name="es", config=LOOSE_ALL)
    people = f"{{kind: manifest, path: {tmp_path / 'people.jsonl'}, split: test}}"
    labels = f"{{kind: corpus, path: {tmp_path / 'labels'}}}"

    def prepared(*sources: str) -> Recipe:
        return recipe.load(
            Path("recipes/demo.yaml"),
            (
                "language=Spanish", f"corpus.path={tmp_path / 'mixed'}", f"corpus.sources=[{', '.join(sources)}]",
                "corpus.filters={max_seconds: 30, min_characters_per_second: 0, min_script_share: 0}",
            ),
        )  # fmt: skip

    commands.prepare.run(prepared(people, labels))
    assert [split.split for split in splits_of(tmp_path / "mixed")] == ["test"]
    report = json.loads((tmp_path / "mixed" / "report.json").read_text())
    assert report["rejected"]["held_out"] == len(Corpus.open(tmp_path / "labels", "train"))
    with pytest.raises(UsageError, match="put the source with labels last"):
        commands.prepare.run(prepared(labels, people))


@pytest.mark.parametrize("labelled", [False, True])
def test_texts_of_recognisers_say_nothing_about_labels(labelled: bool, tmp_path: Path) -> None:
    """Only those of people do."""
    writer = CorpusWriter(tmp_path)
    heard = {}
    for n in range(60):
        utterance = Utterance(f"u{n}", "uno dos tres", 1.0, "known", f"s{n}", "Spanish", labelled=labelled)
        writer.add(utterance, np.zeros(16_000, np.float32))
        one = Heard("uno dos tres" if n % 2 else "cuatro", "Spanish", 0.9 if n % 2 else 0.3)
        heard[utterance.id] = (one, Heard("uno dos tres", "Spanish", 0.9))
    (tmp_path / "report.json").write_text(json.dumps({"stage": "prepare", **writer.finish()}))
    found = confidence_of(Corpus.open(tmp_path, "train"), heard, LabelConfig())
    assert (found is None) is labelled


def test_wrong_use_is_one_line(known: Path, other_recogniser: str, tmp_path: Path) -> None:
    audio = tmp_path / "one.wav"
    soundfile.write(audio, np.zeros(16_000), 16_000)
    two = ("tiny", other_recogniser)
    copy = tmp_path / "copy"
    shutil.copytree(other_recogniser, copy)
    for inputs, models, message in (
        ([audio], ["tiny"], "give --asr twice"),
        ([audio], [other_recogniser, str(copy)], "have the same weights"),
        ([tmp_path / "missing.wav"], two, "no such file"),
        ([tmp_path / "empty"], two, "no audio file"),
        ([known, audio], two, "give one corpus, or audio"),
        ([audio], two, "no clip would be labelled: empty_text"),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(UsageError, match=message):
            commands.label.run(inputs, models, None, tmp_path / "out", LOOSE)


def test_a_threshold_is_chosen_that_keeps_the_wanted_share_right() -> None:
    """Texts that differ more are more often wrong; of 2,000 other clips above it, at least 90 % are right."""
    draw = np.random.default_rng(0)

    def clips(count: int) -> list[KnownClip]:
        found = []
        for differ in draw.uniform(0, 0.6, count).tolist():
            wrong = draw.random() < min(1.0, 3 * max(0.0, differ - 0.1))
            sure = float(np.clip(0.95 - differ + 0.05 * draw.standard_normal(), 0, 1))
            found.append(KnownClip(Agreement(differ, (sure, sure)), 20 if wrong else 0, 40, 4.0))
        return found

    found = learnt(clips(600), 0.1, 0.9)
    assert found is not None
    assert found.threshold is not None
    others = clips(2000)
    confidence = found([one.agreement for one in others])
    right = np.array([one.errors == 0 for one in others])
    kept = confidence >= found.threshold
    assert right[kept].mean() >= 0.9
    assert kept.mean() > 0.02
    for low in (0.2, 0.5, 0.8):  # of those with about this confidence, about as many are right
        near = np.abs(confidence - low) < 0.1
        assert right[near].mean() == pytest.approx(confidence[near].mean(), abs=0.08)


def test_nothing_is_sure_enough_if_recognisers_are_bad_or_known_clips_few() -> None:
    bad = [KnownClip(Agreement(0.3, (0.5, 0.5)), 20 if n % 10 else 0, 40, 4.0) for n in range(200)]
    found = learnt(bad, 0.1, 0.9)
    assert found is not None
    assert found.threshold is None
    assert learnt(bad[:20], 0.1, 0.9) is None


@pytest.mark.parametrize("errors", [0, 20])
def test_nothing_is_learnt_where_all_are_right_or_all_wrong(errors: int) -> None:
    same = [KnownClip(Agreement(0.01 * (n % 5), (0.9, 0.9)), errors, 40, 4.0) for n in range(200)]
    assert learnt(same, 0.1, 0.9) is None


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_more_doubt_never_makes_a_label_surer(seed: int) -> None:
    """Whatever the known clips are."""
    draw = np.random.default_rng(seed)
    known = [
        KnownClip(Agreement(*pair[:1], (pair[1], pair[2])), int(20 * draw.integers(0, 2)), 40, 4.0)
        for pair in draw.random((80, 3)).tolist()
    ]
    found = learnt(known, 0.1, 0.9)
    assert found is not None
    differ, one, other = draw.random(3).tolist()
    worse = [Agreement(differ, (one, other)), Agreement(min(1.0, differ + 0.2), (one / 2, other / 3))]
    sure, less_sure = found(worse)
    assert less_sure <= sure + 1e-12


@pytest.mark.parametrize(
    ("text", "spoken", "is_one"),
    [
        ("תודה רבה.", "Hebrew", True),
        ("תודה על הצפייה! תודה על הצפייה!", "Hebrew", True),
        ("Thanks for watching!", "Hebrew", True),
        ("כתוביות: יוסי כהן", "Hebrew", True),
        ("תודה רבה לך על העזרה", "Hebrew", False),
        ("", "Hebrew", False),
        ("gracias a todos", "Spanish", False),
    ],
)
def test_stock_phrases(text: str, spoken: str, is_one: bool) -> None:
    assert is_stock_phrase(text, spoken) is is_one
