"""What a catalog is before it is indexed: a stream of images with their fields, from whatever file or folder."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Shard:
    """The part of a catalog that one process indexes: number `index` of `count`, from 0.

    A product belongs to the shard that a stable hash of its id says, whatever the order of rows.
    """

    index: int = 0
    count: int = 1

    def holds(self, product: str) -> bool:
        """Whether this shard indexes the product."""
        if self.count == 1:
            return True
        digest = hashlib.blake2b(product.encode(), digest_size=8).digest()
        return int.from_bytes(digest) % self.count == self.index


class ImageFile(NamedTuple):
    """An image in the file at `location`, or `size` bytes of that archive from `offset` on.

    `name` is what a catalog stores and messages say: the path as the table has it, or ARCHIVE/MEMBER.
    """

    name: str
    location: str  # no Path, which takes longer to make than all else of a row
    offset: int = 0
    size: int | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.location)


class SourceRow(NamedTuple):
    """An image to index. `fields` are in the order of the source's schema.

    `position` counts the images of the whole catalog, whatever the shard. `place` is the file and line (or row) that it
    comes from, for messages.
    """

    id: str
    product: str
    image: ImageFile
    position: int
    fields: tuple[object, ...]
    place: str


class Source(Protocol):
    """A catalog to index: a folder, a table, or archives. It is read as a stream, in bounded memory."""

    @property
    def fields(self) -> pa.Schema:
        """The names and Arrow types of the fields: every column that is not an id, an image or a product."""

    @property
    def rows_estimate(self) -> int | None:
        """About how many rows there are, for the progress bar; None if that is not known without reading them."""

    def batches(self, shard: Shard, size: int) -> Iterator[Sequence[SourceRow]]:
        """The rows of a shard, `size` at a time. Raises DataError for a row that cannot be read, with its place."""
