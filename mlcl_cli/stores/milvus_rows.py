"""Rows and conditions as Milvus stores and reads them: the fields of a row are one JSON value."""

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from pyarrow import types

from mlcl_cli.errors import DataError
from mlcl_cli.stores.comparisons import Comparison, Literal, resolve
from mlcl_cli.stores.conditions import Conditions
from mlcl_cli.stores.store import FIELD_PREFIX, ID, THUMBNAIL, VECTOR
from mlcl_cli.stores.type_words import different_types

Entity: TypeAlias = dict[str, object]  # a row by the names of its columns in the database
FIELDS = "fields"  # the column of all fields
MAX_BYTES = 65_535  # of a string and of a JSON value
EVERYTHING, NEVER = f'{ID} >= ""', f"{ID} in []"
_LEAST = -(2**63)


def key_of(field: str) -> str:
    """A field's key in the JSON value, which no expression has to quote."""
    return f"f{field.encode().hex()}"


def quote(text: str) -> str:
    """A string in an expression."""
    return json.dumps(text, ensure_ascii=False)


def is_in(ids: Sequence[str]) -> str:
    """An expression that holds for the rows with these ids."""
    return f"{ID} in [{', '.join(map(quote, ids))}]"


def all_of(*expressions: str) -> str:
    """An expression that holds where all of those that are not empty do."""
    return " and ".join(f"({expression})" for expression in expressions if expression)


def to_expression(conditions: Conditions, fields: pa.Schema) -> str:
    """An expression that holds where all conditions do; empty without conditions.

    Raises UsageError for a field that does not exist, or a value that its type cannot be compared with.
    """
    return all_of(*(_clause(resolve(condition, fields)) for condition in conditions))


def _clause(comparison: Comparison) -> str:
    field = comparison.column.startswith(FIELD_PREFIX)
    column = f'{FIELDS}["{key_of(comparison.column.removeprefix(FIELD_PREFIX))}"]' if field else comparison.column
    present = f"exists {column}" if field else EVERYTHING
    operator, values = comparison.operator, comparison.values
    if operator in ("=", "in"):
        literals = ", ".join(_literal(value) for value in values if _is_storable(value))
        return f"{column} in [{literals}]" if literals else NEVER
    if not values or (operator == "!=" and not _is_storable(values[0])):
        return present
    (value,) = values
    if not _is_storable(value):  # all values are below it, or all are above it
        return present if (float(value) > 0) == (operator in ("<", "<=")) else NEVER
    compared = f"{column} {operator} {_literal(value)}"
    return all_of(present, compared) if operator == "!=" else compared


def _is_storable(value: Literal) -> bool:
    """Whether a field can have the value: no infinity, and no integer of more than 64 bits with the sign."""
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or _LEAST <= value < -_LEAST


def _literal(value: Literal) -> str:
    """A value in an expression."""
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if value != _LEAST else repr(float(_LEAST))  # the parser cannot read the integer


def further_fields(incoming: pa.Schema, fields: pa.Schema) -> list[pa.Field]:
    """The fields of rows that a table lacks; one without any value is one of strings.

    Raises DataError if a field has another type in the table, or one that JSON does not have.
    """
    further = []
    for field in incoming:
        index, empty = fields.get_field_index(field.name), types.is_null(field.type)
        where = f"field {field.name!r}"
        if index < 0:
            try:
                _json_type(field.type)
            except pa.ArrowNotImplementedError as error:
                what, remedy = (
                    f"is of type {field.type}, which Milvus cannot store",
                    "Store it as text, or leave it out",
                )
                raise DataError(what, where=where, remedy=remedy) from error
            further.append(pa.field(field.name, pa.string() if empty else field.type))
        elif fields.field(index).type != field.type and not empty:
            what = different_types(fields.field(index).type, field.type)
            raise DataError(what, where=where, remedy="Give it one type, or another name")
    return further


def to_entities(rows: pa.Table) -> list[Entity]:
    """Rows as the server takes them: one for each id, the last. Raises DataError for a value that is too long."""
    own = [name for name in rows.column_names if name != VECTOR and not name.startswith(FIELD_PREFIX)]
    columns = {name: rows[name].to_pylist() for name in own}
    columns[THUMBNAIL] = [base64.b64encode(value or b"").decode() for value in columns[THUMBNAIL]]
    vectors = rows[VECTOR].combine_chunks()
    columns[VECTOR] = [*vectors.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(rows), -1)]
    columns[FIELDS] = _json_values(rows)
    entities = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    for entity in entities:
        _require_fitting(entity)
    return [*{entity[ID]: entity for entity in entities}.values()]


def to_batch(entities: Sequence[Mapping[str, object]], schema: pa.Schema) -> pa.RecordBatch:
    """What the server returned, as rows with a schema: any columns of a table's own."""
    return pa.RecordBatch.from_arrays([_column(entities, field) for field in schema], schema=schema)


def stored_columns(columns: Sequence[str]) -> list[str]:
    """The database's columns that hold columns of a row."""
    return [*dict.fromkeys(FIELDS if name.startswith(FIELD_PREFIX) else name for name in [ID, *columns])]


def _json_values(rows: pa.Table) -> list[dict[str, object]]:
    """The fields of each row, without those that are missing."""
    values: list[dict[str, object]] = [{} for _ in range(len(rows))]
    for field in rows.schema:
        if field.name.startswith(FIELD_PREFIX):
            key = key_of(field.name.removeprefix(FIELD_PREFIX))
            for row, value in zip(values, rows[field.name].cast(_json_type(field.type)).to_pylist(), strict=True):
                if value is not None and not (isinstance(value, float) and not math.isfinite(value)):
                    row[key] = value
    return values


def _column(entities: Sequence[Mapping[str, object]], field: pa.Field) -> pa.Array:
    if field.name == VECTOR:
        values = np.asarray([entity[VECTOR] for entity in entities], np.float32)
        scalars = pa.array(values.astype(field.type.value_type.to_pandas_dtype()).ravel())
        return pa.FixedSizeListArray.from_arrays(scalars, type=field.type)
    if field.name.startswith(FIELD_PREFIX):
        key = key_of(field.name.removeprefix(FIELD_PREFIX))
        found = [_fields(entity).get(key) for entity in entities]
        return pa.array(found, _json_type(field.type)).cast(field.type)
    if field.name == THUMBNAIL:
        return pa.array([base64.b64decode(str(entity[THUMBNAIL])) for entity in entities], field.type)
    return pa.array([entity[field.name] for entity in entities], field.type)


def _fields(entity: Mapping[str, object]) -> Mapping[str, object]:
    value = entity[FIELDS]
    return value if isinstance(value, Mapping) else {}


def _json_type(type_: pa.DataType) -> pa.DataType:
    """The type under which values are stored: dates and timestamps as integers, in their own unit."""
    if types.is_null(type_):
        return pa.string()
    if types.is_dictionary(type_):
        return _json_type(type_.value_type)
    if types.is_decimal(type_):
        return pa.float64()
    if types.is_temporal(type_):
        return pa.int32() if type_.bit_width == 32 else pa.int64()
    nested = type_.fields if types.is_struct(type_) else [type_.value_field] if types.is_list(type_) else []
    if any(_json_type(field.type) != field.type for field in nested):
        raise pa.ArrowNotImplementedError(str(type_))
    plain = (types.is_boolean, types.is_integer, types.is_floating, types.is_string, types.is_large_string)
    if nested or any(is_kind(type_) for is_kind in plain):
        return type_
    raise pa.ArrowNotImplementedError(str(type_))


def _require_fitting(entity: Entity) -> None:
    for name, size in _sizes(entity):
        if size > MAX_BYTES:
            what = f"{name} takes {size:,} bytes, and Milvus stores at most {MAX_BYTES:,}"
            raise DataError(what, where=entity[ID], remedy="Shorten it, leave the field out, or use LanceDB")


def _sizes(entity: Entity) -> Iterator[tuple[str, int]]:
    for name, value in entity.items():
        if isinstance(value, str):
            yield name, len(value.encode()) if 4 * len(value) > MAX_BYTES else 0
    yield "the value of all fields", len(json.dumps(entity[FIELDS], ensure_ascii=False).encode())
