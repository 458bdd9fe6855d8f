"""What a row of a catalog must satisfy: comparisons that must all hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, TypeAlias

import pyarrow as pa
from pyarrow import types

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in"]
OPERATORS: tuple[Operator, ...] = ("=", "!=", "<", "<=", ">", ">=", "in")
Value: TypeAlias = str | int | float | bool | date | datetime


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of a field. `value` is a tuple with `in`, else a single value. A missing value satisfies none."""

    field: str
    operator: Operator
    value: Value | tuple[Value, ...]


Conditions: TypeAlias = Sequence[Condition]


def is_text(type_: pa.DataType) -> bool:
    """Whether a field's values are strings."""
    return bool(types.is_string(type_) or types.is_large_string(type_))


def is_ordered(type_: pa.DataType) -> bool:
    """Whether a field's values are numbers, dates or times."""
    kinds = (types.is_integer, types.is_floating, types.is_date, types.is_timestamp)
    return any(is_kind(type_) for is_kind in kinds)
