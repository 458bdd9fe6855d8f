"""Searches a million rows in a catalog's store, and beside it the bare database, faiss, and exactly.

`make million` runs it: python tests/stores/million.py [--rows N] [--store lancedb|milvus|milvus://HOST:PORT]. With
`milvus`, it starts a server. The rows are clustered unit vectors with drawn fields; a temporary folder holds them, some
7 GB for a million, and is deleted at the end. Each search is timed in a process of its own, one query at a time.
"""

import argparse
import os
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa

from mlcl_cli.stores.recall import RECALL_AT
from mlcl_cli.stores.store import FIELD_PREFIX, MIN_RECALL, IndexReport

sys.path.insert(0, str(Path(__file__).parents[1]))
from million_searches import (
    CHUNK,
    DIMENSION,
    INFO,
    QUERIES,
    SHARES,
    WARM_UP,
    Place,
    Prepare,
    Search,
    bare_lance_search,
    bare_milvus_search,
    drawn,
    faiss_search,
    our_exact_search,
    our_index_search,
)
from milvus_process import MilvusProcess

BLOCK = 10  # queries that one competitor takes before it is the next one's turn
MAX_MEGABYTES = 2_000  # of a process that searches by the index
MAX_RATIO = 1.5  # of our median time to the bare database's


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
    """Each in a process of its own, which nothing else uses, and in turns, so that other load hits all of them.

    The last to search is the first with the next queries: each as often finds what the others left in the page cache.
    """
    results = {label: Measured() for label in competitors}
    truth = np.load(place.truth)
    with ExitStack() as stack:
        pools = {label: stack.enter_context(process()) for label in competitors}
        for kind, share in enumerate(SHARES.values()):
            turns = [*competitors]
            for numbers in [range(WARM_UP), *(range(n, n + BLOCK) for n in range(WARM_UP, WARM_UP + QUERIES, BLOCK))]:
                turns.reverse()
                for label in turns:
                    block = pools[label].submit(search_block, competitors[label], place, share, numbers).result()
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
    """Builds, searches, and prints a table. Raises SystemExit if the index is too slow, finds too little or needs much.

    Exact search, which reads everything, comes last: it drives what the others read out of the page cache.
    """
    place = Place(store, folder, f"million-{secrets.token_hex(4)}", rows)
    with process() as pool:
        stored = pool.submit(fill, place).result()
        print(f"{rows:,} rows × {DIMENSION}, {os.cpu_count()} processors; stored in {stored:.0f} s", file=sys.stderr)
    with process() as pool:
        report, seconds = pool.submit(build, place).result()
        print(f"{report}; {seconds:.0f} s with compaction, fields and measuring", file=sys.stderr)
        pool.submit(note_truth, place).result()
    database = store.partition(":")[0]
    ours, bare = f"mlcl, {database}", f"bare {database}"
    bare_search = bare_lance_search if database == "lancedb" else bare_milvus_search
    results = compete({ours: our_index_search, bare: bare_search, "faiss, IVF-SQ8": faiss_search}, place)
    results |= compete({"mlcl, exact": our_exact_search}, place)
    results[ours].build = seconds
    print(table(results))
    check(results[ours], results[bare])


def check(ours: Measured, bare: Measured) -> None:
    """Raises SystemExit as `run` does."""
    medians = np.median(ours.seconds, axis=1), np.median(bare.seconds, axis=1)
    ratios = [float(ratio) for ratio in np.divide(*medians)]
    print(f"{', '.join(f'{ratio:.2f}' for ratio in ratios)} times the bare database's medians", file=sys.stderr)
    failures = {
        "The index finds too little": min(ours.hits) < MIN_RECALL * QUERIES * RECALL_AT,
        "Searches take too much memory": ours.peak > MAX_MEGABYTES,
        "Searches take too long": max(ratios) > MAX_RATIO,
    }
    if found := [failure for failure, failed in failures.items() if failed]:
        sys.exit("; ".join(found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--store", default="lancedb")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="million-") as temporary, ExitStack() as cleanup:
        address = arguments.store
        if address == "milvus":
            server = MilvusProcess(Path(temporary), impatient=False)
            cleanup.callback(server.stop)
            server.start()
            address = server.address
        run(address, arguments.rows, Path(temporary))
