"""Which columns of a catalog are its ids, images and products; all others are fields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlcl_cli.data.table_files import listed
from mlcl_cli.errors import DataError, UsageError
from mlcl_cli.suggestions import did_you_mean, nearest, shown

ID, IMAGE, PRODUCT = "id", "image", "product"
ROLES = (ID, IMAGE, PRODUCT)
NO_COLUMN = "none"
OPTION = "--columns"


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of columns. Without `id`, an image's path is its id; without `product`, a row is a product."""

    id: str | None
    images: tuple[str, ...]
    product: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """All columns that are not fields, once each."""
        named = (self.id, *self.images, self.product)
        return tuple(dict.fromkeys(name for name in named if name is not None))


def parse_columns(text: str) -> dict[str, str]:
    """What `--columns id=sku,image=front,back` says: `{"id": "sku", "image": "front,back"}`.

    Raises UsageError if it is written differently, or sets something else than id, image and product.
    """
    columns: dict[str, str] = {}
    last = ""
    for part in text.split(","):
        role, equals, name = (piece.strip() for piece in part.partition("="))
        if role and not equals and last == IMAGE:
            columns[IMAGE] += f",{role}"
            continue
        if not role or not name:
            what = f"expected pairs such as id=sku,image=photo, got {shown(part)}"
            raise UsageError(what, where=OPTION, remedy="Only image may have several columns" if last else None)
        _require_role(role, name)
        if role in columns:
            remedy = "Write several images as image=front,back" if role == IMAGE else "Keep one"
            raise UsageError(f"sets {role} twice", where=OPTION, remedy=remedy)
        columns[role] = name
        last = role
    return columns


def _require_role(role: str, name: str) -> None:
    if role not in ROLES:
        what = f"sets {shown(role)}, but a catalog's columns are {', '.join(ROLES)}{did_you_mean(role, ROLES)}"
        raise UsageError(what, where=OPTION, remedy=f"Write it as {name}={role}" if name in ROLES else None)


def given_columns(columns: Mapping[str, str]) -> Columns:
    """The columns as they were set. Raises UsageError for a key that is not id, image or product."""
    for role, name in columns.items():
        _require_role(role, name)
    images = tuple(name.strip() for name in columns.get(IMAGE, "").split(",") if name.strip())
    return Columns(_used(columns.get(ID)), images, _used(columns.get(PRODUCT)))


def find_columns(columns: Mapping[str, str], names: Sequence[str], table: Path) -> Columns:
    """The columns of a table: as set in `columns`, else those of the usual names, of which only `image` is required.

    Raises UsageError for a key that is not id, image or product, DataError for a column that the table does not have.
    """
    given = given_columns({role: columns.get(role, role) for role in ROLES} | dict(columns))
    for role, wanted in ((ID, [given.id]), (IMAGE, given.images), (PRODUCT, [given.product])):
        for name in wanted:
            if name is not None and name not in names and (role in columns or role == IMAGE):
                raise _missing(role, name, names, table)
    if not given.images:
        raise UsageError("names no column of images", where=OPTION, remedy="Write image=NAME")
    return Columns(
        given.id if given.id in names else None, given.images, given.product if given.product in names else None
    )


def _used(name: str | None) -> str | None:
    return None if name == NO_COLUMN else name


def _missing(role: str, name: str, names: Sequence[str], table: Path) -> DataError:
    near = nearest(name, names)
    remedy = f"Set {OPTION} {role}={near or 'NAME'}" + (", if that is the one" if near else "")
    return DataError(f"has no column {name!r}; its columns are {listed(names)}", where=table, remedy=remedy)
