"""Annotation files as typed records. Everything a file can do wrong becomes a DataError that says where."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from mlcl_cli.errors import DataError
from mlcl_cli.safe_reading import open_regular, parse_json

Value = TypeVar("Value")
Item = TypeVar("Item")
Made = TypeVar("Made")
OnDefect = Callable[[DataError], None]

MEND = "Fix the file, or download or prepare it again"
KINDS = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}
ESCAPES = re.compile(r"^/|^[A-Za-z]:|(?:^|/)\.\.(?:/|$)|[\\\0]")


def refuse(error: DataError) -> None:
    """The usual `on_defect`: the first one ends it."""
    raise error


@dataclass(frozen=True, slots=True)
class Record:
    """One object of an annotation file. Its methods give a field's value, or a DataError that names both."""

    where: str
    fields: dict[str, object]

    def text(self, field: str) -> str:
        """A text, blank ones included."""
        return checked_text(self._get(field, str), f"{self.where}, field {field}")

    def texts(self, field: str) -> tuple[str, ...]:
        """A list of texts."""
        values = self._get(field, list)
        return tuple(checked_text(value, f"{self.where}, field {field}") for value in values)

    def number(self, field: str) -> int:
        """A whole number."""
        return self._get(field, int)

    def inner(self, field: str) -> "Record":
        """An object."""
        return Record(f"{self.where}, field {field}", self._get(field, dict))

    def image(self, field: str) -> str:
        """The name of an image that lies below the data set's root."""
        return image_name(self._get(field, str), f"{self.where}, field {field}")

    def images(self, field: str) -> tuple[str, ...]:
        """A list of image names, each once, in order of first mention."""
        values = self._get(field, list)
        return tuple(dict.fromkeys(image_name(value, f"{self.where}, field {field}") for value in values))

    def _get(self, field: str, kind: type[Value]) -> Value:
        if field not in self.fields:
            raise DataError(f"field {field} is missing", where=self.where, remedy=MEND)
        return _of_kind(self.fields[field], kind, f"{self.where}, field {field}")


def read_json(path: Path, *, remedy: str = MEND) -> object:
    """The JSON value of a UTF-8 file.

    Raises DataError where the file is missing (`remedy` then says what to do), unreadable, not JSON (with line and
    column), or holds NaN, an infinity or a key twice in one object.
    """
    try:
        return parse_json(read_text(path, remedy=remedy), parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        place = f"{path}, line {error.lineno}, column {error.colno}"
        raise DataError(f"not JSON ({error.msg})", where=place, remedy=MEND) from error
    except ValueError as error:
        raise DataError(str(error), where=path, remedy=MEND) from error


def read_text(path: Path, *, remedy: str = MEND) -> str:
    """The text of a UTF-8 file, with or without a byte order mark. Raises DataError where it cannot be had."""
    try:
        with open_regular(path) as file:
            return file.read().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError("does not exist", where=path, remedy=remedy) from error
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path, remedy=remedy) from error
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 text (byte {error.start})", where=path, remedy=MEND) from error


def read_records(path: Path, *, remedy: str = MEND, on_defect: OnDefect = refuse) -> tuple[Record, ...]:
    """A list of objects, at least one. Raises DataError as `read_json` does, or where the file holds something else.

    What a single record has wrong goes to `on_defect`; where that returns, the record is left out.
    """
    values = _filled(_of_kind(read_json(path, remedy=remedy), list, str(path)), "records", path)
    places = [f"{path}, record {number}" for number in range(1, len(values) + 1)]
    pairs = list(zip(places, values, strict=True))
    return each(pairs, lambda pair: Record(pair[0], _of_kind(pair[1], dict, pair[0])), on_defect)


def each(items: Iterable[Item], make: Callable[[Item], Made], on_defect: OnDefect) -> tuple[Made, ...]:
    """`make` of every item; an item whose DataError `on_defect` takes is left out."""
    made = []
    for item in items:
        try:
            made.append(make(item))
        except DataError as error:
            on_defect(error)
    return tuple(made)


def read_names(path: Path, *, remedy: str = MEND) -> tuple[str, ...]:
    """A list of image names, at least one; a name that is there twice counts once. Raises DataError as above."""
    values = _filled(_of_kind(read_json(path, remedy=remedy), list, str(path)), "images", path)
    return tuple(dict.fromkeys(image_name(value, f"{path}, entry {n}") for n, value in enumerate(values, 1)))


def read_name_paths(path: Path, *, remedy: str = MEND) -> dict[str, str]:
    """An object of image names and the paths of their files, at least one. Raises DataError as above."""
    values = _of_kind(read_json(path, remedy=remedy), dict, str(path))
    _filled(tuple(values), "images", path)
    return {image_name(name, str(path)): image_name(file, f"{path}, image {name!r}") for name, file in values.items()}


def image_name(value: object, where: str) -> str:
    """`value`, if it is a relative path that stays below its folder by its letters alone, on any system.

    Raises DataError for an empty name, `..`, an absolute path, a backslash, a drive letter or NUL.
    """
    name = checked_text(_of_kind(value, str, where), where)
    if not name.strip("./") or ESCAPES.search(name):
        raise DataError(
            f"{name!r} is no image name: it is empty or leaves the data set's folder",
            where=where,
            remedy="Do not use annotations from a source you do not trust",
        )
    return name


def checked_text(value: object, where: str) -> str:
    """`value`, if it is a text that can be written again. Raises DataError, also for half a surrogate pair."""
    text = _of_kind(value, str, where)
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DataError("holds half a surrogate pair, which is no letter", where=where, remedy=MEND)
    return text


def _of_kind(value: object, kind: type[Value], where: str) -> Value:
    # `type`, not `isinstance`: true is an int to Python and no number to JSON.
    if type(value) is not kind:
        raise DataError(f"holds {KINDS[type(value)]}, not {KINDS[kind]}", where=where, remedy=MEND)
    return value


def _filled(values: Sequence[object], what: str, path: Path) -> Sequence[object]:
    if not values:
        raise DataError(f"holds no {what}", where=path, remedy=MEND)
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"holds {name}, which is no JSON number")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"holds {next(key for key in keys if keys.count(key) > 1)!r} twice in one object")
    return fields
