"""caspi init: a recipe for somebody's data that can be run as it is."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import soundfile
import yaml

from caspi import commands, recipe
from caspi.cli import app
from caspi.commands.init import _splits
from caspi.corpus.pipeline.splits import Splits, split_of
from caspi.corpus.sources.survey import Survey
from caspi.errors import UsageError
from tests.conftest import tone


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`my data` in the current folder: five clips of three speakers."""
    monkeypatch.chdir(tmp_path)
    folder = Path("my data")
    folder.mkdir()
    lines = ["audio,text,speaker"]
    for number in range(5):
        soundfile.write(folder / f"{number}.wav", tone(2.0 + number, seed=number), 16_000)
        lines.append(f"{number}.wav,שלום עולם {'אבגדה'[number]},s{number % 3}")
    (folder / "data.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_the_recipe_is_valid_and_says_what_was_found(data: Path) -> None:
    outcome = commands.init.run(data, None, None, None)
    assert outcome.path == Path("my-data.yaml")
    assert outcome.line == "next: caspi run my-data.yaml"
    written = outcome.path.read_text(encoding="utf-8")
    assert written.startswith("# yaml-language-server: $schema=recipe.schema.json\n")
    for fact in ("utterances: 5, 5 with a text", "longest 6.0 s", "16,000 Hz", "speakers or recordings: 3"):
        assert fact in written
    made = recipe.load(outcome.path)
    assert (made.language, made.model.start, made.require_train().max_seconds) == ("Hebrew", "tiny", 6)
    assert not any("speaker" in str(part) for part in outcome.tables[1:])
    prepared = commands.prepare.run(made)
    assert prepared.summary["kept"] == 5


def test_a_recipe_for_the_released_model(data: Path) -> None:
    outcome = commands.init.run(data, Path("out/mine.yaml"), "he", "Qwen/Qwen3-ASR-1.7B-hf")
    made = recipe.load(outcome.path)
    assert [stage.name for stage in made.require_train().stages] == ["decoder", "encoder"]
    assert (outcome.path.parent / "recipe.schema.json").is_file()


def test_what_is_missing_is_advice(data: Path) -> None:
    text = (data / "data.csv").read_text(encoding="utf-8").replace("speaker", "remark")
    (data / "data.csv").write_text(text, encoding="utf-8")
    outcome = commands.init.run(data, None, None, None)
    assert any("no speakers are named" in str(part) for part in outcome.tables)


def test_what_it_refuses(data: Path) -> None:
    commands.init.run(data, None, None, None)
    with pytest.raises(UsageError, match=r"my-data\.yaml exists"):
        commands.init.run(data, None, None, None)
    text = (data / "data.csv").read_text(encoding="utf-8")
    (data / "data.csv").write_text(text.replace("שלום עולם", "hello"), encoding="utf-8")
    other = Path("other.yaml")
    latin = text.translate({ord(letter): "x" for letter in "אבגדהשלוםע"})
    (data / "data.csv").write_text(latin, encoding="utf-8")
    with pytest.raises(UsageError, match=r"in latin letters: name their language with --language"):
        commands.init.run(data, other, None, None)
    with pytest.raises(UsageError, match="--language"):
        commands.init.run(data, other, "Klingonish", None)
    (data / "data.csv").write_text("audio,text\n,\n", encoding="utf-8")
    with pytest.raises(UsageError, match="no row can be used"):
        commands.init.run(data, other, None, None)
    assert not other.exists()


def test_the_schema_has_every_key_with_its_meaning() -> None:
    schema = recipe.schema()
    definitions = {"Recipe": schema, **schema["$defs"]}
    missing = [
        f"{name}.{key}"
        for name, model in definitions.items()
        for key, value in model.get("properties", {}).items()
        # A section whose own description says the same is only referred to.
        if not (value.get("description") or definitions[value["$ref"].rsplit("/", 1)[1]].get("description"))
    ]
    assert missing == []


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        app(["recipe", "schema"])
    assert json.loads(capsys.readouterr().out)["properties"]["corpus"]


@pytest.mark.parametrize("speakers", [3, 4, 5, 8, 14, 30, 150])
def test_the_recipe_has_validation_and_test_data_with_few_speakers(speakers: int) -> None:
    measured = Survey(speakers=Counter({f"rec/speaker {number}": 20 for number in range(speakers)}))
    shares = Splits(**yaml.safe_load(_splits(measured)))
    counts = Counter(split_of(group, shares) for group in measured.speakers)
    assert counts["validation"] >= 1
    assert counts["test"] >= 1
    assert counts["train"] >= speakers / 3


def test_one_speaker_cannot_be_split() -> None:
    assert _splits(Survey(speakers=Counter({"rec/one": 20}))) == "{validation: 0.1, test: 0.1}"
