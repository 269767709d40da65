"""A model folder to the Hub, after a check that it loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils._validators import validate_repo_id
from safetensors import SafetensorError, safe_open

from caspi.errors import CaspiError, UsageError, first_line
from caspi.export.averaging import MODEL_FILES
from caspi.export.formats import native_name
from caspi.model.config import ModelConfig
from caspi.model.loading import is_original_layout, load, resolve

_PATTERNS = [*MODEL_FILES, "model*.safetensors", "model.safetensors.index.json"]
_CARD = "README.md"


def model_files(folder: Path) -> list[Path]:
    """The files that make a model, without what training goes on from."""
    return sorted({path for pattern in _PATTERNS for path in folder.glob(pattern)})


def publish(model: str, repository: str, *, private: bool, dry_run: bool) -> dict[str, Any]:
    """Uploads the files that make a model, in either layout, and no training state. Raises UsageError or CaspiError."""
    check_name(repository)
    original = is_original_layout(Path(model))
    folder = Path(model) if original else Path(resolve(model))
    if not folder.is_dir():
        raise UsageError(f"{model} is not a local folder")
    if original:
        _check_original(folder)
    else:
        load(ModelConfig(start=str(folder)))
    files = model_files(folder)
    listed = [{"file": path.name, "bytes": path.stat().st_size} for path in files]
    if not dry_run:
        _upload(folder, repository, private, files)
    return {"repository": repository, "dry_run": dry_run, "private": private, "files": listed}


def check_name(repository: str) -> None:
    """Raises UsageError for what the Hub takes for no repository of anybody's."""
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UsageError(f"{repository!r} is no name of a repository: {first_line(error)}") from error
    if "/" not in repository:
        raise UsageError(f"{repository!r} is no name of a repository: give user/name")


def _check_original(folder: Path) -> None:
    """That it holds the tensors of the model under the names of qwen-asr. Raises UsageError."""
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))["thinker_config"]["text_config"]
        for path in folder.glob("model*.safetensors"):
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - no mapping
                    native_name(name)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UsageError(f"{folder} is no model in the layout of qwen-asr: {first_line(error)}") from error


def _upload(folder: Path, repository: str, private: bool, files: list[Path]) -> None:
    names = [path.name for path in files if path.name != _CARD]
    try:
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=names)
        if (folder / _CARD).is_file():
            card = (folder / _CARD).read_text(encoding="utf-8").replace("REPOSITORY", repository)
            api.upload_file(path_or_fileobj=card.encode(), path_in_repo=_CARD, repo_id=repository)
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
        raise CaspiError(
            f"upload to {repository} failed: {first_line(error)}; set HF_TOKEN with write access"
        ) from error
