"""Rows of whatever format as images to index: checked once from end to end, then read again batch by batch."""

import json
import logging
import re
import time
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import pyarrow as pa

from mlcl_cli.catalog.field_types import Fields, Values
from mlcl_cli.catalog.source import ImageFile, Shard, SourceRow
from mlcl_cli.data.table_files import Cell
from mlcl_cli.errors import DataError
from mlcl_cli.formatting import counted
from mlcl_cli.progress import NOTICE, Progress
from mlcl_cli.suggestions import shown

logger = logging.getLogger(__name__)
FIX_ROW = "Fix the row, or remove it"
RERUN = "Run the command again"
SURROGATE = re.compile("[\ud800-\udfff]")
REPEATED_TRACED = 1_000  # ids of which one is named in the message


class Entry(NamedTuple):
    """A product's row: where it is, its id and product (empty if it has none), its images, and what is wrong with it.

    Without an id, the path of each image is its id.
    """

    place: str
    id: str
    product: str
    images: Sequence[ImageFile]
    defect: str = ""


class Chunk(NamedTuple):
    """Some rows, and the values of their fields by name; a field that none of them has may be absent."""

    entries: Sequence[Entry]
    fields: Mapping[str, Values]


class Reader(Protocol):
    """Reads the rows of a catalog in one format, as often as asked."""

    @property
    def path(self) -> Path:
        """The file or folder, for messages."""

    @property
    def repeated_remedy(self) -> str:
        """What to do about an id that two rows have."""

    @property
    def empty_remedy(self) -> str:
        """What to do if there is no row."""

    def fields(self) -> Fields:
        """The fields, not yet observed."""

    def chunks(self, *, with_fields: bool) -> Iterator[Chunk]:
        """All rows in order. Raises DataError where the file cannot be read."""


@dataclass(frozen=True)
class _Survey:
    """What reading all rows once has shown; `images` counts them."""

    fields: Fields
    images: int


@dataclass(frozen=True)
class StreamSource:
    """A catalog as a `Source`. Its rows are read once to check them and to find the types of its fields.

    That happens at the first use. Raises DataError, then, for rows without id or image and for repeated ids.
    """

    reader: Reader
    progress: Progress

    def check(self) -> None:
        """Read all rows once, if that has not happened. Raises DataError for what is wrong with them."""
        _ = self._survey

    @property
    def fields(self) -> pa.Schema:
        """See Source."""
        return self._survey.fields.schema()

    @property
    def rows_estimate(self) -> int:
        """The number of images, which is exact."""
        return self._survey.images

    @cached_property
    def _survey(self) -> _Survey:
        fields, ids, began = self.reader.fields(), _Ids(), time.monotonic()
        first, defects = Entry("", "", "", ()), 0
        with self.progress.bar(f"Checking {self.reader.path}", None) as advance:
            for chunk in self.reader.chunks(with_fields=fields.need_values):
                try:
                    fields.observe(chunk.fields)
                except UnicodeEncodeError:
                    raise _not_unicode(chunk) from None
                for entry in chunk.entries:
                    if entry.defect:
                        first = first if defects else entry
                        defects += 1
                    ids.add(entry)
                rate = len(ids.hashes) / max(1e-3, time.monotonic() - began)
                advance(len(chunk.entries), f"{rate:,.0f} images/s")
        if defects:
            more = f", and {counted(defects - 1, 'more row')} cannot be used either" if defects > 1 else ""
            raise DataError(f"{first.defect}{more}", where=first.place, remedy=FIX_ROW)
        if not ids.hashes:
            raise DataError("has no images", where=self.reader.path, remedy=self.reader.empty_remedy)
        if (count := ids.count_repeated()) and (error := self._repeated(ids.first_repeated(), count)):
            raise error
        for name, what in fields.left_out().items():
            logger.log(NOTICE, f"{self.reader.path}: left out column {shown(name)} ({what})")
        for name, value in fields.spoiled().items():
            what = f"{name} is text, although most of its values are numbers, because of values such as {shown(value)}"
            logger.warning(f"{self.reader.path}: {what}. Filters cannot compare it with a number")
        return _Survey(fields, len(ids.hashes))

    def batches(self, shard: Shard, size: int) -> Iterator[Sequence[SourceRow]]:
        """See Source."""
        fields = self._survey.fields
        names = fields.schema().names
        batch: list[SourceRow] = []
        position = 0
        for chunk in self.reader.chunks(with_fields=True):
            chosen = [shard.holds(product_of(entry)) for entry in chunk.entries]
            values = _converted(fields, names, chunk) if any(chosen) else iter([()] * len(chosen))
            for entry, is_chosen, row in zip(chunk.entries, chosen, values, strict=True):
                if entry.defect:
                    raise DataError(f"changed while it was read, and {entry.defect}", where=entry.place, remedy=RERUN)
                if is_chosen:
                    product = product_of(entry)
                    for number, image in enumerate(entry.images):
                        own_id = image_id(entry, number)
                        batch.append(SourceRow(own_id, product, image, position + number, row, entry.place))
                        if len(batch) == size:
                            yield batch
                            batch = []
                position += len(entry.images)
        if batch:
            yield batch

    def _repeated(self, hashes: Sequence[int], count: int) -> DataError | None:
        """Read once more to name a row whose id repeats another's; None if only hashes are equal."""
        suspects, places = set(hashes), dict[str, str]()
        for chunk in self.reader.chunks(with_fields=False):
            for entry in chunk.entries:
                for number in range(len(entry.images)):
                    own_id = image_id(entry, number)
                    if hash(own_id) not in suspects:
                        continue
                    if own_id in places:
                        more = f", and {counted(count - 1, 'more row')} like it" if count > 1 else ""
                        what = f"repeats id {shown(own_id)} of {places[own_id]}{more}"
                        return DataError(what, where=entry.place, remedy=self.reader.repeated_remedy)
                    places[own_id] = entry.place
        return None


def product_of(entry: Entry) -> str:
    """The product that a row's images belong to: as named, else the row's id, else its first image."""
    return entry.product or entry.id or (entry.images[0].name if entry.images else "")


def image_id(entry: Entry, number: int) -> str:
    """The id of a row's image: the row's own for the first, ID#2 and so on for the others; its path without one."""
    if not entry.id:
        return entry.images[number].name
    return f"{entry.id}#{number + 1}" if number else entry.id


class _Ids:
    """Which ids repeat others, in 8 bytes an id: their hashes, in the order of rows."""

    def __init__(self) -> None:
        self.hashes: array[int] = array("q")

    def add(self, entry: Entry) -> None:
        """Add the ids of a row's images."""
        for number in range(len(entry.images)):
            self.hashes.append(hash(image_id(entry, number)))

    def count_repeated(self) -> int:
        """How many ids repeat one before."""
        import numpy as np

        ordered = np.sort(np.frombuffer(self.hashes, np.int64))
        return int(np.count_nonzero(ordered[1:] == ordered[:-1]))

    def first_repeated(self) -> list[int]:
        """The hashes of the first ids that are repeated."""
        import numpy as np

        values, first, counts = np.unique(np.frombuffer(self.hashes, np.int64), return_index=True, return_counts=True)
        is_repeated = counts > 1
        order = np.argsort(first[is_repeated])[:REPEATED_TRACED]
        hashes: list[int] = values[is_repeated][order].tolist()
        return hashes


def make_entry(place: str, ids: Cell | None, products: Cell, images: Sequence[ImageFile]) -> Entry:
    """A row from its cells, with what is wrong with it; `ids` is None if there is no such column."""
    defect = ""
    if ids is not None and len(ids) != 1:
        defect = "has no id" if not ids else "has several ids"
    elif not images:
        defect = "has no image"
    elif len(products) > 1:
        defect = "has several products"
    own_id, product = (cell[0].strip() if cell else "" for cell in (ids, products))
    texts = (own_id, product, *[image.name for image in images])
    if not defect and not "".join(texts).isascii() and (wrong := [text for text in texts if SURROGATE.search(text)]):
        defect = f"has {shown(wrong[0])}, which is not UTF-8 text"
    return Entry(place, own_id, product, images, defect)


def _converted(fields: Fields, names: Sequence[str], chunk: Chunk) -> Iterator[tuple[object, ...]]:
    """The fields of each row, in the order of `names`."""
    missing = [None] * len(chunk.entries)
    columns = [_convert(fields, name, chunk) if name in chunk.fields else missing for name in names]
    return zip(*columns, strict=True) if names else iter([()] * len(missing))


def _convert(fields: Fields, name: str, chunk: Chunk) -> list[object]:
    values = chunk.fields[name]
    try:
        return fields.convert(name, values)
    except (ValueError, OverflowError):
        for row, entry in enumerate(chunk.entries):
            try:
                fields.convert(name, values[row : row + 1])
            except (ValueError, OverflowError) as error:
                what = f"its value in column {shown(name)} cannot be read ({str(error).splitlines()[0]})"
                raise DataError(what, where=entry.place, remedy=FIX_ROW) from error
        raise


def _not_unicode(chunk: Chunk) -> DataError:
    for row, entry in enumerate(chunk.entries):
        for name, values in chunk.fields.items():
            if SURROGATE.search(json.dumps(values[row], ensure_ascii=False)):
                what = f"column {shown(name)} contains an unpaired surrogate, which is not a character"
                return DataError(what, where=entry.place, remedy=FIX_ROW)
    raise AssertionError("text that cannot be encoded has a surrogate")
