"""Annotation files as typed records. Every defect of a file is a DataError that names the place."""

import json
import re
from collections.abc import Callable, Sized
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from mlcl_cli.errors import DataError
from mlcl_cli.safe_reading import open_regular, parse_json

OnDefect = Callable[[DataError], None]

FIX_FILE = "Fix the file, or download or prepare it again"
UNSAFE_NAME = "unsafe_name"
EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
}
JSON_TYPES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}
ESCAPES = re.compile(r"^/|^[A-Za-z]:|(?:^|/)\.\.(?:/|$)|[\\\0]")


def _encodable(text: str) -> str:
    if re.search("[\ud800-\udfff]", text):
        raise ValueError("contains an unpaired surrogate, which is not a character")
    return text


def _below_the_root(name: str) -> str:
    if not name.strip("./") or ESCAPES.search(name):
        text = "{name} is not a valid image name: it is empty, is absolute, or leaves the data set's folder"
        raise PydanticCustomError(UNSAFE_NAME, text, {"name": repr(name)})
    return name


Text = Annotated[str, AfterValidator(_encodable)]
# A relative path whose characters alone ensure that it stays below its folder, on any system.
ImageName = Annotated[Text, AfterValidator(_below_the_root)]


class Record(BaseModel):
    """One object of an annotation file; fields that are not declared are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", defer_build=True)


RecordT = TypeVar("RecordT", bound=Record)
Value = TypeVar("Value")
Made = TypeVar("Made")
Filled = TypeVar("Filled", bound=Sized)


def refuse(error: DataError) -> None:
    """Raise the first error: the usual `on_defect`."""
    raise error


def read_text(path: Path, remedy: str) -> str:
    """The text of a UTF-8 file, with or without a byte order mark. Raises DataError if it cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError("does not exist", where=path, remedy=remedy) from error
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path, remedy=remedy) from error
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8 text (byte {error.start})", where=path, remedy=FIX_FILE) from error


def read_records(
    path: Path,
    model: type[RecordT],
    convert: Callable[[RecordT, str], Made],
    *,
    key: str | None = None,
    remedy: str = FIX_FILE,
    on_defect: OnDefect = refuse,
) -> tuple[Made, ...]:
    """`convert` of every record of a JSON list and the record's place ("FILE, record N").

    With a `key`, the list is that field of a JSON object.

    Raises DataError if the file is missing (`remedy` then says what to do), unreadable, not JSON (with line and
    column), or holds NaN, an infinity, a key twice in one object, no list, or an empty one. The DataError of a single
    record goes to `on_defect`; if that returns, the record is left out.
    """
    adapter = TypeAdapter(model)
    converted = []
    for number, value in enumerate(_read(path, TypeAdapter(list[object]), "records", remedy, key), 1):
        where = f"{path}, record {number}"
        try:
            converted.append(convert(validated(adapter, value, where), where))
        except DataError as error:
            on_defect(error)
    return tuple(converted)


def read_names(path: Path, remedy: str) -> tuple[str, ...]:
    """A list of image names, at least one; repeated names count once. Raises DataError like `read_records`."""
    return tuple(dict.fromkeys(_read(path, TypeAdapter(list[ImageName]), "images", remedy)))


def read_name_paths(path: Path, remedy: str) -> dict[str, str]:
    """An object of image names and their files' paths, at least one. Raises DataError like `read_records`."""
    return _read(path, TypeAdapter(dict[ImageName, ImageName]), "images", remedy)


def _read(path: Path, adapter: TypeAdapter[Filled], noun: str, remedy: str, key: str | None = None) -> Filled:
    text = read_text(path, remedy)
    try:
        value: object = parse_json(text)
    except json.JSONDecodeError as error:
        place = f"{path}, line {error.lineno}, column {error.colno}"
        raise DataError(f"is not JSON ({error.msg})", where=place, remedy=FIX_FILE) from error
    except ValueError as error:
        raise DataError(str(error), where=path, remedy=FIX_FILE) from error
    where = str(path)
    if key is not None:
        fields = validated(TypeAdapter(dict[str, object]), value, where)
        if key not in fields:
            raise DataError(f"field {key} is missing", where=path, remedy=FIX_FILE)
        value, where = fields[key], f"{path}, field {key}"
    values = validated(adapter, value, where)
    if not values:
        raise DataError(f"contains no {noun}", where=path, remedy=FIX_FILE)
    return values


def validated(adapter: TypeAdapter[Value], value: object, where: str) -> Value:
    """`value` as the adapter's type, without any conversion. Raises DataError with the first defect and its place."""
    try:
        return adapter.validate_python(value, strict=True)
    except ValidationError as invalid:
        error = invalid.errors(include_url=False)[0]
    kind, place = error["type"], list(error["loc"])
    if kind == "missing":
        what = f"field {place.pop()} is missing"
    elif kind in EXPECTED:
        what = f"expected {EXPECTED[kind]}, got {JSON_TYPES[type(error['input'])]}"
    else:
        what = error["msg"].removeprefix("Value error, ")
    fields = [part for part in place if isinstance(part, str) and part != "[key]"]
    if place and isinstance(place[0], int):
        where += f", entry {place[0] + 1}"
    elif fields:
        where += f", field {'.'.join(fields)}"
    remedy = "Do not use annotations from a source you do not trust" if kind == UNSAFE_NAME else FIX_FILE
    raise DataError(what, where=where, remedy=remedy)
