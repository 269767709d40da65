"""Publishes a model folder on the Hub, after a check that it loads."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from caspi import hub
from caspi.errors import UsageError, first_line
from caspi.export.formats import native_name
from caspi.model.config import ModelConfig
from caspi.model.files import model_files
from caspi.model.loading import is_original_layout, load, resolve


def publish(model: str, repository: str, *, private: bool, dry_run: bool) -> hub.Upload:
    """Uploads the files of a model in either layout, without training state. Raises UsageError or CaspiError."""
    hub.check_name(repository)
    original = is_original_layout(Path(model))
    folder = Path(model) if original else Path(resolve(model))
    if not folder.is_dir():
        raise UsageError(f"{model} is not a local folder")
    if original:
        _check_original(folder)
    else:
        load(ModelConfig(start=str(folder)))
    files = model_files(folder)
    if not dry_run:
        card = folder / hub.CARD
        text = card.read_text(encoding="utf-8").replace("REPOSITORY", repository) if card.is_file() else ""
        hub.upload(repository, folder, [path.name for path in files], text, kind="model", private=private)
    return hub.Upload(repository, dry_run, private, {path.name: path.stat().st_size for path in files})


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
