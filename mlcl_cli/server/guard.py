"""What every request passes: limits on its body, security headers, the log, and the key for writing."""

import asyncio
import hmac
import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
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
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Swagger's page sets styles in its elements.
DOCS_POLICY = POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
SMALL = 64 * 1024  # bytes: so much of a body is always accepted
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
    """Receives a body of at most `limit` bytes, each of whose parts comes `seconds` after the last, or all of it.

    All but the start of a body counts toward `memory`, unless it is used line by line.
    """

    receive: Receive
    memory: "BodyMemory"
    limit: int
    seconds: float
    is_bulk: bool
    taken: int = field(default=0, init=False)

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
            if not self.is_bulk:
                further = max(0, self._received - SMALL) - self.taken
                self.memory.take(further)
                self.taken += further
        return message


@dataclass
class BodyMemory:
    """How many bytes of bodies are held at the moment, and may be."""

    limit: int
    held: int = 0

    def take(self, count: int) -> None:
        """Hold further bytes. Raises ProblemError if they are too many."""
        if count and self.held + count > self.limit:
            raise ProblemError(503, "the server is receiving too many bodies", remedy="Try again", headers=CLOSE)
        self.held += count


@dataclass(frozen=True)
class BodyLimit:
    """Refuses bodies that are too large or take too long, before they are kept in memory."""

    app: App
    limits: Limits
    memory: BodyMemory = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "memory", BodyMemory(self.limits.bodies))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a bounded body. The routes answer the errors that reading it raises."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_bulk = scope["method"] == "POST" and scope["path"] == BULK
        limit = self.limits.bulk_body if is_bulk else self.limits.body
        length = header(scope, b"content-length")
        if length is not None and header(scope, b"transfer-encoding") is not None:  # a proxy may see another end of it
            problem = ProblemError(400, "the body has two lengths", headers=CLOSE)
            await problem.response()(scope, receive, send)
            return
        if length is not None and length.isdigit() and int(length) > limit:
            await _too_large(limit).response()(scope, receive, send)
            return
        body = _BoundedBody(receive, self.memory, limit, self.limits.body_seconds, is_bulk)
        try:
            await self.app(scope, body, send)
        finally:
            self.memory.held -= body.taken


@dataclass(frozen=True)
class Origins:
    """Refuses what another site's page sends: by a name that leads here (DNS rebinding), or straight away.

    A request's Host is an IP address, localhost or one of `names`; without `names`, anything.
    """

    app: App
    names: Sequence[str] | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        problem = self._problem(scope) if scope["type"] == "http" else None
        await (self.app(scope, receive, send) if problem is None else problem.response()(scope, receive, send))

    def _problem(self, scope: Scope) -> ProblemError | None:
        if scope["method"] == "POST" and header(scope, b"sec-fetch-site") == "cross-site":
            return ProblemError(403, "a page of another site sent this", headers=CLOSE)
        if self.names is None or _host_name(header(scope, b"host") or "") in ("localhost", "", *self.names):
            return None
        remedy = "Use localhost or an IP address, or start the server with --allow-host NAME"
        return ProblemError(421, "this server does not answer to that name", where="Host", remedy=remedy, headers=CLOSE)


@dataclass(frozen=True)
class Headers:
    """Adds security headers to every answer."""

    app: App

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        policy = DOCS_POLICY if scope.get("path") == "/docs" else POLICY

        async def send_with_headers(message: Message) -> None:
            """Send a part of the answer; its start gets the headers that it lacks."""
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

        await self.app(scope, receive, send_with_headers)


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
            method = scope["method"] if scope["method"] in METHODS else "other"  # a client may make up any number
            self.metrics.observe(method, route, status, seconds)
            facts = {"method": method, "route": route, "status": status, "ms": round(seconds * 1000, 1)}
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


def header(scope: Scope, name: bytes) -> str | None:
    """The first value of a request's header; `name` is in lower case."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name), None)


def _host_name(host: str) -> str:
    """The name in a Host header, in lower case and without its port; nothing for an IP address."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return name.lower().removesuffix(".")
    return ""
