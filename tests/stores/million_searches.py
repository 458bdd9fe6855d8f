"""What `million.py` compares: searches of one set of drawn rows by our store, the bare database, and faiss."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlcl_cli.stores.conditions import Condition
from mlcl_cli.stores.open import open_catalog
from mlcl_cli.stores.searching import Searcher, SearchMode
from mlcl_cli.stores.store import FIELD_PREFIX, POSITION, VECTOR, Store, TableInfo, Vectors

DIMENSION, CHUNK, QUERIES, WARM_UP, K = 640, 10_000, 100, 20, 50
INFO = TableInfo("e0", "drawn", DIMENSION, "fp16", pa.schema({"price": pa.float64(), "category": pa.string()}))
SHARES = {"all rows": None, "10 %": 0.1, "0.1 %": 0.001}  # a condition `price < share` keeps so many
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


def bare_lance_search(place: Place) -> tuple[Search, float | None]:
    """The database's own query, with the partitions and candidates of our search and its own second ranking."""
    import lancedb

    from mlcl_cli.stores.lance_index import candidate_count
    from mlcl_cli.stores.lance_rows import to_column

    folder, report = place.folder / place.name, place.open().index
    assert report is not None
    table, price = lancedb.connect(folder).open_table(INFO.encoder), to_column(f"{FIELD_PREFIX}price")
    effort, factor = report.effort, -(-candidate_count(K, report.effort) // K)

    def search(query: Vectors, share: float | None) -> list[int]:
        asked = table.search(query, vector_column_name=VECTOR).distance_type("dot").limit(K).refine_factor(factor)
        asked = asked.minimum_nprobes(effort).maximum_nprobes(0).select([POSITION, "_distance"])
        found = (asked if share is None else asked.where(f"{price} < {share}")).to_arrow()
        return [int(position) for position in found[POSITION].to_pylist()]

    return search, None


def bare_milvus_search(place: Place) -> tuple[Search, float | None]:
    """The server's own query, which keeps as many rows in view as our search."""
    from pymilvus import MilvusClient

    from mlcl_cli.stores.milvus_rows import to_expression
    from mlcl_cli.stores.milvus_store import MilvusStore

    store = place.open()
    assert isinstance(store, MilvusStore)
    assert store.index is not None
    client = MilvusClient(place.store.replace("milvus://", "http://"))
    table, parameters = store.table, {"params": {"ef": max(store.index.effort, K)}}
    where = {share: to_expression([Condition("price", "<", share)], INFO.fields) for share in SHARES.values() if share}

    def search(query: Vectors, share: float | None) -> list[int]:
        (found,) = client.search(
            table,
            data=[query],
            filter=where[share] if share else "",
            limit=K,
            output_fields=[POSITION],
            search_params=parameters,
            consistency_level="Bounded",
        )
        return [int(hit["entity"][POSITION]) for hit in found]

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
