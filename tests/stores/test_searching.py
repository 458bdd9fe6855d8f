"""A catalog is searched as it is at that moment, by whichever search suits it."""

import resource
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from messages import Messages
from store_oracle import FIELDS, INFO, AtOnce, Oracle, Place, Row, as_table, plain_row, rows, unit_vectors
from test_exact import best, ids

from mlcl_cli.errors import NotFiniteError, UsageError
from mlcl_cli.stores import lance_index, searching
from mlcl_cli.stores.conditions import Condition
from mlcl_cli.stores.searching import MAX_EXACT_ON_CPU, How, Searcher, SearchMode, fetch_rows, wants_index
from mlcl_cli.stores.store import Store
from mlcl_cli.stores.where import parse_where

QUERY = unit_vectors(1, INFO.dimension, seed=9)
few = settings(max_examples=8, suppress_health_check=[*HealthCheck])


def drawn_rows(count: int, start: int = 0) -> list[Row]:
    vectors = unit_vectors(count, INFO.dimension, seed=start)
    return [
        plain_row(start + number, vector, stock=number % 7, category=f"c{number % 3}" if number % 4 else None)
        for number, vector in enumerate(vectors)
    ]


def filled(folder: Path, made: Sequence[Row]) -> Store:
    store = Place("lancedb", folder, f"test-{secrets.token_hex(4)}").open().create(INFO)
    store.upsert(as_table(made))
    return store


@few
@given(
    made=rows(),
    group_by=st.none() | st.sampled_from([*FIELDS.names, "product"]),
    excluded=st.sets(st.sampled_from(["id 0", "id 1", "id 2", "boots", "nobody"])),
)
@pytest.mark.parametrize("mode", ["exact", "index"])
def test_both_searches_leave_out_and_group(
    tmp_path: Path, mode: SearchMode, made: list[Row], group_by: str | None, excluded: set[str]
) -> None:
    oracle, store = Oracle(), filled(tmp_path, made)
    oracle.upsert(made)
    searcher = Searcher(store, mode, tmp_path / "cache")
    for k, conditions in [(1, ()), (3, [Condition("stock", ">", -1)]), (50, ())]:
        found = searcher.search(QUERY, k, conditions, exclude=[excluded], group_by=group_by)
        assert ids(found) == [best(oracle.matching(conditions), QUERY[0], k, excluded, group_by)]


def test_an_index_finds_groups_of_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups that were found are left out of what it is asked for, once that would be too many rows."""
    made = [row | {"product": f"p{number**2 // 1_000}"} for number, row in enumerate(drawn_rows(300))]
    searcher = Searcher(filled(tmp_path, made), "index", tmp_path)
    for most in (1, 40, 4_096):
        monkeypatch.setattr(searching, "_MOST_ROWS", most)
        for k in (1, 3, 60, 100):
            found = searcher.search(QUERY, k, exclude=[["id 3", "id 120"]], group_by="product")
            assert ids(found) == [best(made, QUERY[0], k, ["id 3", "id 120"], "product")]


def test_searches_follow_the_table(tmp_path: Path) -> None:
    oracle, store, cache = Oracle(), filled(tmp_path, []), tmp_path / "cache"
    searcher = Searcher(store, "auto", cache)
    assert searcher.search(QUERY, 5) == [[]]
    for start in (0, 40, 80):
        made = drawn_rows(60, start)
        store.upsert(as_table(made))
        store.delete([f"id {start + 2}"])
        oracle.upsert(made)
        oracle.delete([f"id {start + 2}"])
        assert ids(searcher.search(QUERY, 200)) == [best([*oracle.rows.values()], QUERY[0], 200)]
        assert searcher.how == How("exact", len(oracle.rows), "cpu")
        assert len([*cache.iterdir()]) <= 2, "old copies are deleted"


def test_a_copy_is_made_once_and_again_if_it_is_damaged(tmp_path: Path) -> None:
    made, cache = drawn_rows(50), tmp_path / "cache"
    store = filled(tmp_path, made)

    def search() -> list[list[str]]:
        return ids(Searcher(store, "exact", cache).search(QUERY, 50))

    expected = search()
    (copy,) = cache.iterdir()
    before = copy.stat().st_ino, [path.stat().st_mtime_ns for path in sorted(copy.iterdir())]
    assert search() == expected
    assert before == (copy.stat().st_ino, [path.stat().st_mtime_ns for path in sorted(copy.iterdir())])
    for file in sorted(copy.iterdir()):
        whole = file.read_bytes()
        for damaged in (b"", whole[: len(whole) // 2]):
            file.write_bytes(damaged)
            assert search() == expected
        file.unlink()
        assert search() == expected
    assert [*cache.iterdir()] == [copy]


def test_a_full_disk_costs_memory(tmp_path: Path) -> None:
    made, cache, messages = drawn_rows(200), tmp_path / "cache", Messages()
    store = filled(tmp_path, made)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
    try:
        found = Searcher(store, "exact", cache).search(QUERY, 50)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert ids(found) == [best(made, QUERY[0], 50)]
    assert [*cache.iterdir()] == []
    what = "the copy of the catalog that searches read cannot be kept here (File too large)"
    assert messages.warnings == [f"{cache}: {what}"]


def test_a_folder_that_cannot_be_made_costs_memory(tmp_path: Path) -> None:
    made, cache, messages = drawn_rows(20), tmp_path / "cache", Messages()
    cache.write_text("a file")
    searcher = Searcher(filled(tmp_path, made), "exact", cache)
    assert ids(searcher.search(QUERY, 50)) == ids(searcher.search(QUERY, 50)) == [best(made, QUERY[0], 50)]
    assert len(messages.warnings) == 1, "the copy in memory serves further searches"


def search_once(_: int, place: Place, cache: Path) -> list[str]:
    store = place.open().create(INFO)
    return ids(Searcher(store, "exact", cache).search(QUERY, 300))[0]


def test_processes_may_make_a_copy_at_once(tmp_path: Path, at_once: AtOnce) -> None:
    made, place, cache = drawn_rows(300), Place("lancedb", tmp_path, "test"), tmp_path / "cache"
    place.open().create(INFO).upsert(as_table(made))
    found = [one.result() for one in at_once(search_once, place, cache)]
    assert found == [best(made, QUERY[0], 300)] * len(found)
    assert len([*cache.iterdir()]) == 1


def test_threads_may_search_while_rows_are_written(tmp_path: Path) -> None:
    store = filled(tmp_path, drawn_rows(40))
    searcher = Searcher(store, "exact", tmp_path / "cache")

    def search(_: int) -> list[int]:
        return [len(searcher.search(QUERY, 500)[0]) for _ in range(15)]

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(search, number) for number in range(3)]
        for start in (100, 200, 300):
            store.upsert(as_table(drawn_rows(40, start)))
        for one in running:
            assert set(one.result()) <= {40, 80, 120, 160}
    assert len(searcher.search(QUERY, 500)[0]) == 160


def test_auto_takes_the_index_of_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = Messages()
    store = filled(tmp_path, drawn_rows(2_000))
    monkeypatch.setattr(lance_index, "FEWEST_ROWS", 2_000)
    monkeypatch.setattr(searching, "MAX_EXACT_ON_CPU", 1_000)
    monkeypatch.setattr(searching, "MAX_ROWS_WITHOUT_INDEX", 1_000)
    cache = tmp_path / "cache"
    assert str(Searcher(store, "auto", cache).how) == "exact search of 2,000 rows on cpu"
    assert messages.notes == [
        "Searching 2,000 rows without an index is slow. Run mlcl index again with catalog.search: index"
    ]
    with pytest.raises(UsageError, match=r"2,000 rows and no index\. Run mlcl index again"):
        Searcher(store, "index", cache).search(QUERY, 5)
    report = store.optimize(index=True)
    assert report is not None
    for mode in ("auto", "index"):
        searcher = Searcher(store, mode, cache)
        assert str(searcher.how) == f"index of 2,000 rows, recall@10 {report.recall:.3f}"
        assert len(searcher.search(QUERY, 7)[0]) == 7
    assert Searcher(store, "exact", cache).how.method == "exact"
    monkeypatch.setattr(searching, "MAX_EXACT_ON_CPU", 2_000)
    assert Searcher(store, "auto", cache).how.method == "exact"


@pytest.mark.parametrize(
    ("mode", "rows", "gpu_memory", "wanted"),
    [
        ("auto", MAX_EXACT_ON_CPU, None, False),
        ("auto", MAX_EXACT_ON_CPU + 1, None, True),
        ("auto", 10_000_000, 16 * 10**9, False),
        ("auto", 10_000_001, 16 * 10**9, True),
        ("auto", MAX_EXACT_ON_CPU, 1_000, False),
        ("exact", 10**9, None, False),
        ("exact", 10**9, 1_000, False),
        ("index", 10**6, 16 * 10**9, True),
    ],
)
def test_an_index_is_wanted_where_exact_search_is_slow(
    mode: SearchMode, rows: int, gpu_memory: int | None, wanted: bool
) -> None:
    """10,000,000 rows of 640 dimensions take 12.8 GB in fp16."""
    assert wants_index(mode, rows, 640, gpu_memory) is wanted


def test_queries_must_be_finite(tmp_path: Path) -> None:
    with pytest.raises(NotFiniteError):
        Searcher(filled(tmp_path, []), "auto", tmp_path).search(QUERY * np.nan, 1)


def test_rows_are_fetched_in_order(tmp_path: Path) -> None:
    store = filled(tmp_path, drawn_rows(30))
    wanted = ["id 7", "id 3", "nobody", "id 20", "id 3"]
    found = fetch_rows(store, wanted, ["field.stock", "thumbnail"])
    assert found.column_names == ["id", "field.stock", "thumbnail"]
    assert found["id"].to_pylist() == ["id 7", "id 3", "id 20", "id 3"]
    assert found["field.stock"].to_pylist() == [0, 3, 6, 3]
    assert len(fetch_rows(store, [], ["id", "image"])) == 0


@pytest.mark.parametrize("mode", ["exact", "index"])
def test_conditions_may_be_on_ids_and_products(tmp_path: Path, mode: SearchMode) -> None:
    """But for a field of that name."""
    made = drawn_rows(20)
    searcher = Searcher(filled(tmp_path, made), mode, tmp_path / "cache")
    (found,) = searcher.search(QUERY, 20, parse_where("product in ('p3', 'p4') and stock != 0", FIELDS))
    assert sorted(row.id for row in found) == ["id 6", "id 8", "id 9"]
    assert searcher.search(QUERY, 20, parse_where("id = 3", FIELDS)) == [[]]
    info = replace(INFO, fields=pa.schema({"stock": pa.int64()}))
    store = Place("lancedb", tmp_path, "without").open().create(info)
    store.upsert(as_table([plain_row(number, QUERY[0], info) for number in range(5)], info))
    found = Searcher(store, mode, tmp_path / "another").search(QUERY, 20, parse_where("id = 'id 3'", info.fields))
    assert ids(found) == [["id 3"]]
