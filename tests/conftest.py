"""Shared fixtures: real files and the real tiny model, made once a session."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import settings

from caspi import commands, recipe
from caspi.corpus.synthesis.espeak import Voice, speak
from caspi.model.config import ModelConfig
from caspi.model.loading import LoadedModel, load
from caspi.terminal import show_log

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A shell that starts the suite in the background makes it, and every process that it starts, deaf to Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("caspi", deadline=None)  # how long an example takes is the machine's business
settings.load_profile("caspi")

show_log()  # as the command line does: tests read what people are told

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes"


def tone(seconds: float, rate: int = 16_000, level: float = 0.3, seed: int = 0) -> np.ndarray:
    """A tone with a little noise, another one for every seed: sound that is not silence and not speech."""
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(seed).standard_normal(len(time)) * 0.01
    return (level * np.sin(2 * np.pi * 220 * time) + noise).astype(np.float32)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: what is left for the end is short, and no worker waits long for another."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def tiny() -> LoadedModel:
    return load(ModelConfig(start="tiny"))


@pytest.fixture
def fresh_tiny() -> LoadedModel:
    """A tiny of one's own, to train or break."""
    return load(ModelConfig(start="tiny"))


def folder_named_by(variable: str, what: str) -> Path:
    """The folder an environment variable names; skips the test, by name, where it names none."""
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} names no folder with {what}")
    return Path(folder)


@pytest.fixture(scope="session")
def real_tokenizer_folder() -> Path:
    return folder_named_by("CASPI_REAL_TOKENIZER", "the released tokenizer")


@pytest.fixture(scope="session")
def real_speech_folder() -> Path:
    return folder_named_by("CASPI_REAL_SPEECH", "real recordings")


@pytest.fixture(scope="session")
def small_recipe(tmp_path_factory: pytest.TempPathFactory) -> recipe.Recipe:
    """The demo's recipe, a hundredth of it, in a folder of the session."""
    folder = tmp_path_factory.mktemp("small")
    return recipe.load(RECIPES / "demo.yaml", small_overrides(folder))


def small_overrides(folder: Path) -> tuple[str, ...]:
    return (
        f"corpus.path={folder / 'corpus'}",
        f"train.path={folder / 'train'}",
        "corpus.workers=1",
        "corpus.sources.0.utterances=48",
        "corpus.sources.1.utterances=8",
        "corpus.sources.2.utterances=12",
        "train.effective_batch=8",
        "train.stages.0.epochs=0.5",
        "train.stages.1.epochs=1",
        "train.evaluate.every=2",
        "train.evaluate.utterances=4",
        "train.log_every=1",
    )


@pytest.fixture(scope="session")
def small_corpus(small_recipe: recipe.Recipe) -> Path:
    commands.prepare.run(small_recipe)
    return small_recipe.corpus.path


@pytest.fixture(scope="session")
def small_run(small_recipe: recipe.Recipe, small_corpus: Path) -> Path:
    """A finished training run of two stages."""
    commands.train.run(small_recipe)
    return small_recipe.require_train().path


@pytest.fixture(scope="session")
def speech() -> np.ndarray:
    """Two seconds of a voice, float32 at espeak's 22.05 kHz."""
    return speak("buenos dias a todos", "es", Voice("m1")).samples


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Three recordings by two speakers, WAV beside a JSONL manifest."""
    lines = []
    for number, (speaker, text) in enumerate([("a", "שלום עולם"), ("a", "מה שלומך היום"), ("b", "תודה רבה לך")]):
        soundfile.write(tmp_path / f"{number}.wav", tone(2.0, 44_100, seed=number), 44_100)
        lines.append({"audio": f"{number}.wav", "text": text, "group": speaker, "id": f"utt-{number}"})
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    return path


def manifest_recipe(manifest: Path, folder: Path, *overrides: str) -> recipe.Recipe:
    """A recipe that prepares `manifest` into `folder`."""
    path = folder / "recipe.yaml"
    path.write_text(
        f"name: test\ncorpus:\n  path: {folder / 'corpus'}\n  workers: 1\n"
        f"  sources: [{{kind: manifest, path: {manifest}}}]\n",
        encoding="utf-8",
    )
    return recipe.load(path, overrides)
