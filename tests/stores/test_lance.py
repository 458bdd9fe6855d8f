"""What is particular to LanceDB: fields of any type, indexes beside a naive filter, power cuts, old tables."""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import store_oracle
from hypothesis import given, settings
from store_oracle import FIELDS, INFO, Oracle, Row, as_table, contents, plain_row, unit_vectors

from mlcl_cli.errors import MachineError, UsageError
from mlcl_cli.stores import lance, lance_files, lance_index
from mlcl_cli.stores.conditions import Condition, Conditions
from mlcl_cli.stores.lance import LanceCatalog, LanceStore
from mlcl_cli.stores.open import open_catalog
from mlcl_cli.stores.store import MIN_RECALL

E1 = [1.0, *[0.0] * 7]
ROWS = 2_000


@pytest.fixture(scope="module", autouse=True)
def _fewest_rows() -> Iterator[None]:
    """So few rows get an index already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lance_index, "FEWEST_ROWS", ROWS)
        patch.setattr(lance_index, "_ROWS_A_PARTITION", 100)
        yield


def ids(store: LanceStore | None) -> set[str]:
    assert store is not None
    return {*contents(store)}


def test_fields_of_any_type_are_kept_and_compared(tmp_path: Path) -> None:
    berlin = pa.timestamp("us", tz="Europe/Berlin")
    values: dict[str, tuple[pa.DataType, object]] = {
        "tags": (pa.list_(pa.string()), ["a", "b'"]),
        "when": (berlin, datetime(2024, 5, 1, 12, tzinfo=UTC)),
        "exact when": (pa.timestamp("ns"), 1_714_521_600_000_000_001),
        "price": (pa.decimal128(10, 2), Decimal("19.99")),
        "large": (pa.large_string(), "ü"),
        "small": (pa.uint8(), 255),
        "half": (pa.float32(), 0.5),
        "day": (pa.date64(), date(2024, 5, 1)),
        "code": (pa.binary(), b"\0'"),
    }
    info = replace(INFO, fields=pa.schema({name: type_ for name, (type_, _) in values.items()}))
    store = LanceCatalog(tmp_path).create(info)
    fields = {name: value for name, (_, value) in values.items()}
    table = as_table([plain_row(0, E1, info, **fields), plain_row(1, E1, info)], info)
    store.upsert(table)
    assert store.info == info
    assert pa.Table.from_batches(store.fetch(info.schema().names)).sort_by("position").equals(table)
    for name, operator, value in [
        ("when", "=", datetime(2024, 5, 1, 12, tzinfo=UTC)),
        ("when", "<", datetime(2024, 5, 1, 14, 1)),  # in Berlin
        ("when", ">", date(2024, 5, 1)),
        ("exact when", ">", datetime(2024, 5, 1)),
        ("price", "<", 20),
        ("large", "=", "ü"),
        ("small", "<", 256),
        ("small", ">", -1),
        ("half", "=", 0.5),
        ("day", "in", (date(2024, 5, 1), date(2024, 5, 2))),
    ]:
        condition = Condition(name, operator, value)  # type: ignore[arg-type]
        assert ids_of(store, [condition]) == {"id 0"}, condition
    for name, value in [("tags", "a"), ("code", "x"), ("small", "1"), ("small", True), ("large", 1), ("nothing", 1)]:
        with pytest.raises(UsageError, match=name):
            store.count([Condition(name, "=", value)])


def ids_of(store: LanceStore, conditions: Conditions) -> set[str]:
    return {id_ for batch in store.fetch(["id"], conditions=conditions) for id_ in batch.column("id").to_pylist()}


def test_not_a_number_is_a_missing_value_and_zero_has_no_sign(tmp_path: Path) -> None:
    store = LanceCatalog(tmp_path).create(INFO)
    prices = [float("nan"), -0.0, 0.0, float("inf"), None]
    store.upsert(as_table([plain_row(number, E1, price=price) for number, price in enumerate(prices)]))
    assert ids_of(store, [Condition("price", "=", 0)]) == {"id 1", "id 2"}
    assert ids_of(store, [Condition("price", ">", -1)]) == {"id 1", "id 2", "id 3"}
    assert ids_of(store, [Condition("price", "!=", float("nan"))]) == {"id 1", "id 2", "id 3"}
    assert ids_of(store, [Condition("price", "<=", float("nan"))]) == set()
    assert ids_of(store, [Condition("price", ">=", 10**400)]) == {"id 3"}


def test_a_field_without_values_takes_strings_later(tmp_path: Path) -> None:
    store = LanceCatalog(tmp_path).create(replace(INFO, fields=pa.schema({"note": pa.null()})))
    with_null, with_text = (replace(INFO, fields=pa.schema({"note": type_})) for type_ in (pa.null(), pa.string()))
    store.upsert(as_table([plain_row(0, E1, with_null)], with_null))
    store.upsert(as_table([plain_row(1, E1, with_text, note="new")], with_text))
    store.upsert(as_table([plain_row(2, E1, with_null)], with_null))
    assert ids_of(store, [Condition("note", "=", "new")]) == {"id 1"}
    assert store.count() == 3


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> tuple[LanceStore, Oracle]:
    """A table with indexes on vectors and on fields, and the same rows as a dictionary."""
    draw, oracle = np.random.default_rng(0), Oracle()
    chosen = {field.name: store_oracle.values[field.type] for field in FIELDS}
    pools: dict[str, list[object]] = {name: [None, *examples(strategy)] for name, strategy in chosen.items()}
    rows: list[Row] = []
    for number, vector in enumerate(unit_vectors(ROWS, INFO.dimension, seed=0)):
        fields = {name: pool[draw.integers(len(pool))] for name, pool in pools.items()}
        rows.append(plain_row(number, vector, **fields | {"stock": number % 1_000}))
    store = LanceCatalog(tmp_path_factory.mktemp("indexed")).create(INFO)
    store.upsert(as_table(rows))
    oracle.upsert(rows)
    assert store.optimize(index=True) is not None
    return store, oracle


def examples(strategy: "store_oracle.st.SearchStrategy[object]") -> list[object]:
    found: list[object] = []

    @settings(max_examples=40, database=None, derandomize=True)
    @given(strategy)
    def collect(value: object) -> None:
        found.append(value)

    collect()
    return found


@settings(max_examples=60)
@given(store_oracle.conditions)
def test_indexed_fields_keep_what_comparisons_in_python_keep(
    indexed: tuple[LanceStore, Oracle], conditions: Conditions
) -> None:
    store, oracle = indexed
    assert store.count(conditions) == len(oracle.matching(conditions))


def test_an_index_is_measured_described_and_extended(tmp_path: Path) -> None:
    info = replace(INFO, dimension=32)
    vectors = unit_vectors(ROWS + 300, 32, seed=1)
    rows = [plain_row(number, vector, info, stock=number % 1_000) for number, vector in enumerate(vectors)]
    catalog = LanceCatalog(tmp_path)
    store = catalog.create(info)
    store.upsert(as_table(rows[: ROWS - 1], info))
    assert store.optimize(index=True) is None, "so few are searched exactly"
    store.upsert(as_table(rows[ROWS - 1 : ROWS], info))
    assert store.optimize(index=False) is None
    report = store.optimize(index=True)
    assert report is not None
    assert report.rows == ROWS
    assert report.recall >= MIN_RECALL
    reader = catalog.open(INFO.encoder)
    assert reader is not None
    assert reader.index == report

    store.upsert(as_table(rows[ROWS:], info))
    gone = {f"id {number}" for number in range(50)}
    store.delete([*gone])
    oracle = Oracle({str(row["id"]): row for row in rows[50:]})
    for step in ("rows are not in the index yet", "rows are in the index"):
        for conditions in ([], [Condition("stock", "<", 100)], [Condition("stock", "<", 5)]):
            found = store.search(vectors[ROWS : ROWS + 20], 10, conditions)
            best = [oracle.search(query, 10, conditions) for query in vectors[ROWS : ROWS + 20]]
            hits = [
                len({hit.id for hit in of_query} & {id_ for id_, _ in wanted})
                for of_query, wanted in zip(found, best, strict=True)
            ]
            assert np.mean(hits) >= 9, step
            scores = [dict(wanted) for wanted in best]
            for of_query, wanted_scores in zip(found, scores, strict=True):
                for hit in of_query:
                    assert hit.score == pytest.approx(wanted_scores.get(hit.id, hit.score), abs=1e-6)
        extended = store.optimize(index=True)
        assert extended is not None
        assert extended.rows == ROWS, "it was not built anew"


def power_cut(folder: Path) -> None:
    """As if the machine had started anew since the last commit."""
    (mark,) = folder.glob("*.synced.json")
    mark.write_text(json.dumps(json.loads(mark.read_text()) | {"boot": "before"}))


def test_a_power_cut_within_a_commit_leaves_what_was_acknowledged(tmp_path: Path) -> None:
    store = LanceCatalog(tmp_path).create(INFO)
    store.upsert(as_table([plain_row(0, E1)]))
    (mark,) = tmp_path.glob("*.synced.json")
    acknowledged, before = mark.read_text(), {*tmp_path.rglob("*")}
    store.upsert(as_table([plain_row(1, E1)]))
    for path in {*tmp_path.rglob("*")} - before:
        if path.is_file():
            path.write_bytes(path.read_bytes()[:3])  # torn
    mark.write_text(acknowledged)
    power_cut(tmp_path)
    opened = LanceCatalog(tmp_path).open(INFO.encoder)
    assert ids(opened) == {"id 0"}
    assert opened is not None
    opened.upsert(as_table([plain_row(2, E1)]))
    assert ids(LanceCatalog(tmp_path).open(INFO.encoder)) == {"id 0", "id 2"}


def test_a_commit_whose_process_died_before_syncing_stays(tmp_path: Path) -> None:
    """The machine runs on, and the next commit syncs it."""
    store = LanceCatalog(tmp_path).create(INFO)
    (mark,) = tmp_path.glob("*.synced.json")
    acknowledged = mark.read_text()
    store.upsert(as_table([plain_row(0, E1)]))
    mark.write_text(acknowledged)
    other = LanceCatalog(tmp_path).open(INFO.encoder)
    assert other is not None
    other.upsert(as_table([plain_row(1, E1)]))
    power_cut(tmp_path)
    assert ids(LanceCatalog(tmp_path).open(INFO.encoder)) == {"id 0", "id 1"}


def test_a_copied_catalog_needs_no_mark(tmp_path: Path) -> None:
    LanceCatalog(tmp_path / "a").create(INFO).upsert(as_table([plain_row(0, E1)]))
    shutil.copytree(tmp_path / "a", tmp_path / "b", ignore=shutil.ignore_patterns("*.synced.json"))
    store = LanceCatalog(tmp_path / "b").create(INFO)
    store.upsert(as_table([plain_row(1, E1)]))
    power_cut(tmp_path / "b")
    assert ids(LanceCatalog(tmp_path / "b").open(INFO.encoder)) == {"id 0", "id 1"}


def test_a_table_whose_making_was_interrupted_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / f"{INFO.encoder}.lance" / "data").mkdir(parents=True)
    catalog = LanceCatalog(tmp_path)
    assert catalog.open(INFO.encoder) is None
    assert catalog.create(INFO).count() == 0


def test_a_table_goes_an_hour_after_it_was_current(tmp_path: Path) -> None:
    catalog = LanceCatalog(tmp_path)
    for encoder in ("e0", "e1", "e2"):
        catalog.create(replace(INFO, encoder=encoder)).upsert(as_table([plain_row(0, E1)]))
        assert catalog.finish(encoder, 0, 1)
    state = tmp_path / "catalog.json"
    saved = json.loads(state.read_text())
    assert {*saved["retired"]} == {"e0", "e1"}
    saved["retired"]["e0"] -= timedelta(hours=1.1).total_seconds()
    state.write_text(json.dumps(saved))
    assert catalog.finish("e2", 0, 1)
    assert catalog.open("e0") is None
    assert {path.name.split(".")[0] for path in tmp_path.iterdir() if not path.name.endswith(".lock")} == {
        "catalog",
        "e1",
        "e2",
    }
    assert ids(catalog.current()) == {"id 0"}
    assert catalog.create(replace(INFO, encoder="e1")).count() == 1, "and is kept once it is wanted again"
    assert {*json.loads(state.read_text())["retired"]} == set()


def test_a_reader_of_an_old_version_goes_on_while_it_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last version before a long time without changes is what readers use, until they have seen the next one."""
    monkeypatch.setattr(lance, "KEPT", timedelta(seconds=1))
    monkeypatch.setattr(lance, "GRACE", timedelta(seconds=0.2))
    made = [plain_row(number, E1) for number in range(2_000)]
    store = LanceCatalog(tmp_path).create(INFO)
    for part in (made, made[:1_000], made[500:]):
        store.upsert(as_table(part))
    time.sleep(0.5)
    store.delete(["id 0"])
    time.sleep(1.2)
    reader = LanceCatalog(tmp_path).open(INFO.encoder)
    assert reader is not None
    stream = reader.fetch(["id"], batch_size=100)
    found = [next(stream)]
    folder, before = tmp_path / f"{INFO.encoder}.lance", int(reader.version.split(".")[0])
    store.upsert(as_table(made[1_000:]))
    store.delete([f"id {number}" for number in range(900)])
    store.optimize(index=False)
    assert sum(len(batch) for batch in (*found, *stream)) == len(made) - 1
    assert len(contents(reader)) == len(made) - 1, "it has not looked for another version yet"
    kept = sorted(lance_files._version(path) for path in (folder / "_versions").glob("*.manifest"))
    assert kept[0] == before, "those before it are gone"


@pytest.mark.parametrize("name", ["catalog.json", f"{INFO.encoder}.index.json", f"{INFO.encoder}.synced.json"])
def test_a_damaged_file_is_named_and_may_be_deleted(tmp_path: Path, name: str) -> None:
    catalog = LanceCatalog(tmp_path)
    store = catalog.create(INFO)
    store.upsert(as_table([plain_row(0, E1)]))
    catalog.finish(INFO.encoder, 0, 1)
    (tmp_path / name).write_text("{")

    def use() -> None:
        opened = LanceCatalog(tmp_path).create(INFO)
        opened.upsert(as_table([plain_row(1, E1)]))
        opened.search(np.float32([E1]), 1)
        LanceCatalog(tmp_path).finish(INFO.encoder, 0, 1)

    with pytest.raises(MachineError, match=rf"{name}: cannot be read \(not what mlcl writes\)\. Delete it") as caught:
        use()
    assert len(str(caught.value).splitlines()) == 1
    (tmp_path / name).unlink()
    use()
    assert ids(LanceCatalog(tmp_path).current()) == {"id 0", "id 1"}


def test_what_the_database_reports_is_one_line_with_the_place(tmp_path: Path) -> None:
    store = LanceCatalog(tmp_path).create(INFO)
    store.upsert(as_table([plain_row(0, E1)]))
    for path in (tmp_path / f"{INFO.encoder}.lance" / "data").iterdir():
        path.unlink()
    opened = LanceCatalog(tmp_path).open(INFO.encoder)
    assert opened is not None
    with pytest.raises(MachineError, match=rf"{INFO.encoder}.lance: LanceDB failed: ") as caught:
        contents(opened)
    assert len(str(caught.value).splitlines()) == 1
    shutil.rmtree(tmp_path / f"{INFO.encoder}.lance")
    with pytest.raises(MachineError, match=r"the table has been removed, .*\. Open the catalog again"):
        contents(opened)


def test_an_address_says_which_database_it_is(tmp_path: Path) -> None:
    assert open_catalog("lancedb", tmp_path, "shop").place == str(tmp_path / "shop")
    assert open_catalog("lancedb", tmp_path, "shop").current() is None
    assert not [*tmp_path.iterdir()], "asking makes nothing"
    with pytest.raises(UsageError, match="postgres"):
        open_catalog("postgres://localhost", tmp_path, "shop")
