"""caspi serve: a server with OpenAI's transcription API, live speech and a page to try it."""

from __future__ import annotations

import functools
import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from caspi.commands.outcome import Outcome
from caspi.errors import MissingDependency, UsageError
from caspi.inference.decoding_options import GREEDY, DecodingOptions

if TYPE_CHECKING:
    from caspi.inference.files import TimeWords
    from caspi.serving.access import Keys
    from caspi.serving.shared import Backend

_log = logging.getLogger(__name__)
_DRAIN_SECONDS = 120  # for requests that are open when the server is asked to end
_SWITCH_SECONDS = 0.0005  # the engine's thread and that of the requests wait this long for each other; usual: 0.005


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Of the command line. upload_mb, audio_minutes: at most, of one request. requests, per_key: at most, at once."""

    host: str = "127.0.0.1"
    port: int = 8000
    aligner: str | None = "tiny-aligner"
    api_keys: Path | None = None
    no_auth: bool = False
    upload_mb: int = 512
    audio_minutes: int = 240
    requests: int = 512
    per_key: int = 256
    corrections: Path | None = None
    origins: tuple[str, ...] = field(default=())
    log_transcripts: bool = False
    backend: str = "caspi"
    vllm_url: str = "http://127.0.0.1:8001"
    decoding: DecodingOptions = GREEDY


def new_key(name: str) -> Outcome:
    """Prints a key once, and the line for the file of keys."""
    from caspi.serving.access import new_key as made

    if not name.strip():
        raise UsageError("--new-key: give a name for its holder")
    key, hashed = made()
    text = f"key (shown only now): {key}\nline for --api-keys: {name.strip()} {hashed}\n"
    return Outcome("", Path(), {"key": key, "line": f"{name.strip()} {hashed}"}, text=text)


def run(model: str, options: ServeOptions) -> None:
    """Serves until it is asked to end; then it finishes what is open. Raises UsageError."""
    try:
        import uvicorn

        from caspi.serving.access import Keys, Limits
        from caspi.serving.app import ServerOptions, application
    except ImportError as error:
        raise MissingDependency("caspi serve", package="fastapi", extra="serve") from error
    keys = Keys.of(options.api_keys, os.environ)
    _check_open(options, keys)
    limits = Limits(options.upload_mb << 20, options.audio_minutes * 60.0, options.requests, options.per_key)
    listening = _listening(options)
    server = ServerOptions(
        keys, limits, time_words=_time_words(options.aligner), corrections=options.corrections,
        origins=options.origins, hosts=_names_of(options), log_transcripts=options.log_transcripts,
        decoding=options.decoding,
    )  # fmt: skip
    app = application(_backend(model, options), server)
    logging.getLogger("caspi.requests").setLevel(logging.INFO)
    sys.setswitchinterval(_SWITCH_SECONDS)
    _log.info(f"caspi serves {model}; the page is at http://{options.host}:{options.port}/")
    config = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=_DRAIN_SECONDS, ws_max_size=1 << 20
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listening])


def _listening(options: ServeOptions) -> socket.socket:
    """Bound before the model is loaded, so that a port in use is reported at once. Raises UsageError."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((options.host, options.port))
    except OSError as error:
        listening.close()
        raise UsageError(f"--host {options.host} --port {options.port}: {error.strerror or error}") from error
    return listening


def _names_of(options: ServeOptions) -> frozenset[str] | None:
    """By which a server that only this machine reaches may be called."""
    return frozenset({"localhost", "127.0.0.1", "::1", options.host}) if _is_local(options.host) else None


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_open(options: ServeOptions, keys: Keys) -> None:
    """Raises UsageError if other machines could use the server without a key, and that was not asked for."""
    if not _is_local(options.host) and not keys and not options.no_auth:
        raise UsageError(
            f"--host {options.host}: everybody who reaches it could use it: give --api-keys FILE or CASPI_API_KEYS "
            "(caspi serve --new-key NAME makes a key), or --no-auth"
        )


def _backend(model: str, options: ServeOptions) -> Backend:
    from caspi.inference.transcriber import Transcriber
    from caspi.serving.shared import SharedTranscriber

    if options.backend == "vllm":
        from caspi.serving.vllm_backend import VllmBackend

        return VllmBackend(options.vllm_url, model, os.environ.get("VLLM_API_KEY"))
    if options.backend != "caspi":
        raise UsageError(f"--backend {options.backend}: not one of caspi, vllm")
    # Clients see the name of the folder, not its path.
    return SharedTranscriber(Transcriber.of(model), Path(model).resolve().name if Path(model).exists() else model)


def _time_words(aligner: str | None) -> Callable[[str | None], TimeWords] | None:
    if aligner is None:
        return None
    from caspi.alignment.align import Aligner
    from caspi.alignment.transcripts import with_word_times

    loaded = Aligner.of(aligner)

    def finding(spoken: str | None) -> TimeWords:
        return functools.partial(with_word_times, loaded, spoken)

    return finding
