"""What a row of a catalog must satisfy: comparisons that must all hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, TypeAlias

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
