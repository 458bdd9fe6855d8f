"""A shard of a catalog into a store: what is new or changed is encoded, the rest is skipped."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
from torch import Tensor

from mlcl_cli.catalog.source import ImageFile, Shard, Source, SourceRow
from mlcl_cli.errors import DataError
from mlcl_cli.features.store import FeatureStore
from mlcl_cli.formatting import counted
from mlcl_cli.images.decode import BadImage, decode_image, read_files, read_part, threaded_map
from mlcl_cli.images.thumbnails import thumbnail
from mlcl_cli.progress import Advance
from mlcl_cli.signals import Interrupted, defer_signals
from mlcl_cli.stores.store import ID, Store
from mlcl_cli.suggestions import shown
from mlcl_cli.workflows.catalog_ids import IdSet
from mlcl_cli.workflows.catalog_rows import (
    FreshRow,
    Known,
    RowTable,
    digest_of,
    fields_fingerprint,
    image_fingerprint,
    known_rows,
    same_bytes,
    stamp,
)

ROWS_AT_ONCE = 4_096  # looked up in the store; a multiple of usual encode batches
ROWS_BETWEEN_COMMITS, SECONDS_BETWEEN_COMMITS = 5_000, 60.0
STAMPS_AT_ONCE = 256
THUMBNAIL_SIDE = 160  # pixels


@dataclass
class Counts:
    """What became of the rows: `updated` counts those whose image or fields changed, `encoded` the images encoded."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    encoded: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.added + other.added,
            self.updated + other.updated,
            self.unchanged + other.unchanged,
            self.encoded + other.encoded,
        )


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A row of the source beside what is stored of it; `stamp` is None if its file cannot be accessed."""

    row: SourceRow
    known: Known | None
    stamp: str | None
    fields_fingerprint: str

    @property
    def image_fingerprint(self) -> str | None:
        """That of the stored image, if this is the same as far as can be seen without reading it."""
        known = self.known
        if known is None or known.image != self.row.image.name or self.stamp is None:
            return None
        return known.image_fingerprint if known.image_fingerprint.endswith(f":{self.stamp}") else None

    @property
    def same_fields(self) -> bool:
        """Whether everything but the image's content is as it is stored."""
        mine = (self.row.product, self.row.image.name, self.fields_fingerprint)
        known = self.known
        return known is not None and mine == (known.product, known.image, known.fields_fingerprint)

    @property
    def file(self) -> tuple[str, Path]:
        """The id, and a path for messages."""
        image = self.row.image
        return self.row.id, image.path if image.size is None else Path(image.name)

    def fresh(self, image_fingerprint: str, jpeg: bytes = b"") -> FreshRow:
        """The row to write."""
        return FreshRow(self.row, image_fingerprint, self.fields_fingerprint, jpeg)


@dataclass
class ShardIndexer:
    """Brings `store` up to date with a shard of `source`.

    What was encoded is committed every ROWS_BETWEEN_COMMITS rows or SECONDS_BETWEEN_COMMITS, and when the work stops
    for whatever reason but SIGKILL; whoever starts it again skips what was committed. An image that cannot be read is
    put into `bad`, and a row that it belongs to stays in the store as it is. `ids` are those of all rows of the shard.
    """

    source: Source
    store: Store
    features: FeatureStore
    shard: Shard
    counts: Counts = field(default_factory=Counts)
    bad: list[BadImage] = field(default_factory=list)
    ids: IdSet = field(default_factory=IdSet)

    def __post_init__(self) -> None:
        self._table = RowTable(self.store.info, self.source.fields)
        self._pending: list[pa.Table] = []
        self._pending_ids: set[str] = set()
        self._began = self._committed = time.monotonic()
        self._done = 0

    def run(self, advance: Advance) -> None:
        """Index all rows of the shard.

        Raises DataError for a row that cannot be read, MachineError if the store fails.
        """
        try:
            for rows in self.source.batches(self.shard, ROWS_AT_ONCE):
                self._require_distinct(rows)
                self.ids.add([row.id for row in rows])
                self._index(rows, advance)
            self._commit()
        except Interrupted as stopped:
            self._commit()
            stored = counted(self.counts.added + self.counts.updated, "row")
            raise Interrupted(f"{stored} stored; run the same command again to go on") from stopped
        except BaseException:
            self._commit()
            raise

    def _index(self, rows: Sequence[SourceRow], advance: Advance) -> None:
        candidates = self._candidates(rows)
        same_bytes = self._same_bytes(candidates)
        encode, rewrite = [], {}
        for one in candidates:
            fingerprint = one.image_fingerprint
            if fingerprint is not None and one.same_fields:
                self.counts.unchanged += 1
            elif same := fingerprint or same_bytes.get(one.row.id):
                rewrite[one.row.id] = one, one.fresh(same)
            else:
                encode.append(one)
        self._report(advance, len(rows) - len(encode) - len(rewrite))
        if rewrite:
            table = self._table.kept(self.store, {identifier: fresh for identifier, (_, fresh) in rewrite.items()})
            stored = [rewrite.pop(identifier)[0] for identifier in table[ID].to_pylist()]
            changed = sum(not one.same_fields for one in stored)
            self._add(table, Counts(updated=changed, unchanged=len(stored) - changed))
            self._report(advance, len(stored))
            encode += [one for one, _ in rewrite.values()]  # another process has deleted them
        self._encode(encode, advance)

    def _candidates(self, rows: Sequence[SourceRow]) -> list[_Candidate]:
        known = known_rows(self.store, [row.id for row in rows])
        names = self.source.fields.names

        def compare(start: int) -> list[_Candidate]:
            return [
                _Candidate(row, known.get(row.id), _stamp(row.image), fields_fingerprint(names, row))
                for row in rows[start : start + STAMPS_AT_ONCE]
            ]

        # In threads, since a network drive takes long to answer.
        compared = threaded_map(compare, range(0, len(rows), STAMPS_AT_ONCE), self.features.workers)
        return [one for part in compared for one in part]

    def _same_bytes(self, candidates: Sequence[_Candidate]) -> dict[str, str]:
        """The new fingerprints, by id, of images whose files look changed but hold the same bytes."""
        suspects = {one.row.id: one for one in candidates if one.known is not None and one.image_fingerprint is None}

        def read(_path: Path, position: int) -> str:
            return _read(files[position][0], suspects)[1]

        files = [one.file for one in suspects.values()]
        read_ones = zip(suspects.values(), read_files(files, read, self.features.workers), strict=True)
        return {
            one.row.id: fingerprint
            for one, fingerprint in read_ones
            if isinstance(fingerprint, str) and one.known and same_bytes(fingerprint, one.known.image_fingerprint)
        }

    def _encode(self, candidates: Sequence[_Candidate], advance: Advance) -> None:
        by_id = {one.row.id: one for one in candidates}

        def read(_path: Path, name: str) -> tuple[Tensor, FreshRow]:
            data, fingerprint = _read(name, by_id)
            image = decode_image(data)
            pixels = self.features.transform(image)
            return pixels, by_id[name].fresh(fingerprint, thumbnail(image, THUMBNAIL_SIDE).jpeg)

        of_bytes: dict[str, Tensor] = {}
        for batch in self.features.encode_files([one.file for one in candidates], read):
            for row, fresh in enumerate(batch.notes):  # equal images tie, whatever they were encoded beside
                batch.features[row] = of_bytes.setdefault(digest_of(fresh.image_fingerprint), batch.features[row])
            for image in batch.bad:
                place = by_id[image.name].row.place
                self.bad.append(replace(image, reason=f"{image.reason}; {place}"))
            if batch.notes:
                added = sum(by_id[fresh.row.id].known is None for fresh in batch.notes)
                encoded = len(batch.notes)
                counts = Counts(added=added, updated=encoded - added, encoded=encoded)
                self._add(self._table.encoded(batch.notes, batch.features), counts)
            self._report(advance, len(batch.notes) + len(batch.bad))

    def _add(self, table: pa.Table, counts: Counts) -> None:
        self._pending.append(table)
        self._pending_ids.update(table[ID].to_pylist())
        self.counts += counts
        if (
            len(self._pending_ids) >= ROWS_BETWEEN_COMMITS
            or time.monotonic() - self._committed > SECONDS_BETWEEN_COMMITS
        ):
            self._commit()

    def _commit(self) -> None:
        with defer_signals():
            # Taken out first: what the store refuses is not offered again when the error is handled.
            tables, self._pending = self._pending, []
            self._pending_ids = set()
            if tables:
                self.store.upsert(pa.concat_tables(tables))
            self._committed = time.monotonic()

    def _report(self, advance: Advance, count: int) -> None:
        self._done += count
        if count:
            rate = self._done / max(1e-3, time.monotonic() - self._began)
            advance(count, f"{rate:,.0f} rows/s")

    def _require_distinct(self, rows: Sequence[SourceRow]) -> None:
        """Raise DataError for an id that another row to be committed has, which a store cannot take at once."""
        seen = self._pending_ids.copy()
        for row in rows:
            if row.id in seen:
                what, remedy = f"repeats the id {shown(row.id)} of an earlier row", "Give each row an id of its own"
                raise DataError(what, where=row.place, remedy=remedy)
            seen.add(row.id)


def _stamp(image: ImageFile) -> str | None:
    try:
        return stamp(image, image.path.stat())
    except OSError:
        return None


def _read(identifier: str, candidates: Mapping[str, _Candidate]) -> tuple[bytes, str]:
    """An image's bytes and fingerprint."""
    image = candidates[identifier].row.image
    data, status = read_part(image.path, image.offset, image.size)
    return data, image_fingerprint(data, image, status)
