"""Items of a catalog that are added, changed and deleted one by one, as over HTTP."""

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import pyarrow as pa

from mlcl_cli.atomic_files import write_file
from mlcl_cli.errors import DataError, MachineError
from mlcl_cli.images.decode import decode_image
from mlcl_cli.stores.searching import fetch_rows
from mlcl_cli.stores.store import FIELD_PREFIX, FIELDS_FINGERPRINT, ID, IMAGE, PRODUCT, Store
from mlcl_cli.workflows.indexing import FOLDER
from mlcl_cli.workflows.references import UnknownItemError
from mlcl_cli.workflows.search_engine import SearchEngine

CHANGES_AT_ONCE = 100  # after which the table is compacted
UNUSED = 3600.0  # seconds, after which a file of an image that no item has is removed
QUIET = 60.0  # seconds without a change, after which it is, too
CHANGED = ""  # the fingerprint of fields that no table has: `mlcl index` compares and rewrites them


@dataclass(frozen=True, slots=True)
class ItemEdit:
    """An item as it is to be. Without an `image` (the bytes of its file), that of the stored item stays."""

    id: str
    image: bytes | None
    product: str | None
    fields: Mapping[str, object]


@dataclass(eq=False)
class CatalogEditor:
    """Changes the catalog that an engine searches, one change at a time.

    Images are kept under WORKSPACE/catalogs/NAME.images, named by their content.
    """

    engine: SearchEngine

    def __post_init__(self) -> None:
        self._lock = Lock()
        self._changes, self._changed = 0, time.monotonic()
        profile = self.engine.context.profile
        self._images = profile.workspace / FOLDER / f"{profile.catalog.name}.images"

    def put(self, edits: Sequence[ItemEdit]) -> None:
        """Add or replace items with different ids; all of them, or none if one cannot be used.

        Raises DataError for an image that cannot be read and a field of another type than the catalog's,
        UnknownItemError for a new item without an image.
        """
        with self._lock:
            store = self._current()
            kept = [edit for edit in edits if edit.image is None]
            stored = fetch_rows(store, [edit.id for edit in kept], store.info.schema().names)
            known = set(stored[ID].to_pylist())
            for edit in kept:
                if edit.id not in known:
                    raise UnknownItemError(edit.id)
            rows = [self._row(edit, edit.image) for edit in edits if edit.image is not None]
            self._note_change()
            if kept:
                by_id = {edit.id: edit for edit in kept}
                store.upsert(_edited(store, stored, [by_id[identifier] for identifier in stored[ID].to_pylist()]))
            if rows:
                self.engine.index(rows)

    def delete(self, identifier: str) -> None:
        """Remove an item. Raises UnknownItemError if there is none."""
        with self._lock:
            store = self._current()
            if not len(fetch_rows(store, [identifier], [ID])):
                raise UnknownItemError(identifier)
            self._note_change()
            store.delete([identifier])

    def tidy(self) -> None:
        """Compact the table after many changes, or some time after the last one. Raises MachineError if it fails."""
        is_due = self._changes >= CHANGES_AT_ONCE or time.monotonic() > self._changed + QUIET
        if self._changes and is_due:
            with self._lock:
                self._changes = 0
            self.engine.optimize()
            self._remove_images()

    def _current(self) -> Store:
        """The engine's table. Raises MachineError once another CLIP's is current, where a change would get lost."""
        store, current = self.engine.store, self.engine.catalog.current()
        if current is None or current.info.encoder != store.info.encoder:
            what = "the catalog has been indexed with another CLIP, which is being loaded"
            raise MachineError(what, where=self.engine.catalog.place, remedy="Try again in a minute")
        return store

    def _remove_images(self) -> None:
        """Remove files of images that no item has, but for those of the last hour: an item may be about to."""
        batches = self.engine.store.fetch([IMAGE])
        used = {Path(image).name for batch in batches for image in batch.column(IMAGE).to_pylist()}
        for path in self._images.glob("*/*"):
            with suppress(FileNotFoundError):  # another worker removes them, too
                if path.name not in used and path.stat().st_mtime < time.time() - UNUSED:
                    path.unlink()

    def _note_change(self) -> None:
        self._changes += 1
        self._changed = time.monotonic()

    def _row(self, edit: ItemEdit, data: bytes) -> dict[str, object]:
        return {ID: edit.id, "image": self._save(data), PRODUCT: edit.product, "fields": edit.fields}

    def _save(self, data: bytes) -> Path:
        try:
            decode_image(data)
        except (OSError, ValueError) as error:
            raise DataError(f"cannot be used: {error}", where="image", remedy="Send another one") from error
        name = hashlib.blake2b(data, digest_size=16).hexdigest()
        path = self._images / name[:2] / name
        try:
            os.utime(path)  # it is in use again
        except FileNotFoundError:
            write_file(path, data)
        return path


def _edited(store: Store, stored: pa.Table, edits: Sequence[ItemEdit]) -> pa.Table:
    """Stored rows with the product and the fields of the edits, in the same order."""
    columns = {name: stored[name] for name in stored.column_names if not name.startswith(FIELD_PREFIX)}
    products = [edit.product or old for edit, old in zip(edits, stored[PRODUCT].to_pylist(), strict=True)]
    columns[PRODUCT] = pa.array(products, pa.string())
    columns[FIELDS_FINGERPRINT] = pa.array([CHANGED] * len(edits), pa.string())
    fields = store.info.fields
    for name in dict.fromkeys([*fields.names, *(name for edit in edits for name in edit.fields)]):
        values = [edit.fields.get(name) for edit in edits]
        index = fields.get_field_index(name)
        try:
            column = pa.array(values)
            columns[FIELD_PREFIX + name] = column if index < 0 else column.cast(fields.field(index).type)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
            expected = "one type" if index < 0 else str(fields.field(index).type)
            raise DataError(
                f"expected {expected}, got another, or a value that is too large",
                where=f"fields.{name}",
                remedy="Convert it",
            ) from error
    return pa.table(columns)
