"""Searches a million rows in a catalog's store, and beside it the bare database, faiss, and exactly.

`make million` runs it: python tests/stores/million.py [--rows N] [--store ADDRESS]. The rows are clustered unit vectors
with drawn fields; a temporary folder holds them, some 7 GB for a million, and is deleted at the end. Each search is
timed in a process of its own, one query at a time.
"""

import argparse
import os
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlcl_cli.stores.conditions import Condition
from mlcl_cli.stores.open import open_catalog
from mlcl_cli.stores.recall import RECALL_AT
from mlcl_cli.stores.searching import Searcher, SearchMode
from mlcl_cli.stores.store import FIELD_PREFIX, MIN_RECALL, IndexReport, Store, TableInfo, Vectors

DIMENSION, CHUNK, QUERIES, WARM_UP, BLOCK, K = 640, 10_000, 100, 20, 10, 50
SHARES = {"all rows": None, "10 %": 0.1, "0.1 %": 0.001}  # a condition `price < share` keeps so many
INFO = TableInfo("e0", "drawn", DIMENSION, "fp16", pa.schema({"price": pa.float64(), "category": pa.string()}))
MAX_MEGABYTES = 2_000  # of a process that searches by the index
PARTITION = 2_000  # rows, in the indexes of faiss and the database

Search = Callable[[Vectors, float | None], list[int]]  # a query, and the share of rows that a condition keeps


@dataclass(frozen=True)
class Place:
    """Where the rows are: a catalog, and what was drawn, as files."""

    store: str
    folder: Path
    name: str
    rows: int

    def open(self) -> Store:
        return open_catalog(self.store, self.folder, self.name).create(INFO)

    def vectors(self) -> NDArray[np.float16]:
        return np.memmap(self.folder / "vectors", np.float16, "r", shape=(self.rows, DIMENSION))

    def prices(self) -> NDArray[np.float64]:
        return np.memmap(self.folder / "prices", np.float64, "r", shape=self.rows)

    def queries(self) -> Vectors:
        return next(drawn(self.rows, QUERIES + WARM_UP, seed=1)).astype(np.float32)

    @property
    def truth(self) -> Path:
        return self.folder / "truth.npy"


Prepare = Callable[[Place], tuple[Search, float | None]]  # also the seconds that building took, if this was building


@dataclass(frozen=True)
class Block:
    """What a competitor did with some queries: the seconds and best rows of each; and `Measured.build` and so on."""

    seconds: list[float]
    found: list[list[int]]
    build: float | None
    peak: float
    anonymous: float


@dataclass
class Measured:
    """One competitor: the seconds of each search and recall@10, by share of rows; seconds to build; memory in MB.

    `peak` is the resident set's peak, `anonymous` the most that was seen of it after a block of queries without pages
    of mapped files, which the system may take back.
    """

    seconds: list[list[float]] = field(default_factory=lambda: [[] for _ in SHARES])
    hits: list[int] = field(default_factory=lambda: [0 for _ in SHARES])
    build: float | None = None
    peak: float = 0
    anonymous: float = 0


def drawn(rows: int, count: int, seed: int = 0) -> Iterator[NDArray[np.float16]]:
    """`count` unit vectors around a center for each 500 of `rows`, in chunks (n, d)."""
    centers = np.random.default_rng(0).standard_normal((max(rows // 500, 1), DIMENSION), np.float32)
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    draw = np.random.default_rng([seed, 1])
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        noise = draw.standard_normal((size, DIMENSION), np.float32) * np.float32(0.8 / DIMENSION**0.5)
        vectors = centers[draw.integers(len(centers), size=size)] + noise
        yield (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def fill(place: Place) -> float:
    """Draws the rows into the store and into files. Returns the seconds that the store took."""
    store, draw, seconds = place.open(), np.random.default_rng(2), 0.0
    with (place.folder / "vectors").open("wb") as vector_file, (place.folder / "prices").open("wb") as price_file:
        for number, vectors in enumerate(drawn(place.rows, place.rows)):
            start, size = number * CHUNK, len(vectors)
            prices = draw.random(size)
            vectors.tofile(vector_file)
            prices.tofile(price_file)
            ids = [f"id-{row:07}" for row in range(start, start + size)]
            columns = {
                "id": ids,
                "product": ids,
                "image": [f"images/{id_}.jpg" for id_ in ids],
                "position": np.arange(start, start + size),
                "norm": np.ones(size, np.float32),
                "thumbnail": [b""] * size,
                "image_fingerprint": ids,
                "fields_fingerprint": ids,
                "vector": pa.FixedSizeListArray.from_arrays(vectors.ravel(), DIMENSION),
                f"{FIELD_PREFIX}price": prices,
                f"{FIELD_PREFIX}category": [f"c{value}" for value in draw.integers(20, size=size)],
            }
            began = time.monotonic()
            store.upsert(pa.table(columns, INFO.schema()))
            seconds += time.monotonic() - began
    return seconds


def build(place: Place) -> tuple[IndexReport | None, float]:
    """Builds the store's index. Returns the report on it, and the seconds of everything."""
    began = time.monotonic()
    report = place.open().optimize(index=True)
    return report, time.monotonic() - began


def our_search(mode: SearchMode, place: Place) -> tuple[Search, float | None]:
    """What `mlcl search` calls. Exact search builds the copy that it reads in its first call."""
    searcher = Searcher(place.open(), mode, place.folder / "copies")

    def search(query: Vectors, share: float | None) -> list[int]:
        conditions = () if share is None else [Condition("price", "<", share)]
        (found,) = searcher.search(query[None], K, conditions)
        return [int(hit.id.removeprefix("id-")) for hit in found]

    began = time.monotonic()
    search(place.queries()[0], None)
    return search, time.monotonic() - began if mode == "exact" else None


def our_index_search(place: Place) -> tuple[Search, float | None]:
    return our_search("index", place)


def our_exact_search(place: Place) -> tuple[Search, float | None]:
    return our_search("exact", place)


def bare_search(place: Place) -> tuple[Search, float | None]:
    """The database's own query, with the partitions and candidates of our search and its own second ranking."""
    import lancedb

    from mlcl_cli.stores.lance_index import candidate_count
    from mlcl_cli.stores.lance_rows import to_column

    folder, report = place.folder / place.name, place.open().index
    assert report is not None
    table, price = lancedb.connect(folder).open_table(INFO.encoder), to_column(f"{FIELD_PREFIX}price")
    effort, factor = report.effort, -(-candidate_count(K, report.effort) // K)

    def search(query: Vectors, share: float | None) -> list[int]:
        asked = table.search(query, vector_column_name="vector").distance_type("dot").limit(K).refine_factor(factor)
        asked = asked.minimum_nprobes(effort).maximum_nprobes(0).select(["position", "_distance"])
        found = (asked if share is None else asked.where(f"{price} < {share}")).to_arrow()
        return [int(position) for position in found["position"].to_pylist()]

    return search, None


def faiss_search(place: Place) -> tuple[Search, float | None]:
    """IVF-SQ8: a byte a dimension, the nearest 24 partitions."""
    import faiss

    began = time.monotonic()
    partitions = max(place.rows // PARTITION, 1)
    index = faiss.index_factory(DIMENSION, f"IVF{partitions},SQ8", faiss.METRIC_INNER_PRODUCT)
    rows, vectors = np.random.default_rng(3).permutation(place.rows)[: 64 * partitions], place.vectors()
    index.train(vectors[np.sort(rows)].astype(np.float32))
    for start in range(0, place.rows, CHUNK):
        index.add(vectors[start : start + CHUNK].astype(np.float32))
    seconds, prices = time.monotonic() - began, place.prices()
    kept = {share: faiss.IDSelectorBatch(np.flatnonzero(prices < share)) for share in SHARES.values() if share}

    def search(query: Vectors, share: float | None) -> list[int]:
        selector = {"sel": kept[share]} if share else {}
        _, found = index.search(query[None], K, params=faiss.SearchParametersIVF(nprobe=24, **selector))
        return [int(row) for row in found[0] if row >= 0]

    return search, seconds


def note_truth(place: Place) -> None:
    """The best rows of each query for each share, by products of all rows in fp32: what the others should find."""
    queries, vectors, prices = place.queries()[WARM_UP:], place.vectors(), place.prices()
    scores = np.empty((QUERIES, place.rows), np.float32)
    for start in range(0, place.rows, CHUNK):
        scores[:, start : start + CHUNK] = queries @ vectors[start : start + CHUNK].astype(np.float32).T
    best = np.empty((len(SHARES), QUERIES, RECALL_AT), np.int64)
    for kind, share in enumerate(SHARES.values()):
        if share is not None:
            scores[:, prices >= share] = -np.inf
        best[kind] = np.argpartition(scores, -RECALL_AT)[:, -RECALL_AT:]
    np.save(place.truth, best)


@cache
def prepared(prepare: Prepare, place: Place) -> tuple[Search, float | None]:
    """A competitor, which stays with its process."""
    return prepare(place)


def search_block(prepare: Prepare, place: Place, share: float | None, numbers: range) -> Block:
    """Times queries with these numbers, one at a time."""
    search, build = prepared(prepare, place)
    seconds, found = [], []
    for query in place.queries()[numbers.start : numbers.stop]:
        began = time.perf_counter()
        rows = search(query, share)
        seconds.append(time.perf_counter() - began)
        found.append(rows[:RECALL_AT])
    status = dict(re.findall(r"(VmHWM|RssAnon):\s*(\d+) kB", Path("/proc/self/status").read_text()))
    return Block(seconds, found, build, int(status["VmHWM"]) / 1_000, int(status["RssAnon"]) / 1_000)


def compete(competitors: Mapping[str, Prepare], place: Place) -> dict[str, Measured]:
    """Each in a process of its own, which nothing else uses, and in turns, so that other load hits all of them."""
    results = {label: Measured() for label in competitors}
    truth = np.load(place.truth)
    with ExitStack() as stack:
        pools = {label: stack.enter_context(process()) for label in competitors}
        for kind, share in enumerate(SHARES.values()):
            for numbers in [range(WARM_UP), *(range(n, n + BLOCK) for n in range(WARM_UP, WARM_UP + QUERIES, BLOCK))]:
                for label, prepare in competitors.items():
                    block = pools[label].submit(search_block, prepare, place, share, numbers).result()
                    result = results[label]
                    result.build, result.peak = block.build, block.peak
                    result.anonymous = max(result.anonymous, block.anonymous)
                    if numbers.start >= WARM_UP:
                        result.seconds[kind] += block.seconds
                        best = truth[kind, numbers.start - WARM_UP : numbers.stop - WARM_UP]
                        result.hits[kind] += sum(
                            len({*rows} & {*right}) for rows, right in zip(block.found, best.tolist(), strict=True)
                        )
            print(f"searched {[*SHARES][kind]}", file=sys.stderr, flush=True)
    return results


def process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"))


def table(results: Mapping[str, Measured]) -> str:
    heads = ["", "build, s", *(f"{name}, ms" for name in SHARES), "recall@10", "memory, MB"]
    lines = [heads, ["---"] * len(heads)]
    for label, result in results.items():
        built = "" if result.build is None else f"{result.build:.0f}"
        speeds = [
            ", ".join(f"{1_000 * value:.1f}" for value in np.quantile(seconds, [0.5, 0.95]))
            for seconds in result.seconds
        ]
        recalls = ", ".join(f"{hits / QUERIES / RECALL_AT:.3f}" for hits in result.hits)
        lines.append([label, built, *speeds, recalls, f"{result.peak:,.0f}, {result.anonymous:,.0f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def run(store: str, rows: int, folder: Path) -> None:
    """Builds, searches, and prints a table. Raises SystemExit if the index finds too little or needs too much."""
    place = Place(store, folder, f"million-{secrets.token_hex(4)}", rows)
    with process() as pool:
        stored = pool.submit(fill, place).result()
        print(f"{rows:,} rows × {DIMENSION}, {os.cpu_count()} processors; stored in {stored:.0f} s", file=sys.stderr)
    with process() as pool:
        report, seconds = pool.submit(build, place).result()
        print(f"{report}; {seconds:.0f} s with compaction, fields and measuring", file=sys.stderr)
        pool.submit(note_truth, place).result()
    ours = f"mlcl, {store.partition(':')[0]}"
    competitors: dict[str, Prepare] = {ours: our_index_search}
    if store == "lancedb":
        competitors["bare lancedb"] = bare_search
    competitors |= {"faiss, IVF-SQ8": faiss_search, "mlcl, exact": our_exact_search}
    results = compete(competitors, place)
    results[ours].build = seconds
    print(table(results))
    if min(results[ours].hits) < MIN_RECALL * QUERIES * RECALL_AT:
        sys.exit("The index finds too little")
    if results[ours].peak > MAX_MEGABYTES:
        sys.exit("Searches take too much memory")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--store", default="lancedb")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="million-") as temporary:
        run(arguments.store, arguments.rows, Path(temporary))
