"""Conditions in terms of what columns hold: exact, whatever the types of a field and of the value beside it."""

import math
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from mlcl_cli.errors import UsageError
from mlcl_cli.stores.conditions import Condition, Conditions, Operator, Value, is_ordered, is_text
from mlcl_cli.stores.store import FIELD_PREFIX, ID, PRODUCT

Literal: TypeAlias = str | bool | float | int
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_ARROW = {"<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal, "!=": pc.not_equal}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A condition on a column of rows, with values that it can hold; any of them satisfies `=` and `in`.

    Dates and timestamps are counted in the type's own unit; decimals are floats. Without values, `=` and `in` hold
    nowhere, and `!=` holds wherever there is a value. The other operators have one.
    """

    column: str
    type: pa.DataType
    operator: Operator
    values: tuple[Literal, ...]


def column_of(name: str, fields: pa.Schema) -> pa.Field:
    """The column of rows that a condition means by a name: a field, or else `id` or `product`.

    Raises UsageError if there is none.
    """
    if (index := fields.get_field_index(name)) >= 0:
        type_ = fields.field(index).type
        return pa.field(FIELD_PREFIX + name, type_.value_type if types.is_dictionary(type_) else type_)
    if name in (ID, PRODUCT):
        return pa.field(name, pa.string())
    remedy = f"Fields: {', '.join(fields.names)}" if len(fields) else "This catalog has no fields"
    raise UsageError("there is no such field", where=name, remedy=remedy)


def group_column(name: str, fields: pa.Schema) -> pa.Field:
    """The column whose values group rows. Raises UsageError if there is none, or if its values cannot be compared."""
    column = column_of(name, fields)
    is_known = is_text(column.type) or is_ordered(column.type) or types.is_boolean(column.type)
    if not is_known or (types.is_timestamp(column.type) and column.type.unit == "ns"):  # which Python cannot hold
        raise UsageError(f"holds values of type {column.type}, which rows cannot be grouped by", where=name)
    return column


def resolve(condition: Condition, fields: pa.Schema) -> Comparison:
    """A condition as a comparison: `stock < 2.5` is `stock < 3`.

    Raises UsageError for a field that does not exist, or a value that its type cannot be compared with.
    """
    column = column_of(condition.field, fields)
    name, type_, operator = column.name, column.type, condition.operator
    given = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    values = [_comparable(type_, value, condition.field) for value in given]
    if operator in ("=", "!=", "in"):
        literals = [_literal(type_, value) for value in values]
        return Comparison(name, type_, operator, tuple(literal for literal in literals if literal is not None))
    (value,) = values
    if isinstance(value, float) and math.isnan(value):
        return Comparison(name, type_, "in", ())
    if isinstance(value, Fraction):
        low, high = _limits(type_)
        bound = math.ceil(value) if operator in ("<", ">=") else math.floor(value)
        if not low <= bound <= high:
            return Comparison(name, type_, "!=" if (bound > high) == (operator in ("<", "<=")) else "in", ())
        value = bound
    return Comparison(name, type_, operator, (value,))


def satisfied(rows: pa.Table, conditions: Conditions, fields: pa.Schema) -> NDArray[np.bool_]:
    """Which rows satisfy all conditions. A missing value and NaN satisfy none. Raises UsageError as `resolve` does."""
    kept = np.ones(len(rows), np.bool_)
    for condition in conditions:
        comparison = resolve(condition, fields)
        column, values = stored(rows[comparison.column]), comparison.values
        if comparison.operator in ("=", "in"):
            holds = pc.is_in(column, value_set=pa.array(values, column.type))
        elif not values:
            holds = column.is_valid()
        else:
            holds = pc.fill_null(_ARROW[comparison.operator](column, pa.scalar(values[0], column.type)), False)
        kept &= holds.to_numpy()
    return kept


def stored(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as comparisons see it: NaN is a missing value, −0.0 is 0.0, and moments are integers."""
    type_ = column.type
    if types.is_dictionary(type_):
        return column.cast(type_.value_type)
    if types.is_date32(type_):
        return column.cast(pa.int32())
    if types.is_temporal(type_):
        return column.cast(pa.int64())
    if types.is_floating(type_) or types.is_decimal(type_):
        wide = column.cast(pa.float64())
        return pc.if_else(pc.is_nan(wide), None, pc.add(wide, 0.0))  # -0.0 becomes 0.0
    return column


def _comparable(type_: pa.DataType, value: Value, field: str) -> str | bool | float | Fraction:
    """`value` as what a column of the type is compared with; an infinity is beyond all integers and moments."""
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
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def _ticks(type_: pa.DataType, value: date) -> Fraction:
    """A moment in the unit of a date or timestamp type. Without a time zone of its own, it is in the column's."""
    moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
    local = pa.scalar(moment.replace(tzinfo=None), pa.timestamp("us"))
    zone = type_.tz if types.is_timestamp(type_) else None
    if moment.tzinfo is None and zone is not None:
        local = pc.assume_timezone(local, zone, ambiguous="earliest", nonexistent="earliest")
    microseconds = local.value - (moment.utcoffset() or timedelta()) // timedelta(microseconds=1)
    return Fraction(microseconds * _per_second(type_), 10**6)


def _per_second(type_: pa.DataType) -> Fraction:
    if types.is_timestamp(type_):
        return Fraction(_UNITS[type_.unit])
    return Fraction(1, 24 * 60 * 60) if types.is_date32(type_) else Fraction(1000)


def _limits(type_: pa.DataType) -> tuple[int, int]:
    bits = type_.bit_width
    return (0, 2**bits - 1) if types.is_unsigned_integer(type_) else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _literal(type_: pa.DataType, value: str | bool | float | Fraction) -> Literal | None:
    """A value that a column of the type can hold; None if it cannot hold this one."""
    if isinstance(value, Fraction):
        low, high = _limits(type_)
        return value.numerator if value.denominator == 1 and low <= value <= high else None
    return None if isinstance(value, float) and math.isnan(value) else value
