"""Conditions as text: comparisons joined by `and`, such as `category = 'boots' and price < 80`."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from typing import TypeAlias

import pyarrow as pa
from pyarrow import types

from mlcl_cli.errors import UsageError, some
from mlcl_cli.stores.conditions import OPERATORS, Condition, Operator, Value, is_text
from mlcl_cli.stores.store import ID, PRODUCT
from mlcl_cli.suggestions import did_you_mean, shown

Triple: TypeAlias = tuple[str, str, object]
EXAMPLE = f"Write comparisons ({', '.join(OPERATORS)}) joined by and, such as \"category = 'boots' and price < 80\""
MAX_FIELDS = 20  # in a message
UNSUPPORTED = ("or", "not", "like", "between", "is", "(")
QUOTES = ("'", '"', "`")
TOKEN = re.compile(
    r"""\s*(?:
        (?P<name>`(?:[^`]|``)*`)
      | (?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
      | (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<operator><=|>=|!=|<>|==|[=<>])
      | (?P<mark>[(),])
      | (?P<word>[^\W\d][\w.-]*)
    )""",
    re.VERBOSE,
)
SAME = {"==": "=", "<>": "!="}
TRUTH = {"true": True, "false": False}


def parse_where(text: str, fields: pa.Schema) -> tuple[Condition, ...]:
    """The conditions that a text states, with values of the fields' types.

    A comparison is a field, one of `=`, `!=`, `<`, `<=`, `>`, `>=`, and a value, or a field and `in ('a', 'b')`. Text
    and dates are in quotes, a quote within is doubled; a field with an unusual name is in `backquotes`. `id` and
    `product` count as fields. Raises UsageError for anything else, an unknown field, and a value of another type.
    """
    reader = _Reader(text)
    conditions = []
    while True:
        name = reader.field()
        operator, value = reader.comparison()
        conditions.append(_condition(name, operator, value, fields, f"where {shown(text)}"))
        if not reader.another():
            return tuple(conditions)


def as_conditions(where: str | Sequence[Triple] | None, fields: pa.Schema) -> tuple[Condition, ...]:
    """Conditions as Python and HTTP state them: text, or a list of (field, operator, value).

    Raises UsageError, whatever they are.
    """
    if where is None or where == "":
        return ()
    if isinstance(where, str):
        return parse_where(where, fields)
    conditions = []
    for triple in where:
        match triple:
            case (str(name), operator, value) if operator in OPERATORS:
                conditions.append(_condition(name, operator, value, fields, f"where {shown(triple)}"))
            case _:
                what = f"expected (field, operator, value), with an operator of {', '.join(OPERATORS)}"
                raise UsageError(what, where=f"where {shown(triple)}")
    return tuple(conditions)


def to_text(conditions: Sequence[Condition]) -> str:
    """Conditions as `parse_where` reads them."""
    return " and ".join(f"{_name(one.field)} {one.operator} {_value(one.value)}" for one in conditions)


class _Reader:
    """The tokens of a text, from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = self._start = 0  # where the next token is looked for, and where the last one started

    def field(self) -> str:
        """The name of a field."""
        kind, token = self._next("the name of a field")
        if kind == "word":
            return token
        if kind == "name":
            return token[1:-1].replace("``", "`")
        if kind == "text":
            raise self._error(f"expected the name of a field, without quotes or in `backquotes`, got {token}")
        raise self._unexpected(token, "the name of a field")

    def comparison(self) -> tuple[Operator, object]:
        """An operator and what follows it."""
        kind, token = self._next("a comparison")
        if kind == "word" and token.lower() == "in":
            return "in", self._values()
        if kind != "operator":
            raise self._unexpected(token, f"one of {', '.join(OPERATORS)}")
        token = SAME.get(token, token)
        return next(operator for operator in OPERATORS if operator == token), self._value()

    def another(self) -> bool:
        """Whether a further comparison follows."""
        if not self._text[self._at :].strip():
            return False
        kind, token = self._next("and")
        if kind != "word" or token.lower() != "and":
            raise self._unexpected(token, "and")
        return True

    def _values(self) -> tuple[object, ...]:
        if self._next("(") != ("mark", "("):
            raise self._error("expected ( after in")
        values = []
        while True:
            values.append(self._value())
            kind, token = self._next(")")
            if (kind, token) == ("mark", ")"):
                return tuple(values)
            if (kind, token) != ("mark", ","):
                raise self._unexpected(token, ", or )")

    def _value(self) -> object:
        kind, token = self._next("a value")
        if kind == "text":
            return token[1:-1].replace(token[0] * 2, token[0])
        if kind == "number":
            return int(token) if re.fullmatch(r"[+-]?\d{1,40}", token) else float(token)
        if kind == "word" and token.lower() in TRUTH:
            return TRUTH[token.lower()]
        if kind == "word":
            raise self._error(f"expected a value, got {token}: put text in quotes, '{token}'")
        raise self._unexpected(token, "a value")

    def _next(self, expected: str) -> tuple[str, str]:
        rest = self._text[self._at :].lstrip()
        self._start = len(self._text) - len(rest)
        if (found := TOKEN.match(self._text, self._start)) and found.lastgroup:
            self._at = found.end()
            return found.lastgroup, found[found.lastgroup]
        if rest and rest[0] in QUOTES:
            raise self._error(f"the quote {rest[0]} is not closed")
        raise self._unexpected(rest[:20], expected)

    def _unexpected(self, token: str, expected: str) -> UsageError:
        unsupported = f"{token} is not supported; " if token.lower() in UNSUPPORTED else ""
        return self._error(f"{unsupported}expected {expected}, got {shown(token) if token else 'the end'}")

    def _error(self, what: str) -> UsageError:
        where = f"where {shown(self._text)}, character {self._start + 1}"
        return UsageError(what, where=where, remedy=EXAMPLE)


def _condition(name: str, operator: Operator, value: object, fields: pa.Schema, where: str) -> Condition:
    types_of = {ID: pa.string(), PRODUCT: pa.string()} | {field.name: field.type for field in fields}
    if name not in types_of:
        remedy = f"The fields are {some([*types_of], MAX_FIELDS)}"
        raise UsageError(f"there is no field {shown(name)}{did_you_mean(name, types_of)}", where=where, remedy=remedy)
    type_ = types_of[name]
    type_ = type_.value_type if types.is_dictionary(type_) else type_
    if types.is_boolean(type_) and operator not in ("=", "!=", "in"):
        raise UsageError(f"{name} is true or false, which {operator} cannot compare", where=where, remedy="Use = or !=")
    if operator != "in":
        return Condition(name, operator, _typed(name, type_, value, where))
    if not isinstance(value, Collection) or isinstance(value, str | Mapping) or not value:
        raise UsageError(f"{name} is compared with {shown(value)}, expected a list of values", where=where)
    return Condition(name, operator, tuple(_typed(name, type_, one, where) for one in value))


def _typed(name: str, type_: pa.DataType, value: object, where: str) -> Value:
    """The value as one of the field's type. Raises UsageError where it is none."""
    if is_text(type_):
        expected = "text in quotes"
        if isinstance(value, str):
            return value.encode(errors="replace").decode()  # a lone surrogate equals nothing that is stored
    elif types.is_boolean(type_):
        expected = "true or false"
        if isinstance(value, bool):
            return value
    elif types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_):
        expected = "a number"
        if isinstance(value, int | float) and not isinstance(value, bool) and not _is_nan(value):
            return value
    elif types.is_date(type_) or types.is_timestamp(type_):
        kind = date if types.is_date(type_) else datetime
        expected = "a date such as '2026-01-31'" + (" or '2026-01-31 12:30'" if kind is datetime else "")
        if isinstance(value, date):
            return value
        with suppress(ValueError):
            return kind.fromisoformat(str(value))
    else:
        raise UsageError(f"{name} holds values of type {type_}, which cannot be compared", where=where)
    raise UsageError(f"{name} is compared with {shown(value)}, expected {expected}", where=where)


def _is_nan(value: float) -> bool:
    return isinstance(value, float) and math.isnan(value)  # an int may be too large for isnan


def _name(name: str) -> str:
    plain = re.fullmatch(r"[^\W\d][\w.-]*", name)
    return name if plain else "`" + name.replace("`", "``") + "`"


def _value(value: Value | tuple[Value, ...]) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_value, value))})"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    return "'" + text.replace("'", "''") + "'"
