"""The databases that a catalog may be stored in."""

import multiprocessing
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import pytest
from milvus_process import MilvusProcess
from store_oracle import PROCESSES, AtOnce, Place, meet_and_work

# `make milvus` sets it to 1; the address of a server does, too, which is then used.
MILVUS = os.environ.get("MLCL_MILVUS", "")
DATABASES = ["lancedb", *(["milvus"] if MILVUS else [])]


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Milvus server, which stops with the tests."""
    if MILVUS.startswith("milvus://"):
        yield MILVUS
        return
    folder = tmp_path_factory.mktemp("milvus")
    server = MilvusProcess(folder)
    try:
        server.start()
        yield server.address
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=DATABASES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A catalog that does not exist yet, in each database."""
    address = request.getfixturevalue("milvus_server") if request.param == "milvus" else request.param
    return Place(address, tmp_path, f"test-{secrets.token_hex(4)}")


@pytest.fixture(scope="session")
def processes() -> Iterator[ProcessPoolExecutor]:
    """PROCESSES processes, which have imported what they need after the first test."""
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.fixture
def at_once(processes: ProcessPoolExecutor, tmp_path_factory: pytest.TempPathFactory) -> AtOnce:
    """Calls a function in each of PROCESSES processes at once; its first argument is the number of the process."""

    def call(work: Callable[..., object], *arguments: object) -> list[Future[object]]:
        folder = tmp_path_factory.mktemp("at_once")
        return [processes.submit(meet_and_work, number, folder, work, arguments) for number in range(PROCESSES)]

    return call
