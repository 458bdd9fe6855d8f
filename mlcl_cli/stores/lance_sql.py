"""Conditions on the fields of a catalog as SQL for LanceDB."""

import math
from datetime import UTC, date, datetime
from fractions import Fraction

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from mlcl_cli.errors import UsageError
from mlcl_cli.stores.conditions import Condition, Conditions, Operator, Value, is_text
from mlcl_cli.stores.lance_rows import to_column
from mlcl_cli.stores.store import FIELD_PREFIX

_NEVER = "false"
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
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
    index = fields.get_field_index(condition.field)
    if index < 0:
        remedy = f"Fields: {', '.join(fields.names)}" if len(fields) else "This catalog has no fields"
        raise UsageError("there is no such field", where=condition.field, remedy=remedy)
    type_ = fields.field(index).type
    type_ = type_.value_type if types.is_dictionary(type_) else type_
    column = to_column(FIELD_PREFIX + condition.field)
    column = f"cast({column} as double)" if types.is_decimal(type_) else column
    if isinstance(condition.value, tuple):
        literals = [_literal(type_, _comparable(type_, value, condition.field)) for value in condition.value]
        listed = ", ".join(literal for literal in literals if literal is not None)
        return f"{column} IN ({listed})" if listed else _NEVER
    value = _comparable(type_, condition.value, condition.field)
    if condition.operator in ("=", "!="):
        literal = _literal(type_, value)
        if literal is None:
            return _NEVER if condition.operator == "=" else f"{column} IS NOT NULL"
        return f"{column} {condition.operator} {literal}"
    return _ordered(column, type_, condition.operator, value)


def _ordered(column: str, type_: pa.DataType, operator: Operator, value: str | bool | float | Fraction) -> str:
    """`column < value` and the like."""
    if isinstance(value, float) and math.isnan(value):
        return _NEVER
    if isinstance(value, Fraction):
        low, high = _limits(type_)
        value = Fraction(math.ceil(value) if operator in ("<", ">=") else math.floor(value))
        if not low <= value <= high:
            return f"{column} IS NOT NULL" if (value > high) == (operator in ("<", "<=")) else _NEVER
    return f"{column} {operator} {_literal(type_, value)}"


def _comparable(type_: pa.DataType, value: Value, field: str) -> str | bool | float | Fraction:
    """`value` as what a column of the type is compared with.

    Integers, dates and timestamps are counted in the type's own unit; an infinity is beyond all of them.
    """
    if is_text(type_) and isinstance(value, str):
        return value
    if types.is_boolean(type_) and isinstance(value, bool):
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if (types.is_floating(type_) or types.is_decimal(type_)) and number:
        return _to_float(value)
    if types.is_integer(type_) and number:
        if isinstance(value, float) and not math.isfinite(value):
            return value if math.isnan(value) else Fraction(math.copysign(2**70, value))
        return Fraction(value)  # type: ignore[arg-type]
    if types.is_temporal(type_) and not types.is_time(type_) and isinstance(value, date):
        return _ticks(type_, value)
    raise UsageError(f"holds values of type {type_}, which cannot be compared with {value!r}", where=field)


def _to_float(value: Value) -> float:
    try:
        return float(value) + 0.0  # type: ignore[arg-type]  # -0.0 becomes 0.0
    except OverflowError:
        return math.copysign(math.inf, value)  # type: ignore[arg-type]


def _ticks(type_: pa.DataType, value: date) -> Fraction:
    """A moment in the unit of a date or timestamp type. Without a time zone of its own, it is in the column's."""
    moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
    zone = type_.tz if types.is_timestamp(type_) else None
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    elif zone is not None:
        moment = pc.assume_timezone(pa.scalar(moment, pa.timestamp("us")), zone).cast(pa.timestamp("us")).as_py()
    microseconds = pa.scalar(moment, pa.timestamp("us")).value
    return Fraction(microseconds * _per_second(type_), 10**6)


def _per_second(type_: pa.DataType) -> Fraction:
    if types.is_timestamp(type_):
        return Fraction(_UNITS[type_.unit])
    return Fraction(1, 24 * 60 * 60) if types.is_date32(type_) else Fraction(1000)


def _limits(type_: pa.DataType) -> tuple[int, int]:
    bits = type_.bit_width
    return (0, 2**bits - 1) if types.is_unsigned_integer(type_) else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _literal(type_: pa.DataType, value: str | bool | float | Fraction) -> str | None:
    """A value in SQL; None if no stored value can equal it."""
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return repr(value) if math.isfinite(value) else f"cast('{value}' as double)"
    low, high = _limits(type_)
    if value.denominator != 1 or not low <= value <= high:
        return None
    whole = str(value.numerator) if value > -(2**63) else f"({-(2**63) + 1} - 1)"  # which the parser cannot read
    if types.is_integer(type_):
        return whole
    if types.is_timestamp(type_):
        zone = f'Some("{type_.tz}")' if type_.tz else "None"
        return f"arrow_cast({whole}, 'Timestamp({_UNIT_NAMES[type_.unit]}, {zone})')"
    return f"arrow_cast({whole}, '{'Date32' if types.is_date32(type_) else 'Date64'}')"
