"""Rows as LanceDB stores them: names of columns that need no quotes, and fields that come and go."""

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from mlcl_cli.errors import DataError
from mlcl_cli.stores.store import FIELD_PREFIX, ID
from mlcl_cli.stores.type_words import different_types

_COLUMN_PREFIX = "field_"  # no column of every row starts like this


def to_column(name: str) -> str:
    """The database's name of a row's column: a field's is in hexadecimal, so that SQL can have no quarrel with it."""
    if name.startswith(FIELD_PREFIX):
        return _COLUMN_PREFIX + name.removeprefix(FIELD_PREFIX).encode("utf-8", "surrogatepass").hex()
    return name


def from_column(column: str) -> str:
    """The inverse of `to_column`."""
    if column.startswith(_COLUMN_PREFIX):
        return FIELD_PREFIX + bytes.fromhex(column.removeprefix(_COLUMN_PREFIX)).decode("utf-8", "surrogatepass")
    return column


def stored_schema(schema: pa.Schema) -> pa.Schema:
    """A schema of rows under the columns' names in the database. A field without any value is one of strings."""
    return pa.schema(
        [(to_column(field.name), pa.string() if types.is_null(field.type) else field.type) for field in schema]
    )


def further_columns(rows: pa.Schema, stored: pa.Schema) -> list[pa.Field]:
    """The columns that a table lacks for rows with a schema. Raises DataError if a field has another type there."""
    further = []
    for field, column in zip(rows, stored_schema(rows), strict=True):
        index = stored.get_field_index(column.name)
        if index < 0:
            further.append(column)
        elif stored.field(index).type != field.type and not types.is_null(field.type):
            what = different_types(stored.field(index).type, field.type)
            name = field.name.removeprefix(FIELD_PREFIX)
            raise DataError(what, where=f"field {name!r}", remedy="Give it one type, or another name")
    return further


def aligned(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows as the table stores them: one for each id, the last; all columns, null where `rows` has none."""
    last = {id_: number for number, id_ in enumerate(rows[ID].to_pylist())}
    if len(last) < len(rows):
        rows = rows.take([*last.values()])
    columns = [
        _plain(rows[name].cast(field.type)) if (name := from_column(field.name)) in rows.column_names
        else pa.nulls(len(rows), field.type)
        for field in schema
    ]  # fmt: skip
    return pa.Table.from_arrays(columns, schema=schema)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Floats without NaN, which is a missing value, and without a negative zero: SQL orders them unlike Python."""
    if not types.is_floating(column.type):
        return column
    wide = column.cast(pa.float64())
    return pc.if_else(pc.is_nan(wide), None, pc.add(wide, 0.0)).cast(column.type)
