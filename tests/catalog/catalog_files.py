"""Catalogs of products in every format, as programs write them."""

import csv
import datetime as dt
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from mlcl_cli.catalog.opening import open_source
from mlcl_cli.catalog.source import Shard, SourceRow

DAY = st.dates(dt.date(1900, 1, 1), dt.date(2999, 12, 31))
TIME = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2999, 12, 31))
# Spaces around a cell and cells that are only white space are not kept.
TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from('\n,"\t;'), max_size=12).map(str.strip)
WORDS = TEXT.map(lambda text: f"a{text}")  # neither a number nor a date nor a list


@dataclass(frozen=True)
class FieldType:
    """A type of fields in tests: its values, and how CSV and JSON write them."""

    arrow: pa.DataType
    values: st.SearchStrategy[object]
    cell: Callable[[object], str] = str
    json: Callable[[object], object] = lambda value: value


FIELD_TYPES: Mapping[str, FieldType] = {
    "text": FieldType(pa.string(), WORDS),
    "article": FieldType(pa.string(), st.integers(0, 999).map("{:05d}".format)),
    "integer": FieldType(pa.int64(), st.integers(1 - 10**18, 10**18 - 1)),
    "number": FieldType(pa.float64(), st.floats(allow_nan=False, allow_infinity=False), repr),
    "flag": FieldType(pa.bool_(), st.booleans()),
    "day": FieldType(pa.date32(), DAY, str, str),
    "time": FieldType(pa.timestamp("us"), TIME, str, str),
    "zoned": FieldType(pa.timestamp("us", tz="UTC"), TIME.map(lambda time: time.replace(tzinfo=dt.UTC)), str, str),
    "tags": FieldType(pa.list_(pa.string()), st.lists(TEXT.filter(bool), min_size=1, max_size=3), json.dumps),
}


@dataclass(frozen=True)
class Table:
    """Products: their ids, images and fields by name; None is a missing value."""

    ids: Sequence[str]
    images: Sequence[Sequence[str]]
    fields: Mapping[str, Sequence[object]]

    def oracle(self) -> list[tuple[str, str, str, int, tuple[object, ...]]]:
        """Id, product, image, position and fields of each image."""
        names = self.present()
        rows = []
        for row, (product, images) in enumerate(zip(self.ids, self.images, strict=True)):
            for number, image in enumerate(images, 1):
                own_id = product if number == 1 else f"{product}#{number}"
                rows.append((own_id, product, image, len(rows), tuple(self.fields[name][row] for name in names)))
        return rows

    def present(self) -> list[str]:
        """The fields with any value."""
        return [name for name, values in self.fields.items() if any(value is not None for value in values)]

    def schema(self) -> pa.Schema:
        """The types of the fields with any value."""
        return pa.schema([(name, FIELD_TYPES[name].arrow) for name in self.present()])


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Tables of up to 8 products."""
    ids = draw(st.lists(st.integers(0, 99).map("{:04d}".format) | WORDS, min_size=1, max_size=8, unique=True))
    names = draw(st.lists(st.sampled_from([*FIELD_TYPES]), unique=True, max_size=4))
    image = TEXT.map(lambda text: f"i/{text.replace(chr(92), '')}.jpg")
    rows = {"min_size": len(ids), "max_size": len(ids)}
    return Table(
        ids,
        draw(st.lists(st.lists(image, min_size=1, max_size=3, unique=True), **rows)),
        {name: draw(st.lists(st.none() | FIELD_TYPES[name].values, **rows)) for name in names},
    )


def write_text(path: Path, table: Table, delimiter: str) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["id", "image", *table.fields])
        for row, (own_id, images) in enumerate(zip(table.ids, table.images, strict=True)):
            cells = [(FIELD_TYPES[name], values[row]) for name, values in table.fields.items()]
            texts = ["" if value is None else kind.cell(value) for kind, value in cells]
            writer.writerow([own_id, images[0] if len(images) == 1 else json.dumps(images), *texts])


def records(table: Table) -> list[dict[str, object]]:
    """The fields of each row as JSON has them; a missing value is left out or null."""
    found = []
    for row in range(len(table.ids)):
        record = {}
        for name, values in table.fields.items():
            if (value := values[row]) is not None:
                record[name] = FIELD_TYPES[name].json(value)
            elif row % 2:
                record[name] = None
        found.append(record)
    return found


def write_jsonl(path: Path, table: Table) -> None:
    rows = zip(table.ids, table.images, records(table), strict=True)
    texts = [json.dumps({"id": own_id, "image": images, **record}) for own_id, images, record in rows]
    path.write_text("\n".join(texts), encoding="utf-8")


def write_parquet(path: Path, table: Table) -> None:
    fields = {name: pa.array(values, FIELD_TYPES[name].arrow) for name, values in table.fields.items()}
    images = pa.array(table.images, pa.list_(pa.string()))
    ids = pa.array(table.ids)  # as categories in small tables alone, since all are in memory at once
    written = pa.table({"id": ids.dictionary_encode() if len(ids) < 100 else ids, "image": images, **fields})
    kept = [name for name in written.column_names if name in ("id", "image", *table.present())]
    pq.write_table(written.select(kept), path, row_group_size=1_000)


WRITERS: dict[str, Callable[[Path, Table], None]] = {
    ".csv": lambda path, table: write_text(path, table, ","),
    ".tsv": lambda path, table: write_text(path, table, "\t"),
    ".jsonl": write_jsonl,
    ".parquet": write_parquet,
}


def write_csv(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def rows_of(
    path: Path, columns: Mapping[str, str] | None = None, shard: Shard | None = None, size: int = 3
) -> list[SourceRow]:
    batches = list(open_source(path, columns).batches(shard or Shard(), size))
    assert all(len(batch) == size for batch in batches[:-1])
    return [row for batch in batches for row in batch]
