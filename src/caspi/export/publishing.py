"""Publishes a model folder, or adapters, on the Hub, after a check that it loads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from caspi import hub
from caspi.errors import UsageError, first_line
from caspi.export.adapters import ADAPTER_FILES
from caspi.export.evaluated_card import read_summary, with_evaluations
from caspi.export.formats import native_name
from caspi.model.config import ModelConfig
from caspi.model.files import model_files
from caspi.model.loading import is_original_layout, load, resolve

ADAPTERS_FOLDER = "adapters"  # of a repository that has a model too


@dataclass(frozen=True, slots=True)
class Publication:
    """What is to be uploaded. texts: files that are written for it, in place of those of the folder. adapters: a folder
    of adapters that belong to the model."""

    repository: str
    folder: Path
    files: tuple[Path, ...]
    texts: dict[str, str]
    adapters: tuple[Path, ...] = ()

    @property
    def card(self) -> str:
        return self.texts.get(hub.CARD, "")

    def sizes(self) -> dict[str, int]:
        """Bytes by the names in the repository."""
        found = {path.name: path.stat().st_size for path in self.files}
        found |= {name: len(text.encode()) for name, text in self.texts.items()}
        return found | {f"{ADAPTERS_FOLDER}/{path.name}": path.stat().st_size for path in self.adapters}


def publication(
    model: str,
    repository: str,
    *,
    evaluations: Sequence[Path] = (),
    adapters: Path | None = None,
    base: str | None = None,
) -> Publication:
    """Checks a model in either layout, or adapters, and makes its card. evaluations: for the card. adapters: to go
    beside a model. base: on the Hub, of adapters. Raises UsageError or CaspiError."""
    hub.check_name(repository)
    if is_adapter(Path(model)):
        return _of_adapters(Path(model), repository, base)
    original = is_original_layout(Path(model))
    folder = Path(model) if original else Path(resolve(model))
    if not folder.is_dir():
        raise UsageError(f"{model} is not a local folder")
    if original:
        _check_original(folder)
    else:
        load(ModelConfig(start=str(folder)))
    summaries = [read_summary(one) for one in evaluations]
    card = folder / hub.CARD
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    if summaries:
        text = with_evaluations(text or "# REPOSITORY\n", summaries)
    beside = _of_adapters(adapters, repository, base or repository) if adapters else None
    texts = {hub.CARD: text.replace("REPOSITORY", repository)} if text else {}
    if beside:
        texts |= {f"{ADAPTERS_FOLDER}/{name}": content for name, content in beside.texts.items()}
    return Publication(repository, folder, tuple(model_files(folder)), texts, beside.files if beside else ())


def is_adapter(folder: Path) -> bool:
    """Whether a folder has adapters alone."""
    return (folder / ADAPTER_FILES[0]).is_file()


def _of_adapters(folder: Path, repository: str, base: str | None) -> Publication:
    config_name, weights_name = ADAPTER_FILES
    try:
        config = json.loads((folder / config_name).read_text(encoding="utf-8"))
        named = str(config["base_model_name_or_path"])
        with safe_open(folder / weights_name, framework="pt") as file:
            if not all(".lora_" in name for name in file.keys()):  # noqa: SIM118 - no mapping
                raise UsageError(f"{folder / weights_name} has weights that are no adapters")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UsageError(f"{folder} has no adapters in PEFT's layout: {first_line(error)}") from error
    base = base or named
    if base.count("/") != 1 or Path(base).exists():
        raise UsageError(
            f"{folder}: its base is the local {base}, which nobody else has: publish it, and give --base its repository"
        )
    texts = {config_name: json.dumps(config | {"base_model_name_or_path": base}, indent=1)}
    if (card := folder / hub.CARD).is_file():
        text = card.read_text(encoding="utf-8").replace("REPOSITORY", repository).replace("BASE", base)
        texts[hub.CARD] = text
    return Publication(repository, folder, (folder / weights_name,), texts)


def publish(made: Publication, *, private: bool) -> None:
    """Uploads it. Raises CaspiError if the Hub refuses."""
    names = [path.name for path in made.files if path.name not in made.texts]
    hub.upload(made.repository, made.folder, names, made.texts, kind="model", private=private)
    if made.adapters:
        names = [path.name for path in made.adapters]
        hub.upload_more(made.repository, made.adapters[0].parent, names, ADAPTERS_FOLDER)


def _check_original(folder: Path) -> None:
    """Checks that it has the tensors of the model under the names of qwen-asr. Raises UsageError."""
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))["thinker_config"]["text_config"]
        for path in folder.glob("model*.safetensors"):
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - no mapping
                    native_name(name)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UsageError(f"{folder} is not a model in the layout of qwen-asr: {first_line(error)}") from error
