"""Types of fields in the words of a message."""

import pyarrow as pa
from pyarrow import types

from mlcl_cli.stores.conditions import is_text


def one_of_type(type_: pa.DataType) -> str:
    """What a value of the type is: "a whole number"."""
    return _words(type_)[0]


def many_of_type(type_: pa.DataType) -> str:
    """What values of the type are: "whole numbers"."""
    return _words(type_)[1]


def different_types(stored: pa.DataType, given: pa.DataType) -> str:
    """How the types of a catalog's field and of new rows differ; as Arrow names them where the words are the same."""
    ours, theirs = many_of_type(stored), many_of_type(given)
    if ours == theirs:
        ours, theirs = f"values of type {stored}", f"values of type {given}"
    return f"holds {ours} in the catalog, and {theirs} in the new rows"


def _words(type_: pa.DataType) -> tuple[str, str]:
    if types.is_dictionary(type_):
        return _words(type_.value_type)
    if is_text(type_):
        return "text", "text"
    if types.is_boolean(type_):
        return "true or false", "true or false"
    if types.is_integer(type_):
        return "a whole number", "whole numbers"
    if types.is_floating(type_) or types.is_decimal(type_):
        return "a number", "numbers"
    if types.is_date(type_):
        return "a date such as 2026-01-31", "dates"
    if types.is_timestamp(type_):
        return "a date and time such as 2026-01-31T12:00:00", "dates and times"
    if types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_):
        inner = many_of_type(type_.value_type)
        return f"a list of {inner}", f"lists of {inner}"
    return f"of type {type_}", f"values of type {type_}"
