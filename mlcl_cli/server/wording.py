"""What is wrong with a request, in plain words instead of pydantic's."""

from collections.abc import Collection, Sequence
from typing import TypeAlias

from pydantic_core import ErrorDetails

from mlcl_cli.suggestions import did_you_mean, shown

Place: TypeAlias = tuple[str | int, ...]

EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "an object",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller number",
    "int_type": "a whole number",
    "list_type": "a list",
    "string_type": "text",
    "string_unicode": "text",
    "tuple_type": "a list",
}
SECTION = "query", "path"  # where FastAPI found a parameter
WITH_NAMES = "fields"  # whose keys are those of the catalog


def describe(errors: Sequence[ErrorDetails], names: Collection[str]) -> tuple[str, str | None]:
    """The first mistake and its place. `names` are those of the request's parameters."""
    first = [error for error in errors if error["loc"][:1] == errors[0]["loc"][:1]]
    places = [_place(error["loc"]) for error in first]
    deepest = max(places, key=len)  # of several types that a value may have, the one that was meant
    about = [error for error, place in zip(first, places, strict=True) if place == deepest]
    where = ".".join(map(str, deepest)) or None
    kinds = {error["type"] for error in about}
    if kinds <= EXPECTED.keys():
        expected = [*dict.fromkeys(EXPECTED[error["type"]] for error in about)]
        choice = " or ".join([*([", ".join(expected[:-1])] if expected[1:] else []), expected[-1]])
        return f"must be {choice}, not {_value(about[0]['input'])}", where
    return _what(next(error for error in about if error["type"] not in EXPECTED), names), where


def _what(error: ErrorDetails, names: Collection[str]) -> str:
    kind, value, limits = error["type"], error["input"], error.get("ctx", {})
    match kind:
        case "extra_forbidden":
            name = str(error["loc"][-1])
            hint = did_you_mean(name, names) or f"; the parameters are {', '.join(names)}"
            return f"there is no parameter {shown(name)}{hint}"
        case "missing":
            return "is required"
        case "greater_than_equal":
            return f"must be at least {limits['ge']:,}, not {_value(value)}"
        case "less_than_equal":
            return f"must be at most {limits['le']:,}, not {_value(value)}"
        case "string_too_short":
            return "must not be empty"
        case "string_too_long":
            return f"must have at most {limits['max_length']:,} characters"
        case "too_long":
            return f"must have at most {limits['max_length']:,} entries"
        case "literal_error":
            return f"must be {limits['expected']}, not {_value(value)}"
        case _:
            return error["msg"].removeprefix("Value error, ")


def _value(value: object) -> str:
    return "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else shown(value)


def _place(place: Place) -> Place:
    """The place in the request, without the names that pydantic gives to the types of a value."""
    place = place[1:] if place[:1] in [(one,) for one in SECTION] else place
    named = 2 if place[:1] == (WITH_NAMES,) else 1
    return (*place[:named], *(part for part in place[named:] if isinstance(part, int)))
