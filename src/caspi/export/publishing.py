"""A model folder to the Hub, after a check that it loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from caspi.errors import CaspiError, UsageError, first_line
from caspi.export.averaging import MODEL_FILES
from caspi.model.config import ModelConfig
from caspi.model.loading import load, resolve

_PATTERNS = [*MODEL_FILES, "model*.safetensors", "model.safetensors.index.json"]


def model_files(folder: Path) -> list[Path]:
    """The files that make a model, without what training goes on from."""
    return sorted({path for pattern in _PATTERNS for path in folder.glob(pattern)})


def publish(model: str, repository: str, *, dry_run: bool) -> dict[str, Any]:
    """Uploads the files that make a model, and no training state. Raises UsageError or CaspiError."""
    folder = Path(resolve(model))
    if not folder.is_dir():
        raise UsageError(f"{model} is not a local folder")
    load(ModelConfig(start=str(folder)))
    files = model_files(folder)
    listed = [{"file": path.name, "bytes": path.stat().st_size} for path in files]
    if not dry_run:
        try:
            api = HfApi()
            api.create_repo(repository, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=[path.name for path in files])
        except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
            reason = first_line(error)
            raise CaspiError(f"upload to {repository} failed: {reason}; set HF_TOKEN with write access") from error
    return {"repository": repository, "dry_run": dry_run, "files": listed}
