"""Tables in four formats: the same rows, exact places of defects, clear errors."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlcl_cli.data.annotations import refuse
from mlcl_cli.data.own_data import read
from mlcl_cli.data.own_tables import Columns, Tables
from mlcl_cli.data.table_files import ROWS_AT_ONCE, Cell, TableFile
from mlcl_cli.errors import DataError

Cells = list[list[Cell]]
# Spaces at the start of a cell are dropped in text formats, and so are cells that are only white space.
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from('\n,"\t;'), max_size=12).map(str.strip)
CELL = st.one_of(
    TEXT.filter(bool).map(lambda text: (text,)),
    st.just(()),
    st.lists(TEXT.filter(bool), min_size=2, max_size=3).map(tuple),
)


def value(cell: Cell) -> str | list[str] | None:
    return list(cell) if len(cell) > 1 else cell[0] if cell else None


def write_text(path: Path, columns: list[str], rows: Cells, delimiter: str) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerow(columns)
        for row in rows:
            # A single text that would read as a list is written as a list of one.
            listed = [len(cell) > 1 or any(text.startswith("[") for text in cell) for cell in row]
            writer.writerow(
                [json.dumps(cell) if many else "".join(cell) for cell, many in zip(row, listed, strict=True)]
            )


def write_jsonl(path: Path, columns: list[str], rows: Cells) -> None:
    lines = [json.dumps(dict(zip(columns, map(value, row), strict=True))) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")


def write_parquet(path: Path, columns: list[str], rows: Cells) -> None:
    arrays = [pa.array([list(row[index]) for row in rows], pa.list_(pa.string())) for index in range(len(columns))]
    pq.write_table(pa.table(dict(zip(columns, arrays, strict=True))), path)


WRITERS: dict[str, Callable[[Path, list[str], Cells], None]] = {
    ".csv": lambda path, columns, rows: write_text(path, columns, rows, ","),
    ".tsv": lambda path, columns, rows: write_text(path, columns, rows, "\t"),
    ".jsonl": write_jsonl,
    ".parquet": write_parquet,
}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.lists(CELL, min_size=2, max_size=2), min_size=1, max_size=5))
def test_the_four_formats_hold_the_same_cells(tmp_path: Path, rows: Cells) -> None:
    for suffix, write in WRITERS.items():
        path = tmp_path / f"table{suffix}"
        write(path, ["a", "b"], rows)
        table = TableFile(path)
        assert table.columns == ("a", "b")
        assert [list(cells) for _, cells in table.rows(["b", "a"])] == [row[::-1] for row in rows], suffix


NAME = st.sampled_from(["a.jpg", "./a.jpg", "b c.png", "d/é.jpg", "d//é.jpg", "[x].png", "f.jpg", "g.jpg", "h.jpg"])
TRIPLET = st.tuples(
    NAME.map(lambda name: (name,)),
    st.lists(NAME, min_size=1, max_size=3, unique=True).map(tuple),
    CELL,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(TRIPLET.map(list), min_size=1, max_size=6))
def test_the_four_formats_give_the_same_splits(tmp_path: Path, rows: Cells) -> None:
    results = []
    for suffix, write in WRITERS.items():
        path = tmp_path / f"table{suffix}"
        write(path, ["reference", "target", "caption"], rows)
        tables = Tables(
            name="x",
            images=tmp_path,
            triplets=path,
            gallery=None,
            columns=Columns(),
            val_fraction=0.3,
            per_category=False,
        )
        for split in ("train", "val"):
            try:
                loaded = read(tables, path, split, {}, refuse)
            except DataError as error:
                results.append((suffix, split, error.what))
            else:
                results.append((suffix, split, loaded.sets, [triplet.query_id for triplet in loaded.triplets]))
    assert all(result[1:] == results[index % 2][1:] for index, result in enumerate(results)), results


def test_a_row_is_numbered_by_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes('\ufeffa,b\r\n1,"two\r\nlines"\r\n\r\n2, "after a space"\r\n'.encode())
    assert list(TableFile(path).rows(["a", "b"])) == [
        (2, (("1",), ("two\r\nlines",))),
        (5, (("2",), ("after a space",))),
    ]
    assert TableFile(path).place(5) == f"{path}, line 5"


@pytest.mark.parametrize("text", ["['a', 'b']", '["a", "b"]', '["a", " ", "b"]'])
def test_a_list_in_a_cell_may_be_json_or_python(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a\n" + '"{}"\n'.format(text.replace('"', '""')))
    assert list(TableFile(path).rows(["a"])) == [(2, (("a", "b"),))]


@pytest.mark.parametrize("text", ["[sic]", "[1, 2]", "[]", "[" * 99 + "]" * 99, "[a", "{'a': 1}"])
def test_text_that_only_looks_like_a_list_is_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.tsv"
    path.write_text(f"a\n{text}\n")
    assert list(TableFile(path).rows(["a"])) == [(2, ((text,),))]


def test_parquet_columns_of_any_plain_type_become_text(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    columns = {
        "dictionary": pa.array(["x", None, "x"]).dictionary_encode(),
        "integer": pa.array([1, None, 3]),
        "float": pa.array([0.5, None, float("nan")]),
        "null": pa.nulls(3),
        "flag": pa.array([True, False, None]),
        "list": pa.array([["p", None, "q"], [], None]),
    }
    pq.write_table(pa.table(columns), path)
    assert list(TableFile(path).rows([*columns])) == [
        (1, (("x",), ("1",), ("0.5",), (), ("true",), ("p", "q"))),
        (2, ((), (), (), (), ("false",), ())),
        (3, (("x",), ("3",), (), (), (), ())),
    ]
    assert TableFile(path).place(2) == f"{path}, row 2"


def test_rows_of_parquet_are_numbered_across_batches(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"a": [str(number) for number in range(ROWS_AT_ONCE + 2)]}), path)
    assert [(number, cell) for number, (cell,) in TableFile(path).rows(["a"])][-1] == (
        ROWS_AT_ONCE + 2,
        (str(ROWS_AT_ONCE + 1),),
    )


WRONG = {
    "a.csv": {
        b"": "is empty",
        b"a,b\n1,2\n1,2,3\n": "line 3: expected 2 cells, got 3",
        b"a,b\n1,2\n1\n": "line 3: expected 2 cells, got 1",
        b'a,b\n1,2\n1,"2\n3,4\n': "line 3: cannot be read as a row (unexpected end of data)",
        b'a,b\n1,"2" 3\n': "line 2: cannot be read as a row (',' expected after '\"')",
        b"a,b\n1,2\n\xff,2\n": "line 3: is not UTF-8 text. Save the file as UTF-8",
        "a,b\n1,2\n".encode("utf-16"): "line 1: is not UTF-8 text",
        b"a,a\n1,2\n": "has two columns 'a'",
        b"a;b\n1;2\n": "has one column, 'a;b': its cells are separated by ';'. Save it with ',' between cells",
        b"a\tb\n1\t2\n": r"has one column, 'a\tb': its cells are separated by '\t'",
        b"a,b\n1," + b"x" * 200_000: "line 2: cannot be read as a row (field larger than field limit (131072))",
    },
    "a.tsv": {b"a,b\n1,2\n": "has one column, 'a,b': its cells are separated by ','"},
    "a.jsonl": {
        b"\n": "is empty",
        b'{"a": 1, "b": 2}\n[1]\n': "line 2: expected a JSON object",
        b'{"a": 1, "b": 2}\n\n{"a": \n': "line 3: is not JSON",
        b'{"a": 1, "b": NaN}\n': "line 1: is not JSON (contains NaN",
        b'{"a": {"x": 1}, "b": 2}\n': "line 1: expected text, got an object",
        b'{"a": "\xff", "b": 2}\n': "line 1: is not UTF-8 text",
    },
    "a.parquet": {b"PAR1": "is not a Parquet file that can be read"},
    "a.xlsx": {b"PK": "expected a table that ends in .csv, .tsv, .jsonl or .parquet. Convert it"},
}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [(name, content, message) for name, cases in WRONG.items() for content, message in cases.items()],
)
def test_a_damaged_table_is_one_clear_error(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        list(TableFile(path).rows(TableFile(path).columns))
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_bytes_in_parquet_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [b"x"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="row 1: expected text, got bytes"):
        list(TableFile(tmp_path / "a.parquet").rows(["a"]))


@pytest.mark.parametrize("name", ["folder", "folder.csv"])
def test_a_folder_or_a_missing_file_is_no_table(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=r"is a folder, not a table\. Name a file in it"):
        _ = TableFile(tmp_path / name).columns
    with pytest.raises(DataError, match="does not exist"):
        _ = TableFile(tmp_path / "missing.csv").columns


def test_a_missing_column_suggests_the_nearest_or_lists_all(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("refrence,tgt\n")
    with pytest.raises(
        DataError, match=r"has no column 'reference'; .*\. Set columns\.reference, probably to 'refrence'"
    ):
        TableFile(path).require("reference", "columns.reference")
    with pytest.raises(DataError, match="has no column 'caption'; its columns are 'refrence', 'tgt'"):
        TableFile(path).require("caption", "columns.caption")
