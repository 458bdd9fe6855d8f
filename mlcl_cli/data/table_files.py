"""Tables of text in any of four formats: .csv, .tsv, .jsonl and .parquet, read in bounded memory."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mlcl_cli.errors import DataError
from mlcl_cli.safe_reading import open_regular, parse_json
from mlcl_cli.suggestions import did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa

FIX_FILE = "Fix the file"
DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*DELIMITERS, ".jsonl", ".parquet")
ROWS_AT_ONCE = 65_536
BYTES_AT_ONCE = 8 * 2**20  # of a CSV file, in memory at once
SCANNED_RECORDS = 1_000  # of a JSON lines file, to find its fields

Cell: TypeAlias = tuple[str, ...]  # the texts of a cell: none if it is empty, several if it is a list
Row: TypeAlias = tuple[int, tuple[Cell, ...]]  # its 1-based number, and a cell for each column that was asked for


@dataclass(frozen=True)
class TableFile:
    """A table, whose format its name's ending says.

    A cell of a CSV or TSV file is a list if it is a JSON list of strings, such as `["a.jpg", "b.jpg"]`. Numbers,
    dates and booleans of a Parquet or JSON lines file become text.
    """

    path: Path

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns. Raises DataError if the file is missing, damaged, or in another format."""
        suffix = self.path.suffix.lower()
        if suffix not in SUFFIXES:
            formats = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
            raise DataError(f"expected a table that ends in {formats}", where=self.path, remedy="Convert it")
        with self._defects():
            open_regular(self.path).close()
            if suffix in DELIMITERS:
                names = next(csv.reader(self._lines(), delimiter=DELIMITERS[suffix]), [])
            elif suffix == ".parquet":
                import pyarrow.parquet as pq

                names = pq.read_schema(self.path).names
            else:
                records = (record for _, record in zip(range(SCANNED_RECORDS), self._records(), strict=False))
                names = list(dict.fromkeys(name for _, record in records for name in record))
        if not names:
            raise DataError("is empty", where=self.path, remedy=FIX_FILE)
        if repeated := [name for name in names if names.count(name) > 1]:
            raise DataError(f"has two columns {repeated[0]!r}", where=self.path, remedy="Rename one of them")
        return tuple(names)

    def require(self, column: str, key: str) -> None:
        """Raise DataError if the table has no such column; `key` is where its name was set, for the message."""
        if column not in self.columns:
            hint = did_you_mean(column, self.columns)
            what = f"has no column {column!r}{hint}" + ("" if hint else f"; its columns are {', '.join(self.columns)}")
            raise DataError(what, where=self.path, remedy=f"Set {key} to the column's name")

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Each row's cells of `columns`, which exist. Raises DataError at the first row that cannot be read."""
        suffix = self.path.suffix.lower()
        with self._defects():
            if suffix == ".jsonl":
                for number, record in self._records():
                    yield number, tuple(_cell(record.get(name)) for name in columns)
            elif suffix == ".parquet":
                yield from self._parquet_rows(columns)
            else:
                yield from self._csv_rows(columns)

    def place(self, number: int) -> str:
        """The file and the place of a row in it: a line where the format has lines."""
        suffix = self.path.suffix.lower()
        if suffix == ".jsonl":
            return f"{self.path}, line {number}"
        if suffix == ".parquet":
            return f"{self.path}, row {number}"
        reader = csv.reader(self._lines(), delimiter=DELIMITERS[suffix])
        for count, row in enumerate(row for row in reader if row):  # the header counts as row 0
            if count == number:  # a quoted cell may hold line breaks
                return f"{self.path}, line {reader.line_num - sum(cell.count(chr(10)) for cell in row)}"
        return f"{self.path}, row {number}"

    def _lines(self) -> Iterator[str]:
        with self.path.open(encoding="utf-8-sig", newline="", errors="replace") as file:
            yield from file

    def _records(self) -> Iterator[tuple[int, dict[str, object]]]:
        with open_regular(self.path) as file:
            for number, line in enumerate(file, 1):
                try:
                    if not (text := line.decode("utf-8-sig").strip()):
                        continue
                    value = parse_json(text)
                except UnicodeDecodeError as error:
                    raise DataError("is not UTF-8 text", where=self.place(number), remedy=FIX_FILE) from error
                except ValueError as error:
                    raise DataError(f"is not JSON ({error})", where=self.place(number), remedy=FIX_FILE) from error
                if not isinstance(value, dict):
                    raise DataError("expected a JSON object", where=self.place(number), remedy=FIX_FILE)
                yield number, value

    def _csv_rows(self, columns: Sequence[str]) -> Iterator[Row]:
        import pyarrow as pa
        from pyarrow import csv as arrow_csv

        wrong: list[arrow_csv.InvalidRow] = []

        def refuse(row: arrow_csv.InvalidRow) -> str:
            wrong.append(row)
            return "error"

        parse = arrow_csv.ParseOptions(
            delimiter=DELIMITERS[self.path.suffix.lower()], newlines_in_values=True, invalid_row_handler=refuse
        )
        convert = arrow_csv.ConvertOptions(
            include_columns=[*dict.fromkeys(columns)], column_types=dict.fromkeys(columns, pa.string())
        )
        read = arrow_csv.ReadOptions(use_threads=False, block_size=BYTES_AT_ONCE)
        try:
            with arrow_csv.open_csv(self.path, read, parse, convert) as reader:
                yield from _numbered(reader, columns, _text_or_list)
        except pa.ArrowInvalid:
            if not wrong:
                raise
            row = wrong[0]
            what = f"expected {row.expected_columns} cells, got {row.actual_columns}"
            raise DataError(what, where=self.place(row.number - 1), remedy="Fix or quote the row") from None

    def _parquet_rows(self, columns: Sequence[str]) -> Iterator[Row]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            batches = file.iter_batches(ROWS_AT_ONCE, columns=[*dict.fromkeys(columns)])
            yield from _numbered(batches, columns, _cell)

    @contextmanager
    def _defects(self) -> Iterator[None]:
        """Turn what the readers raise into a DataError."""
        import pyarrow as pa

        try:
            yield
        except FileNotFoundError as error:
            raise DataError("does not exist", where=self.path, remedy="Correct the path") from error
        except pa.ArrowException as error:
            if self.path.suffix.lower() in DELIMITERS and (line := self._undecodable_line()):
                where = f"{self.path}, line {line}"
                raise DataError("is not UTF-8 text", where=where, remedy="Save the file as UTF-8") from error
            what = f"cannot be read ({str(error).splitlines()[0]})"
            raise DataError(what, where=self.path, remedy=FIX_FILE) from error
        except (OSError, csv.Error) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise DataError(f"cannot be read ({why})", where=self.path, remedy=FIX_FILE) from error

    def _undecodable_line(self) -> int | None:
        with open_regular(self.path) as file:
            for number, line in enumerate(file, 1):
                try:
                    line.decode()
                except UnicodeDecodeError:
                    return number
        return None


def _numbered(
    batches: "Iterator[pa.RecordBatch]", columns: Sequence[str], cell_of: Callable[[object], Cell]
) -> Iterator[Row]:
    number = 0
    for batch in batches:
        cells = [map(cell_of, batch.column(name).to_pylist()) for name in columns]
        for row in zip(*cells, strict=True) if cells else repeat((), batch.num_rows):
            number += 1
            yield number, row


def _text_or_list(text: object) -> Cell:
    """A cell of a CSV file. Text that only looks like a list is text."""
    if isinstance(text, str) and text.startswith("[") and text.endswith("]"):
        try:
            values = json.loads(text)
        except ValueError:
            return (text,)
        if isinstance(values, list) and values and all(isinstance(value, str) for value in values):
            return tuple(values)
    return _cell(text)


def _cell(value: object) -> Cell:
    if value is None or value == "":
        return ()
    if isinstance(value, list | tuple):
        return tuple(text for part in value for text in _cell(part))
    if isinstance(value, bool):
        return ("true" if value else "false",)
    return (value if isinstance(value, str) else str(value),)
