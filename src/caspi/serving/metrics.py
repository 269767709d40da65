"""Figures for Prometheus, and one line of log per request."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_log = logging.getLogger("caspi.requests")
_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Of one server."""

    def __init__(self, open_requests: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("caspi_requests", "Requests", ["path", "status"], registry=self.registry)
        self.seconds = Histogram(
            "caspi_request_seconds", "Time of a request", ["path"], buckets=_BUCKETS, registry=self.registry
        )
        self.audio = Counter("caspi_audio_seconds", "Audio that was transcribed", registry=self.registry)
        self.windows = Counter("caspi_windows", "Windows that were decoded", registry=self.registry)
        self.cancelled = Counter("caspi_cancelled", "Requests whose client left", registry=self.registry)
        Gauge("caspi_open_requests", "Requests in work", registry=self.registry).set_function(open_requests)

    def as_text(self) -> bytes:
        return generate_latest(self.registry)


def log_request(**fields: Any) -> None:
    """As a line of JSON."""
    _log.info(json.dumps({"time": round(time.time(), 3), **fields}, ensure_ascii=False))
