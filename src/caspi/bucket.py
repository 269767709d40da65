"""Keeps the folders of a run in a bucket, so that another machine goes on where this one ended.

A bucket is any address that fsspec opens: s3://, gs://, az://, hf:// (a repository of the Hugging Face Hub), or a
folder. Files are kept under their SHA-256, and `snapshot.json`, which is written last, says which of them are the
run's: a snapshot is whole or is not there, whatever an upload was doing when the machine was taken away.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import fsspec

from caspi.atomic_output import write_whole
from caspi.errors import CaspiError, UsageError, first_line

_log = logging.getLogger(__name__)

SNAPSHOT = "snapshot.json"
_OBJECTS = "objects"
_MARKER = "bucket.json"  # which snapshot a machine has
_HELD = ".bucket"  # hard links to what is being uploaded
_LOOK_SECONDS = 5.0  # between looks for changes
_TRIES = 3


class _Files(Protocol):
    """What is used of an fsspec file system."""

    def cat_file(self, path: str) -> bytes: ...
    def pipe_file(self, path: str, value: bytes) -> object: ...
    def put_file(self, lpath: str, rpath: str) -> object: ...
    def get_file(self, rpath: str, lpath: str) -> object: ...
    def rm_file(self, path: str) -> object: ...
    def ls(self, path: str, detail: bool) -> list[str]: ...
    def makedirs(self, path: str, exist_ok: bool) -> object: ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """files: name -> SHA-256; links: name -> target. writer and number tell which machine wrote it, and when."""

    writer: str = ""
    number: int = 0
    files: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> tuple[str, int]:
        return self.writer, self.number


class _ChangedMeanwhile(Exception):
    """A file changed or went away while it was read."""


class Bucket:
    """The snapshot of some folders and files in a bucket, read and written by one machine at a time.

    places: name in the bucket -> folder or file here; nothing else is read, written or deleted. home: a folder for a
    note of which snapshot this machine has."""

    def __init__(self, url: str, places: Mapping[str, Path], home: Path) -> None:
        self._url, self._places, self._home = url.rstrip("/"), dict(places), home
        if not self._url:
            raise UsageError("--bucket is empty: give an address such as s3://mine/round1, or a folder")
        try:
            files, self._root = fsspec.url_to_fs(self._url)
        except (ImportError, ValueError) as error:
            raise UsageError(f"--bucket {url}: {first_line(error)}") from error
        self._files: _Files = files
        self._marker = home / _MARKER
        self._writer = uuid.uuid4().hex[:12]
        self._last = Snapshot()
        self._there: set[str] = set()  # objects in the bucket
        self._hashed: dict[str, tuple[tuple[int, int], str]] = {}  # name -> size and time, SHA-256
        self._seen: dict[str, tuple[int, int]] = {}  # at the last push

    def pull(self) -> int:
        """Makes the folders here those of the snapshot, unless they are newer. Returns the number of files that were
        fetched. From then on other machines that write to the bucket are told so. Raises CaspiError, UsageError."""
        with self._reasons():
            found = self._read()
            here = self._version_here()
            if found is not None and here != found.version:
                if here is None and self._listed():
                    named = ", ".join(str(place) for place in self._places.values() if place.exists())
                    raise UsageError(
                        f"{self._url} holds a run, and so does {named}, which is not from there: move that away, or "
                        "give another --bucket"
                    )
                fetched = self._fetch(found)
            else:
                fetched = 0
            self._last = found or Snapshot()
            self._there = set(self._last.files.values())
            self._write(Snapshot(self._writer, self._last.number + 1, self._last.files, self._last.links))
            self._delete({Path(path).name for path in self._files.ls(self._objects, detail=False)} - self._there)
        return fetched

    def holds_a_run(self) -> bool:
        """Whether there is a snapshot with files. Raises CaspiError."""
        with self._reasons():
            found = self._read()
        return found is not None and bool(found.files)

    def push(self) -> bool:
        """Writes a snapshot of the places if they changed. Returns whether it did. Raises CaspiError, and UsageError if
        another machine writes to the bucket."""
        with self._reasons():
            for _ in range(_TRIES):
                with contextlib.suppress(_ChangedMeanwhile):
                    return self._push()
            raise CaspiError(f"{self._url} is not up to date: the run changed each time it was about to be uploaded")

    def _push(self) -> bool:
        listed = self._listed()
        if {name: state for name, (_, state) in listed.items()} == self._seen:
            return False
        held = self._held(listed)
        files = {name: self._uploaded(name, path, listed[name][1]) for name, path in held.items()}
        links = {name: os.readlink(path) for name, (path, _) in listed.items() if path.is_symlink()}
        shutil.rmtree(self._home / _HELD, ignore_errors=True)
        self._seen = {name: state for name, (_, state) in listed.items()}
        if files == dict(self._last.files) and links == dict(self._last.links):
            return False
        self._require_mine()
        self._write(Snapshot(self._writer, self._last.number + 1, files, links))
        self._delete(self._there - set(files.values()))
        return True

    def _held(self, listed: Mapping[str, tuple[Path, tuple[int, int]]]) -> dict[str, Path]:
        """Hard links to all files as they are at one moment: what is pruned or replaced while it is uploaded stays.
        Raises _ChangedMeanwhile if they changed while the links were made, which takes a moment."""
        held = self._home / _HELD
        shutil.rmtree(held, ignore_errors=True)
        held.mkdir(parents=True)
        found = {}
        for number, (name, (path, _)) in enumerate(listed.items()):
            if path.is_symlink():
                continue
            link = held / f"{number}{path.suffix}"
            try:
                os.link(path, link)
                found[name] = link
            except FileNotFoundError as error:
                raise _ChangedMeanwhile from error
            except OSError:  # on another file system
                found[name] = path
        if _lasting(self._listed()) != _lasting(listed):
            raise _ChangedMeanwhile
        return found

    # --- here

    def _listed(self) -> dict[str, tuple[Path, tuple[int, int]]]:
        """Every file and link of the folders, by its name in the bucket, with size and time; a link has none."""
        found: dict[str, tuple[Path, tuple[int, int]]] = {}
        for name, place in self._places.items():
            if place.is_file():
                with contextlib.suppress(FileNotFoundError):
                    status = place.stat()
                    found[name] = place, (status.st_size, status.st_mtime_ns)
            for parent, folders, files in os.walk(place):
                links = [one for one in folders if (Path(parent) / one).is_symlink()]
                folders[:] = [one for one in folders if not _passing(one) and one not in links]
                for file in [*files, *links]:
                    path = Path(parent) / file
                    if _passing(file):
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        status = path.lstat()
                        state = (0, 0) if path.is_symlink() else (status.st_size, status.st_mtime_ns)
                        found[f"{name}/{path.relative_to(place).as_posix()}"] = path, state
        return found

    def _uploaded(self, name: str, path: Path, state: tuple[int, int]) -> str:
        """The SHA-256 of a file, which is in the bucket afterwards. state: its size and time when it was listed."""
        try:
            known, digest = self._hashed.get(name, ((-1, -1), ""))
            if known == state and digest in self._there:
                return digest
            if _grows(name):
                content = path.read_bytes()
                digest = hashlib.sha256(content).hexdigest()
                self._files.pipe_file(self._object(digest), content)
            else:
                digest = _digest(path)
                if digest not in self._there:
                    self._files.put_file(str(path), self._object(digest))
                after = path.stat()
                if (after.st_size, after.st_mtime_ns) != state:
                    raise _ChangedMeanwhile
        except FileNotFoundError as error:
            raise _ChangedMeanwhile from error
        self._there.add(digest)
        self._hashed[name] = state, digest
        return digest

    def _fetch(self, snapshot: Snapshot) -> int:
        """Makes the places those of the snapshot. Returns the number of files fetched. Other files are deleted only if
        an earlier snapshot of this machine had them."""
        fetched = 0
        for name in self._noted().get("names", ()):
            if name not in snapshot.files and name not in snapshot.links:
                self._place(name).unlink(missing_ok=True)
        for name, digest in snapshot.files.items():
            path = self._place(name)
            if path.is_file() and not path.is_symlink() and _digest(path) == digest:
                continue
            partial = path.with_name(f"{path.name}.partial")
            partial.parent.mkdir(parents=True, exist_ok=True)
            self._files.get_file(self._object(digest), str(partial))
            if _digest(partial) != digest:
                partial.unlink()
                raise CaspiError(f"{self._url}: the content of {name} is damaged: the bucket cannot be resumed from")
            partial.replace(path)
            fetched += 1
        for name, target in snapshot.links.items():
            path = self._place(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.symlink_to(target)
        for place in self._places.values():
            _remove_empty(place)
        return fetched

    def _place(self, name: str) -> Path:
        """Where a file of the snapshot belongs. Raises CaspiError for a name outside of the places."""
        first, _, rest = name.partition("/")
        if first not in self._places or ".." in Path(rest).parts or Path(rest).is_absolute():
            raise CaspiError(f"{self._url} holds {name}, which does not belong to this run: give another --bucket")
        return self._places[first] / rest if rest else self._places[first]

    def _version_here(self) -> tuple[str, int] | None:
        """Of the snapshot that this machine has; None if it has none of this bucket."""
        content = self._noted()
        return (content["writer"], content["number"]) if content else None

    def _noted(self) -> dict[str, Any]:
        """The note of which snapshot this machine has, with the names in it."""
        try:
            content: dict[str, Any] = json.loads(self._marker.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if content.get("bucket") == self._url else {}

    # --- there

    @property
    def _objects(self) -> str:
        return f"{self._root}/{_OBJECTS}"

    def _object(self, digest: str) -> str:
        return f"{self._objects}/{digest}"

    def _delete(self, digests: set[str]) -> None:
        """Objects that no snapshot has any more, or that an upload left when it was cut off."""
        self._there -= digests
        for digest in digests:
            with contextlib.suppress(FileNotFoundError):
                self._files.rm_file(self._object(digest))

    def _read(self) -> Snapshot | None:
        try:
            content = self._files.cat_file(f"{self._root}/{SNAPSHOT}")
        except FileNotFoundError:
            return None
        try:
            return Snapshot(**json.loads(content))
        except (ValueError, TypeError) as error:
            raise CaspiError(f"{self._url}/{SNAPSHOT} is not a snapshot of caspi: give another --bucket") from error

    def _require_mine(self) -> None:
        found = self._read()
        if found is not None and found.version != self._last.version:
            raise UsageError(f"another machine goes on with the run in {self._url}: this one stops writing there")

    def _write(self, snapshot: Snapshot) -> None:
        self._files.makedirs(self._objects, exist_ok=True)
        self._files.pipe_file(f"{self._root}/{SNAPSHOT}", json.dumps(asdict(snapshot), indent=1).encode())
        self._last = snapshot
        self._marker.parent.mkdir(parents=True, exist_ok=True)
        note = {"bucket": self._url, "writer": snapshot.writer, "number": snapshot.number}
        write_whole(self._marker, json.dumps(note | {"names": [*snapshot.files, *snapshot.links]}))

    @contextlib.contextmanager
    def _reasons(self) -> Iterator[None]:
        """Raises CaspiError, with the bucket's name, for what a file system raises."""
        try:
            yield
        except (CaspiError, _ChangedMeanwhile):
            raise
        except Exception as error:  # every file system has errors of its own
            raise CaspiError(f"bucket {self._url}: {first_line(error)}") from error


@contextlib.contextmanager
def kept_in_bucket(bucket: Bucket) -> Iterator[None]:
    """Fetches the run; inside the block, keeps the bucket up to date in the background; afterwards, once more.

    A failed upload is a warning, and tried again; the last one is an error. If another machine goes on with the run,
    this one is ended, as by SIGTERM, and UsageError is raised."""
    if fetched := bucket.pull():
        _log.info(f"went on from the bucket: {fetched:,} files")
    ended = threading.Event()
    replaced: list[UsageError] = []

    def follow() -> None:
        said = ""
        while not ended.wait(_LOOK_SECONDS):
            try:
                bucket.push()
                said = ""
            except CaspiError as error:
                if str(error) != said:
                    said = str(error)
                    _log.warning(said)
                if isinstance(error, UsageError):
                    replaced.append(error)
                    os.kill(os.getpid(), signal.SIGTERM)
                    return

    thread = threading.Thread(target=follow, name="bucket", daemon=True)
    thread.start()
    try:
        yield
    except BaseException as ending:
        ended.set()
        thread.join()
        if replaced:
            raise replaced[0] from ending
        try:
            bucket.push()
        except CaspiError as error:
            _log.warning(str(error))  # what ended the run matters more
        raise
    ended.set()
    thread.join()
    bucket.push()


def _passing(name: str) -> bool:
    """Whether a file or folder is no part of a run: hidden, locks, what is being written."""
    return name.startswith(".") or name in ("lock", _MARKER, "uploading") or name.endswith((".partial", ".replaced"))


def _grows(name: str) -> bool:
    """Whether a file is written to all the time: what is there at the moment is kept."""
    return name.endswith(".jsonl") or ".tfevents." in name


def _lasting(listed: Mapping[str, tuple[Path, tuple[int, int]]]) -> dict[str, tuple[int, int]]:
    """Without what is written to all the time."""
    return {name: state for name, (_, state) in listed.items() if not _grows(name)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_empty(folder: Path) -> None:
    for parent, _, _ in os.walk(folder, topdown=False):
        if not any(Path(parent).iterdir()):
            shutil.rmtree(parent)
