"""Who may use the server, and how much of it at once."""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from caspi.errors import UsageError

KEY_VARIABLE = "CASPI_API_KEYS"
_HASH = "sha256:"


def new_key() -> tuple[str, str]:
    """A new API key, and its hash for a file of keys."""
    key = f"caspi-{secrets.token_urlsafe(32)}"
    return key, _hashed(key)


def _hashed(key: str) -> str:
    return _HASH + hashlib.sha256(key.encode()).hexdigest()  # random keys of 256 bits need no slow hash


class Keys:
    """API keys, by the names of those who have them. Only hashes are kept."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        """hashes: by name."""
        self._hashes = dict(hashes)

    @classmethod
    def of(cls, file: Path | None, environment: Mapping[str, str]) -> Keys:
        """Of a file with lines `NAME sha256:HASH`, and of the variable CASPI_API_KEYS with keys separated by commas.
        Raises UsageError."""
        hashes: dict[str, str] = {}
        if file is not None:
            try:
                lines = file.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"--api-keys {file}: {error}") from error
            for number, line in enumerate(lines, 1):
                if not line.strip() or line.startswith("#"):
                    continue
                name, _, hashed = line.strip().rpartition(" ")
                if not name or not hashed.startswith(_HASH) or len(hashed) != len(_HASH) + 64:
                    raise UsageError(
                        f"--api-keys {file}, line {number}: not NAME {_HASH}HASH; caspi serve --new-key makes one"
                    )
                hashes[name] = hashed
            if not hashes:
                raise UsageError(f"--api-keys {file}: no key")
        given = [key.strip() for key in environment.get(KEY_VARIABLE, "").split(",") if key.strip()]
        hashes |= {f"environment-{number}": _hashed(key) for number, key in enumerate(given, 1)}
        return cls(hashes)

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def holder(self, key: str) -> str | None:
        """The name of the holder of a key; None if the key is not known."""
        hashed = _hashed(key)
        names = [name for name, known in self._hashes.items() if hmac.compare_digest(hashed, known)]
        return names[0] if names else None


@dataclass(frozen=True, slots=True)
class Limits:
    """upload: bytes of a request. seconds: of audio in it. requests: that are open at once, per_key: of one key.
    body_seconds: without a byte of a request's body."""

    upload: int = 512 * 2**20
    seconds: float = 4 * 3600.0
    requests: int = 512
    per_key: int = 256
    body_seconds: float = 30.0


class TooMany(Exception):
    """retry_after: seconds."""

    def __init__(self, retry_after: int, whose: str) -> None:
        super().__init__(f"too many requests at once {whose}: try again in {retry_after} s")
        self.retry_after = retry_after


class Gate:
    """Counts open requests. For any thread."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: Counter[str] = Counter()
        self._seconds = 1.0  # that a request takes, lately
        self._lock = threading.Lock()

    @property
    def open(self) -> int:
        """Requests that are open."""
        return self._open.total()

    def enter(self, name: str) -> None:
        """Raises TooMany."""
        with self._lock:
            retry = max(1, math.ceil(self._seconds))
            if self._open.total() >= self._limits.requests:
                raise TooMany(retry, "on this server")
            if self._open[name] >= self._limits.per_key:
                raise TooMany(retry, "with this key")
            self._open[name] += 1

    def leave(self, name: str, seconds: float) -> None:
        with self._lock:
            self._open[name] -= 1
            self._seconds += 0.1 * (seconds - self._seconds)
