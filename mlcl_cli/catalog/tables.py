"""Catalogs in tables: .csv, .tsv, .jsonl and .parquet."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from os.path import join  # many times as fast as Path
from pathlib import Path

import pyarrow as pa

from mlcl_cli.catalog.columns import Columns, find_columns
from mlcl_cli.catalog.field_types import Fields, ParquetFields, Values, cell_fields, json_fields
from mlcl_cli.catalog.source import ImageFile
from mlcl_cli.catalog.stream import Chunk, Entry, make_entry
from mlcl_cli.data.table_files import DELIMITERS, Cell, RawRows, TableFile, text_cell, value_cell
from mlcl_cli.data.table_guesses import IMAGE_FOLDERS, NAMES_TRIED, existing
from mlcl_cli.suggestions import shown


@dataclass(frozen=True)
class TableReader:
    """A table with a row for each product."""

    table: TableFile
    columns: Columns

    @classmethod
    def open(cls, path: Path, columns: Mapping[str, str]) -> "TableReader":
        """Raises UsageError for a wrong key in `columns`, DataError for a damaged table or a missing column."""
        table = TableFile(path)
        return cls(table, find_columns(columns, table.columns, path))

    @property
    def path(self) -> Path:
        """See Reader."""
        return self.table.path

    @property
    def empty_remedy(self) -> str:
        """See Reader."""
        return "Add rows below its header"

    @property
    def repeated_remedy(self) -> str:
        """See Reader."""
        if self.columns.id is None:
            return "Name a column of ids with --columns id=NAME, or keep one row for each image"
        return (
            f"Give each row an id of its own; if {self.columns.id!r} is a product with several rows, set "
            f"--columns id=none,product={self.columns.id}"
        )

    def fields(self) -> Fields:
        """See Reader."""
        schema = self.table.parquet_schema
        if schema is not None:
            return ParquetFields(pa.schema([column for column in schema if self._is_field(column.name)]))
        return cell_fields() if self.path.suffix.lower() in DELIMITERS else json_fields()

    def chunks(self, *, with_fields: bool) -> Iterator[Chunk]:
        """See Reader."""
        for rows in self.table.raw_rows(None if with_fields else self.columns.names):
            fields = {name: values for name, values in rows.columns.items() if self._is_field(name)}
            yield Chunk(list(self._entries(rows)), fields)

    def _is_field(self, name: str) -> bool:
        return bool(name) and name not in self.columns.names

    def _entries(self, rows: RawRows) -> Iterator[Entry]:
        columns = {name: _listed(rows.columns[name]) for name in self.columns.names if name in rows.columns}
        blank = [None] * len(rows.numbers)
        ids, products = (columns.get(name or "", blank) for name in (self.columns.id, self.columns.product))
        images = [columns.get(name, blank) for name in self.columns.images]
        where = f"{self.path}, {self.table.unit}"
        for number, own_id, product, *cells in zip(rows.numbers, ids, products, *images, strict=True):
            yield self._entry(f"{where} {number}", own_id, product, cells)

    def _entry(self, place: str, own_id: object, product: object, images: Sequence[object]) -> Entry:
        try:
            ids = None if self.columns.id is None else value_cell(own_id)
            names = dict.fromkeys(map(str.strip, chain(*map(_image_cell, images))))
            files = [ImageFile(name, join(self._folder, name)) for name in names]  # noqa: PTH118
            entry = make_entry(place, ids, value_cell(product), files)
        except TypeError as error:
            return Entry(place, "", "", (), str(error))
        if not entry.defect and (wrong := [name for name in names if "\\" in name or "://" in name]):
            return entry._replace(defect=_name_defect(wrong[0]))
        return entry

    @cached_property
    def _folder(self) -> str:
        """The folder that relative paths start at: the table's, or one beside it that has more of the first images."""
        rows = next(self.table.raw_rows(self.columns.images), RawRows((), {}))
        cells = chain(*(_listed(values[:NAMES_TRIED]) for values in rows.columns.values()))
        names = [name for cell in cells for name in _texts(cell)]
        own = self.path.parent
        folders = (own, *(own / name for name in IMAGE_FOLDERS))
        return str(max(folders, key=lambda folder: existing(folder, names, len(names))))


def _listed(values: Values) -> Sequence[object]:
    return values.to_pylist() if isinstance(values, pa.Array) else values


def _image_cell(value: object) -> Cell:
    """One image or several: a list, or one that is written as text in any of the formats."""
    return text_cell(value) if isinstance(value, str) else value_cell(value)


def _texts(value: object) -> Cell:
    try:
        return _image_cell(value)
    except TypeError:
        return ()


def _name_defect(name: str) -> str:
    if "\\" in name:
        return f"image {shown(name)} has a backslash: write / between folders"
    return f"image {shown(name)} is an address, not a file: download the images first"
