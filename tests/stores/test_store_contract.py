"""What every store promises (`mlcl_cli/stores/store.py`), in each database, beside a dictionary."""

import secrets
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import store_oracle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_oracle import (
    INFO,
    PROCESSES,
    AtOnce,
    Oracle,
    Place,
    Row,
    as_table,
    contents,
    plain_row,
    unit_vectors,
    with_field,
)

from mlcl_cli.errors import DataError
from mlcl_cli.stores.conditions import Condition, Conditions
from mlcl_cli.stores.store import FIELD_PREFIX, MIN_RECALL, Store, TableInfo, Vectors

few = settings(max_examples=10, suppress_health_check=[*HealthCheck])
E1 = [1.0, *[0.0] * 7]


def new_store(place: Place, info: TableInfo = INFO) -> Store:
    """An empty table."""
    return place.open().create(replace(info, encoder=f"e{secrets.token_hex(4)}"))


def emptied_store(place: Place) -> Store:
    """An empty table, which earlier examples may have filled: a server takes seconds to make one."""
    store = place.open().create(INFO)
    store.delete([*contents(store)])
    return store


def test_an_empty_table_holds_nothing(place: Place) -> None:
    store = new_store(place)
    store.upsert(as_table([]))
    store.delete([])
    store.delete(["nobody"])
    assert store.count() == 0
    assert contents(store) == {}
    assert store.search(np.float32([E1, E1]), 5) == [[], []]
    assert store.optimize(index=False) is None
    assert store.index is None


def test_a_catalog_has_a_table_for_each_encoder(place: Place) -> None:
    catalog = place.open()
    assert catalog.open("e0") is None
    assert catalog.current() is None
    first = catalog.create(INFO)
    first.upsert(as_table([plain_row(0, E1)]))
    assert catalog.create(INFO).count() == 1, "an existing table is kept"
    other = replace(INFO, encoder="e1", dimension=4, precision="fp32", fields=pa.schema({"x": pa.int64()}))
    catalog.create(other)
    assert catalog.current() is None, "no table is complete yet"
    for info, count in ((INFO, 1), (other, 0)):
        opened = place.open().open(info.encoder)
        assert opened is not None
        assert opened.info == info
        assert opened.count() == count


def test_a_table_becomes_current_with_its_last_shard(place: Place) -> None:
    catalog = place.open()
    catalog.create(INFO)
    catalog.create(replace(INFO, encoder="e1"))
    assert not catalog.finish("e0", 0, 2)
    assert not catalog.finish("e0", 0, 2), "a shard counts once"
    assert not catalog.finish("e0", 1, 3), "the shards of another division do not count"
    assert not catalog.finish("e1", 1, 2), "nor do those of another table"
    assert catalog.current() is None
    assert catalog.finish("e0", 1, 2)
    for opened in (catalog, place.open()):
        current = opened.current()
        assert current is not None
        assert current.info.encoder == "e0"
    assert catalog.finish("e1", 0, 1)
    current = catalog.current()
    assert current is not None
    assert current.info.encoder == "e1"
    assert catalog.open("e0") is not None, "its readers go on"


def create_and_finish(number: int, place: Place, shards: int) -> bool:
    """One of many processes that index a catalog at once."""
    catalog = place.open()
    catalog.create(INFO).upsert(as_table([plain_row(number, E1)]))
    return catalog.finish(INFO.encoder, number, shards)


def test_shards_may_finish_at_once(place: Place, at_once: AtOnce) -> None:
    shards = PROCESSES
    finished = [part.result() for part in at_once(create_and_finish, place, shards)]
    assert any(finished)
    current = place.open().current()
    assert current is not None
    assert sorted(contents(current)) == [f"id {number}" for number in range(shards)]


@few
@given(st.lists(store_oracle.rows(8) | st.lists(st.integers(0, 200) | store_oracle.words, max_size=8), max_size=6))
def test_any_changes_leave_what_a_dictionary_would_hold(place: Place, changes: list[list[object]]) -> None:
    """A change is rows to add or replace, or ids to delete."""
    store, oracle = emptied_store(place), Oracle()
    for change in changes:
        version, before = store.version, dict(oracle.rows)
        if any(isinstance(item, dict) for item in change):
            made: list[Row] = change  # type: ignore[assignment]
            store.upsert(as_table(made))
            oracle.upsert(made)
        else:
            ids = [item if isinstance(item, str) else f"id {item}" for item in change]
            store.delete(ids)
            oracle.delete(ids)
        assert store.version != version or oracle.rows == before
        assert contents(store) == oracle.rows
        assert store.count() == len(oracle.rows)
    opened = place.open().open(store.info.encoder)
    assert opened is not None
    assert contents(opened) == oracle.rows


@few
@given(store_oracle.rows(), st.lists(store_oracle.conditions, min_size=12, max_size=12), store_oracle.exact_vectors)
def test_conditions_keep_what_comparisons_in_python_keep(
    place: Place, made: list[Row], several: list[Conditions], query: list[float]
) -> None:
    store, oracle = emptied_store(place), Oracle()
    store.upsert(as_table(made))
    oracle.upsert(made)
    for conditions in several:
        expected = {row["id"] for row in oracle.matching(conditions)}
        assert store.count(conditions) == len(expected), conditions
        batches = store.fetch(["id"], conditions=conditions)
        assert sorted(row["id"] for batch in batches for row in batch.to_pylist()) == sorted(expected)
        for k in (3, 50):
            (found,) = store.search(np.float32([query]), k, conditions)
            assert [(hit.id, hit.score) for hit in found] == oracle.search(np.float32(query), k, conditions)


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_scores_are_products_with_the_stored_vectors(place: Place, precision: str) -> None:
    info = replace(INFO, dimension=32, precision=precision)
    distinct = unit_vectors(200, 32, seed=0)
    vectors = np.concatenate([distinct, distinct[:50], distinct[:50]])  # some three times
    positions = np.random.default_rng(1).permutation(len(vectors)).tolist()
    made = [
        plain_row(number, vector, info, stock=number % 3) | {"position": positions[number]}
        for number, vector in enumerate(vectors)
    ]
    store, oracle = new_store(place, info), Oracle()
    store.upsert(as_table(made, info))
    oracle.upsert(made)
    queries = np.concatenate([distinct[:3], unit_vectors(3, 32, seed=2)])
    for conditions in ([], [Condition("stock", "=", 1)]):
        for k in (1, 2, 10, 1_000):
            for query, found in zip(queries, store.search(queries, k, conditions), strict=True):
                expected = oracle.search(query, k, conditions)
                assert [hit.id for hit in found] == [id_ for id_, _ in expected]
                assert [hit.score for hit in found] == pytest.approx([score for _, score in expected], abs=2e-6)


def test_more_equal_rows_than_asked_for_are_ordered_by_position(place: Place) -> None:
    store = new_store(place)
    count = 500
    store.upsert(as_table([plain_row(number, E1) | {"position": count - number} for number in range(count)]))
    (found,) = store.search(np.float32([E1]), 3)
    assert [hit.id for hit in found] == ["id 499", "id 498", "id 497"]


def test_the_last_of_rows_with_one_id_stays(place: Place) -> None:
    store = new_store(place)
    store.upsert(as_table([plain_row(0, E1, stock=number) for number in range(3)]))
    assert [row[f"{FIELD_PREFIX}stock"] for row in contents(store).values()] == [2]


def test_rows_are_fetched_by_id_in_batches(place: Place) -> None:
    store = new_store(place)
    made = [plain_row(number, E1, category=f"c{number}") for number in range(3_000)]
    made[7]["id"] = """it's "7" \\ größe 🥾"""
    store.upsert(as_table(made))
    wanted = [str(row["id"]) for row in made[:2_500]]
    columns = [f"{FIELD_PREFIX}category", "vector", "id"]
    batches = list(store.fetch(columns, ids=[*wanted, "nobody"], batch_size=1_000))
    assert all(batch.num_rows <= 1_000 for batch in batches)
    schema = pa.schema([INFO.schema().field(name) for name in columns])
    assert all(batch.schema == schema for batch in batches)
    assert sorted(pa.Table.from_batches(batches)["id"].to_pylist()) == sorted(wanted)
    assert list(store.fetch(columns, ids=[])) == []
    everything = pa.Table.from_batches(store.fetch(["position"], batch_size=700))
    assert sorted(everything["position"].to_pylist()) == list(range(3_000))


def test_further_fields_are_added_and_missing_ones_are_empty(place: Place) -> None:
    store = new_store(place)
    store.upsert(as_table([plain_row(0, E1, stock=1)]))
    further = with_field("new 'one'", pa.int64())
    store.upsert(as_table([plain_row(1, E1, further, **{"new 'one'": 5})], further))
    narrow = replace(INFO, fields=pa.schema({"price": pa.float64()}))
    store.upsert(as_table([plain_row(2, E1, narrow, price=2.5)], narrow))
    opened = place.open().open(store.info.encoder)
    assert opened is not None
    for reader in (store, opened):
        assert reader.info == replace(further, encoder=store.info.encoder)
        assert reader.count([Condition("new 'one'", ">=", 5)]) == 1
        assert reader.count([Condition("new 'one'", "!=", 6)]) == 1, "a missing value satisfies nothing"
        found = {id_: [row["field.new 'one'"], row["field.price"]] for id_, row in contents(reader).items()}
        assert found == {"id 0": [None, None], "id 1": [5, None], "id 2": [None, 2.5]}


def test_a_field_of_another_type_is_refused(place: Place) -> None:
    store = new_store(place)
    store.upsert(as_table([plain_row(0, E1, stock=1)]))
    other = replace(INFO, fields=pa.schema({"stock": pa.string(), "further": pa.int64()}))
    with pytest.raises(DataError, match="stock"):
        store.upsert(as_table([plain_row(0, E1, other, stock="many"), plain_row(1, E1, other)], other))
    assert store.info.fields == INFO.fields
    assert contents(store)["id 0"]["field.stock"] == 1
    assert store.count() == 1


def write_batches(number: int, place: Place, vectors: Vectors) -> None:
    """Three writers share every fourth row, and delete rows of their own."""
    store = place.open().create(INFO)
    for start in range(0, len(vectors), 60):
        rows = range(start, start + 60)
        made = [plain_row(row, vectors[row]) for row in rows if row % 4 in (0, number + 1)]
        store.upsert(as_table(made))
        store.delete([f"id {start + number + 1}" for start in rows if start % 8 == 0])


def test_processes_may_write_while_another_reads(place: Place, at_once: AtOnce) -> None:
    vectors = unit_vectors(300, INFO.dimension, seed=3)
    reader = place.open().create(INFO)
    writers = at_once(write_batches, place, vectors)
    while not all(writer.done() for writer in writers):
        ids = [row["id"] for batch in reader.fetch(["id"]) for row in batch.to_pylist()]
        assert len(ids) == len(set(ids))
        (found,) = reader.search(vectors[:1], 5)
        assert len(found) <= 5
        assert reader.count() <= 300
    for writer in writers:
        writer.result()
    left = [row for row in range(300) if row % 8 not in (1, 2, 3)]
    opened = place.open().open(INFO.encoder)
    assert opened is not None
    assert sorted(contents(opened)) == sorted(f"id {row}" for row in left)


def test_an_index_finds_what_exact_search_finds(place: Place) -> None:
    info = replace(INFO, dimension=32)
    vectors = unit_vectors(4_000, 32, seed=4)
    made = [plain_row(number, vector, info, stock=number % 10) for number, vector in enumerate(vectors)]
    store, oracle = new_store(place, info), Oracle()
    store.upsert(as_table(made, info))
    oracle.upsert(made)
    report = store.optimize(index=True)
    assert store.index == report
    if report is not None:
        assert report.recall >= MIN_RECALL
    queries = unit_vectors(20, 32, seed=5)
    for conditions in ([], [Condition("stock", "=", 3)], [Condition("stock", "in", (1, 2))]):
        pairs = zip(queries, store.search(queries, 10, conditions), strict=True)
        hits = [
            len({hit.id for hit in found} & {id_ for id_, _ in oracle.search(query, 10, conditions)})
            for query, found in pairs
        ]
        assert np.mean(hits) >= 9

    later = unit_vectors(5, 32, seed=6)
    store.upsert(as_table([plain_row(5_000 + number, vector, info) for number, vector in enumerate(later)], info))
    store.delete([f"id {number}" for number in range(100)])
    assert [found[0].id for found in store.search(later, 1)] == [f"id {5_000 + number}" for number in range(5)]
    gone = {f"id {number}" for number in range(100)}
    assert not gone & {hit.id for found in store.search(vectors[:20], 20) for hit in found}
