"""Values of conditions as what a field of a certain type is compared with, whatever the database."""

import math
from datetime import UTC, date, datetime
from fractions import Fraction
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from mlcl_cli.errors import UsageError
from mlcl_cli.stores.conditions import Operator, Value, is_text

Comparable: TypeAlias = str | bool | float | Fraction  # a Fraction for integers, dates and timestamps
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def field_type(fields: pa.Schema, name: str) -> pa.DataType:
    """The type of a field's values. Raises UsageError if there is no such field."""
    index = fields.get_field_index(name)
    if index < 0:
        remedy = f"Fields: {', '.join(fields.names)}" if len(fields) else "This catalog has no fields"
        raise UsageError("there is no such field", where=name, remedy=remedy)
    type_ = fields.field(index).type
    return type_.value_type if types.is_dictionary(type_) else type_


def comparable(type_: pa.DataType, value: Value, field: str) -> Comparable:
    """`value` as what a column of the type is compared with.

    Integers, dates and timestamps are counted in the type's own unit; an infinity is beyond all of them. Raises
    UsageError if they cannot be compared.
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


def whole(operator: Operator, value: Fraction) -> Fraction:
    """The integer that makes the same comparison of integers: `stock < 2.5` is `stock < 3`."""
    return Fraction(math.ceil(value) if operator in ("<", ">=") else math.floor(value))


def limits(type_: pa.DataType) -> tuple[int, int]:
    """The least and greatest value of a type of integers, dates or timestamps, in its own unit."""
    bits = type_.bit_width
    return (0, 2**bits - 1) if types.is_unsigned_integer(type_) else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


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
