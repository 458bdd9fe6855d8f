"""A source's rows as a store takes them, and what has changed since they were stored."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from torch import Tensor
from torch.nn.functional import normalize

from mlcl_cli.catalog.source import ImageFile, SourceRow
from mlcl_cli.errors import DataError, NotFiniteError
from mlcl_cli.stores.store import (
    FIELD_PREFIX,
    FIELDS_FINGERPRINT,
    ID,
    IMAGE,
    IMAGE_FINGERPRINT,
    NORM,
    POSITION,
    PRODUCT,
    THUMBNAIL,
    VECTOR,
    Store,
    TableInfo,
)
from mlcl_cli.stores.type_words import many_of_type
from mlcl_cli.suggestions import shown

_SCALARS = {"fp16": np.float16, "fp32": np.float32}
KEPT = (NORM, THUMBNAIL, VECTOR)  # of a row whose image is the same
_canonical = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str).encode


class Known(NamedTuple):
    """What a stored row is compared by."""

    product: str
    image: str
    image_fingerprint: str
    fields_fingerprint: str


@dataclass(frozen=True, slots=True)
class FreshRow:
    """A row to write: `image_fingerprint` is of its bytes as they were read, `fields_fingerprint` of its fields."""

    row: SourceRow
    image_fingerprint: str
    fields_fingerprint: str
    thumbnail: bytes = b""


def stamp(image: ImageFile, status: os.stat_result) -> str:
    """What tells without reading an image that it has not changed: size and time of its file.

    In an archive: the member's offset and size, and the archive's time.
    """
    where = f"{status.st_size}" if image.size is None else f"{image.offset}+{image.size}"
    return f"{where}:{status.st_mtime_ns}"


def image_fingerprint(data: bytes, image: ImageFile, status: os.stat_result) -> str:
    """A digest of an image's bytes, and its stamp."""
    return f"{_digest(data)}:{stamp(image, status)}"


def same_bytes(first: str, second: str) -> bool:
    """Whether two image fingerprints are of the same bytes."""
    return digest_of(first) == digest_of(second)


def digest_of(fingerprint: str) -> str:
    """The digest of an image's bytes in its fingerprint."""
    return fingerprint.partition(":")[0]


def fields_fingerprint(names: Sequence[str], row: SourceRow) -> str:
    """A digest of a row's fields, whatever the order of columns."""
    return _digest(_canonical(dict(zip(names, row.fields, strict=True))).encode("utf-8", "surrogatepass"))


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def known_rows(store: Store, ids: Sequence[str]) -> dict[str, Known]:
    """What is stored under `ids`."""
    columns = (ID, PRODUCT, IMAGE, IMAGE_FINGERPRINT, FIELDS_FINGERPRINT)
    found: dict[str, Known] = {}
    for batch in store.fetch(columns, ids=ids):
        values = zip(*(batch.column(name).to_pylist() for name in columns), strict=True)
        found |= {str(identifier): Known(*rest) for identifier, *rest in values}
    return found


@dataclass(frozen=True)
class RowTable:
    """Makes Arrow tables of rows with the fields `given`, for a table with `info`."""

    info: TableInfo
    given: pa.Schema

    @property
    def fields(self) -> pa.Schema:
        """The fields of the table, then those that only the source has."""
        return pa.schema(
            [*self.info.fields, *(field for field in self.given if field.name not in self.info.fields.names)]
        )

    def encoded(self, rows: Sequence[FreshRow], features: Tensor) -> pa.Table:
        """Rows with raw features (N, d). Raises NotFiniteError where one is not finite."""
        norms = features.norm(dim=-1)
        if not bool(norms.isfinite().all()):
            bad = rows[int(norms.isfinite().logical_not().nonzero()[0])].row
            what = f"the CLIP gives features of {bad.image.name} that are not finite"
            raise NotFiniteError(what, where=bad.place, remedy="Choose another clip.checkpoint")
        scalars = normalize(features, dim=-1).numpy().astype(_SCALARS[self.info.precision])
        vector = pa.FixedSizeListArray.from_arrays(pa.array(scalars.ravel()), self.info.dimension)
        thumbnails = pa.array([row.thumbnail for row in rows], pa.binary())
        return self._table(rows, {NORM: pa.array(norms.numpy()), THUMBNAIL: thumbnails, VECTOR: vector})

    def kept(self, store: Store, rows: Mapping[str, FreshRow]) -> pa.Table:
        """Rows by id with the vectors that are stored; without those that no longer are."""
        schema = self.info.schema()
        columns = [ID, *KEPT]
        batches = store.fetch(columns, ids=[*rows])
        stored = pa.Table.from_batches(batches, pa.schema([schema.field(name) for name in columns]))
        found = [rows[identifier] for identifier in stored[ID].to_pylist()]
        return self._table(found, {name: stored[name] for name in KEPT})

    def _table(self, rows: Sequence[FreshRow], image_columns: Mapping[str, pa.Array]) -> pa.Table:
        schema = replace(self.info, fields=self.fields).schema()
        columns: dict[str, object] = {
            ID: [fresh.row.id for fresh in rows],
            PRODUCT: [fresh.row.product for fresh in rows],
            IMAGE: [fresh.row.image.name for fresh in rows],
            POSITION: [fresh.row.position for fresh in rows],
            IMAGE_FINGERPRINT: [fresh.image_fingerprint for fresh in rows],
            FIELDS_FINGERPRINT: [fresh.fields_fingerprint for fresh in rows],
            **image_columns,
            **{FIELD_PREFIX + field.name: self._field(field, rows) for field in self.fields},
        }
        return pa.table([columns[name] for name in schema.names], schema=schema)

    def _field(self, field: pa.Field, rows: Sequence[FreshRow]) -> pa.Array:
        """A field's column in the type that the table has. Raises DataError if a value does not fit it."""
        index = self.given.get_field_index(field.name)
        if index < 0:
            return pa.nulls(len(rows), field.type)
        values = pa.array([fresh.row.fields[index] for fresh in rows], self.given.field(index).type)
        try:
            return values.cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            wrong = next((row for row in range(len(rows)) if not _can_cast(values[row], field.type)), 0)
            what = f"{_difference(values[wrong].as_py(), field)}, so {shown(values[wrong].as_py())} does not fit"
            remedy = "Change the value, or index into a new catalog with --catalog NAME (catalog.name in the profile)"
            raise DataError(what, where=rows[wrong].row.place, remedy=remedy) from None


def _difference(value: object, field: pa.Field) -> str:
    """What the catalog has where `value` does not fit."""
    stored = f"the catalog stores {field.name!r} as {many_of_type(field.type)}"
    if pa.types.is_integer(field.type) and isinstance(value, float):
        return f"{stored}, since its first rows had no fractions"
    return stored


def _can_cast(value: pa.Scalar, to: pa.DataType) -> bool:
    try:
        value.cast(to)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return True
