"""Searches a million rows in a catalog's store, and beside it exactly, with faiss, and in the bare database.

`make million` runs it: python tests/stores/million.py [--rows N] [--store ADDRESS]. The rows are clustered unit vectors
with drawn fields; a temporary folder holds them, some 5 GB for a million, and is deleted at the end. Each search is
timed in a process of its own, one query at a time.
"""

import argparse
import os
import resource
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlcl_cli.stores.conditions import Condition
from mlcl_cli.stores.open import open_catalog
from mlcl_cli.stores.store import FIELD_PREFIX, IndexReport, Store, TableInfo, Vectors

DIMENSION, CHUNK, QUERIES, WARM_UP, K = 640, 10_000, 100, 20, 50
SHARES = {"all rows": None, "10 %": 0.1, "0.1 %": 0.001}  # a condition `price < share` keeps so many
INFO = TableInfo("e0", "drawn", DIMENSION, "fp16", pa.schema({"price": pa.float64(), "category": pa.string()}))
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


@dataclass(frozen=True)
class Measured:
    """Median milliseconds of a search and recall@10 for each share of rows; seconds to build; peak memory in MB."""

    milliseconds: list[float]
    recalls: list[float]
    build: float | None
    megabytes: float


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


def our_search(place: Place) -> tuple[Search, float | None]:
    store = place.open()

    def search(query: Vectors, share: float | None) -> list[int]:
        conditions = () if share is None else [Condition("price", "<", share)]
        (found,) = store.search(query[None], K, conditions)
        return [int(hit.id.removeprefix("id-")) for hit in found]

    return search, None


def bare_search(place: Place) -> tuple[Search, float | None]:
    """The database's own query, with the settings that our search uses and its own second ranking."""
    import lancedb

    from mlcl_cli.stores.lance_rows import to_column

    folder, report = place.folder / place.name, place.open().index
    assert report is not None
    table, price = lancedb.connect(folder).open_table(INFO.encoder), to_column(f"{FIELD_PREFIX}price")

    def search(query: Vectors, share: float | None) -> list[int]:
        asked = table.search(query, vector_column_name="vector").distance_type("dot").limit(K).refine_factor(4)
        asked = asked.minimum_nprobes(report.effort).maximum_nprobes(0).select(["position", "_distance"])
        found = (asked if share is None else asked.where(f"{price} < {share}")).to_arrow()
        return [int(position) for position in found["position"].to_pylist()]

    return search, None


def exact_search(place: Place) -> tuple[Search, float | None]:
    """All rows in fp32 in memory; also notes what the others should find."""
    vectors, prices = place.vectors().astype(np.float32), np.asarray(place.prices())

    def search(query: Vectors, share: float | None) -> list[int]:
        scores = vectors @ query
        if share is not None:
            scores[prices >= share] = -np.inf
        best = np.argpartition(-scores, K)[:K]
        return [int(row) for row in best[np.argsort(-scores[best], kind="stable")] if np.isfinite(scores[row])]

    best = np.full((len(SHARES), QUERIES, 10), -1)
    for kind, share in enumerate(SHARES.values()):
        for number, query in enumerate(place.queries()[WARM_UP:]):
            found = search(query, share)[:10]
            best[kind, number, : len(found)] = found
    np.save(place.truth, best)
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


def measure(prepare: Callable[[Place], tuple[Search, float | None]], place: Place) -> Measured:
    """Times searches in this process, which nothing else has used."""
    search, seconds = prepare(place)
    queries, truth = place.queries(), np.load(place.truth)
    milliseconds, recalls = [], []
    for kind, share in enumerate(SHARES.values()):
        for query in queries[:WARM_UP]:
            search(query, share)
        times, hits, expected = [], 0, 0
        for query, best in zip(queries[WARM_UP:], truth[kind].tolist(), strict=True):
            began = time.perf_counter()
            found = search(query, share)
            times.append(time.perf_counter() - began)
            wanted = {row for row in best if row >= 0}
            hits, expected = hits + len(wanted & {*found[:10]}), expected + len(wanted)
        milliseconds.append(1_000 * float(np.median(times)))
        recalls.append(hits / max(expected, 1))
    return Measured(milliseconds, recalls, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_000)


def alone(work: Callable[..., object], *arguments: object) -> object:
    """What `work` returns in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def table(results: dict[str, Measured]) -> str:
    heads = ["", "build, s", *(f"p50 of {name}, ms" for name in SHARES), *(f"recall@10 of {name}" for name in SHARES)]
    lines = [[*heads, "peak memory, MB"], ["---"] * (len(heads) + 1)]
    for label, result in results.items():
        built = "" if result.build is None else f"{result.build:.0f}"
        speeds = [f"{value:.1f}" for value in result.milliseconds]
        recalls = [f"{value:.3f}" for value in result.recalls]
        lines.append([label, built, *speeds, *recalls, f"{result.megabytes:,.0f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def run(store: str, rows: int, folder: Path) -> None:
    """Builds, searches, and prints a table. Raises AssertionError if the index finds too little."""
    place = Place(store, folder, f"million-{secrets.token_hex(4)}", rows)
    print(f"{rows:,} rows × {DIMENSION}, {os.cpu_count()} processors; stored in {alone(fill, place):.0f} s", flush=True)
    report, seconds = alone(build, place)  # type: ignore[misc]
    print(f"{report}; {seconds:.0f} s with compaction, fields and measuring", flush=True)
    kinds = {"exact, numpy": exact_search, f"mlcl, {store.split(':')[0]}": our_search, "faiss, IVF-SQ8": faiss_search}
    if store == "lancedb":
        kinds["bare lancedb"] = bare_search
    results: dict[str, Measured] = {}
    for label, prepare in kinds.items():
        results[label] = alone(measure, prepare, place)  # type: ignore[assignment]
        print(label, results[label], file=sys.stderr, flush=True)
    print(table(results))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--store", default="lancedb")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="million-") as temporary:
        run(arguments.store, arguments.rows, Path(temporary))
