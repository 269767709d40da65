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

_PATIENCE = 3600.0  # seconds that the end of a run waits for an upload in progress


@dataclass(frozen=True, slots=True)
class Uploaded:
    """The result of the uploads. verified: every file of the last checkpoint is on the Hub, by its hash."""

    repository: str
    checkpoint: str
    verified: bool
    reason: str = ""


class Uploads:
    """Uploads the newest checkpoint, one at a time; a waiting checkpoint is skipped if a newer one arrives."""

    def __init__(self, config: HubConfig, run: Path) -> None:
        self._config, self._work = config, run / "uploading"
        shutil.rmtree(self._work, ignore_errors=True)  # of a run that was killed
        self._waiting: tuple[Path, str] | None = None
        self._failure, self._busy = "", False
        self._condition = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._serve, name="uploads", daemon=True)
        self._thread.start()

    def offer(self, checkpoint: Path, message: str) -> None:
        """Queues a checkpoint. Its files are hard-linked, so that pruning it does not delete them."""
        kept = self._work / f"{checkpoint.parent.name}-{checkpoint.name}"
        shutil.rmtree(kept, ignore_errors=True)
        try:
            kept.mkdir(parents=True)
            for path in model_files(checkpoint):
                os.link(path, kept / path.name)
        except OSError as error:
            self._warn(str(error))
            return
        with self._condition:
            overtaken, self._waiting = self._waiting, (kept, message)
            self._condition.notify_all()
        if overtaken is not None:
            shutil.rmtree(overtaken[0], ignore_errors=True)

    def finish(self, last: Path, timeout: float = _PATIENCE) -> Uploaded:
        """Waits for the upload in progress, compares the Hub with `last`, and uploads it again if they differ."""
        deadline = time.monotonic() + timeout
        found = self._settled(last, deadline)
        if not found.verified and not self._busy:
            self.offer(last, f"{last.parent.name}, {last.name}")
            found = self._settled(last, deadline)
        with self._condition:
            self._ended = True
            self._condition.notify_all()
        if not self._busy:
            shutil.rmtree(self._work, ignore_errors=True)
        if not found.verified:
            self._warn(f"{found.reason}; to upload again: caspi publish {last} {self._config.repository}")
        return found

    def _settled(self, last: Path, deadline: float) -> Uploaded:
        """The result once no upload is waiting or in progress."""
        repository = self._config.repository
        with self._condition:
            patience = max(0.0, deadline - time.monotonic())
            if not self._condition.wait_for(lambda: self._waiting is None and not self._busy, patience):
                return Uploaded(repository, str(last), verified=False, reason="the upload did not end in time")
        if self._failure:
            return Uploaded(repository, str(last), verified=False, reason=self._failure)
        try:
            wrong = hub.differing(repository, model_files(last))
        except Exception as error:
            return Uploaded(repository, str(last), verified=False, reason=first_line(error))
        reason = f"on the Hub {', '.join(wrong)} differ from {last}" if wrong else ""
        return Uploaded(repository, str(last), verified=not wrong, reason=reason)

    def _serve(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting is not None or self._ended)
                work, self._waiting = self._waiting, None
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
