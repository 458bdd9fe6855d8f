"""Conditions on the fields of a catalog as SQL for LanceDB."""

import math
from fractions import Fraction

import pyarrow as pa
from pyarrow import types

from mlcl_cli.stores.comparing import Comparable, comparable, field_type, limits, whole
from mlcl_cli.stores.conditions import Condition, Conditions, Operator
from mlcl_cli.stores.lance_rows import to_column
from mlcl_cli.stores.store import FIELD_PREFIX

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

    Numbers and moments are compared exactly, whatever their types: `stock < 2.5` is `stock < 3`. Raises UsageError for
    a field that does not exist, or a value that its type cannot be compared with.
    """
    return " AND ".join(_clause(condition, fields) for condition in conditions) or None


def _clause(condition: Condition, fields: pa.Schema) -> str:
    type_ = field_type(fields, condition.field)
    column = to_column(FIELD_PREFIX + condition.field)
    column = f"cast({column} as double)" if types.is_decimal(type_) else column
    if isinstance(condition.value, tuple):
        literals = [_literal(type_, comparable(type_, value, condition.field)) for value in condition.value]
        listed = ", ".join(literal for literal in literals if literal is not None)
        return f"{column} IN ({listed})" if listed else _NEVER
    value = comparable(type_, condition.value, condition.field)
    if condition.operator in ("=", "!="):
        literal = _literal(type_, value)
        if literal is None:
            return _NEVER if condition.operator == "=" else f"{column} IS NOT NULL"
        return f"{column} {condition.operator} {literal}"
    return _ordered(column, type_, condition.operator, value)


def _ordered(column: str, type_: pa.DataType, operator: Operator, value: Comparable) -> str:
    """`column < value` and the like."""
    if isinstance(value, float) and math.isnan(value):
        return _NEVER
    if isinstance(value, Fraction):
        low, high = limits(type_)
        value = whole(operator, value)
        if not low <= value <= high:
            return f"{column} IS NOT NULL" if (value > high) == (operator in ("<", "<=")) else _NEVER
    return f"{column} {operator} {_literal(type_, value)}"


def _literal(type_: pa.DataType, value: Comparable) -> str | None:
    """A value in SQL; None if no stored value can equal it."""
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return repr(value) if math.isfinite(value) else f"cast('{value}' as double)"
    low, high = limits(type_)
    if value.denominator != 1 or not low <= value <= high:
        return None
    number = str(value.numerator) if value > -(2**63) else f"({-(2**63) + 1} - 1)"  # which the parser cannot read
    if types.is_integer(type_):
        return number
    if types.is_timestamp(type_):
        zone = f'Some("{type_.tz}")' if type_.tz else "None"
        return f"arrow_cast({number}, 'Timestamp({_UNIT_NAMES[type_.unit]}, {zone})')"
    return f"arrow_cast({number}, '{'Date32' if types.is_date32(type_) else 'Date64'}')"
