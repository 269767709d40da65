"""All access to the Hugging Face Hub: checks names first, and reports refusals in one line."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from huggingface_hub.utils.sha import git_hash

from caspi.errors import CaspiError, UsageError, first_line

CARD = "README.md"
Kind = Literal["model", "dataset"]


@dataclass(frozen=True, slots=True)
class Upload:
    """Files that were, or with dry_run would be, uploaded. files: name -> bytes."""

    repository: str
    dry_run: bool
    private: bool
    files: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        files = [{"file": name, "bytes": size} for name, size in self.files.items()]
        return {"repository": self.repository, "dry_run": self.dry_run, "private": self.private, "files": files}


def check_name(repository: str) -> None:
    """Raises UsageError if the Hub would not accept the name of the repository."""
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UsageError(f"{repository!r} is not the name of a repository: {first_line(error)}") from error
    if "/" not in repository:
        raise UsageError(f"{repository!r} is not the name of a repository: give user/name")


def upload(
    repository: str, folder: Path, files: Iterable[str], texts: Mapping[str, str], *, kind: Kind, private: bool
) -> None:
    """Uploads files of a folder, by name, and texts; creates the repository if necessary. Raises CaspiError if the Hub
    refuses."""
    names = [name for name in files if name not in texts]
    with _refusals(repository):
        api = HfApi()
        api.create_repo(repository, repo_type=kind, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, repo_type=kind, folder_path=folder, allow_patterns=names)
        for name, text in texts.items():
            api.upload_file(path_or_fileobj=text.encode(), path_in_repo=name, repo_id=repository, repo_type=kind)


def upload_more(repository: str, folder: Path, files: list[str], path: str) -> None:
    """Uploads files of another folder into a folder of a repository of a model. Raises CaspiError."""
    with _refusals(repository):
        HfApi().upload_folder(
            repo_id=repository, repo_type="model", folder_path=folder, allow_patterns=files, path_in_repo=path
        )


@contextlib.contextmanager
def _refusals(repository: str) -> Iterator[None]:
    """Raises CaspiError for what the Hub refuses."""
    try:
        yield
    except Exception as error:
        if unreachable(error):
            raise CaspiError(f"{repository}: the Hub cannot be reached ({first_line(error)})") from error
        if not isinstance(error, HfHubHTTPError | LocalTokenNotFoundError | OSError):
            raise
        raise CaspiError(
            f"upload to {repository} failed: {first_line(error)}; set HF_TOKEN with write access"
        ) from error


def unreachable(error: BaseException | None) -> bool:
    """Whether an error or its cause is a network error. Checks the class name, because the library that raises it
    depends on the version of huggingface_hub."""
    while error is not None:
        if any(mark in type(error).__name__ for mark in ("Connect", "Timeout", "Offline")):
            return True
        error = error.__cause__ or error.__context__
    return False


@functools.cache  # because each stage loads the model again; errors are not cached
def fetch(repository: str, file: str, revision: str | None = None) -> None:
    """Downloads a file of a model into the cache if it is not there. Raises UsageError if there is no such model, or if
    the Hub cannot be reached; a model without the file is not an error."""
    try:
        hf_hub_download(repository, file, revision=revision)
    except LocalEntryNotFoundError as error:
        raise UsageError(f"model {repository} is not on this machine, and the Hub cannot be reached") from error
    except EntryNotFoundError:
        return
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise UsageError(
            f"model {repository} is missing, private or gated: check the name, accept its licence, set HF_TOKEN"
        ) from error


def weights_folder(repository: str, revision: str | None = None) -> Path:
    """A folder with the model's weights, downloaded into the cache. Raises UsageError."""
    fetch(repository, "config.json", revision)  # reports a wrong name or network errors clearly
    return Path(snapshot_download(repository, revision=revision, allow_patterns=["model*.safetensors"]))


def upload_model(repository: str, folder: Path, message: str, *, private: bool) -> None:
    """Uploads a whole folder as one commit. Network errors are not caught."""
    api = HfApi()
    api.create_repo(repository, private=private, exist_ok=True)
    api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)


def differing(repository: str, files: Iterable[Path]) -> list[str]:
    """Names of the files that are missing or different in a model repository. Network errors are not caught."""
    there = {entry.path: entry for entry in HfApi().list_repo_tree(repository)}
    return [path.name for path in files if not _same(path, there.get(path.name))]


def _same(path: Path, entry: Any) -> bool:
    """Whether a file on the Hub equals this one. The Hub identifies large files by SHA-256, small ones by git hash."""
    if getattr(entry, "size", None) != path.stat().st_size:
        return False
    if entry.lfs is not None:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == entry.lfs.sha256
    return git_hash(path.read_bytes()) == entry.blob_id
