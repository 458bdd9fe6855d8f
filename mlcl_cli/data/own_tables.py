"""The rows of one's own tables, checked one by one, and the split that each belongs to (DATASETS.md, Section 6)."""

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from mlcl_cli.data.annotations import ImageName, OnDefect, validated
from mlcl_cli.data.definition import TRAIN
from mlcl_cli.data.records import Triplet
from mlcl_cli.data.table_files import FIX_FILE, Cell, TableFile
from mlcl_cli.errors import DataError

logger = logging.getLogger(__name__)

VAL = "val"
SPLITS = {TRAIN: TRAIN, "training": TRAIN, VAL: VAL, "valid": VAL, "validation": VAL, "dev": VAL, "test": "test"}
SURROGATE = re.compile("[\ud800-\udfff]")
IMAGE_NAME = TypeAdapter[str](ImageName)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The names of the tables' columns. `chosen` are the fields that the user set; the others are defaults."""

    reference: str
    target: tuple[str, ...]
    caption: tuple[str, ...]
    image: str
    split: str
    category: str
    id: str
    chosen: frozenset[str]


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


@dataclass(frozen=True, slots=True)
class Row:
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
            Triplet(self.reference, first, self.captions, other_targets=tuple(others), query_id=self.query_id)
            for first, *others in groups
        ]


class TripletTable:
    """The rows of the table of triplets, checked one by one. Equal names are one object, which saves memory."""

    def __init__(self, tables: Tables) -> None:
        columns = tables.columns
        self.tables, self.table = tables, TableFile(tables.triplets)
        for key in ("reference", "target", "caption"):
            names = getattr(columns, key)
            for name in (names,) if isinstance(names, str) else names:
                self.table.require(name, tables.key(f"columns.{key}"))
        optional = {"split": columns.split, "category": columns.category, "id": columns.id}
        if tables.per_category and columns.category not in self.table.columns:
            self.table.require(columns.category, tables.key("columns.category"))
        for key in columns.chosen & {"split", "id"}:
            self.table.require(optional[key], tables.key(f"columns.{key}"))
        self.optional = {key: name for key, name in optional.items() if name in self.table.columns}
        self.columns = [columns.reference, *columns.target, *columns.caption, *self.optional.values()]
        self.names: dict[str, str] = {}

    def rows(self, on_defect: OnDefect) -> Iterator[Row]:
        """The valid rows; the error of a row goes to `on_defect`, and if that returns, the row is left out."""
        ids: dict[str, int] = {}
        has_ids = "id" in self.optional
        for number, cells in self.table.rows(self.columns):
            try:
                row = self._row(number, cells)
                if has_ids and (first := ids.setdefault(row.query_id, number)) != number:
                    raise ValueError(f"id {row.query_id!r} is already used by row {first:,}")
            except ValueError as error:
                on_defect(DataError(str(error), where=self.table.place(number), remedy=FIX_FILE))
            except DataError as error:
                on_defect(error)
            else:
                yield row

    def _row(self, number: int, cells: tuple[Cell, ...]) -> Row:
        """Raises ValueError for what is wrong with a row, DataError for an invalid image name."""
        targets_end = 1 + len(self.tables.columns.target)
        captions_end = targets_end + len(self.tables.columns.caption)
        reference, targets = cells[0], tuple(name for cell in cells[1:targets_end] for name in cell)
        captions = tuple(text for cell in cells[targets_end:captions_end] for text in cell)
        optional = dict(zip(self.optional, cells[captions_end:], strict=True))
        if len(reference) != 1:
            raise ValueError("has no reference image" if not reference else "has several reference images")
        if not targets:
            raise ValueError("has no target image")
        if any(SURROGATE.search(text) for text in captions):
            raise ValueError("a caption contains an unpaired surrogate, which is not a character")
        split = _single(optional, "split")
        if "split" in optional and SPLITS.get(split.lower()) is None:
            raise ValueError(wrong_split(split))
        category = _single(optional, "category")
        if self.tables.per_category and not category:
            raise ValueError("has no category")
        return Row(
            number=number,
            reference=self._name(reference[0], number),
            targets=tuple(dict.fromkeys(self._name(name, number) for name in targets)),
            captions=captions or ("",),
            split=SPLITS.get(split.lower(), ""),
            category=category,
            query_id=_single(optional, "id") or str(number - 1),
        )

    def _name(self, name: str, number: int) -> str:
        if (known := self.names.get(name)) is None:
            known = self.names[name] = validated(IMAGE_NAME, name, self.table.place(number))
        return known

    def splits(self, *, warn: bool) -> "SplitOf":
        """How to tell a row's split: by its column, or by the images that it is connected with."""
        if "split" in self.optional:
            return SplitOf()
        parts = Components()
        for row in self.rows(lambda _: None):
            parts.join([row.reference, *row.targets])
        held_out, share = parts.held_out(self.tables.val_fraction)
        if not held_out:
            what = "cannot be split: all of its triplets are connected by shared images"
            remedy = "Add a column `split` with train and val"
            raise DataError(what, where=self.tables.triplets, remedy=remedy)
        if warn and share < self.tables.val_fraction / 2:
            connected = "the others are connected by shared images; a column `split` would decide"
            logger.warning(f"{self.tables.triplets}: only {share:.1%} of the triplets are for validation: {connected}")
        return SplitOf(parts, held_out)


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
    """The split of a row: its own, or that of the component its images are in."""

    parts: Components | None = None
    held_out: set[str] = field(default_factory=set)

    def __call__(self, row: Row) -> str:
        if self.parts is None:
            return row.split
        return VAL if self.parts.root(row.reference) in self.held_out else TRAIN


@dataclass
class Gallery:
    """The table of gallery images: by category, the images in its order with their splits ("" for every split)."""

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
        optional = [name for name in (columns.split, columns.category) if name in table.columns]
        gallery = cls(path, columns.split in optional)
        for number, (names, *others) in table.rows([columns.image, *optional]):
            values = {name: cell[0] for name, cell in zip(optional, others, strict=True) if cell}
            split, category = values.get(columns.split, ""), values.get(columns.category, "")
            if len(names) != 1:
                raise DataError("expected one image", where=table.place(number), remedy=FIX_FILE)
            if gallery.has_splits and split.lower() not in SPLITS:
                raise DataError(wrong_split(split), where=table.place(number), remedy=FIX_FILE)
            name = validated(IMAGE_NAME, names[0], table.place(number))
            images = gallery.images.setdefault(category if tables.per_category else tables.name, {})
            images.setdefault(name, set()).add(SPLITS.get(split.lower(), ""))
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
    cell = cells.get(key, ())
    if len(cell) > 1:
        raise ValueError(f"has several values of {key}")
    return cell[0] if cell else ""


def wrong_split(split: str) -> str:
    """What is wrong with a row whose split is unknown."""
    return f"split must be train, val or test, not {split!r}"
