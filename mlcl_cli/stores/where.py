"""Conditions as text: comparisons joined by `and`, such as `category = 'boots' and price < 80`."""

import re
from collections.abc import Sequence
from datetime import date, datetime
from typing import TypeAlias

import pyarrow as pa
from pyarrow import types

from mlcl_cli.errors import UsageError
from mlcl_cli.stores.conditions import OPERATORS, Condition, Operator, Value, is_text
from mlcl_cli.stores.store import ID, PRODUCT
from mlcl_cli.suggestions import did_you_mean, shown

Triple: TypeAlias = tuple[str, str, object]
EXAMPLE = "Write comparisons joined by and, such as \"category = 'boots' and price < 80\""
QUOTES = {"'": "'", '"': '"', "`": "`"}
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
        conditions.append(_condition(name, operator, value, fields, f"--where {shown(text)}"))
        if not reader.another():
            return tuple(conditions)


def as_conditions(where: str | Sequence[Triple] | None, fields: pa.Schema) -> tuple[Condition, ...]:
    """Conditions as Python and HTTP state them: text, or a list of (field, operator, value). Raises UsageError."""
    if where is None or where == "":
        return ()
    if isinstance(where, str):
        return parse_where(where, fields)
    conditions = []
    for triple in where:
        name, operator, value = triple
        if operator not in OPERATORS:
            what = f"unknown operator {shown(operator)}; expected one of {', '.join(OPERATORS)}"
            raise UsageError(what, where=f"condition on {name}")
        conditions.append(_condition(name, operator, value, fields, f"condition on {name}"))
    return tuple(conditions)


def to_text(conditions: Sequence[Condition]) -> str:
    """Conditions as `parse_where` reads them."""
    return " and ".join(f"{_name(one.field)} {one.operator} {_value(one.value)}" for one in conditions)


class _Reader:
    """The tokens of a text, from left to right."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def field(self) -> str:
        kind, token = self._next("the name of a field")
        if kind == "word":
            return token
        if kind == "name":
            return token[1:-1].replace("``", "`")
        raise self._unexpected(token, "the name of a field")

    def comparison(self) -> tuple[Operator, object]:
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
            return int(token) if re.fullmatch(r"[+-]?\d{1,18}", token) else float(token)
        if kind == "word" and token.lower() in TRUTH:
            return TRUTH[token.lower()]
        if kind == "word":
            raise self._error(f"expected a value, got {token}: put text in quotes, '{token}'")
        raise self._unexpected(token, "a value")

    def _next(self, expected: str) -> tuple[str, str]:
        if (found := TOKEN.match(self._text, self._at)) and found.lastgroup:
            self._at = found.end()
            return found.lastgroup, found[found.lastgroup]
        rest = self._text[self._at :].strip()
        if rest and rest[0] in QUOTES:
            raise self._error(f"the quote before {shown(rest[1:20])} is not closed")
        raise self._unexpected(rest[:20], expected)

    def _unexpected(self, token: str, expected: str) -> UsageError:
        return self._error(f"expected {expected}, got {shown(token) if token else 'the end'}")

    def _error(self, what: str) -> UsageError:
        return UsageError(what, where=f"--where {shown(self._text)}", remedy=EXAMPLE)


def _condition(name: str, operator: Operator, value: object, fields: pa.Schema, where: str) -> Condition:
    types_of = {ID: pa.string(), PRODUCT: pa.string()} | {field.name: field.type for field in fields}
    if name not in types_of:
        hint = did_you_mean(name, list(types_of))
        raise UsageError(f"there is no field {shown(name)}{hint}", where=where, remedy=_listed(list(types_of)))
    given = value if operator == "in" else [value]
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise UsageError(f"{name} in: expected a list of values", where=where)
    values = tuple(_typed(name, types_of[name], one, where) for one in given)
    return Condition(name, operator, values if operator == "in" else values[0])


def _typed(name: str, type_: pa.DataType, value: object, where: str) -> Value:
    """The value as one of the field's type. Raises UsageError where it is none."""
    expected = "a value that can be compared"
    if is_text(type_):
        expected = "text in quotes"
        if isinstance(value, str):
            return value
    elif types.is_boolean(type_):
        expected = "true or false"
        if isinstance(value, bool):
            return value
    elif types.is_integer(type_) or types.is_floating(type_):
        expected = "a number"
        if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
            return value
    elif types.is_date(type_) or types.is_timestamp(type_):
        kind = date if types.is_date(type_) else datetime
        expected = "a date such as '2026-01-31'" + (" or '2026-01-31 12:30'" if kind is datetime else "")
        if isinstance(value, date):
            return value
        try:
            return kind.fromisoformat(str(value))
        except ValueError:
            pass
    raise UsageError(f"{name} is compared with {shown(value)}, expected {expected}", where=where)


def _listed(names: Sequence[str]) -> str:
    return f"The fields are {', '.join(names)}"


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
