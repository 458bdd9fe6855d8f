"""Copies of a table's rows in local files, mapped into memory: what exact search reads.

A copy is a folder named after what it is a copy of, and complete from its first moment: it is written under another
name. One that another process still reads may be deleted: the system keeps its files until then.
"""

import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from secrets import token_hex

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlcl_cli.stores.scan import vectors_of
from mlcl_cli.stores.store import FIELD_PREFIX, ID, POSITION, PRODUCT, VECTOR, Precision, Store, TableInfo

logger = logging.getLogger(__name__)

_Block = NDArray[np.floating]
_FORMAT = 1  # of the folders; raise it when their contents change
_NAME = re.compile(r"rows-[0-9a-f]{32}(\.[0-9a-f]{8}\.partial)?")
_VECTORS, _ROWS = "vectors", "rows.arrow"
_KEPT = 2  # complete copies: the newest, and one that another process may be about to open
_ABANDONED = 3_600  # seconds after which an incomplete copy is taken to be a dead process's
_DTYPES: dict[Precision, np.dtype[np.floating]] = {"fp16": np.dtype(np.float16), "fp32": np.dtype(np.float32)}


@dataclass(frozen=True, slots=True)
class Copy:
    """The rows of a table: unit vectors (n, d), and a table of their `id`, `product`, `position` and fields."""

    vectors: NDArray[np.floating]
    rows: pa.Table


def open_copy(store: Store, folder: Path, precision: Precision) -> Copy:
    """The rows of a table as they are now, from the copy in `folder`, which is made if it is not there.

    Where it cannot be written, it is in memory alone, and a warning is logged. Raises MachineError if the database
    fails.
    """
    key = f"{_FORMAT} {precision} {store.info.encoder} {store.version}"
    place = folder / f"rows-{blake2b(key.encode(), digest_size=16).hexdigest()}"
    info = store.info
    try:
        return _open(place, info, precision)
    except FileNotFoundError:
        pass
    except (OSError, ValueError):  # damaged
        shutil.rmtree(place, ignore_errors=True)
    try:
        _make(store, info, place, precision)
        return _open(place, info, precision)
    except OSError as error:
        logger.warning(f"{folder}: the copy of the catalog that searches read cannot be kept here ({error.strerror})")
        return _read(store, info, precision)
    finally:
        _clean(folder, place)


def _open(place: Path, info: TableInfo, precision: Precision) -> Copy:
    rows = pa.ipc.open_file(pa.memory_map(str(place / _ROWS))).read_all()
    dtype, shape = _DTYPES[precision], (len(rows), info.dimension)
    return Copy(np.memmap(place / _VECTORS, dtype, "r", shape=shape) if len(rows) else np.empty(shape, dtype), rows)


def _make(store: Store, info: TableInfo, place: Path, precision: Precision) -> None:
    incomplete = place.with_name(f"{place.name}.{token_hex(4)}.partial")
    try:
        incomplete.mkdir(parents=True)
        with (incomplete / _VECTORS).open("wb") as vectors, (incomplete / _ROWS).open("wb") as rows:
            with pa.ipc.new_file(rows, _schema(info)) as writer:
                for block, batch in _blocks(store, info, precision):
                    vectors.write(block.data)
                    writer.write_batch(batch)
            for file in (vectors, rows):
                file.flush()
                os.fsync(file.fileno())
        with suppress(OSError):  # another process was faster
            incomplete.rename(place)
    finally:
        shutil.rmtree(incomplete, ignore_errors=True)


def _read(store: Store, info: TableInfo, precision: Precision) -> Copy:
    blocks, batches = [np.empty((0, info.dimension), _DTYPES[precision])], []
    for block, batch in _blocks(store, info, precision):
        blocks.append(block)
        batches.append(batch)
    return Copy(np.concatenate(blocks), pa.Table.from_batches(batches, _schema(info)))


def _blocks(store: Store, info: TableInfo, precision: Precision) -> Iterator[tuple[_Block, pa.RecordBatch]]:
    names = _schema(info).names
    for batch in store.fetch([*names, VECTOR]):
        yield vectors_of(batch).astype(_DTYPES[precision], copy=False), batch.select(names)


def _schema(info: TableInfo) -> pa.Schema:
    schema = info.schema()
    names = [ID, PRODUCT, POSITION, *(FIELD_PREFIX + name for name in info.fields.names)]
    return pa.schema([schema.field(name) for name in names])


def _clean(folder: Path, current: Path) -> None:
    """Delete copies of other versions, and what processes that died left."""
    with suppress(OSError):
        found = [(path.stat().st_mtime, path) for path in folder.iterdir() if _NAME.fullmatch(path.name)]
        partial = {path for _, path in found if path.suffix}
        others = sorted((pair for pair in found if pair[1] not in {current, *partial}), reverse=True)
        stale = [path for _, path in others[_KEPT - 1 :]]
        stale += [path for changed, path in found if path in partial and time.time() - changed > _ABANDONED]
        for path in stale:
            shutil.rmtree(path, ignore_errors=True)
