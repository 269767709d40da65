from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from caspi import commands
from caspi.corpus.pipeline.splits import Splits, boundary_of, split_of
from caspi.corpus.store import Corpus
from caspi.corpus.utterance import SPLITS
from caspi.errors import UsageError
from tests.conftest import tone
from tests.support import utterances, write_manifest


@given(st.lists(st.text(min_size=1), min_size=1, unique=True), st.integers(0, 5))
def test_growth_never_moves_a_group(groups: list[str], seed: int) -> None:
    shares = Splits(validation=0.2, test=0.2, seed=seed)
    before = {group: split_of(group, shares) for group in groups[: len(groups) // 2]}
    after = {group: split_of(group, shares) for group in groups}
    assert all(after[group] == split for group, split in before.items())


def test_shares_are_kept() -> None:
    shares = Splits(validation=0.1, test=0.2)
    found = [split_of(f"recording-{n}", shares) for n in range(20_000)]
    assert found.count("validation") / 20_000 == pytest.approx(0.1, abs=0.01)
    assert found.count("test") / 20_000 == pytest.approx(0.2, abs=0.01)


def test_splits_without_training_data_are_an_error() -> None:
    with pytest.raises(ValidationError, match="leave no training data"):
        Splits(validation=0.5, test=0.5)


@given(st.dictionaries(st.text(min_size=1), st.floats(0.01, 5), min_size=1, max_size=40), st.floats(0, 20))
def test_validation_has_its_minimum_of_hours_or_half_of_the_source(hours: dict[str, float], minimum: float) -> None:
    shares = Splits(validation=0.05, test=0.05, min_validation_hours=minimum)
    end = boundary_of(hours, shares)
    held = {split: sum(h for g, h in hours.items() if split_of(g, shares, end) == split) for split in SPLITS}
    possible = sum(hours.values()) - held["test"]
    assert held["validation"] >= min(minimum, sum(hours.values()) / 2, possible) - 1e-9
    longest = max(hours.values())
    share_alone = sum(h for g, h in hours.items() if split_of(g, shares) == "validation")
    assert held["validation"] <= max(share_alone, min(minimum, sum(hours.values()) / 2) + longest) + 1e-9


@given(st.lists(st.text(min_size=1), min_size=2, max_size=40, unique=True), st.integers(1, 39))
def test_a_validation_boundary_is_kept_when_a_source_grows(groups: list[str], cut: int) -> None:
    shares = Splits(validation=0.02, test=0.1, min_validation_hours=2.0)
    before = dict.fromkeys(groups[: 1 + cut % (len(groups) - 1)], 1.0)
    first = boundary_of(before, shares)
    grown = boundary_of(dict.fromkeys(groups, 1.0), shares, first)
    assert all(split_of(group, shares, first) == split_of(group, shares, grown) for group in before)


def test_every_source_gets_its_validation(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    sources = []
    for name, count in (("many", 40), ("few", 4)):
        clips = [(tone(1.0, seed=100 * count + n), f"שלום לכם {name} {n}") for n in range(count)]
        path = write_manifest(tmp_path / name, clips, name)
        sources.append({"kind": "manifest", "path": path, "name": name})
    wanted = {"validation": 0.01, "test": 0.05, "min_validation_hours": 2 / 3600}
    commands.prepare.run(recipe_of(sources, splits=wanted, filters={"min_script_share": 0.3}))
    corpus = Corpus.open(tmp_path / "corpus", "validation")
    held = {name: corpus.column("source").count(name) for name in ("many", "few")}
    assert held == {"many": 2, "few": 2}


@pytest.mark.parametrize(("split", "warns"), [("train", True), ("test", False)])
def test_a_corpus_without_validation_gives_a_warning(
    tmp_path: Path,
    recipe_of,  # type: ignore[no-untyped-def]
    split: str,
    warns: bool,
) -> None:
    """A corpus of test data only needs no validation."""
    path = write_manifest(tmp_path / "in", [(tone(1.0, seed=n), f"שלום לכם חברים {n}") for n in range(3)])
    found = commands.prepare.run(recipe_of([{"kind": "manifest", "path": path, "split": split}])).summary["warnings"]
    assert any("no utterance is in validation" in warning for warning in found) == warns


def test_a_source_that_grows_moves_no_utterance(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    clips = [(tone(1.0, seed=n), f"שלום לכם חברים {n}") for n in range(60)]
    shares = {"validation": 0.03, "test": 0.1, "min_validation_hours": 5 / 3600}

    def splits(count: int) -> dict[str, str]:
        path = write_manifest(tmp_path / "in", clips[:count])
        commands.prepare.run(
            recipe_of([{"kind": "manifest", "path": path}], splits=shares, filters={"max_repeats": 99})
        )
        found = {}
        for split in SPLITS:
            if list((tmp_path / "corpus").glob(f"{split}-*.arrow")):
                found |= dict.fromkeys(Corpus.open(tmp_path / "corpus", split).column("id"), str(split))
        return found

    small = splits(20)
    assert list(small.values()).count("validation") >= 5
    large = splits(60)
    assert len(large) == 60 == len(utterances(tmp_path / "corpus"))
    assert small.items() <= large.items()


def test_a_new_minimum_of_validation_hours_is_applied(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    """The boundary of an earlier corpus applies only to the same shares, as the warning advises to change them."""
    path = write_manifest(tmp_path / "in", [(tone(1.0, seed=n), f"שלום לכם חברים {n}") for n in range(30)])
    source = {"kind": "manifest", "path": path}
    for shares in ({"validation": 0.5}, {"validation": 0.02}, {"validation": 0.02, "min_validation_hours": 8 / 3600}):
        again = commands.prepare.run(recipe_of([source], splits=shares)).summary["splits"]
        afresh = recipe_of([source], splits=shares, path=str(tmp_path / f"fresh-{len(str(shares))}"))
        assert commands.prepare.run(afresh).summary["splits"] == again


def test_a_group_in_several_sources_is_in_one_split(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    """A speaker is in two sources whose validation ends at different positions."""
    draw = random.Random(0)
    clips = [
        (tone(1.0, seed=n), " ".join("".join(draw.choices("אבגדהוזחט", k=5)) for _ in range(3))) for n in range(120)
    ]
    path = write_manifest(tmp_path / "in", clips)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for n, line in enumerate(lines):
        line |= {"group": f"speaker-{n % 30}", "source": "much" if n < 90 else "little"}
    path.write_text("\n".join(json.dumps(line) for line in lines))
    splits = {"validation": 0.05, "test": 0.05, "min_validation_hours": 10 / 3600}
    commands.prepare.run(recipe_of([{"kind": "manifest", "path": path}], splits=splits))
    where = splits_of_groups(tmp_path / "corpus")
    assert len(where) == 30
    assert all(len(found) == 1 for found in where.values())


def test_a_group_keeps_the_split_of_an_earlier_source(tmp_path: Path, recipe_of) -> None:  # type: ignore[no-untyped-def]
    """Fixed split first, then hash: the group follows. Hash first, then another fixed split: refused, not divided."""
    sources = []
    for n, name in enumerate(("one", "two")):
        path = write_manifest(
            tmp_path / name, [(tone(1.0, seed=9 * n + k), f"שלום {'אבגד'[k]} {'הו'[n]}") for k in range(4)]
        )
        lines = [json.loads(line) | {"group": f"g{k}"} for k, line in enumerate(path.read_text().splitlines())]
        path.write_text("\n".join(json.dumps(line) for line in lines))
        sources.append({"kind": "manifest", "path": path, "name": "same"})
    pinned = sources[0] | {"split": "test"}
    for step in ([pinned], [pinned, sources[1]]):  # the second run reuses the first source
        commands.prepare.run(recipe_of(step))
    assert all(found == {"test"} for found in splits_of_groups(tmp_path / "corpus").values())
    with pytest.raises(UsageError, match=r"group same/g\d is already in train, but its source sets split: test"):
        commands.prepare.run(recipe_of([sources[1], pinned], path=str(tmp_path / "other")))


def splits_of_groups(corpus: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for split in SPLITS:
        if any(corpus.glob(f"{split}-*.arrow")):
            for group in Corpus.open(corpus, split).column("group"):
                found.setdefault(group, set()).add(split)
    return found
