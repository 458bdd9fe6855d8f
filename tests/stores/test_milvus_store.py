"""What only the Milvus adapter has: the graph that finds rows in large tables."""

import secrets
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from milvus_process import MILVUS
from store_oracle import INFO, Oracle, as_table, plain_row, unit_vectors

from mlcl_cli.errors import DataError
from mlcl_cli.stores import milvus_index
from mlcl_cli.stores.conditions import Condition
from mlcl_cli.stores.milvus_rows import further_fields, to_expression
from mlcl_cli.stores.milvus_store import MilvusStore
from mlcl_cli.stores.open import open_catalog
from mlcl_cli.stores.store import MIN_RECALL


def test_types_that_json_lacks_are_refused() -> None:
    for type_ in (pa.binary(), pa.list_(pa.date32())):
        with pytest.raises(DataError, match="Milvus cannot store"):
            further_fields(pa.schema({"odd": type_}), pa.schema([]))


def test_values_that_no_field_can_have_satisfy_nothing() -> None:
    fields = pa.schema({"stock": pa.uint64(), "price": pa.float64()})
    assert to_expression([Condition("stock", "=", 2**63)], fields) == "(id in [])"
    assert "exists" in to_expression([Condition("stock", "<", 2**63)], fields)
    assert to_expression([Condition("price", ">", float("inf"))], fields) == "(id in [])"


@pytest.mark.skipif(not MILVUS, reason="make milvus runs it")
def test_fetch_reads_all_segments(milvus_server: str, tmp_path: Path) -> None:
    from pymilvus import MilvusClient

    store = open_catalog(milvus_server, tmp_path, f"segments-{secrets.token_hex(4)}").create(INFO)
    assert isinstance(store, MilvusStore)
    client = MilvusClient(milvus_server.replace("milvus://", "http://"))
    vectors = unit_vectors(900, INFO.dimension, seed=7)
    made = as_table([plain_row(number, vector, INFO) for number, vector in enumerate(vectors)], INFO).sort_by("id")
    for start in range(0, 900, 300):
        store.upsert(made.slice(start, 300))
        client.flush(store.table)
    for size in (7, 200, 300, 1_000):
        fetched = pa.Table.from_batches(store.fetch(["id", "position"], batch_size=size))
        assert fetched.equals(made.select(["id", "position"]))


@pytest.mark.skipif(not MILVUS, reason="make milvus runs it")
def test_graph_finds_what_exact_search_finds(
    milvus_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_index, "FEWEST_ROWS", 2_000)
    info = replace(INFO, dimension=32)
    vectors = unit_vectors(4_000, 32, seed=4)
    made = [plain_row(number, vector, info, stock=number % 1_000) for number, vector in enumerate(vectors)]
    store, oracle = open_catalog(milvus_server, tmp_path, f"graph-{secrets.token_hex(4)}").create(info), Oracle()
    store.upsert(as_table(made, info))
    oracle.upsert(made)
    report = store.optimize(index=True)
    assert report is not None
    assert report == store.index
    assert report.recall >= MIN_RECALL
    queries = unit_vectors(20, 32, seed=5)
    for settled in (False, True):
        if settled:
            time.sleep(7)  # from then on, searches do not wait for the newest rows
        for conditions in ([], [Condition("stock", "<", 100)], [Condition("stock", "=", 3)]):
            pairs = zip(queries, store.search(queries, 10, conditions), strict=True)
            hits = [
                len({hit.id for hit in found} & {id_ for id_, _ in oracle.search(query, 10, conditions)})
                / min(10, len(oracle.matching(conditions)))
                for query, found in pairs
            ]
            assert np.mean(hits) >= MIN_RECALL
    store.upsert(as_table([plain_row(5_000, unit_vectors(1, 32, seed=6)[0], info)], info))
    assert store.search(unit_vectors(1, 32, seed=6), 1)[0][0].id == "id 5000"
    assert store.optimize(index=True) is not None
