"""`caspi repair`: every utterance is accounted for, and what is changed is what was spoken."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caspi import commands
from caspi.audit.repair import AuditedCorpus, RepairPolicy
from caspi.corpus.inspection import splits_of
from caspi.corpus.store import Corpus
from caspi.errors import UsageError
from caspi.reporting.report import environment
from caspi.training.checkpoint.model_card import model_card
from caspi.training.checkpoint.provenance import Provenance
from tests.audit.spoken import ALL, SIZE, Spoken, write_corpus

# Rows with a fault, by kind.
OTHERS, TOO_LONG, FIRST_MISSING, LATE = range(0, 4), range(4, 8), range(8, 12), range(12, 16)
CUT_LATE = 0.6  # seconds that boundaries of the recording of four sentences are late


@pytest.fixture(scope="module")
def spoiled(sentences: list[Spoken], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with 16 faulty utterances, four of each kind, and its audit beside it. Those cut late are one recording,
    whose clips follow one another; the others are recordings of their own."""
    spoken = [(text, samples, f"recording {n}") for n, (text, samples, _) in enumerate(sentences)]
    order = sorted(range(SIZE), key=lambda n: -len(sentences[n][0].split()))  # the longest first
    spoken = [spoken[n] for n in order]
    texts = [text for text, _, _ in spoken]
    for n in OTHERS:
        spoken[n] = (texts[-1 - n], *spoken[n][1:])
    for n in TOO_LONG:
        spoken[n] = (f"{texts[n]} {texts[40 + n]}", *spoken[n][1:])
    for n in FIRST_MISSING:
        spoken[n] = (" ".join(texts[n].split()[2:]), *spoken[n][1:])
    joined = np.concatenate([spoken[n][1] for n in LATE])
    ends = np.cumsum([len(spoken[n][1]) for n in LATE])[:-1] + round(CUT_LATE * 16_000)
    for n, part in zip(LATE, np.split(joined, ends), strict=True):
        spoken[n] = (texts[n], part, "one recording")
    folder = tmp_path_factory.mktemp("spoiled") / "corpus"
    write_corpus(folder, spoken[:4], "validation")
    write_corpus(folder, spoken)
    commands.audit.run(folder, "tiny-aligner", [], None, ALL)
    return folder


def repaired(corpus: Path, out: Path, **policy: Any) -> dict[str, Any]:
    commands.repair.run(corpus, corpus.with_name("corpus-audit"), out, RepairPolicy(**policy))
    written: dict[str, Any] = json.loads((out / "report.json").read_text())
    return written


def test_all_utterances_are_kept_changed_or_dropped(spoiled: Path, tmp_path: Path) -> None:
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in spoiled.iterdir()}
    made = repaired(spoiled, tmp_path / "out")
    assert made["input"] == SIZE == made["kept"] + made["changed"] + made["dropped"]
    assert made["changed"] >= 8
    assert {path: hashlib.sha256(path.read_bytes()).digest() for path in spoiled.iterdir()} == before
    new = Corpus.open(tmp_path / "out", "train")
    assert len(new) == made["written"]
    old = Corpus.open(spoiled, "train")
    gone = {change["row"] for change in made["changes"]}
    old_ids = old.column("id")
    stayed = [row for row in range(SIZE) if row not in gone]
    assert [one for one in new.column("id") if one in {old_ids[row] for row in stayed}] == [old_ids[n] for n in stayed]
    for row in stayed[:5]:
        again = new.column("id").index(old_ids[row])
        assert new.flac(again) == old.flac(row)
        assert new.utterance(again).text == old.utterance(row).text
    assert [split.split for split in splits_of(tmp_path / "out")] == ["train", "validation"]
    assert (tmp_path / "out" / "validation-00000.arrow").samefile(spoiled / "validation-00000.arrow")


def test_what_is_changed_is_what_was_spoken(spoiled: Path, sentences: list[Spoken], tmp_path: Path) -> None:
    """Texts of two sentences lose the second; clips whose first words have no text lose them; the clips that were cut
    late get their words back, whole."""
    made = repaired(spoiled, tmp_path / "out", by_chance=0.2)  # few utterances: a small share would be of one or two
    changes = {change["row"]: change for change in made["changes"]}
    spoken = sorted(sentences, key=lambda one: -len(one[0].split()))
    assert [changes[n]["action"] for n in OTHERS] == ["drop"] * len(OTHERS)
    for n in TOO_LONG:
        [after] = changes[n]["after"]
        assert spoken[n][0].startswith(after["text"])
        assert len(after["text"].split()) >= len(spoken[n][0].split()) - 1
    mended = [n for n in FIRST_MISSING if n in changes]
    assert len(mended) >= len(FIRST_MISSING) - 1  # one is as sure as right ones
    for n in mended:
        [after] = changes[n]["after"]
        assert after["start"] > 0.3
        assert after["text"] == changes[n]["before"]["text"]
    new = Corpus.open(tmp_path / "out", "train")
    lengths = np.array([len(spoken[n][1]) / 16_000 for n in LATE])
    for n, length in zip(LATE, lengths, strict=True):
        assert changes[n]["action"] == "move_boundaries"
        [after] = changes[n]["after"]
        assert after["text"] == spoken[n][0]
        assert after["seconds"] == pytest.approx(length, abs=0.2)
        assert new.utterance(new.column("id").index(after["id"])).seconds == pytest.approx(after["seconds"], abs=1e-3)
    assert all(v["score"] < c["before"]["score"] for c in changes.values() for v in c["after"] if c["before"]["score"])


def test_what_is_not_flagged_is_changed_only_for_the_better(spoiled: Path, tmp_path: Path) -> None:
    audit = json.loads((spoiled.with_name("corpus-audit") / "alignment_report.json").read_text())
    flagged = {one["row"] for one in audit["utterances"] if one["flagged"]}
    scorer = AuditedCorpus.from_json(audit).scorer
    signals = {one["row"]: one["signals"] for one in audit["utterances"]}
    made = repaired(spoiled, tmp_path / "out", by_chance=0.5)
    for change in made["changes"]:
        [before] = scorer([signals[change["row"]]]).tolist()
        assert before >= audit["threshold"] or change["row"] not in flagged
        assert all(version["score"] < before for version in change["after"])


@pytest.mark.slow
def test_an_audit_of_the_result_finds_less(spoiled: Path, tmp_path: Path) -> None:
    repaired(spoiled, tmp_path / "out")
    again = commands.audit.run(tmp_path / "out", "tiny-aligner", [], None, ALL)
    before = json.loads((spoiled.with_name("corpus-audit") / "report.json").read_text())
    assert before["low_quality_fraction"] > 0.12
    assert again.summary["low_quality_fraction"] < before["low_quality_fraction"] / 2


@pytest.mark.slow
def test_what_a_wrong_text_would_often_pass_is_not_accepted(spoiled: Path, tmp_path: Path) -> None:
    """The smaller the share of wrong texts that may pass, the fewer changes."""
    counts = [repaired(spoiled, tmp_path / f"{n}", by_chance=n)["changed"] for n in (0.001, 0.5)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_what_nothing_helps_can_be_marked_for_people(spoiled: Path, tmp_path: Path) -> None:
    made = repaired(spoiled, tmp_path / "out", actions=(), otherwise="mark")
    assert (made["changed"], made["dropped"], made["kept"]) == (0, 0, SIZE)
    listed = [json.loads(line) for line in (tmp_path / "out" / "for_people.jsonl").read_text().splitlines()]
    assert len(listed) == made["marked"] >= 12
    assert all(one["reasons"] for one in listed)
    assert Corpus.open(tmp_path / "out", "train").column("text") == Corpus.open(spoiled, "train").column("text")


def test_the_text_before_is_told_only_if_it_is_still_the_text_before(spoiled: Path, tmp_path: Path) -> None:
    """Clips whose boundaries moved keep it; one that follows an utterance that was cut or dropped does not."""
    old = Corpus.open(spoiled, "train")
    assert sum(map(bool, old.column("previous"))) == len(LATE) - 1
    repaired(spoiled, tmp_path / "out")
    assert sum(map(bool, Corpus.open(tmp_path / "out", "train").column("previous"))) == len(LATE) - 1
    made = repaired(spoiled, tmp_path / "dropped", actions=["cut"])
    new = Corpus.open(tmp_path / "dropped", "train")
    changed = {change["row"] for change in made["changes"]}
    told = {old.column("id")[row] for row in LATE[1:] if row - 1 not in changed and row not in changed}
    assert {one for one, text in zip(new.column("id"), new.column("previous"), strict=True) if text} == told


def test_the_card_of_a_model_trained_on_it_says_what_was_repaired(spoiled: Path, tmp_path: Path) -> None:
    made = repaired(spoiled, tmp_path / "out")
    card = model_card(Provenance("test", "", "Hebrew", "tiny", tmp_path / "out"), "stage all", {}, environment(), 6.0)
    total = made["splits"]["train"]["utterances"] + made["splits"]["validation"]["utterances"]
    assert f"{total} utterances" in card
    assert f"{made['changed']} were changed and {made['dropped']} dropped" in card


def test_wrong_use_is_one_line(spoiled: Path, sentences: list[Spoken], tmp_path: Path) -> None:
    audit = spoiled.with_name("corpus-audit")
    other = write_corpus(tmp_path / "other", sentences[:8])
    (other / "report.json").write_text('{"stage": "prepare", "name": "other"}')
    with pytest.raises(UsageError, match="is an audit of another corpus"):
        commands.repair.run(other, audit, None, RepairPolicy())
    with pytest.raises(UsageError, match="is not an audit"):
        commands.repair.run(spoiled, tmp_path, None, RepairPolicy())
    with pytest.raises(UsageError, match="is the corpus itself"):
        commands.repair.run(spoiled, audit, spoiled, RepairPolicy())
    with pytest.raises(UsageError, match="or inside of it"):
        commands.repair.run(spoiled, audit, spoiled / "sub", RepairPolicy())
    with pytest.raises(UsageError, match="would be dropped"):
        commands.repair.run(spoiled, audit, None, RepairPolicy(threshold=-100.0, actions=()))
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for content in ("", "{}", "[]", "{"):
        (damaged / "alignment_report.json").write_text(content)
        with pytest.raises(UsageError, match="audit again"):
            commands.repair.run(spoiled, damaged, None, RepairPolicy())
    unsure = json.loads((audit / "alignment_report.json").read_text()) | {"apart": 0.9}
    (damaged / "alignment_report.json").write_text(json.dumps(unsure))
    with pytest.raises(UsageError, match="do not know such speech"):
        commands.repair.run(spoiled, damaged, None, RepairPolicy())
    policy = tmp_path / "policy.yaml"
    policy.write_text("action: [cut]")
    with pytest.raises(UsageError, match=r"policy.*action: unknown key; did you mean actions"):
        commands.repair.policy_of(policy)
    policy.write_text("actions: [mend]")
    with pytest.raises(UsageError, match=r"policy.*actions\.0"):
        commands.repair.policy_of(policy)
    policy.write_text("otherwise: mark\nmin_words: 4")
    assert commands.repair.policy_of(policy) == RepairPolicy(otherwise="mark", min_words=4)
