"""Catalogs before they are indexed: the same rows from every format, clear errors with their line, bounded memory."""

import json
import tracemalloc
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import catalog_files
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalog_files import FIELD_TYPES, WRITERS, Table, rows_of, tables, write_csv, write_tar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from messages import Messages

from mlcl_cli.catalog.opening import open_source
from mlcl_cli.catalog.source import Shard
from mlcl_cli.data import table_files
from mlcl_cli.errors import DataError

SHARDS = [[3], [3], [3], [3], [1]]  # those of a job that was stopped are those of the next release
SHARED_FOLDER = [HealthCheck.function_scoped_fixture]


@settings(max_examples=60, deadline=None, suppress_health_check=SHARED_FOLDER)
@given(table=tables(), rows_at_once=st.sampled_from([1, 2, 8_192]))
def test_the_four_formats_give_the_same_rows_and_types(tmp_path: Path, table: Table, rows_at_once: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_files, "ROWS_AT_ONCE", rows_at_once)
        for suffix, write in WRITERS.items():
            path = tmp_path / f"products{suffix}"
            write(path, table)
            source = open_source(path)
            found = [(row.id, row.product, row.image.name, row.position, row.fields) for row in rows_of(path)]
            assert sorted(source.fields, key=str) == sorted(table.schema(), key=str), suffix
            order = [source.fields.names.index(name) for name in table.schema().names]
            assert [(*row[:4], tuple(row[4][number] for number in order)) for row in found] == table.oracle(), suffix
            assert source.rows_estimate == len(found)


@settings(max_examples=30, deadline=None, suppress_health_check=SHARED_FOLDER)
@given(table=tables(), count=st.integers(1, 4), draw=st.randoms())
def test_shards_are_disjoint_and_complete_in_any_order_of_rows(
    tmp_path: Path, table: Table, count: int, draw: "st.random.Random"
) -> None:
    order = list(range(len(table.ids)))
    draw.shuffle(order)
    shuffled = Table(
        [table.ids[row] for row in order],
        [table.images[row] for row in order],
        {name: [values[row] for row in order] for name, values in table.fields.items()},
    )
    shards = []
    for name, rows in (("a.csv", table), ("b.jsonl", shuffled)):
        WRITERS[Path(name).suffix](tmp_path / name, rows)
        whole = rows_of(tmp_path / name)
        parts = [rows_of(tmp_path / name, shard=Shard(index, count)) for index in range(count)]
        assert sorted((row for part in parts for row in part), key=lambda row: row.position) == whole
        shards.append([{row.id for row in part} for part in parts])
        products = [{row.product for row in part} for part in parts]
        assert sum(map(len, products)) == len(table.ids)
    assert shards[0] == shards[1]


def test_a_shard_depends_on_the_id_alone() -> None:
    names = ("a", "b", "é", "ID#2", "")
    assert [[index for index in range(5) if Shard(index, 5).holds(name)] for name in names] == SHARDS


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "2", ""], pa.int64()),
        (["1", "2.5"], pa.float64()),
        (["1", "NA"], pa.int64()),
        (["1.5", "nan", "N/A"], pa.float64()),
        (["0012", "7"], pa.string()),
        (["1", "12E4"], pa.string()),
        (["1", "1" * 19], pa.string()),
        (["1e+400"], pa.string()),
        (["True", "FALSE", "false"], pa.bool_()),
        (["true", "1"], pa.string()),
        (["2024-02-29"], pa.date32()),
        (["2024-02-30"], pa.string()),
        (["2024-02-29", "2024-02-29 10:00"], pa.timestamp("us")),
        (["2024-02-29T10:00:00Z", "2024-02-29 10:00:00+02:00"], pa.timestamp("us", tz="UTC")),
        (["2024-02-29T10:00:00Z", "2024-02-29"], pa.string()),
        (['["a"]', "[]", ""], pa.list_(pa.string())),
        (['["a"]', "b"], pa.string()),
        (["NA", "shoe"], pa.string()),
        (["1", "shoe"], pa.string()),
    ],
)
@pytest.mark.parametrize("rows_at_once", [1, 8_192])
def test_a_column_has_the_narrowest_type_of_all_its_rows(
    tmp_path: Path, values: Sequence[str], expected: pa.DataType, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_files, "ROWS_AT_ONCE", rows_at_once)
    for order in (values, values[::-1]):
        path = write_csv(
            tmp_path / "a.csv", [("image", "x"), *((f"{row}.jpg", value) for row, value in enumerate(order))]
        )
        source = open_source(path)
        assert source.fields.field("x").type == expected
        found = [row.fields[0] for row in rows_of(path)]
        assert pa.array(found, expected).to_pylist() == found
        if expected == pa.string():
            assert found == list(order)


def test_mixed_json_values_become_text_and_objects_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    records = [
        {"image": "1.jpg", "mixed": 1, "size": [38, 39], "nested": {"x": 1}, "empty": None},
        {"image": "2.jpg", "mixed": ["a", "b"], "size": [], "nested": 2, "empty": ""},
        {"image": "3.jpg", "mixed": 2**70, "late": 0.5},
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    messages, source = Messages(), open_source(path)
    assert dict(zip(source.fields.names, source.fields.types, strict=True)) == {
        "mixed": pa.string(),
        "size": pa.list_(pa.string()),
        "late": pa.float64(),
    }
    assert [row.fields for row in rows_of(path)] == [
        ("1", ["38", "39"], None),
        ('["a", "b"]', None, None),
        (str(2**70), None, 0.5),
    ]
    assert f"{path}: left out column 'nested' (objects)" in messages.notes
    assert f"{path}: left out column 'empty' (no values)" in messages.notes


@pytest.mark.parametrize(
    ("values", "spoiler"),
    [
        (["9.5", "10", "10.99 EUR", "3", "4", "", "20"], "10.99 EUR"),
        (["1,020.50", *map(str, range(9))], "1,020.50"),
        (["S", "M", "L", "38"], None),  # sizes
        (["0012", *map(str, range(9))], None),  # articles
        (["1", "2", ""], None),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_value_that_keeps_prices_from_being_numbers_is_named(
    tmp_path: Path, values: list[str], spoiler: str | None, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "csv":
        write_csv(path, [("image", "price"), *((f"{row}.jpg", value) for row, value in enumerate(values))])
    else:
        typed = [float(value) if value.replace(".", "").isdigit() and value[0] != "0" else value for value in values]
        path.write_text(
            "\n".join(json.dumps({"image": f"{row}.jpg", "price": value}) for row, value in enumerate(typed))
        )
    messages, source = Messages(), open_source(path)
    assert source.fields.field("price").type == (
        pa.string() if spoiler or values[-1] else pa.int64() if suffix == "csv" else pa.float64()
    )
    warned = [warning for warning in messages.warnings if "price is text" in warning]
    assert bool(warned) is (spoiler is not None)
    assert spoiler is None or f"such as '{spoiler}'" in warned[0]


def test_types_of_parquet_are_kept_as_far_as_a_store_has_them(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    columns = {
        "image": pa.array(["a.jpg", "b.jpg"], pa.large_string()),
        "small": pa.array([1, None], pa.int8()),
        "price": pa.array([Decimal("1.20"), None], pa.decimal128(10, 2)),
        "kind": pa.array(["x", None]).dictionary_encode(),
        "nan": pa.array([float("nan"), 0.5], pa.float32()),
        "at": pa.array([1_700_000_000_000_000_001, None]).cast(pa.timestamp("ns", tz="Europe/Berlin")),
        "sizes": pa.array([[38], []]),
        "struct": pa.array([{"x": 1}, None]),
        "bytes": pa.array([b"x", None]),
        "vector": pa.array([[0.5], None], pa.list_(pa.float32(), 1)),
    }
    pq.write_table(pa.table(columns), path)
    source = open_source(path)
    assert source.fields == pa.schema(
        {
            "small": pa.int8(),
            "price": pa.float64(),
            "kind": pa.string(),
            "nan": pa.float32(),
            "at": pa.timestamp("us", tz="UTC"),
            "sizes": pa.list_(pa.string()),
        }
    )
    first, second = (row.fields for row in rows_of(path))
    assert first[:4] == (1, 1.2, "x", None)
    assert str(first[4]) == "2023-11-14 22:13:20+00:00"
    assert first[5] == ["38"]
    assert second == (None, None, None, 0.5, None, None)


def test_a_date_that_python_lacks_is_an_error_with_its_row(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    days = pa.array([0, 10**7], pa.int32()).cast(pa.date32())
    pq.write_table(pa.table({"image": ["a.jpg", "b.jpg"], "day": days}), path)
    with pytest.raises(DataError, match="row 2: its value in column 'day' cannot be read"):
        rows_of(path)


def test_ids_are_text_and_columns_can_have_any_names(tmp_path: Path) -> None:
    rows = [("", "sku", "front", "back", "group"), (0, "0012", " a.jpg", "b.jpg ", "g"), (1, "7", "c.jpg", "", "")]
    path = write_csv(tmp_path / "a.csv", rows)
    found = rows_of(path, {"id": "sku", "image": "front,back", "product": "group"})
    assert [(row.id, row.product, row.image.name) for row in found] == [
        ("0012", "g", "a.jpg"),
        ("0012#2", "g", "b.jpg"),
        ("7", "7", "c.jpg"),
    ]
    assert [row.place for row in found] == [f"{path}, line 2", f"{path}, line 2", f"{path}, line 3"]
    assert open_source(path, {"id": "none", "image": "front"}).fields.names == ["sku", "back", "group"]


def test_without_ids_each_image_is_named_by_its_path(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [("image",), (json.dumps(["x/a.jpg", "b.jpg", "b.jpg"]),)])
    assert [(row.id, row.product) for row in rows_of(path)] == [("x/a.jpg", "x/a.jpg"), ("b.jpg", "x/a.jpg")]


@pytest.mark.parametrize("folder", ["", "images", "photos"])
def test_relative_paths_start_where_the_first_images_are(tmp_path: Path, folder: str) -> None:
    path = write_csv(tmp_path / "a.csv", [("image",), ("missing.jpg",), ("x/1.jpg",), (str(tmp_path / "2.jpg"),)])
    (tmp_path / folder / "x").mkdir(parents=True)
    (tmp_path / folder / "x/1.jpg").touch()
    paths = [row.image.path for row in rows_of(path)]
    assert paths == [tmp_path / folder / "missing.jpg", tmp_path / folder / "x/1.jpg", tmp_path / "2.jpg"]


def test_csv_as_spreadsheets_and_windows_write_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes('\ufeffid,image,note\r\n00123,é.jpg,"two\r\nlines, ""quoted"""\r\n\r\n2,b.jpg,\r\n'.encode())
    assert [(row.id, row.image.name, row.fields, row.place) for row in rows_of(path)] == [
        ("00123", "é.jpg", ('two\r\nlines, "quoted"',), f"{path}, line 2"),
        ("2", "b.jpg", (None,), f"{path}, line 5"),
    ]


@pytest.mark.parametrize("suffix", [*WRITERS])
def test_fields_can_be_named_like_columns_of_a_store_or_differ_in_case(tmp_path: Path, suffix: str) -> None:
    fields = {name: [f"a {name}"] for name in ("vector", "score", "position", "Score", "ID", "Image", "a.b", "é ")}
    path = tmp_path / f"a{suffix}"
    kinds = dict.fromkeys(fields, FIELD_TYPES["text"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog_files, "FIELD_TYPES", kinds)
        WRITERS[suffix](path, Table(["1"], [["a.jpg"]], fields))
    assert open_source(path).fields.names == [*fields]
    assert rows_of(path)[0].fields == tuple(f"a {name}" for name in fields)


WRONG: dict[str, list[tuple[str | bytes, str]]] = {
    "a.csv": [
        ("id,image\n1,a.jpg\n,b.jpg\n", "line 3: has no id. Fix the row, or remove it"),
        ('id,image\n1,"a\nb.jpg"\n\n2,\n3,\n4,\n', "line 5: has no image, and 2 more rows cannot be used either"),
        ("id,image\n1,https://x.org/a.jpg\n", "line 2: image 'https://x.org/a.jpg' is an address, not a file"),
        (b"id,image\n1,a.jpg\n2,\xe9.jpg\n", "line 3: is not UTF-8 text. Save the file as UTF-8"),
        ('id,image\n1,"a.jpg\n', "line 2: cannot be read as a row (unexpected end of data). Fix its quotes"),
        ("id;image\n1;a.jpg\n", "its cells are separated by ';'. Save it with ',' between cells"),
        ("id,image\n1,a\\b.jpg\n", "line 2: image 'a\\\\b.jpg' has a backslash"),
        ("id,image\n1,a.jpg\n2,b.jpg\n1,c.jpg\n2,c.jpg\n", "line 4: repeats id '1' of {path}, line 2, and 1 more row"),
        ('id,image\nx,"[""a"", ""b""]"\nx#2,c\n', "line 3: repeats id 'x#2' of {path}, line 2"),
        ("image\na.jpg\na.jpg\n", "line 3: repeats id 'a.jpg' of {path}, line 2. Name a column of ids with --columns"),
        ("id,image\n1,a.jpg,x\n", "line 2: expected 2 cells, got 3"),
        ("id,image\n", "has no images. Add rows below its header"),
        ("id,photo\n1,a.jpg\n", "has no column 'image'; its columns are 'id', 'photo'. Set --columns image=NAME"),
        ("id,images\n1,a.jpg\n", "Set --columns image=images, if that is the one"),
    ],
    "a.jsonl": [
        ('{"image": "a.jpg"}\n\n{"image": {}}', "line 3: expected text, got an object"),
        ('{"image": "a.jpg"}\n{"id": 1, "image": "b.jpg"}', "line 1: has no id"),
        ('{"image": "\\ud800.jpg"}', r"line 1: has '\ud800.jpg', which is not UTF-8 text"),
        ('{"image": "a.jpg", "x": ["\\ud800"]}', "line 1: column 'x' contains an unpaired surrogate"),
        ('{"image": "a.jpg", "x": "y"}\n{"image": "b.jpg", "x": "\\ud800"}', "line 2: column 'x' contains an unpaired"),
        ('{"image": "a.jpg"}\n{"image": ', "line 2: is not JSON"),
    ],
    "a.txt": [("", "expected a folder of images, a table that ends in .csv, .tsv, .jsonl, .parquet, or a .tar file")],
    "a.tar.gz": [("", "Decompress it")],
    "a.tar": [("x" * 600, "is not a tar file that can be read")],
}


@pytest.mark.parametrize(
    ("name", "content", "message"), [(name, *case) for name, cases in WRONG.items() for case in cases]
)
def test_a_defect_is_one_clear_line_with_its_place(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError) as error:
        rows_of(path)
    assert message.format(path=path) in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def peak(path: Path) -> int:
    tracemalloc.start()
    pa.default_memory_pool().release_unused()
    before = pa.total_allocated_bytes()
    most = 0
    try:
        for _ in open_source(path).batches(Shard(), 100):
            most = max(most, pa.total_allocated_bytes() - before)
        return tracemalloc.get_traced_memory()[1] + most
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", [*WRITERS])
def test_memory_does_not_grow_with_the_table(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files, "ROWS_AT_ONCE", 200)
    small, large = tmp_path / f"small{suffix}", tmp_path / f"large{suffix}"
    for path, rows in ((small, 1_000), (large, 5_000)):
        names = [f"{row:020d}" for row in range(rows)]
        table = Table(names, [[f"{name}.jpg"] for name in names], {"text": [f"a{name * 5}" for name in names]})
        WRITERS[suffix](path, table)
    peak(small)  # imports
    grown = min(peak(large) for _ in range(2)) - peak(small)  # twice, since Arrow's threads free late
    assert grown < 4_000 * 60  # 8 bytes a hash, three times while they are compared


def test_memory_does_not_grow_with_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlcl_cli.catalog.archives.ROWS_AT_ONCE", 100)
    for name, rows in (("small.tar", 300), ("large.tar", 1_500)):
        write_tar(tmp_path / name, [(f"{row:06d}.jpg", b"x") for row in range(rows)])
    peak(tmp_path / "small.tar")
    assert peak(tmp_path / "large.tar") < peak(tmp_path / "small.tar") + 1_200 * 60
