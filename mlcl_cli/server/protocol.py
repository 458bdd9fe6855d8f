"""HTTP/1.1 as uvicorn speaks it, for clients that do not mean well."""

import asyncio
import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from mlcl_cli.server.problems import ProblemError

MAX_CONNECTIONS = 1_024  # of a worker
PATIENCE = 15.0  # seconds, in which a request's headers must have come, and some of an answer must have been taken


class PatientProtocol(H11Protocol):
    """Ends connections whose client neither finishes a request's headers nor takes the answer, and those too many."""

    _watch: asyncio.TimerHandle | None = None
    _seen: tuple[RequestResponseCycle | None, int] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(ProblemError(503, "the server has too many connections", remedy="Try again"))
            return
        self._watch = self.loop.call_later(PATIENCE, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Answer what is not HTTP."""
        self._refuse(ProblemError(400, "this is not a valid HTTP request"))

    def _look(self) -> None:
        """Compare with how it was the last time: which request is answered, and how much the client has to take."""
        waiting, unsent = self.cycle is None or self.cycle.response_complete, self.transport.get_write_buffer_size()
        now = (self.cycle, unsent)
        if now == self._seen and (waiting or unsent):
            self.transport.abort()
            return
        self._seen = now
        self._watch = self.loop.call_later(PATIENCE, self._look)

    def _refuse(self, problem: ProblemError) -> None:
        """Answer without asking the application, and hang up."""
        content = json.dumps(problem.body()).encode()
        headers = {"content-type": "application/problem+json", "content-length": str(len(content))}
        headers |= {"connection": "close", "x-content-type-options": "nosniff", **(problem.headers or {})}
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            start = h11.Response(status_code=problem.status, headers=[*headers.items()])
            for event in (start, h11.Data(data=content), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
