"""What happens to a request before anything is done for it: who asks, how large it is, how many are open."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Collection
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from caspi.serving.access import Gate, Keys, Limits, TooMany
from caspi.serving.metrics import Metrics, log_request

_MAX_FORM_BYTES = 2**20  # bytes of the other fields and separators
_ANYONE = "anyone"  # where no keys are needed


def error_response(status: int, message: str, *, code: str | None = None, param: str | None = None) -> JSONResponse:
    """An error in the format that OpenAI's clients read."""
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(status, "invalid_request_error")
    kind = "server_error" if status >= 500 else kind
    return JSONResponse({"error": {"message": message, "type": kind, "param": param, "code": code}}, status)


class Admission:
    """For paths below /v1/: refuses requests without a key (401), too large ones before their body is received (413),
    too many (429 with Retry-After), and bodies that do not come (408). Measures and logs the others."""

    def __init__(
        self,
        app: ASGIApp,
        keys: Keys,
        limits: Limits,
        gate: Gate,
        metrics: Metrics,
        origins: Collection[str],
        hosts: Collection[str] | None,
    ) -> None:
        """origins: of pages of others that may use the server. hosts: names by which it may be called; None: any."""
        self._app, self._keys, self._limits, self._gate, self._metrics = app, keys, limits, gate, metrics
        self._origins, self._hosts = origins, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if problem := self._foreign(scope):
            await self._refuse(scope, receive, send, error_response(403, problem))
            return
        if not scope["path"].startswith(("/v1/", "/metrics")):
            await self._app(scope, receive, send)
            return
        name = self._name(scope)
        if name is None:
            refusal = error_response(401, "no valid API key: send Authorization: Bearer KEY", code="invalid_api_key")
            await self._refuse(scope, receive, send, refusal)
        elif scope["type"] == "http" and scope["method"] == "GET":
            await self._app(scope, receive, send)
        elif (size := self._declared(scope)) is None or size > self._limits.upload + _MAX_FORM_BYTES:
            await self._refuse(scope, receive, send, _too_large(self._limits))
        else:
            await self._admit(name, scope, receive, send)

    async def _admit(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._gate.enter(name)
        except TooMany as error:
            refusal = error_response(429, str(error), code="rate_limit_exceeded")
            refusal.headers["Retry-After"] = str(error.retry_after)
            await self._refuse(scope, receive, send, refusal)
            return
        started = time.monotonic()
        call = _Call(self._limits, scope, receive, send)
        scope.setdefault("state", {})["call"] = call
        try:
            await self._app(scope, call.receive, call.send)
        except ClientDisconnect:
            self._metrics.cancelled.inc()
        except Exception:
            call.status = call.status or 500
            raise
        finally:
            seconds = time.monotonic() - started
            self._gate.leave(name, seconds)
            self._record(scope, call, name, seconds)

    def _record(self, scope: Scope, call: _Call, name: str, seconds: float) -> None:
        self._metrics.requests.labels(scope["path"], str(call.status)).inc()
        self._metrics.seconds.labels(scope["path"]).observe(seconds)
        log_request(
            request=call.id, key=name, path=scope["path"], status=call.status, seconds=round(seconds, 3), **call.figures
        )

    def _foreign(self, scope: Scope) -> str:
        """Why a request may come from another site; empty if it does not. A browser lets any page post to any server
        and open WebSockets, and a stranger's host name can point to this machine (DNS rebinding)."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._hosts is not None and urlsplit(f"//{host}").hostname not in self._hosts:
            return f"this server is not called {host}"
        if scope.get("method") in ("GET", "HEAD", "OPTIONS") or origin is None or origin in self._origins:
            return ""
        return (
            "" if urlsplit(origin).netloc == host else f"pages of {origin} may not use it: start it with --allow-origin"
        )

    def _name(self, scope: Scope) -> str | None:
        """Of whose key it has; browsers cannot set headers of a WebSocket, which may have `?key=`."""
        if not self._keys:
            return _ANYONE
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" and scope["type"] == "websocket":
            key = parse_qs(scope["query_string"].decode("latin-1")).get("key", [""])[0]
        return self._keys.holder(key.strip()) if key else None

    def _declared(self, scope: Scope) -> int | None:
        """Bytes of the body; 0 if it is not declared; None if what is declared is not a number."""
        declared = Headers(scope=scope).get("content-length", "0")
        return int(declared) if declared.isdecimal() else None

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, refusal: JSONResponse) -> None:
        self._metrics.requests.labels("/v1/", str(refusal.status_code)).inc()
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": bytes(refusal.body).decode()[:120]})
            return
        await refusal(scope, receive, send)


def _too_large(limits: Limits) -> JSONResponse:
    return error_response(413, f"file: larger than {limits.upload >> 20} MiB", param="file")


class _Call:
    """The channels of one request. figures: for its line in the log."""

    def __init__(self, limits: Limits, scope: Scope, receive: Receive, send: Send) -> None:
        self._limits, self._scope, self._receive, self._send = limits, scope, receive, send
        self._received, self._complete, self._refused = 0, False, False
        self.id = uuid.uuid4().hex[:12]
        self.status: int | None = None
        self.figures: dict[str, float | str] = {}

    async def receive(self) -> Message:
        if self._scope["type"] == "websocket" or self._complete:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._limits.body_seconds)
        except TimeoutError:
            await self._refuse(error_response(408, f"the body did not come within {self._limits.body_seconds:g} s"))
            return {"type": "http.disconnect"}
        self._received += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._received > self._limits.upload + _MAX_FORM_BYTES and not self._refused:
            await self._refuse(_too_large(self._limits))
            return {"type": "http.disconnect"}
        return message

    async def _refuse(self, refusal: JSONResponse) -> None:
        self._refused, self.status = True, refusal.status_code
        await refusal(self._scope, self._receive, self._send)

    async def send(self, message: Message) -> None:
        if self._refused:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "websocket.accept":
            self.status = 101
        await self._send(message)
