"""A table of products: images and their attributes."""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import TypeAdapter, ValidationError

from mlcl_cli.data.annotations import ImageName, Text, validated
from mlcl_cli.data.table_files import Cell, TableFile
from mlcl_cli.errors import DataError
from mlcl_cli.formatting import counted

IMAGE_NAME: TypeAdapter[str] = TypeAdapter(ImageName)
TEXT: TypeAdapter[str] = TypeAdapter(Text)


@dataclass(frozen=True)
class Column:
    """Each product's value in one column, as a number: `values` gives the distinct values theirs, in table order."""

    name: str
    values: dict[str, int] = field(default_factory=dict)
    codes: "array[int]" = field(default_factory=lambda: array("q"))


@dataclass(frozen=True)
class Products:
    """The products that have exactly one value in each column.

    `rows` counts all rows of the table. `empty` and `several` count the rows that were left out because a column had
    no value or several; a row counts in each such column.
    """

    images: Sequence[str]
    attributes: Sequence[Column]
    within: Column | None
    rows: int
    empty: Counter[str]
    several: Counter[str]


def read_products(table: TableFile, image: str, attributes: Sequence[str], within: str | None) -> Products:
    """The products of a table: the columns `image`, `attributes` and, if given, `within`.

    Raises DataError if a column is missing or an attribute has only one value, if fewer than two products can be used,
    for an image that is missing, invalid or repeated, and for a row that cannot be read.
    """
    table.require(image, "--image")
    for name in attributes:
        table.require(name, "--attributes")
    if within is not None:
        table.require(within, "--within")
    columns = [Column(name) for name in (*attributes, *(() if within is None else (within,)))]
    seen: dict[str, int] = {}
    used: list[str] = []
    empty, several = Counter[str](), Counter[str]()
    for number, (image_cell, *cells) in table.rows([image, *(column.name for column in columns)]):
        name = _image_name(table, number, image_cell)
        if (earlier := seen.setdefault(name, number)) != number:
            what = f"repeats image {name!r} of {table.place(earlier)}"
            raise DataError(what, where=table.place(number), remedy="Keep one row per image")
        values = [cell[0].strip() if len(cell) == 1 else "" for cell in cells]
        if all(values):
            used.append(name)
            for column, value in zip(columns, values, strict=True):
                column.codes.append(column.values.setdefault(value, len(column.values)))
        else:
            for column, cell, value in zip(columns, cells, values, strict=True):
                if not value:
                    (several if len(cell) > 1 else empty)[column.name] += 1
    within_column = None if within is None else columns.pop()
    products = Products(used, columns, within_column, len(seen), empty, several)
    _require_variety(table, products)
    return products


def _image_name(table: TableFile, number: int, cell: Cell) -> str:
    if len(cell) != 1:
        what = f"expected one image, got {len(cell) or 'none'}"
        raise DataError(what, where=table.place(number), remedy="Give each product one image")
    try:
        return IMAGE_NAME.validate_python(cell[0], strict=True)
    except ValidationError:  # finding the place of a row reads the file again
        return validated(IMAGE_NAME, cell[0], table.place(number))


def _require_variety(table: TableFile, products: Products) -> None:
    """Raise DataError if no two products can differ in each attribute."""
    if len(products.images) < 2:
        found = counted(len(products.images), "product")
        what = f"has {found} with one value in each of the columns, out of {counted(products.rows, 'row')}"
        remedy = (
            "Leave out attributes that many products lack" if products.rows > 1 else "Expected at least two products"
        )
        raise DataError(what, where=table.path, remedy=remedy)
    for column in products.attributes:
        for value in column.values:
            validated(TEXT, value, f"{table.path}, column {column.name}")
        if len(column.values) == 1:
            what = f"all products have the same {column.name}, {next(iter(column.values))!r}"
            raise DataError(what, where=table.path, remedy=f"Leave {column.name} out of --attributes")
