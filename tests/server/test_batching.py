"""Queries are encoded together, a full queue is refused at once, and one failure leaves the others alone."""

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from api import client_of, indexed_shop, settings_of
from typer.testing import CliRunner
from world import tiny_clip

from mlcl_cli import Retriever
from mlcl_cli.cli.app import app
from mlcl_cli.errors import DataError
from mlcl_cli.server import service
from mlcl_cli.server.batching import Batcher
from mlcl_cli.server.problems import ProblemError
from mlcl_cli.server.service import Loaded
from mlcl_cli.workflows.query_features import PreparedQuery
from mlcl_cli.workflows.retriever import Hit, Query
from mlcl_cli.workflows.search_engine import EncodedQuery, SearchEngine, SearchOptions


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return indexed_shop(tmp_path_factory.mktemp("batching"))


@pytest.fixture(scope="module")
def engine(folder: Path) -> SearchEngine:
    return Loaded.open(settings_of(folder)).engine


class Batches:
    """The sizes of batches, and a gate that encoding waits at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        real = SearchEngine.encode

        def encode(engine: SearchEngine, queries: Sequence[PreparedQuery]) -> list[EncodedQuery]:
            assert self.gate.wait(20)
            if any(query.text == "fail" for query in queries):
                raise DataError("made to fail")
            return real(engine, queries)

        monkeypatch.setattr(SearchEngine, "encode", encode)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Batches:
    return Batches(monkeypatch)


OPTIONS = [
    SearchOptions(k=3),
    SearchOptions(k=5),
    SearchOptions(k=3, explain=True),
    SearchOptions(k=3, group_by="color"),
]


def test_batched_queries_find_what_single_ones_do(engine: SearchEngine, batches: Batches) -> None:
    queries = [Query(f"red {number}", item=f"sku{number % 5}", exclude=(f"sku{number % 7}",)) for number in range(40)]

    async def search_all() -> list[list[Hit]]:
        batcher = Batcher(16, 100, 2, batches.sizes.append)
        batcher.start()
        batches.gate.clear()
        tasks = [
            asyncio.create_task(batcher.search(engine, query, OPTIONS[number % 4]))
            for number, query in enumerate(queries)
        ]
        while batcher.waiting < len(queries) or batcher._queue.qsize() < len(queries) - 16:
            await asyncio.sleep(0.01)
        batches.gate.set()
        found = await asyncio.gather(*tasks)
        await batcher.stop()
        return found

    found = asyncio.run(search_all())
    assert sum(batches.sizes) == len(queries)
    assert max(batches.sizes) == 16
    for number, (query, hits) in enumerate(zip(queries, found, strict=True)):
        options = OPTIONS[number % 4]
        (alone,) = engine.find(engine.encode([engine.prepare(query)]), [query], options)
        assert [hit.id for hit in hits] == [hit.id for hit in alone]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in alone], abs=1e-6)
        assert [hit.levels is None for hit in hits] == [not options.explain] * len(hits)


def test_a_full_queue_refuses_at_once_and_recovers(engine: SearchEngine, batches: Batches) -> None:
    async def overload() -> tuple[int, float]:
        batcher = Batcher(4, 10, 2, batches.sizes.append)
        batcher.start()
        batches.gate.clear()
        tasks = [asyncio.create_task(batcher.search(engine, Query("a"), SearchOptions())) for _ in range(10)]
        while batcher.waiting < 10:
            await asyncio.sleep(0.01)
        began = time.monotonic()
        with pytest.raises(ProblemError, match="the server is busy") as caught:
            await batcher.search(engine, Query("a"), SearchOptions())
        refused_in = time.monotonic() - began
        assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "1"})
        batches.gate.set()
        found = await asyncio.gather(*tasks)
        assert len(await batcher.search(engine, Query("a"), SearchOptions())) == 10
        await batcher.stop()
        return len(found), refused_in

    answered, refused_in = asyncio.run(overload())
    assert answered == 10
    assert refused_in < 1


def test_a_failure_is_told_to_its_batch_alone(engine: SearchEngine, batches: Batches) -> None:
    async def run() -> None:
        batcher = Batcher(1, 10, 2, batches.sizes.append)
        batcher.start()
        ways = ["a", "fail", "b"]
        found = await asyncio.gather(
            *(batcher.search(engine, Query(text), SearchOptions()) for text in ways), return_exceptions=True
        )
        assert [isinstance(one, DataError) for one in found] == [False, True, False]
        with pytest.raises(Exception, match="there is no such field"):
            await batcher.search(engine, Query("a"), SearchOptions(group_by="nope"))
        assert batcher.waiting == 0
        await batcher.stop()

    asyncio.run(run())


def test_whoever_has_gone_is_not_encoded(engine: SearchEngine, batches: Batches) -> None:
    async def run() -> None:
        batcher = Batcher(4, 10, 2, batches.sizes.append)
        batcher.start()
        batches.gate.clear()
        first = asyncio.create_task(batcher.search(engine, Query("a"), SearchOptions()))
        while not batches.sizes:
            await asyncio.sleep(0.01)
        gone = asyncio.create_task(batcher.search(engine, Query("b"), SearchOptions()))
        while not batcher._queue.qsize():
            await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        batches.gate.set()
        await first
        await batcher.search(engine, Query("c"), SearchOptions())
        assert batches.sizes == [1, 1]
        await batcher.stop()

    asyncio.run(run())


def test_a_new_clip_takes_over_while_the_server_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "SECONDS_BETWEEN_LOOKS", 0.1)
    folder = indexed_shop(tmp_path)
    with client_of(folder) as client:
        before = client.post("/v1/search", json={"item": "sku1"}).json()
        tiny_clip(folder / "clip.pt", seed=7)
        command = ["index", str(folder / "products.csv"), "--profile", str(folder / "mlcl.yaml")]
        result = CliRunner().invoke(app, command, catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        until = time.monotonic() + 30
        while (after := client.post("/v1/search", json={"item": "sku1"}).json())["model"] == before["model"]:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert after["model"]["clip_fingerprint"] != before["model"]["clip_fingerprint"]
        expected = [hit.id for hit in Retriever.load(folder / "mlcl.yaml").search(item="sku1")]
        assert [hit["id"] for hit in client.post("/v1/search", json={"item": "sku1"}).json()["hits"]] == expected
