"""Queries that arrive while others are being encoded are encoded together."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from mlcl_cli.server.lanes import BUSY
from mlcl_cli.server.pictures import LARGE, count_pixels, prepare_upload
from mlcl_cli.server.problems import ProblemError
from mlcl_cli.workflows.query_features import PreparedQuery
from mlcl_cli.workflows.retriever import Hit, Query
from mlcl_cli.workflows.search_engine import EncodedQuery, SearchEngine, SearchOptions


@dataclass(frozen=True, eq=False, slots=True)
class _Waiting:
    """A query that waits for its hits."""

    engine: SearchEngine
    query: Query
    prepared: PreparedQuery
    options: SearchOptions
    hits: "asyncio.Future[list[Hit]]"


@dataclass(eq=False)
class Batcher:
    """Encodes queries in batches, in one thread, and searches for them in others.

    A query never waits for company: a batch is whatever has come in while the last one was encoded, at most `max_batch`
    queries. `on_batch` is called with its size. `max_waiting` bounds the queries that are being answered.
    """

    max_batch: int
    max_waiting: int
    threads: int
    on_batch: Callable[[int], None]
    waiting: int = field(default=0, init=False)
    _queue: "asyncio.Queue[_Waiting]" = field(default_factory=asyncio.Queue, init=False)

    def __post_init__(self) -> None:
        self._encoder = ThreadPoolExecutor(1, "encode")
        self._searchers = ThreadPoolExecutor(self.threads, "search")
        self._large = ThreadPoolExecutor(1, "large image")
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to take batches; called within the event loop."""
        self._keep(asyncio.create_task(self._take_batches()))

    async def stop(self) -> None:
        """End when nobody waits any more."""
        for task in [*self._tasks]:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self._encoder.shutdown()
        self._searchers.shutdown()
        self._large.shutdown()

    def require_room(self) -> None:
        """Raise ProblemError at once where too many requests are waiting already."""
        if self.waiting >= self.max_waiting:
            raise ProblemError(503, BUSY, remedy="Try again")

    async def search(
        self, engine: SearchEngine, query: Query, options: SearchOptions, image: bytes | None = None
    ) -> list[Hit]:
        """The hits of a query, whose reference may be the file of an `image`.

        Raises what `prepare_upload`, `SearchEngine.prepare` and `find` do, and what `require_room` does.
        """
        self.require_room()
        self.waiting += 1
        try:
            prepared = await self._prepare(engine, query, image)
            hits: asyncio.Future[list[Hit]] = asyncio.get_running_loop().create_future()
            self._queue.put_nowait(_Waiting(engine, query, prepared, options, hits))
            return await hits
        finally:
            self.waiting -= 1

    async def _prepare(self, engine: SearchEngine, query: Query, image: bytes | None) -> PreparedQuery:
        """Decode what a query refers to; of large images, one at a time, and none is kept."""
        loop = asyncio.get_running_loop()
        if image is None:
            return await loop.run_in_executor(self._searchers, engine.prepare, query)
        pixels = await loop.run_in_executor(self._searchers, count_pixels, image)
        pool = self._large if pixels >= LARGE else self._searchers
        return await loop.run_in_executor(pool, prepare_upload, engine, query, image)

    async def _take_batches(self) -> None:
        while True:
            batch = [await self._queue.get()]
            while len(batch) < self.max_batch and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            by_engine = defaultdict(list)  # two, while a new catalog takes over
            for one in batch:
                if not one.hits.done():  # whoever has gone does not need an answer
                    by_engine[one.engine].append(one)
            for engine, group in by_engine.items():
                try:
                    await self._encode(engine, group)
                except Exception as error:
                    _fail(group, error)

    async def _encode(self, engine: SearchEngine, group: Sequence[_Waiting]) -> None:
        """Encode queries together, and have others search for those that have the same options."""
        self.on_batch(len(group))
        prepared = [one.prepared for one in group]
        encoded = await asyncio.get_running_loop().run_in_executor(self._encoder, engine.encode, prepared)
        by_options = defaultdict(list)
        for one, features in zip(group, encoded, strict=True):
            by_options[one.options].append((one, features))
        for options, parts in by_options.items():
            waiting, features_of = zip(*parts, strict=True)
            self._keep(asyncio.create_task(self._find(engine, waiting, features_of, options)))

    async def _find(
        self,
        engine: SearchEngine,
        group: Sequence[_Waiting],
        encoded: Sequence[EncodedQuery],
        options: SearchOptions,
    ) -> None:
        loop = asyncio.get_running_loop()
        queries = [one.query for one in group]
        try:
            hits = await loop.run_in_executor(self._searchers, engine.find, encoded, queries, options)
        except Exception as error:  # whoever waits gets it
            _fail(group, error)
            return
        for one, found in zip(group, hits, strict=True):
            if not one.hits.done():
                one.hits.set_result(found)

    def _keep(self, task: "asyncio.Task[None]") -> None:
        """A task that nobody refers to may vanish."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _fail(group: Sequence[_Waiting], error: Exception) -> None:
    for one in group:
        if not one.hits.done():
            one.hits.set_exception(error)
