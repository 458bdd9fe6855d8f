"""The types of a catalog's fields: those that all values of a text format agree on, and those of Parquet."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from mlcl_cli.data.table_files import text_cell, value_cell

Values: TypeAlias = "Sequence[object] | pa.Array"


class Kind(Enum):
    """What all values of a field are. OTHER stands for objects, and for lists of anything but text and integers."""

    EMPTY = "no values"
    BOOLEAN = "booleans"
    INTEGER = "integers"
    NUMBER = "numbers"
    DATE = "dates"
    TIME = "times"
    ZONED_TIME = "times with a zone"
    LIST = "lists"
    TEXT = "text"
    OTHER = "objects"


TYPES: Mapping[Kind, pa.DataType] = {
    Kind.BOOLEAN: pa.bool_(),
    Kind.INTEGER: pa.int64(),
    Kind.NUMBER: pa.float64(),
    Kind.DATE: pa.date32(),
    Kind.TIME: pa.timestamp("us"),
    Kind.ZONED_TIME: pa.timestamp("us", tz="UTC"),
    Kind.LIST: pa.list_(pa.string()),
    Kind.TEXT: pa.string(),
}
# Text with leading zeros, or with more digits than an integer or a float holds, is not a number: 0012 is an article.
# Nor is 12E4: where programs write a number with an exponent, it has a sign.
DIGITS = "(0|[1-9][0-9]{0,17})"
DAY, CLOCK = "[12][0-9]{3}-[0-9]{2}-[0-9]{2}", r"[ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
DATE_PATTERNS = {
    Kind.DATE: f"^{DAY}$",
    Kind.TIME: f"^{DAY}({CLOCK})?$",
    Kind.ZONED_TIME: f"^{DAY}{CLOCK}(Z|[+-][0-9]{{2}}:?[0-9]{{2}})$",
}
PATTERNS = {
    Kind.BOOLEAN: "^(?i:true|false)$",
    Kind.INTEGER: f"^-?{DIGITS}$",
    Kind.NUMBER: rf"^-?({DIGITS}(\.[0-9]*)?|\.[0-9]+)([eE][+-][0-9]{{1,3}})?$",
    **DATE_PATTERNS,
}
# Missing values as pandas, R and spreadsheets write them. In a column of text, they are text.
MISSING = pa.array(["", "NA", "N/A", "#N/A", "n/a", "nan", "NaN", "null", "NULL", "None", "<NA>"])
SCALARS: Mapping[type, Kind] = {bool: Kind.BOOLEAN, float: Kind.NUMBER}
MOSTLY = 0.8  # of a field's values: if so many are numbers, the others are probably mistakes
WIDER = {
    frozenset({Kind.INTEGER, Kind.NUMBER}): Kind.NUMBER,
    frozenset({Kind.DATE, Kind.TIME}): Kind.TIME,
}


def joined(kinds: Iterable[Kind]) -> Kind:
    """The narrowest kind that holds the values of all `kinds`; text, if they have nothing in common."""
    result = Kind.EMPTY
    for kind in kinds:
        if Kind.EMPTY in (result, kind):
            result = kind if result is Kind.EMPTY else result
        elif Kind.OTHER in (result, kind):
            result = Kind.OTHER
        elif result is not kind:
            result = WIDER.get(frozenset({result, kind}), Kind.TEXT)
    return result


class Fields(Protocol):
    """The fields of a catalog: their types, and their values as Python objects."""

    @property
    def need_values(self) -> bool:
        """Whether the types are those of all observed values, rather than known from the start."""

    def observe(self, columns: Mapping[str, Values]) -> None:
        """Take these values into account. Raises UnicodeEncodeError for text that is not Unicode."""

    def schema(self) -> pa.Schema:
        """The types of the fields so far, without those that cannot be stored."""

    def left_out(self) -> Mapping[str, str]:
        """What the fields hold that are not in the schema."""

    def spoiled(self) -> Mapping[str, str]:
        """The first value that made a field text whose values are numbers but for a few."""

    def convert(self, name: str, values: Values) -> list[object]:
        """The values of a field of the schema; None for a missing one. Raises ValueError if one has another type."""


@dataclass
class TextFields:
    """Fields whose kinds are found from all of their values.

    `kind_of` gives the kind of some values, which may be cheaper if their kind so far is known; `convert_to` makes
    values of a kind.
    """

    kind_of: Callable[[Sequence[object], Kind], Kind]
    convert_to: Callable[[Sequence[object], Kind], list[object]]
    kinds: dict[str, Kind] = field(default_factory=dict)
    need_values: bool = True
    _spoilers: dict[str, str] = field(default_factory=dict)

    def observe(self, columns: Mapping[str, Values]) -> None:
        """See Fields."""
        for name, values in columns.items():
            so_far = self.kinds.get(name, Kind.EMPTY)
            self.kinds[name] = joined((so_far, self.kind_of(values, so_far)))
            if self.kinds[name] is Kind.TEXT is not so_far and (spoiler := _spoiler(values)):
                self._spoilers[name] = spoiler

    def schema(self) -> pa.Schema:
        """See Fields."""
        return pa.schema([(name, TYPES[kind]) for name, kind in self.kinds.items() if kind in TYPES])

    def left_out(self) -> Mapping[str, str]:
        """See Fields."""
        return {name: kind.value for name, kind in self.kinds.items() if kind not in TYPES}

    def spoiled(self) -> Mapping[str, str]:
        """See Fields."""
        return self._spoilers

    def convert(self, name: str, values: Values) -> list[object]:
        """See Fields."""
        return self.convert_to(values, self.kinds[name])


def cell_fields() -> TextFields:
    """Fields of CSV, where everything is text."""
    return TextFields(_kind_of_cells, _cells_to)


def json_fields() -> TextFields:
    """Fields of JSON, where numbers have a type, but dates are text."""
    return TextFields(_kind_of_values, _values_to)


def _kind_of_cells(cells: Sequence[object], so_far: Kind) -> Kind:
    if so_far is Kind.TEXT:
        return so_far
    plain = _plain(cells)
    if plain.null_count == len(plain):
        return Kind.EMPTY
    for kind in (so_far, *PATTERNS):
        if kind in PATTERNS and _all_match(plain, kind):
            return kind
    return Kind.LIST if all(map(_is_list_or_blank, cells)) else Kind.TEXT


def _cells_to(cells: Sequence[object], kind: Kind) -> list[object]:
    if kind is Kind.TEXT:
        return [cell if str(cell).strip() else None for cell in cells]
    if kind is Kind.LIST:
        return [_list_in(cell) for cell in cells]
    return _cast(_plain(cells), kind)


def _plain(cells: Sequence[object]) -> pa.Array:
    """The cells without space around them; null for a missing value."""
    trimmed = pc.utf8_trim_whitespace(pa.array(cells, pa.string()))
    return pc.if_else(pc.is_in(trimmed, MISSING), None, trimmed)


def _all_match(texts: pa.Array, kind: Kind) -> bool:
    if not pc.all(pc.match_substring_regex(texts, PATTERNS[kind])).as_py():
        return False
    try:
        values = texts.cast(TYPES[kind])
    except pa.ArrowInvalid:  # the 30th of February
        return False
    return kind is not Kind.NUMBER or bool(pc.all(pc.is_finite(values)).as_py())


def _cast(texts: pa.Array, kind: Kind) -> list[object]:
    values: list[object] = texts.cast(TYPES[kind]).to_pylist()
    return values


def _is_list_or_blank(cell: object) -> bool:
    text = str(cell).strip()
    return text in ("", "[]") or (text.startswith("[") and text_cell(text) != (text,))


def _list_in(cell: object) -> list[str] | None:
    text = str(cell).strip()
    return None if text == "[]" else list(text_cell(text)) or None


def _kind_of_values(values: Sequence[object], so_far: Kind) -> Kind:
    present = [value for value in values if not _is_missing(value)]
    kinds = []
    for found in set(map(type, present)):
        same = [value for value in present if type(value) is found]
        if found is str:
            texts = pa.array(same, pa.string())
            dates = DATE_PATTERNS if so_far is not Kind.TEXT else ()
            kinds.append(next((kind for kind in dates if _all_match(texts, kind)), Kind.TEXT))
        elif found is list:
            parts = [part for value in same if isinstance(value, list) for part in value]
            pa.array([part for part in parts if isinstance(part, str)], pa.string())
            kinds.append(Kind.LIST if {*map(type, parts)} <= {str, int, type(None)} else Kind.OTHER)
        elif found is int:
            is_long = any(isinstance(value, int) and not -(2**63) <= value < 2**63 for value in same)
            kinds.append(Kind.TEXT if is_long else Kind.INTEGER)
        else:
            kinds.append(SCALARS.get(found, Kind.OTHER))
    return joined(kinds)


def _values_to(values: Sequence[object], kind: Kind) -> list[object]:
    present = [None if _is_missing(value) else value for value in values]
    if kind in DATE_PATTERNS:
        return _cast(pa.array(present, pa.string()), kind)
    if kind is Kind.LIST:
        return [None if value is None else list(value_cell(value)) or None for value in present]
    if kind is Kind.TEXT:
        return [value if value is None or isinstance(value, str) else _as_text(value) for value in present]
    typed: list[object] = pa.array(present, TYPES[kind]).to_pylist()
    return typed


def _spoiler(values: Sequence[object]) -> str | None:
    """The first value that is not a number; None unless most are, or if it is an article's number such as 0012."""
    texts = _plain([str(value) for value in values if not _is_missing(value)]).drop_null()
    are_numbers = pc.match_substring_regex(texts, PATTERNS[Kind.NUMBER])
    if not len(texts) or pc.mean(are_numbers).as_py() < MOSTLY:
        return None
    first = next(iter(texts.filter(pc.invert(are_numbers)).to_pylist()), None)
    return None if first is None or first.isdigit() else str(first)


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or value == []


def _as_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class ParquetFields:
    """Fields with the types that Parquet gives them. `given` are the columns that are fields."""

    given: pa.Schema
    need_values: bool = False

    def observe(self, columns: Mapping[str, Values]) -> None:
        """See Fields. The types are known."""

    def schema(self) -> pa.Schema:
        """See Fields."""
        types = [(column.name, storable(column.type)) for column in self.given]
        return pa.schema([(name, found) for name, found in types if found is not None])

    def left_out(self) -> Mapping[str, str]:
        """See Fields."""
        return {column.name: str(column.type) for column in self.given if storable(column.type) is None}

    def spoiled(self) -> Mapping[str, str]:
        """See Fields."""
        return {}

    def convert(self, name: str, values: Values) -> list[object]:
        """See Fields. NaN and blank text are missing values, as in the other formats."""
        target = storable(self.given.field(name).type)
        found: list[object] = pa.array(values).cast(target, safe=False).to_pylist()
        if pa.types.is_floating(target):
            return [value if value == value else None for value in found]  # NaN is not itself
        if pa.types.is_string(target):
            return [value if str(value).strip() else None for value in found]
        if pa.types.is_list(target):
            return [list(value_cell(value)) or None for value in found]
        return found


def storable(given: pa.DataType) -> pa.DataType | None:
    """The type that values of a Parquet column are stored with; None if they cannot be.

    Categories become what they name, decimals floats, integers in lists text; times have microseconds and are in UTC
    if they have a zone.
    """
    is_type = pa.types
    if is_type.is_dictionary(given):
        return storable(given.value_type)
    if is_type.is_string(given) or is_type.is_large_string(given) or is_type.is_string_view(given):
        return pa.string()
    if is_type.is_boolean(given) or is_type.is_integer(given) or is_type.is_float32(given) or is_type.is_float64(given):
        return given
    if is_type.is_float16(given):
        return pa.float32()
    if is_type.is_decimal(given):
        return pa.float64()
    if is_type.is_date(given):
        return pa.date32()
    if is_type.is_timestamp(given):
        return pa.timestamp("us", tz="UTC" if given.tz else None)
    if is_type.is_list(given) or is_type.is_large_list(given) or is_type.is_fixed_size_list(given):
        part = storable(given.value_type)
        is_text = part is not None and (is_type.is_string(part) or is_type.is_integer(part))
        return pa.list_(pa.string()) if is_text else None
    return None
