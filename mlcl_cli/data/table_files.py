"""Tables of text in any of four formats: .csv, .tsv, .jsonl and .parquet, read in bounded memory."""

import ast
import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from mlcl_cli.errors import DataError, some
from mlcl_cli.safe_reading import open_regular, parse_json
from mlcl_cli.suggestions import nearest, shown

if TYPE_CHECKING:
    import pyarrow as pa

FIX_FILE = "Fix the file"
DELIMITERS = {".csv": ",", ".tsv": "\t"}
OTHER_DELIMITERS = ";\t|,"
SUFFIXES = (*DELIMITERS, ".jsonl", ".parquet")
ROWS_AT_ONCE = 8_192  # in memory at once
MAX_LINE_BYTES = 2**24  # of a text file: a longer line is no row of a table
SCANNED_RECORDS = 1_000  # of a JSON lines file, to find its fields

Cell: TypeAlias = tuple[str, ...]  # the texts of a cell: none if it is blank, several if it is a list
Row: TypeAlias = tuple[int, tuple[Cell, ...]]  # its number, and a cell for each column that was asked for


class RawRows(NamedTuple):
    """Rows as their file has them: their numbers, and by column the text of CSV, the values of JSON, or an array."""

    numbers: Sequence[int]
    columns: "Mapping[str, Sequence[object] | pa.Array]"


@dataclass(frozen=True)
class TableFile:
    """A table, whose format its name's ending says.

    A cell of a CSV or TSV file is a list if it is a JSON list of strings, such as `["a.jpg", "b.jpg"]`, or the same in
    Python's notation, as pandas writes it. Numbers, dates and booleans of a Parquet or JSON lines file become text.
    A row's number is that of its first line; in a Parquet file, it counts from 1.
    """

    path: Path

    @property
    def unit(self) -> str:
        """What row numbers count."""
        return "row" if self._suffix == ".parquet" else "line"

    @property
    def _suffix(self) -> str:
        return self.path.suffix.lower()

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns. Raises DataError if the file is missing, damaged, or in another format."""
        with self._defects():
            open_regular(self.path).close()
            if self._suffix not in SUFFIXES:
                formats = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
                raise DataError(f"expected a table that ends in {formats}", where=self.path, remedy="Convert it")
            if self._suffix in DELIMITERS:
                names = next((cells for _, cells in self._csv_lines()), [])
            elif (schema := self.parquet_schema) is not None:
                names = schema.names
            else:
                records = (record for _, record in islice(self._records(), SCANNED_RECORDS))
                names = list(dict.fromkeys(name for record in records for name in record))
        if not names:
            raise DataError("is empty", where=self.path, remedy=FIX_FILE)
        if repeated := [name for name in names if names.count(name) > 1]:
            raise DataError(f"has two columns {repeated[0]!r}", where=self.path, remedy="Rename one of them")
        self._require_delimiter(names)
        return tuple(names)

    def _require_delimiter(self, names: Sequence[str]) -> None:
        used = [mark for mark in OTHER_DELIMITERS if mark in names[0]] if len(names) == 1 else []
        if used and self._suffix in DELIMITERS:
            what = f"has one column, {shown(names[0])}: its cells are separated by {used[0]!r}"
            remedy = f"Save it with {DELIMITERS[self._suffix]!r} between cells"
            raise DataError(what, where=self.path, remedy=remedy)

    def require(self, column: str, key: str) -> None:
        """Raise DataError if the table has no such column; `key` is where its name was set, for the message."""
        if column not in self.columns:
            what = f"has no column {column!r}; its columns are {listed(self.columns)}"
            near = nearest(column, self.columns)
            remedy = f"Set {key}, probably to {near!r}" if near else f"Set {key} to the column's name"
            raise DataError(what, where=self.path, remedy=remedy)

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Each row's cells of `columns`, which exist. Raises DataError at the first row that cannot be read."""
        with self._defects():
            if self._suffix in DELIMITERS:
                yield from self._csv_rows(columns)
            elif self._suffix == ".parquet":
                yield from self._parquet_rows(columns)
            else:
                for number, record in self._records():
                    yield number, self._cells([record.get(name) for name in columns], number, value_cell)

    def raw_rows(self, columns: Sequence[str] | None = None) -> Iterator[RawRows]:
        """All rows of `columns`, by default of all columns, ROWS_AT_ONCE at a time; a row may lack a value.

        Raises DataError at the first row that cannot be read.
        """
        with self._defects():
            if self._suffix == ".parquet":
                number = 1
                for batch in self._parquet_batches(self.columns if columns is None else columns):
                    arrays = dict(zip(batch.schema.names, batch.columns, strict=True))
                    yield RawRows(range(number, number := number + len(batch)), arrays)
                return
            rows = self._full_lines() if self._suffix in DELIMITERS else self._records()
            while part := list(islice(rows, ROWS_AT_ONCE)):
                numbers, values = zip(*part, strict=True)
                if self._suffix in DELIMITERS:
                    by_column = dict(zip(self.columns, zip(*values, strict=True), strict=True))
                    yield RawRows(numbers, {name: by_column[name] for name in columns or self.columns})
                else:
                    names = columns or dict.fromkeys(name for record in values for name in record)
                    yield RawRows(numbers, {name: [record.get(name) for record in values] for name in names})

    @cached_property
    def parquet_schema(self) -> "pa.Schema | None":
        """The names and types of a Parquet file's columns; None for another format. Raises DataError as `columns`."""
        if self._suffix != ".parquet":
            return None
        import pyarrow.parquet as pq

        with self._defects():
            open_regular(self.path).close()
            return pq.read_schema(self.path)

    def place(self, number: int) -> str:
        """The file, and a row in it."""
        return f"{self.path}, {self.unit} {number}"

    def _cells(self, values: Sequence[object], number: int, cell_of: Callable[[object], Cell]) -> tuple[Cell, ...]:
        try:
            return tuple(map(cell_of, values))
        except TypeError as error:
            raise DataError(str(error), where=self.place(number), remedy=FIX_FILE) from error

    def _lines(self) -> Iterator[str]:
        with open_regular(self.path) as file:
            for number, line in enumerate(iter(partial(file.readline, MAX_LINE_BYTES), b""), 1):
                if len(line) == MAX_LINE_BYTES:
                    what = f"is longer than {MAX_LINE_BYTES // 2**20} MiB"
                    raise DataError(what, where=self.place(number), remedy=FIX_FILE)
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    where, remedy = self.place(number), "Save the file as UTF-8"
                    raise DataError("is not UTF-8 text", where=where, remedy=remedy) from error

    def _records(self) -> Iterator[tuple[int, dict[str, object]]]:
        for number, line in enumerate(self._lines(), 1):
            if not line.strip():
                continue
            try:
                value = parse_json(line)
            except ValueError as error:
                raise DataError(f"is not JSON ({error})", where=self.place(number), remedy=FIX_FILE) from error
            if not isinstance(value, dict):
                raise DataError("expected a JSON object", where=self.place(number), remedy=FIX_FILE)
            yield number, value

    def _csv_lines(self) -> Iterator[tuple[int, list[str]]]:
        """The rows that are not blank, the header first, each with the number of its first line."""
        # Spaces after a delimiter are not part of a cell: people write `a.jpg, b.jpg, "is red"`.
        reader = csv.reader(self._lines(), delimiter=DELIMITERS[self._suffix], skipinitialspace=True, strict=True)
        start = 1
        try:
            for cells in reader:
                if cells:
                    yield start, cells
                start = reader.line_num + 1
        except csv.Error as error:
            what = f"cannot be read as a row ({error})"
            raise DataError(what, where=self.place(start), remedy="Fix its quotes") from error

    def _full_lines(self) -> Iterator[tuple[int, list[str]]]:
        """The rows below the header, all of which have its width."""
        width = len(self.columns)
        for number, cells in islice(self._csv_lines(), 1, None):
            if len(cells) != width:
                what = f"expected {width} cells, got {len(cells)}"
                raise DataError(what, where=self.place(number), remedy="Quote cells that contain the delimiter")
            yield number, cells

    def _csv_rows(self, columns: Sequence[str]) -> Iterator[Row]:
        indices = [self.columns.index(name) for name in columns]
        for number, cells in self._full_lines():
            yield number, tuple([text_cell(cells[index]) for index in indices])

    def _parquet_rows(self, columns: Sequence[str]) -> Iterator[Row]:
        number = 0
        for batch in self._parquet_batches(columns):
            for values in zip(*(batch.column(name).to_pylist() for name in columns), strict=True):
                number += 1
                yield number, self._cells(values, number, value_cell)

    def _parquet_batches(self, columns: Sequence[str]) -> "Iterator[pa.RecordBatch]":
        import pyarrow.parquet as pq

        # Through a small buffer, since otherwise all of a row group is read at once.
        with pq.ParquetFile(self.path, buffer_size=2**20, pre_buffer=False) as file:
            yield from file.iter_batches(ROWS_AT_ONCE, columns=[*dict.fromkeys(columns)])

    @contextmanager
    def _defects(self) -> Iterator[None]:
        """Turn what the readers raise into a DataError."""
        import pyarrow as pa

        try:
            yield
        except FileNotFoundError as error:
            raise DataError("does not exist", where=self.path, remedy="Correct the path") from error
        except IsADirectoryError as error:
            raise DataError("is a folder, not a table", where=self.path, remedy="Name a file in it") from error
        except (pa.ArrowException, ValueError) as error:
            what = f"is not a Parquet file that can be read ({str(error).splitlines()[0]})"
            raise DataError(what, where=self.path, remedy=FIX_FILE) from error
        except OSError as error:
            what = f"cannot be read ({error.strerror or error})"
            raise DataError(what, where=self.path, remedy=FIX_FILE) from error


def listed(columns: Sequence[str]) -> str:
    """The names of columns, for a message."""
    return some([*map(shown, columns)], 20)


def text_cell(text: str) -> Cell:
    """A cell of a CSV file. Text that only looks like a list is text."""
    if text[:1] == "[" and text[-1:] == "]":
        for parse in (json.loads, ast.literal_eval):
            try:
                values = parse(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(values, list) and values and all(isinstance(value, str) for value in values):
                return value_cell(values)
    return () if not text or text.isspace() else (text,)


def value_cell(value: object) -> Cell:
    """Raises TypeError for bytes and objects, which have no text that is certain to be meant."""
    if isinstance(value, str):
        return (value,) if value and not value.isspace() else ()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ()
    if isinstance(value, list | tuple):
        return tuple(text for part in value for text in value_cell(part))
    if isinstance(value, bool):
        return ("true" if value else "false",)
    if isinstance(value, bytes | dict):
        raise TypeError(f"expected text, got {'bytes' if isinstance(value, bytes) else 'an object'}")
    return (str(value),)
