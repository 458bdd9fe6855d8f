"""Starts a server: one process, or several that share a socket."""

import errno
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from mlcl_cli.errors import MachineError, MlclError
from mlcl_cli.server.app import create_app
from mlcl_cli.server.logs import announce, set_up_logging
from mlcl_cli.server.metrics import DIRECTORY
from mlcl_cli.server.protocol import PatientProtocol
from mlcl_cli.server.settings import ServerSettings

GRACE = 30  # seconds, for requests in flight when the server is stopped
OPEN_FILES = 8_192  # connections and files of the catalog
BACKLOG = 2_048  # connections that wait to be accepted
KEEP_ALIVE = 15  # seconds, for connections without a request


@dataclass
class Notice:
    """Says once that the server at an address is ready."""

    address: str
    is_given: bool = False

    def give(self) -> None:
        """Say it, unless that has been done."""
        if not self.is_given:
            self.is_given = True
            announce(f"Ready: {self.address} (Ctrl-C stops the server)", "ready", self.address)


class Server(uvicorn.Server):
    """A server that says when it is ready, and ends with exit code 0 when a signal stops it."""

    def __init__(self, config: uvicorn.Config, notice: Notice) -> None:
        super().__init__(config)
        self._notice = notice

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        self._notice.give()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals meanwhile. uvicorn's own would raise them again at the end."""
        previous = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


class Workers(Multiprocess):
    """Processes that answer; says when all of them do."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], notice: Notice) -> None:
        super().__init__(config, sockets)
        self._notice = notice

    def keep_subprocess_alive(self) -> None:
        """Replace those that have died."""
        super().keep_subprocess_alive()
        if not (self._notice.is_given or self.should_exit.is_set()) and all(one.is_ready() for one in self.processes):
            self._notice.give()


def bind(host: str, port: int) -> socket.socket:
    """A socket at an address. Raises MachineError if it is taken or does not exist here."""
    place = f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise MachineError(f"not an address: {error.strerror}", where=place, remedy="Choose another --host") from error
    bound = socket.socket(family, kind, protocol)  # asyncio delays small answers on one that does not say it is TCP
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        taken = error.errno == errno.EADDRINUSE
        remedy = "Choose another --port, or --port 0 for any" if taken else "Choose another --host"
        raise MachineError(f"cannot listen: {error.strerror or error}", where=place, remedy=remedy) from error
    bound.set_inheritable(True)
    return bound


def run_server(settings: ServerSettings, bound: socket.socket, workers: int) -> None:
    """Answer requests until a signal stops the server, and close the socket. Says when it answers and when it ends.

    Raises as `create_app` does; with several workers, MachineError if one of them did.
    """
    _raise_file_limit()
    set_up_logging()
    host, port = bound.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    announce(f"Loading the model and the catalog, to answer at {address}", "loading", address)
    with bound:
        _run(settings, bound, workers, Notice(address))
    announce("Stopped", "stopped", address)


def _raise_file_limit() -> None:
    """Let as many clients connect as the protocol admits, where the system's usual limit is lower."""
    with suppress(ImportError, ValueError, OSError):  # Windows has none
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if 0 <= soft < OPEN_FILES:
            most = OPEN_FILES if hard < 0 else min(OPEN_FILES, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _run(settings: ServerSettings, bound: socket.socket, workers: int, notice: Notice) -> None:
    config = uvicorn.Config(
        partial(_create_app if workers == 1 else _create_worker, settings),
        factory=True,
        workers=workers,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        timeout_graceful_shutdown=GRACE,
        timeout_keep_alive=KEEP_ALIVE,
        h11_max_incomplete_event_size=64 * 1024,
        proxy_headers=False,
        http=PatientProtocol,
        ws="none",
    )
    if workers == 1:
        Server(config, notice).run(sockets=[bound])
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ[DIRECTORY] = folder
        supervisor = Workers(config, [bound], notice)
        supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise MachineError("a worker did not start", remedy="Its error is above")


def _create_app(settings: ServerSettings) -> FastAPI:
    set_up_logging()
    return create_app(settings)


def _create_worker(settings: ServerSettings) -> FastAPI:
    try:
        return _create_app(settings)
    except MlclError as error:
        logging.getLogger(__name__).error(str(error))  # a traceback says no more
        sys.exit(STARTUP_FAILURE)
