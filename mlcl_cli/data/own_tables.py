"""The rows of one's own tables, checked one by one, and the split that each belongs to (DATASETS.md, Section 6)."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pydantic import TypeAdapter

from mlcl_cli.data.annotations import ImageName, OnDefect, validated
from mlcl_cli.data.definition import TRAIN
from mlcl_cli.data.records import Triplet
from mlcl_cli.data.table_files import FIX_FILE, Cell, TableFile
from mlcl_cli.errors import DataError
from mlcl_cli.suggestions import shown

VAL = "val"
SPLITS = {TRAIN: TRAIN, "training": TRAIN, VAL: VAL, "valid": VAL, "validation": VAL, "dev": VAL, "test": "test"}
NO_COLUMN = "none"
SURROGATE = re.compile("[\ud800-\udfff]")
IMAGE_NAME = TypeAdapter[str](ImageName)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The names of the tables' columns. `chosen` are the fields that the user set; the others are defaults.

    `split`, `category` and `id` are NO_COLUMN where a column of the default name means something else.
    """

    reference: str = "reference"
    target: tuple[str, ...] = ("target",)
    caption: tuple[str, ...] = ("caption",)
    image: str = "image"
    split: str = "split"
    category: str = "category"
    id: str = "id"
    chosen: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The files of a data set. Without a column of splits, `val_fraction` of the triplets are for validation."""

    name: str
    images: Path
    triplets: Path
    gallery: Path | None
    columns: Columns
    val_fraction: float
    per_category: bool

    def key(self, name: str) -> str:
        """The profile's key of that name, for messages."""
        return f"datasets.{self.name}.{name}"

    def image_name(self, name: str, place: str) -> str:
        """The name in its one spelling: `./a//b.jpg` is `a/b.jpg`. Raises DataError if it is no path below a folder."""
        remedy = f"Write it relative to {self.images}, with / between folders"
        try:
            return str(PurePosixPath(validated(IMAGE_NAME, name, place)))
        except DataError as error:
            what = f"image {shown(name)} has a backslash" if "\\" in name else error.what
            raise DataError(what, where=place, remedy=remedy) from error


class Row(NamedTuple):
    """A valid row of the table of triplets; `split` and `category` are empty without such a column."""

    number: int
    reference: str
    targets: tuple[str, ...]
    captions: tuple[str, ...]
    split: str
    category: str
    query_id: str

    def triplets(self, *, expand: bool) -> list[Triplet]:
        """One triplet with all targets, or one for each."""
        groups = [(target,) for target in self.targets] if expand else [self.targets]
        return [
            Triplet(
                self.reference,
                first,
                self.captions,
                other_targets=tuple(others),
                query_id=self.query_id,
                row=self.number,
            )
            for first, *others in groups
        ]


class TripletTable:
    """The rows of the table of triplets, checked one by one. Equal names are one object, which saves memory."""

    def __init__(self, tables: Tables) -> None:
        columns = tables.columns
        self.tables, self.table = tables, TableFile(tables.triplets)
        self.table.require(columns.reference, tables.key("columns.reference"))
        for key, names in (("target", columns.target), ("caption", columns.caption)):
            for name in names:
                self.table.require(name, tables.key(f"columns.{key}"))
        optional = {"split": columns.split, "category": columns.category, "id": columns.id}
        needed = columns.chosen & {"split", "id"} | ({"category"} if tables.per_category else set())
        for key, name in optional.items():
            if key in needed and (name != NO_COLUMN or key == "category"):
                self.table.require(name, tables.key(f"columns.{key}"))
        self.optional = {
            key: name for key, name in optional.items() if name in self.table.columns and name != NO_COLUMN
        }
        self.has_splits = "split" in self.optional
        self.columns = [columns.reference, *columns.target, *columns.caption, *self.optional.values()]
        self.captions_start = 1 + len(columns.target)
        self.names: dict[str, str] = {}

    def rows(self, on_defect: OnDefect) -> Iterator[Row]:
        """The valid rows; the error of a row goes to `on_defect`, and if that returns, the row is left out.

        Raises DataError if there is no row at all.
        """
        ids: dict[str, int] = {}
        count = 0
        for number, cells in self.table.rows(self.columns):
            try:
                row = self._row(count, number, cells)
                if "id" in self.optional and (first := ids.setdefault(row.query_id, number)) != number:
                    raise ValueError(f"id {shown(row.query_id)} is already used by {self.table.unit} {first}")
            except ValueError as error:
                on_defect(DataError(str(error), where=self.table.place(number), remedy=FIX_FILE))
            except DataError as error:
                on_defect(error)
            else:
                yield row
            count += 1
        if not count:
            raise DataError("has no rows", where=self.table.path, remedy=FIX_FILE)

    def _row(self, position: int, number: int, cells: tuple[Cell, ...]) -> Row:
        """Raises ValueError for what is wrong with a row, DataError for an invalid image name."""
        reference, captions_end = cells[0], self.captions_start + len(self.tables.columns.caption)
        targets = [self._name(name, number) for name in chain(*cells[1 : self.captions_start])]
        captions = tuple(chain(*cells[self.captions_start : captions_end]))
        optional = dict(zip(self.optional, cells[captions_end:], strict=True))
        if len(reference) != 1:
            raise ValueError("has no reference image" if not reference else "has several reference images")
        if not targets:
            raise ValueError("has no target image")
        if any(not text.isascii() and SURROGATE.search(text) for text in captions):
            raise ValueError("a caption contains an unpaired surrogate, which is not a character")
        category, query_id = _single(optional, "category"), _single(optional, "id")
        if self.tables.per_category and not category:
            raise ValueError("has no category")
        if "id" in optional and not query_id:
            raise ValueError("has no id")
        return Row(
            number=number,
            reference=self._name(reference[0], number),
            targets=tuple(dict.fromkeys(targets)),
            captions=captions or ("",),
            split=known_split(_single(optional, "split")) if self.has_splits else "",
            category=category,
            query_id=query_id or str(position),
        )

    def _name(self, name: str, number: int) -> str:
        if (known := self.names.get(name)) is None:
            known = self.tables.image_name(name, self.table.place(number))
            known = self.names[name] = self.names.setdefault(known, known)
        return known

    def splits(self, on_defect: OnDefect) -> "SplitOf":
        """How to tell a row's split: by its column, or by the images that it is connected with.

        Raises DataError if all images are connected, so that there is nothing to validate on.
        """
        if self.has_splits:
            return SplitOf()
        parts = Components()
        for row in self.rows(on_defect):
            parts.join([row.reference, *row.targets])
        held_out, share = parts.held_out(self.tables.val_fraction)
        if not held_out:
            what = "cannot be split: all of its triplets are connected by shared images"
            remedy = "Add a column `split` with train and val"
            raise DataError(what, where=self.tables.triplets, remedy=remedy)
        return SplitOf(parts, held_out, share)


@dataclass
class Components:
    """The connected components of images that triplets share, by a union-find forest over names."""

    parents: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)  # triplets below a root

    def root(self, name: str) -> str:
        """The image that stands for the component of `name`."""
        while (parent := self.parents.setdefault(name, name)) != name:
            self.parents[name] = self.parents[parent]
            name = parent
        return name

    def join(self, names: list[str]) -> None:
        """Count a triplet of these images, which are one component from now on."""
        first, *others = dict.fromkeys(map(self.root, names))
        for other in others:
            self.parents[other] = first
            self.sizes[first] = self.sizes.get(first, 0) + self.sizes.pop(other, 0)
        self.sizes[first] = self.sizes.get(first, 0) + 1

    def held_out(self, fraction: float) -> tuple[set[str], float]:
        """The roots of components with about `fraction` of the triplets, and their share; none if there is only one.

        The order is that of a hash of each component's least name, so that neither the order of the table nor the
        seed of a run decides what is validated on.
        """
        least: dict[str, str] = {}
        for name in self.parents:
            root = self.root(name)
            least[root] = min(name, least.get(root, name))
        order = sorted(self.sizes, key=lambda root: hashlib.sha256(least[root].encode()).digest())
        total, taken, count = sum(self.sizes.values()), set[str](), 0
        for root in order if len(order) > 1 else ():
            if count + self.sizes[root] <= fraction * total:
                taken.add(root)
                count += self.sizes[root]
        if not taken and len(order) > 1:
            taken = {min(order, key=lambda root: self.sizes[root])}
            count = self.sizes[next(iter(taken))]
        return taken, count / total if total else 0.0


@dataclass(frozen=True)
class SplitOf:
    """The split of a row: its own, or that of the component its images are in.

    `share` is the part of the triplets that is held out for validation.
    """

    parts: Components | None = None
    held_out: set[str] = field(default_factory=set)
    share: float = 0.0

    def __call__(self, row: Row) -> str:
        if self.parts is None:
            return row.split
        return VAL if self.parts.root(row.reference) in self.held_out else TRAIN


@dataclass
class Gallery:
    """The table of gallery images: by category, the images in its order with their splits ("" for every split).

    An image that is listed twice counts once.
    """

    path: Path
    has_splits: bool
    images: dict[str, dict[str, set[str]]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, tables: Tables) -> "Gallery":
        """Raises DataError for an unreadable table, or a row without an image, with an invalid name or split."""
        table, columns = TableFile(path), tables.columns
        table.require(columns.image, tables.key("columns.image"))
        if tables.per_category:
            table.require(columns.category, tables.key("columns.category"))
        optional = [name for name in (columns.split, columns.category) if name in table.columns and name != NO_COLUMN]
        gallery = cls(path, columns.split in optional)
        for number, (names, *others) in table.rows([columns.image, *optional]):
            values = dict(zip(optional, others, strict=True))
            try:
                if len(names) != 1:
                    raise ValueError("has no image" if not names else "has several images")
                split = known_split(_single(values, columns.split)) if gallery.has_splits else ""
                category = _single(values, columns.category) if tables.per_category else tables.name
                if not category:
                    raise ValueError("has no category")
            except ValueError as error:
                raise DataError(str(error), where=table.place(number), remedy=FIX_FILE) from error
            name = tables.image_name(names[0], table.place(number))
            gallery.images.setdefault(category, {}).setdefault(name, set()).add(split)
        if not gallery.images:
            raise DataError("has no rows", where=path, remedy=FIX_FILE)
        return gallery

    def of(self, category: str, split: str) -> tuple[str, ...]:
        """The gallery of a category in a split."""
        images = self.images.get(category, {})
        return tuple(name for name, splits in images.items() if splits & {"", split})

    def strays(self, row: Row, split: str, category: str) -> list[str]:
        """The images of a row of `split` that belong to other splits, and the targets in val that are not listed."""
        images = self.images.get(category, {})
        elsewhere = [
            name for name in (row.reference, *row.targets) if name in images and not images[name] & {"", split}
        ]
        unlisted = [name for name in row.targets if name not in images] if split == VAL else []
        return [*elsewhere, *unlisted]


def _single(cells: Mapping[str, Cell], key: str) -> str:
    if not (cell := cells.get(key)):
        return ""
    if len(cell) > 1:
        raise ValueError(f"has several values of {key}")
    return cell[0]


def known_split(split: str) -> str:
    """The split that a cell names. Raises ValueError if there is none."""
    if (known := SPLITS.get(split.strip().lower())) is None:
        raise ValueError(f"split must be train, val or test, not {shown(split or None)}")
    return known
