"""What every request passes: limits on its body, security headers, the log, and the key for writing."""

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from fastapi import Request

from mlcl_cli.server.metrics import Metrics
from mlcl_cli.server.problems import ProblemError
from mlcl_cli.server.settings import KEY_VARIABLE, Limits

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger("mlcl_cli.server.requests")

BULK = "/v1/items"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Swagger's page sets styles in its elements.
DOCS_POLICY = POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
CLOSE = {"Connection": "close"}  # what is left of the body is not read
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), geolocation=(), microphone=()",
}


@dataclass
class _BoundedBody:
    """Receives a body of at most `limit` bytes, each of whose parts comes `seconds` after the last, or all of it."""

    receive: Receive
    limit: int
    seconds: float
    is_bulk: bool

    def __post_init__(self) -> None:
        self._received, self._is_complete, self._until = 0, False, time.monotonic() + self.seconds

    async def __call__(self) -> Message:
        """The next part. Raises ProblemError if it is too late or too much."""
        if self._is_complete:
            return await self.receive()
        try:
            message = await asyncio.wait_for(self.receive(), max(0.0, self._until - time.monotonic()))
        except TimeoutError:
            raise ProblemError(408, "the body took too long to arrive", headers=CLOSE) from None
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self._is_complete = not message.get("more_body", False)
            if self.is_bulk:
                self._until = time.monotonic() + self.seconds
            if self._received > self.limit:
                raise _too_large(self.limit)
        return message


@dataclass(frozen=True)
class BodyLimit:
    """Refuses bodies that are too large or take too long, before they are kept in memory."""

    app: App
    limits: Limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a bounded body. The routes answer the errors that reading it raises."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_bulk = scope["method"] == "POST" and scope["path"] == BULK
        limit = self.limits.bulk_body if is_bulk else self.limits.body
        length = _header(scope["headers"], b"content-length")
        if length is not None and length.isdigit() and int(length) > limit:
            await _too_large(limit).response()(scope, receive, send)
            return
        await self.app(scope, _BoundedBody(receive, limit, self.limits.body_seconds, is_bulk), send)


@dataclass(frozen=True)
class Headers:
    """Adds security headers to every answer."""

    app: App

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        policy = DOCS_POLICY if scope.get("path") == "/docs" else POLICY

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                added = {**HEADERS, "content-security-policy": policy}
                if b"cache-control" not in given:
                    added["cache-control"] = "no-store"
                message["headers"] = [
                    *message["headers"],
                    *((name.encode(), value.encode()) for name, value in added.items()),
                ]
            await send(message)

        await self.app(scope, receive, with_headers)


@dataclass(frozen=True)
class Observer:
    """Counts requests, and writes a line about each to the log: no query, no picture, no key."""

    app: App
    metrics: Metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            seconds = time.monotonic() - began
            route = getattr(scope.get("route"), "path", "none")
            self.metrics.observe(scope["method"], route, status, seconds)
            facts = {"method": scope["method"], "route": route, "status": status, "ms": round(seconds * 1000, 1)}
            logger.info("request", extra={"facts": facts})


def require_key(request: Request, key: str | None) -> None:
    """Raise ProblemError unless the request carries the key."""
    if key is None:
        remedy = f"Set {KEY_VARIABLE} where the server starts"
        raise ProblemError(403, "this server accepts no changes", remedy=remedy)
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), key.encode()):
        headers = {"WWW-Authenticate": "Bearer"}
        raise ProblemError(401, "changes need the key", remedy="Send Authorization: Bearer KEY", headers=headers)


def _too_large(limit: int) -> ProblemError:
    return ProblemError(413, f"the body is larger than {limit / 2**20:g} MiB", headers=CLOSE)


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in headers if key.lower() == name), None)
