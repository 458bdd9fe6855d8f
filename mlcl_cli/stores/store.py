"""What a catalog's store is: rows of images with their vectors and fields, in whatever database."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlcl_cli.stores.conditions import Conditions

Vectors: TypeAlias = NDArray[np.float32]
Precision = Literal["fp16", "fp32"]
# The columns of every row, in this order; the product table's own columns follow, under their own names.
ID, PRODUCT, IMAGE, POSITION = "id", "product", "image", "position"
NORM, THUMBNAIL, IMAGE_FINGERPRINT, FIELDS_FINGERPRINT, VECTOR = (
    "norm",
    "thumbnail",
    "image_fingerprint",
    "fields_fingerprint",
    "vector",
)
OWN_COLUMNS = (ID, PRODUCT, IMAGE, POSITION, NORM, THUMBNAIL, IMAGE_FINGERPRINT, FIELDS_FINGERPRINT, VECTOR)
FIELD_PREFIX = "field."  # of a product table's columns among those of a row: `field.price`


@dataclass(frozen=True, slots=True)
class IndexReport:
    """An approximate index: how many `rows` it was built on, its recall@10 in [0, 1] against exact search on held-out
    rows, and the seconds that building and tuning took. `effort` is how hard a search tries, in the adapter's unit."""

    rows: int
    recall: float
    seconds: float
    effort: int


@dataclass(frozen=True, slots=True)
class TableInfo:
    """What belongs to all rows of a table.

    `encoder` identifies the CLIP's weights and how images become its input; two tables with the same `encoder` hold the
    same vectors for the same images. `fields` are the names and Arrow types of the product table's columns.
    """

    encoder: str
    clip: str
    dimension: int
    precision: Precision
    fields: pa.Schema

    def schema(self) -> pa.Schema:
        """The Arrow schema of rows: what `Store.upsert` takes and `Store.fetch` gives.

        `id` is unique; `product` is what several images share; `image` is a path, or a member of an archive;
        `position` is the row's place in the catalog, which orders equal scores; `vector` is the unit feature,
        `norm` × `vector` the raw one; `thumbnail` is a small JPEG, empty if there is none; the fingerprints are of the
        image's bytes and of the fields.
        """
        scalar = pa.float16() if self.precision == "fp16" else pa.float32()
        own = {
            ID: pa.string(),
            PRODUCT: pa.string(),
            IMAGE: pa.string(),
            POSITION: pa.int64(),
            NORM: pa.float32(),
            THUMBNAIL: pa.binary(),
            IMAGE_FINGERPRINT: pa.string(),
            FIELDS_FINGERPRINT: pa.string(),
            VECTOR: pa.list_(scalar, self.dimension),
        }
        return pa.schema([*own.items(), *((FIELD_PREFIX + field.name, field.type) for field in self.fields)])


@dataclass(frozen=True, slots=True)
class Found:
    """A row that a search found; `score` is the inner product of the query and the stored vector, in fp32 or better."""

    id: str
    score: float


class Store(Protocol):
    """The rows that one encoder made of a catalog. Every method raises MachineError if the database fails.

    What `upsert` and `delete` did is safe once they return, even from a power cut, and many processes may call them at
    once. A reader never fails because of a writer.
    """

    @property
    def info(self) -> TableInfo:
        """What belongs to all rows. It changes with `upsert` of rows that have further fields."""

    @property
    def index(self) -> IndexReport | None:
        """The approximate index; None without one."""

    @property
    def version(self) -> str:
        """Changes whenever a row does: what a copy of the rows is checked against."""

    def upsert(self, rows: pa.Table) -> None:
        """Add rows, or replace those with the same `id`.

        Fields that the table does not have yet are added to it; raises DataError for a field whose type differs.
        """

    def delete(self, ids: Sequence[str]) -> None:
        """Remove rows. An id that is not there does no harm."""

    def fetch(
        self,
        columns: Sequence[str],
        *,
        ids: Sequence[str] | None = None,
        conditions: Conditions = (),
        batch_size: int = 8_192,
    ) -> Iterator[pa.RecordBatch]:
        """The `columns` of all rows, or of those with `ids` or that satisfy `conditions`, in no particular order.

        Rows are those of one moment, as far as the database allows. A field's column is its name with FIELD_PREFIX; a
        condition names it without.
        """

    def search(self, queries: Vectors, k: int, conditions: Conditions = ()) -> list[list[Found]]:
        """The `k` best rows of each unit query (B, d) by the approximate index, best first.

        Without an index, exactly. Equal scores are in the order of `position`.
        """

    def count(self, conditions: Conditions = ()) -> int:
        """How many rows satisfy the conditions."""

    def optimize(self, *, index: bool) -> IndexReport | None:
        """Compact what many upserts left, drop old versions that no reader can still use, and index fields.

        With `index`, build or refresh the approximate index, and tune it until its recall@10 against exact search is
        at least MIN_RECALL on held-out rows, also under narrow conditions.
        """


MIN_RECALL = 0.95


class Catalog(Protocol):
    """A named catalog: a table for each encoder that it was ever indexed with, one of which is current."""

    @property
    def place(self) -> str:
        """Where it is, for messages: a folder or an address."""

    def current(self) -> Store | None:
        """The table that searches use; None before the first one is complete."""

    def open(self, encoder: str) -> Store | None:
        """The table of an encoder; None if there is none."""

    def create(self, info: TableInfo) -> Store:
        """The table of an encoder, made empty if there is none. Many processes may call it at once."""

    def finish(self, encoder: str, shard: int, shards: int) -> bool:
        """Note that shard number `shard` of `shards` has been indexed, and say whether all of them have.

        Then the encoder's table becomes the current one, and tables that have not been current for an hour are removed.
        """
