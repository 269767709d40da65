"""Uploads checkpoints to the Hub in the background: an upload never delays training and never ends it."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from caspi import hub
from caspi.errors import first_line
from caspi.model.files import model_files
from caspi.training.config import HubConfig

_log = logging.getLogger(__name__)

_TIMEOUT = 3600.0  # seconds that the end of a run waits for an upload in progress


@dataclass(frozen=True, slots=True)
class Uploaded:
    """The result of the uploads. verified: every file of the last checkpoint is on the Hub, by its hash."""

    repository: str
    checkpoint: str
    verified: bool
    reason: str = ""


class Uploads:
    """Uploads one checkpoint at a time; a queued checkpoint is replaced by a newer one."""

    def __init__(self, config: HubConfig, run: Path) -> None:
        self._config, self._work = config, run / "uploading"
        shutil.rmtree(self._work, ignore_errors=True)  # of a run that was killed
        self._queued: tuple[Path, str] | None = None
        self._failure, self._busy = "", False
        self._condition = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._serve, name="uploads", daemon=True)
        self._thread.start()

    def offer(self, checkpoint: Path, message: str) -> None:
        """Queues a checkpoint. Its files are hard-linked, so that pruning it does not delete them."""
        linked = self._work / f"{checkpoint.parent.name}-{checkpoint.name}"
        shutil.rmtree(linked, ignore_errors=True)
        try:
            linked.mkdir(parents=True)
            for path in model_files(checkpoint):
                os.link(path, linked / path.name)
        except OSError as error:
            self._warn(str(error))
            return
        with self._condition:
            replaced, self._queued = self._queued, (linked, message)
            self._condition.notify_all()
        if replaced is not None:
            shutil.rmtree(replaced[0], ignore_errors=True)

    def finish(self, last: Path, timeout: float = _TIMEOUT) -> Uploaded:
        """Waits for the upload in progress, compares the Hub with `last`, and uploads `last` again if they differ."""
        deadline = time.monotonic() + timeout
        result = self._wait_for_uploads(last, deadline)
        if not result.verified and not self._busy:
            self.offer(last, f"{last.parent.name}, {last.name}")
            result = self._wait_for_uploads(last, deadline)
        with self._condition:
            self._ended = True
            self._condition.notify_all()
        if not self._busy:
            shutil.rmtree(self._work, ignore_errors=True)
        if not result.verified:
            self._warn(f"{result.reason}; to upload again: caspi publish {last} {self._config.repository}")
        return result

    def _wait_for_uploads(self, last: Path, deadline: float) -> Uploaded:
        """Waits until no upload is queued or in progress. Returns the result."""
        repository = self._config.repository
        with self._condition:
            remaining = max(0.0, deadline - time.monotonic())
            if not self._condition.wait_for(lambda: self._queued is None and not self._busy, remaining):
                return Uploaded(repository, str(last), verified=False, reason="the upload did not end in time")
        if self._failure:
            return Uploaded(repository, str(last), verified=False, reason=self._failure)
        try:
            different = hub.differing(repository, model_files(last))
        except Exception as error:
            return Uploaded(repository, str(last), verified=False, reason=first_line(error))
        reason = f"on the Hub {', '.join(different)} differ from {last}" if different else ""
        return Uploaded(repository, str(last), verified=not different, reason=reason)

    def _serve(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._queued is not None or self._ended)
                work, self._queued = self._queued, None
                self._busy = work is not None
            if work is None:
                return
            folder, message = work
            try:
                hub.upload_model(self._config.repository, folder, message, private=self._config.private)
                self._failure = ""
            except Exception as error:  # whatever the network does, training continues
                self._failure = first_line(error)
                self._warn(self._failure)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                with self._condition:
                    self._busy = False
                    self._condition.notify_all()

    def _warn(self, reason: str) -> None:
        _log.warning(f"upload to {self._config.repository}: {reason}")


def as_json(uploaded: Uploaded | None) -> dict[str, object] | None:
    """The result as JSON, for reports."""
    return None if uploaded is None else asdict(uploaded)
