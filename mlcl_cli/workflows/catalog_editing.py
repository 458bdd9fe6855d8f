"""Items of a catalog that are added, changed and deleted one by one, as over HTTP."""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

import pyarrow as pa

from mlcl_cli.atomic_files import write_file
from mlcl_cli.errors import DataError, MachineError
from mlcl_cli.images.decode import decode_image
from mlcl_cli.stores.searching import fetch_rows
from mlcl_cli.stores.store import FIELD_PREFIX, FIELDS_FINGERPRINT, ID, IMAGE, PRODUCT, Store
from mlcl_cli.stores.type_words import one_of_type
from mlcl_cli.suggestions import MAX_SHOWN, did_you_mean, shown
from mlcl_cli.workflows.indexing import FOLDER
from mlcl_cli.workflows.references import UnknownItemError
from mlcl_cli.workflows.search_engine import SearchEngine

CHANGES_AT_ONCE = 100  # after which the table is compacted
UNUSED = 3600.0  # seconds, after which a file of an image that no item has is removed
QUIET = 60.0  # seconds without a change, after which it is, too
CHANGED = ""  # the fingerprint of fields that no table has: `mlcl index` compares and rewrites them


@dataclass(frozen=True, slots=True)
class ItemEdit:
    """What changes of an item, or a new item. What is not given stays as it is stored; None empties a field.

    `image` are the bytes of its file.
    """

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
        """Add or change items with different ids; all of them, or none if one cannot be used.

        Raises DataError for an image that cannot be read, a new item without one, and a field that the catalog does not
        have or has with another type. An empty catalog takes any fields.
        """
        with self._lock:
            store = self._current()
            fields = store.info.fields
            if store.count():
                _require_known_fields(edits, fields)
            edits = [replace(edit, fields=_converted(edit.fields, fields)) for edit in edits]
            stored = fetch_rows(store, [edit.id for edit in edits], store.info.schema().names)
            numbers = {identifier: number for number, identifier in enumerate(stored[ID].to_pylist())}
            rows, kept = list[Mapping[str, object]](), list[ItemEdit]()
            for edit in edits:
                if edit.image is not None:
                    whole = _merged(edit, stored, numbers[edit.id]) if edit.id in numbers else edit
                    rows.append(self._row(whole, edit.image))
                elif edit.id in numbers:
                    kept.append(edit)
                else:
                    what = f"the catalog has no item {shown(edit.id)}, and a new item needs an image"
                    raise DataError(what, where="image", remedy="Send one, or check the id")
            self._note_change()
            if kept:
                store.upsert(_edited(stored.take([numbers[edit.id] for edit in kept]), kept))
            if rows:
                self.engine.index(rows, fields)

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


def _require_known_fields(edits: Sequence[ItemEdit], fields: pa.Schema) -> None:
    """Raise DataError for a field that the catalog does not have: a typo would become a column."""
    for name in dict.fromkeys(name for edit in edits for name in edit.fields):
        if name not in fields.names:
            what = f"the catalog has no field {shown(name)}{did_you_mean(name, fields.names)}"
            remedy = "`mlcl index` adds new fields, from a table that has them"
            raise DataError(what, where=f"fields.{name}", remedy=remedy)


def _converted(given: Mapping[str, object], fields: pa.Schema) -> dict[str, object]:
    """Values as the catalog stores them. Raises DataError for one that does not fit its field."""
    return {
        name: value if value is None or (index := fields.get_field_index(name)) < 0 else _fitting(value, fields[index])
        for name, value in given.items()
    }


def _fitting(value: object, field: pa.Field) -> object:
    is_truth, is_number = isinstance(value, bool), isinstance(value, int | float) and not isinstance(value, bool)
    is_whole, is_floating = pa.types.is_integer(field.type), pa.types.is_floating(field.type)
    try:
        if (is_truth and (is_whole or is_floating)) or (is_number and pa.types.is_boolean(field.type)):
            raise pa.ArrowInvalid(value)  # which Arrow would convert
        exact = float(value) if is_floating and isinstance(value, int) else value
        return pa.array([exact]).cast(field.type)[0].as_py()
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        given = json.dumps(value, ensure_ascii=False)
        given = given if len(given) <= MAX_SHOWN else f"{given[: MAX_SHOWN - 3]}..."
        what, remedy = f"must be {one_of_type(field.type)}, got {given}", None
        if is_number and (is_floating or (is_whole and isinstance(value, int))):
            what = f"{given} is too large"
        elif is_number and is_whole:
            remedy = "The catalog's first rows had no fractions; to store some, index them into a new catalog"
        raise DataError(what, where=f"fields.{field.name}", remedy=remedy) from error


def _merged(edit: ItemEdit, stored: pa.Table, number: int) -> ItemEdit:
    """An edit with the product and the fields of its stored row, as far as it does not change them."""
    names = [name for name in stored.column_names if name.startswith(FIELD_PREFIX)]
    fields = {name.removeprefix(FIELD_PREFIX): stored[name][number].as_py() for name in names}
    return replace(edit, product=edit.product or stored[PRODUCT][number].as_py(), fields={**fields, **edit.fields})


def _edited(stored: pa.Table, edits: Sequence[ItemEdit]) -> pa.Table:
    """Stored rows with the product and the fields of the edits, in the same order."""
    whole = [_merged(edit, stored, number) for number, edit in enumerate(edits)]
    named = dict.fromkeys(name for edit in edits for name in edit.fields)
    changes: dict[str, list[object]] = {
        PRODUCT: [one.product for one in whole],
        FIELDS_FINGERPRINT: [CHANGED] * len(edits),
        **{FIELD_PREFIX + name: [one.fields[name] for one in whole] for name in named},
    }
    columns = [
        pa.array(changes[field.name], field.type) if field.name in changes else stored[field.name]
        for field in stored.schema
    ]
    return pa.table(columns, schema=stored.schema)
