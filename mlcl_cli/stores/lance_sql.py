"""Conditions on the fields of a catalog as SQL for LanceDB."""

import math

import pyarrow as pa
from pyarrow import types

from mlcl_cli.stores.comparisons import Comparison, Literal, resolve
from mlcl_cli.stores.conditions import Conditions
from mlcl_cli.stores.lance_rows import to_column

_NEVER = "false"
_UNIT_NAMES = {"s": "Second", "ms": "Millisecond", "us": "Microsecond", "ns": "Nanosecond"}


def quote(text: str) -> str:
    """A string in SQL."""
    return "'" + text.replace("'", "''") + "'"


def is_in(column: str, texts: list[str]) -> str:
    """SQL that holds where a column of strings is one of `texts`."""
    return f"{column} IN ({', '.join(map(quote, texts))})" if texts else _NEVER


def to_sql(conditions: Conditions, fields: pa.Schema) -> str | None:
    """SQL that holds where all conditions do; None without conditions.

    Numbers and moments are compared exactly, whatever their types. Raises UsageError for a field that does not exist,
    or a value that its type cannot be compared with.
    """
    return " AND ".join(_clause(resolve(condition, fields)) for condition in conditions) or None


def _clause(comparison: Comparison) -> str:
    column = to_column(comparison.column)
    column = f"cast({column} as double)" if types.is_decimal(comparison.type) else column
    literals = [_literal(comparison.type, value) for value in comparison.values]
    if comparison.operator in ("=", "in"):
        if not literals:
            return _NEVER
        return f"{column} = {literals[0]}" if len(literals) == 1 else f"{column} IN ({', '.join(literals)})"
    return f"{column} {comparison.operator} {literals[0]}" if literals else f"{column} IS NOT NULL"


def _literal(type_: pa.DataType, value: Literal) -> str:
    """A value in SQL."""
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else f"cast('{value}' as double)"
    whole = str(value) if value > -(2**63) else f"({-(2**63) + 1} - 1)"  # which the parser cannot read
    if types.is_integer(type_):
        return whole
    if types.is_timestamp(type_):
        zone = f'Some("{type_.tz}")' if type_.tz else "None"
        return f"arrow_cast({whole}, 'Timestamp({_UNIT_NAMES[type_.unit]}, {zone})')"
    return f"arrow_cast({whole}, '{'Date32' if types.is_date32(type_) else 'Date64'}')"
