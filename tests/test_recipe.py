from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from caspi import recipe
from caspi.errors import UsageError
from caspi.training.config import TrainConfig
from tests.conftest import RECIPES, ROOT

MINIMAL = "name: m\ncorpus:\n  path: c\n  sources: [{kind: manifest, path: m.jsonl}]\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid_and_equals_its_resolved_copy(path: Path, tmp_path: Path) -> None:
    loaded = recipe.load(path)
    assert recipe.load(write(tmp_path, recipe.dump(loaded))) == loaded


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "sed: 3\n", r"sed: unknown key; did you mean seed\?"),
        (
            MINIMAL + "train: {path: t, stages: [{name: a, grops: {projector: 1e-3}}]}\n",
            r"train\.stages\.0\.groups: missing; train\.stages\.0\.grops: unknown key; did you mean groups\?",
        ),
        (MINIMAL + "train: {path: t, stages: [{name: a, groups: {lm_head: 1e-3}}]}\n", r"lm_head"),
        (
            MINIMAL + "train: {path: t, stages: [{name: a, groups: {projector: -1}}]}\n",
            r"projector\.lr: .*greater than 0, got -1",
        ),
        (MINIMAL + "seed: many\n", "seed: .*got 'many'"),
        (MINIMAL + "sed: 1\nnam: x\n", r"sed: unknown key; did you mean seed\?; nam: unknown key; did you mean name\?"),
        (
            MINIMAL.replace("m.jsonl", "m.jsonl, text_key: t"),
            r"text_key: unknown key; .*valid keys|did you mean group_key",
        ),
        (MINIMAL + "batch_size: 8\n", r"batch_size: unknown key; use train\.effective_batch"),
        (MINIMAL + "train: {path: t, num_epochs: 3}\n", r"num_epochs: unknown key; use train\.stages: epochs instead"),
        (MINIMAL + "language: Klingon\n", "language: language 'Klingon' is not known"),
        (
            MINIMAL.replace("path: c", "path: c\n  text: {maqaf: space}") + "language: es\n",
            r"corpus\.text\.maqaf: Spanish has",
        ),
        ("name: m\n", "corpus: missing"),
        ("- 1\n- 2\n", "holds no keys"),
        ("name: [\n", "is not YAML"),
        (MINIMAL + "seed: 1\nseed: 2\n", "'seed' occurs twice"),
        (MINIMAL + "seed: true\n", "seed: .*got True"),
        (MINIMAL + "model: {scale: 0.6b}\n", "set init: random"),
        (MINIMAL.replace("kind: manifest", "kind: manifold"), "manifold"),
    ],
)
def test_a_wrong_recipe_names_key_value_and_fix(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        recipe.load(write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_missing_recipe_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        recipe.load(tmp_path / "none.yaml")


def test_overrides_reach_any_depth() -> None:
    loaded = recipe.load(
        RECIPES / "demo.yaml",
        (
            "train.stages.1.groups.projector=3e-5",
            "corpus.sources.0.utterances=7",
            "model.init=random",
            "train.augment={}",
        ),
    )
    assert loaded.require_train().stages[1].groups["projector"].lr == 3e-5
    assert loaded.corpus.sources[0].utterances == 7
    assert loaded.model.init == "random"
    assert loaded.require_train().augment.spec_augment is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.effective_batch", "is not key=value"),
        ("train.stages.9.epochs=1", "'9' is not an index of a list of 2"),
        ("name=[a", "is not a YAML value"),
        ("corpus.sources.0.sentences=[0.9, 0.9]", "the range is empty"),
        ("name.first=x", "name holds a value, not keys"),
        ("train.efective_batch=3", "unknown key; did you mean effective_batch"),
    ],
)
def test_wrong_overrides(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        recipe.load(RECIPES / "demo.yaml", (override,))


@pytest.mark.parametrize(("written", "value"), [("2e-4", 2e-4), ("2.5e-4", 2.5e-4), ("1E-3", 1e-3), ("0.5", 0.5)])
def test_exponents_without_a_decimal_point_are_numbers(tmp_path: Path, written: str, value: float) -> None:
    """PyYAML alone reads 2e-4 as a string."""
    text = MINIMAL + f"train: {{path: t, stages: [{{name: a, groups: {{projector: {written}}}}}]}}\n"
    assert recipe.load(write(tmp_path, text)).require_train().stages[0].groups["projector"].lr == value


def test_an_effective_batch_is_of_utterances_or_of_seconds() -> None:
    stages = [{"name": "a", "groups": {"projector": 1e-3}}]
    made = [TrainConfig.model_validate({"path": "x", "stages": stages, **given}).batch for given in (
        {}, {"effective_batch": 8}, {"effective_seconds": 600},
    )]  # fmt: skip
    assert [(batch.utterances, batch.seconds) for batch in made] == [(64, None), (8, None), (None, 600.0)]
    with pytest.raises(ValueError, match="both given: keep one"):
        TrainConfig.model_validate({"path": "x", "stages": stages, "effective_batch": 8, "effective_seconds": 9})


def test_a_problem_of_a_whole_section_does_not_print_the_section(tmp_path: Path) -> None:
    text = (
        MINIMAL
        + "train: {path: t, effective_batch: 8, effective_seconds: 9, stages: [{name: a, groups: {projector: 1}}]}\n"
    )
    with pytest.raises(UsageError, match=r"train: effective_batch .* are both given: keep one$"):
        recipe.load(write(tmp_path, text))


def test_every_key_suggested_for_keys_of_other_trainers_exists() -> None:
    for answer in recipe._ELSEWHERE.values():
        first, *rest = answer.split(" ")[0].rstrip(",:").split(".")
        keys = recipe._keys_at(recipe.Recipe, [])
        for part in (first, *rest):
            assert part in keys, answer
            place = [first, *rest][: [first, *rest].index(part) + 1]
            keys = recipe._keys_at(recipe.Recipe, list(place))


CALL = re.compile(r"\b\w+\.(?:run|dry_run)\(")  # of a command
KEY = re.compile(r"\b(?:corpus|train|model)(?:\.[a-z_]+)+\b")
PROSE = [
    *(ROOT / "docs").glob("*.md"), ROOT / "README.md", *RECIPES.glob("*.yaml"), *(ROOT / "src").rglob("*.py"),
]  # fmt: skip


def test_every_key_in_docs_and_messages_exists() -> None:
    """A page once recommended train.replay, which does not exist."""
    unknown = set()
    for path in PROSE:
        if path.name in ("log.md",):
            continue
        for key in KEY.findall(CALL.sub("", path.read_text(encoding="utf-8"))):
            parts: list[str | int] = list(key.split("."))
            if (parts[0] != "train" and path.suffix == ".py") or parts[-1] == "jsonl":
                continue  # attributes of a model, modules, files
            for length in range(1, len(parts)):
                known = recipe._keys_at(recipe.Recipe, parts[:length])
                if known and parts[length] not in known:
                    unknown.add(f"{path.name}: {key}")
                    break
    assert not unknown


def test_keys_of_the_previous_version_are_accepted_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = "train: {path: t, recompute_every: 2, budget_seconds: 90, stages: [{name: a, learn: {projector: 1e-3}}]}\n"
    made = recipe.load(write(tmp_path, MINIMAL + old), ("train.stop_after=7", "train.stages.0.learn.projector=2e-3"))
    config = made.require_train()
    assert (config.activation_checkpointing_every, config.max_batch_seconds, config.max_bad_steps) == (2, 90, 7)
    assert config.stages[0].groups["projector"].lr == 2e-3
    warnings = capsys.readouterr().err
    for name, new in (("recompute_every", "activation_checkpointing_every"), ("learn", "groups")):
        assert f"the key {name} was renamed to {new};" in warnings


def test_a_mix_may_be_called_like_an_old_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = MINIMAL + (
        "train: {path: t, mixes: {learn: {sources: {tilt: 1.0}}}, "
        "stages: [{name: a, mix: learn, groups: {projector: 1e-3}}]}\n"
    )
    config = recipe.load(write(tmp_path, text), ("train.mixes.learn.temperature=2.0",)).require_train()
    assert config.mixes["learn"].sources == {"tilt": 1.0}
    assert config.mixes["learn"].temperature == 2.0
    assert "renamed" not in capsys.readouterr().err


def test_the_schema_beside_the_recipes_is_of_this_version() -> None:
    """After a change: caspi recipe schema > recipes/recipe.schema.json"""
    assert json.loads((RECIPES / "recipe.schema.json").read_text()) == recipe.schema()
    for path in RECIPES.glob("*.yaml"):
        assert path.read_text().startswith("# yaml-language-server: $schema=recipe.schema.json"), path
