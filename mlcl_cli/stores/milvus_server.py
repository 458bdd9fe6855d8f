"""A connection to a Milvus server: addresses, failures, and patience while a table is loaded."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

from mlcl_cli.errors import MachineError

if TYPE_CHECKING:
    from pymilvus import MilvusClient

T = TypeVar("T")
TIMEOUT = 60  # seconds, for one request
_CONNECT_TIMEOUT = 5
_LOADING_TIMEOUT = 300  # for which requests wait until another process has loaded the table
_NOT_LOADED = (101, 102, 103, 700)  # Milvus' codes for a table that is released, not loaded completely, or not indexed
_NOT_FOUND = 100


class MilvusServer:
    """The server at an address, milvus://[USER:PASSWORD@]HOST:PORT[/DATABASE]; it is connected to when first asked."""

    def __init__(self, address: str) -> None:
        self._parts = urlsplit(address)

    @property
    def place(self) -> str:
        """The address without credentials."""
        return f"milvus://{self._parts.netloc.rpartition('@')[2]}{self._parts.path}"

    def ask(self, request: Callable[["MilvusClient"], T], timeout: float = _LOADING_TIMEOUT) -> T:
        """What a request returns. While the table is not loaded, it is repeated.

        Raises MachineError if the server cannot be reached or refuses.
        """
        from pymilvus import MilvusException

        until = time.monotonic() + timeout
        with self._reported():
            while True:
                try:
                    return request(self._client)
                except MilvusException as error:
                    if error.code not in _NOT_LOADED or time.monotonic() > until:
                        raise
                time.sleep(0.1)

    @cached_property
    def _client(self) -> "MilvusClient":
        from pymilvus import MilvusClient

        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it prints errors that it also raises
        return MilvusClient(
            f"http://{self._parts.hostname}:{self._parts.port}",
            user=unquote(self._parts.username or ""),
            password=unquote(self._parts.password or ""),
            db_name=self._parts.path.strip("/"),
            timeout=_CONNECT_TIMEOUT,
        )

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """An error of the server or the connection as a MachineError in one line."""
        from grpc import RpcError
        from pymilvus import MilvusException

        try:
            yield
        except MilvusException as error:
            what = " ".join(str(error.message).split()).rstrip(".")
            unreachable = "server unavailable" in what or "StatusCode.UNAVAILABLE" in what
            if unreachable:
                what, remedy = "the server cannot be reached", "Check the address, and that Milvus runs there"
            elif "UNIMPLEMENTED" in what:
                what, remedy = "what answers there is no Milvus server", "Check the address; the port is usually 19530"
            elif error.code in _NOT_LOADED:
                what, remedy = "the table is not loaded", "Run mlcl index again, which loads it"
            elif error.code == _NOT_FOUND:
                what, remedy = f"the table is gone ({what})", "Open the catalog again"
            else:
                what, remedy = f"Milvus failed: {what}", "Look into the server's log"
            raise MachineError(what, where=self.place, remedy=remedy) from error
        except RpcError as error:
            what = f"the connection failed ({' '.join(str(error).split())[:200]})"
            raise MachineError(what, where=self.place, remedy="Run the command again") from error
