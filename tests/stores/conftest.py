"""The databases that a catalog may be stored in."""

import multiprocessing
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import pytest
from milvus_process import MILVUS
from store_oracle import PROCESSES, AtOnce, Place, meet_and_work

DATABASES = ["lancedb", *(["milvus"] if MILVUS else [])]


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
