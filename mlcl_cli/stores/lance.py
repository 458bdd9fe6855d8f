"""Catalogs in LanceDB: embedded, in a folder, with many readers and writers at once."""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from pydantic import BaseModel, TypeAdapter

from mlcl_cli.atomic_files import exclusive_lock, to_json, write_file
from mlcl_cli.errors import MachineError
from mlcl_cli.signals import defer_signals
from mlcl_cli.stores import lance_index
from mlcl_cli.stores.conditions import Conditions
from mlcl_cli.stores.lance_errors import read_json, reported
from mlcl_cli.stores.lance_files import TableFiles
from mlcl_cli.stores.lance_rows import aligned, from_column, further_columns, stored_schema, to_column
from mlcl_cli.stores.lance_sql import is_in, to_sql
from mlcl_cli.stores.recall import Probe, draw_probes, draw_sample
from mlcl_cli.stores.scan import COLUMNS, best_rows
from mlcl_cli.stores.store import (
    FIELD_PREFIX,
    ID,
    MIN_RECALL,
    VECTOR,
    Found,
    IndexReport,
    Precision,
    TableInfo,
    Vectors,
)

if TYPE_CHECKING:
    from lancedb import DBConnection
    from lancedb.table import Table

KEPT = timedelta(hours=1)  # for readers: old versions of a table, and tables that are no longer current
GRACE = timedelta(minutes=1)  # between a version's own time and that of its file
FOREVER = timedelta(days=100 * 365)
STALENESS = timedelta(seconds=5)  # after which a reader looks for a new version
_METADATA = b"mlcl"
_MAX_IDS = 10_000  # in one condition
_ATTEMPTS = 5  # where the file system has no locks
_REPORT = TypeAdapter(IndexReport)


class _State(BaseModel):
    """What a catalog's tables are to it. `done` holds the finished shards by table and number of shards."""

    current: str | None = None
    retired: dict[str, float] = {}  # when each ceased to be current, in seconds since the epoch
    done: dict[str, dict[int, list[int]]] = {}


_STATE = TypeAdapter(_State)


class LanceCatalog:
    """A catalog in a folder: NAME.lance for each table, its report and mark beside it, and which one is current."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._connection: DBConnection | None = None
        self._stores: dict[str, LanceStore] = {}  # one a table, so that this process sees its own changes at once

    @property
    def place(self) -> str:
        """The folder."""
        return str(self._folder)

    def current(self) -> "LanceStore | None":
        """The table that searches use."""
        name = self._state().current
        return self.open(name) if name is not None else None

    def open(self, encoder: str) -> "LanceStore | None":
        """The table of an encoder."""
        files = self._files(encoder)
        with reported(self._folder):
            files.recover()
            return self._open(encoder, files) if files.exists() else None

    def create(self, info: TableInfo) -> "LanceStore":
        """The table of an encoder, made if there is none."""
        with self._exclusively() as state:
            if state.retired.pop(info.encoder, None) is not None:
                self._write(state)
        files = self._files(info.encoder)
        with reported(self._folder), files.commit():
            if not files.exists():
                about = json.dumps({"encoder": info.encoder, "clip": info.clip})
                schema = stored_schema(info.schema()).with_metadata({_METADATA: about.encode()})
                self._connect().create_table(info.encoder, schema=schema)
                self._stores.pop(info.encoder, None)
            return self._open(info.encoder, files)

    def finish(self, encoder: str, shard: int, shards: int) -> bool:
        """Note a finished shard; the last one makes the table current."""
        with self._exclusively() as state:
            done = state.done.setdefault(encoder, {}).setdefault(shards, [])
            if shard not in done:
                done.append(shard)
            complete = len(done) == shards
            if complete:
                del state.done[encoder]
                if state.current not in (None, encoder):
                    state.retired[str(state.current)] = time.time()
                state.current = encoder
                state.retired.pop(encoder, None)
            for name, since in [*state.retired.items()]:
                if time.time() - since > KEPT.total_seconds():
                    self._files(name).remove()
                    self._stores.pop(name, None)
                    del state.retired[name]
            self._write(state)
            return complete

    def _open(self, encoder: str, files: TableFiles) -> "LanceStore":
        if encoder not in self._stores:
            self._stores[encoder] = LanceStore(self._connect().open_table(encoder), files)
        return self._stores[encoder]

    def _files(self, encoder: str) -> TableFiles:
        return TableFiles(self._folder / f"{encoder}.lance")

    def _connect(self) -> "DBConnection":
        if self._connection is None:
            os.environ.setdefault("LANCEDB_LOG", "error")  # it would print warnings that are none
            with defer_signals():  # pydantic turns an interruption within it into an error of its own
                import lancedb

            # Caches fill up with old versions as a table changes. An index of ten million vectors takes most of a GiB.
            index_cache, metadata = (2**30, 2**26) if any(self._folder.glob("*.index.json")) else (2**24, 2**24)
            session = lancedb.Session(index_cache_size_bytes=index_cache, metadata_cache_size_bytes=metadata)
            self._connection = lancedb.connect(self._folder, read_consistency_interval=STALENESS, session=session)
        return self._connection

    @contextmanager
    def _exclusively(self) -> Iterator[_State]:
        """The state, which no other process changes meanwhile."""
        with exclusive_lock(self._folder / "catalog.lock", lambda: None):
            yield self._state()

    @property
    def _state_path(self) -> Path:
        return self._folder / "catalog.json"

    def _state(self) -> _State:
        return read_json(self._state_path, _STATE) or _State()

    def _write(self, state: _State) -> None:
        write_file(self._state_path, state.model_dump_json().encode())


class LanceStore:
    """A table of a catalog."""

    def __init__(self, table: "Table", files: TableFiles) -> None:
        self._table, self._files = table, files

    @property
    def info(self) -> TableInfo:
        """What belongs to all rows, from the table's schema."""
        with self._reported():
            schema = self._table.schema
        about = json.loads(schema.metadata[_METADATA])
        vector = schema.field(VECTOR).type
        names = [from_column(column) for column in schema.names]
        fields = [
            pa.field(name.removeprefix(FIELD_PREFIX), column.type)
            for name, column in zip(names, schema, strict=True)
            if name.startswith(FIELD_PREFIX)
        ]
        precision: Precision = "fp16" if vector.value_type == pa.float16() else "fp32"
        return TableInfo(about["encoder"], about["clip"], vector.list_size, precision, pa.schema(fields))

    @property
    def index(self) -> IndexReport | None:
        """The approximate index."""
        return read_json(self._files.report, _REPORT)

    @property
    def version(self) -> str:
        """The number of the newest commit that this process has seen, and when it was made."""
        with self._reported():
            return self._files.identify(self._table.version)

    def upsert(self, rows: pa.Table) -> None:
        """Add or replace rows by their ids."""

        def merge() -> None:
            further = further_columns(rows.schema, self._table.schema)
            if further:
                self._table.add_columns(pa.schema(further))
            merge = self._table.merge_insert(ID).when_matched_update_all().when_not_matched_insert_all()
            merge.execute(aligned(rows, self._table.schema))

        if len(rows):
            self._commit(merge)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove rows by their ids."""
        if ids:
            self._commit(lambda: [self._table.delete(is_in(ID, part)) for part in _parts(ids)])

    def fetch(
        self,
        columns: Sequence[str],
        *,
        ids: Sequence[str] | None = None,
        conditions: Conditions = (),
        batch_size: int = 8_192,
    ) -> Iterator[pa.RecordBatch]:
        """Rows as a stream; those of one version, unless there are more `ids` than fit into one query."""
        info = self.info
        schema, where = info.schema(), to_sql(conditions, info.fields)
        schema = pa.schema([schema.field(name) for name in columns])
        for chosen in [None] if ids is None else [is_in(ID, part) for part in _parts(ids)]:
            query = self._table.search().select([to_column(name) for name in columns]).limit(None)
            if clauses := [clause for clause in (chosen, where) if clause]:
                query = query.where(" AND ".join(clauses))
            with self._reported():
                for batch in query.to_batches(batch_size):
                    if len(batch):
                        yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)

    def search(self, queries: Vectors, k: int, conditions: Conditions = ()) -> list[list[Found]]:
        """The best rows of each query: candidates by the index, ranked by their stored vectors."""
        report = self.index
        if report is None:
            return best_rows(self.fetch(COLUMNS, conditions=conditions), queries, k)
        return self._search(queries, k, conditions, report.effort)

    def count(self, conditions: Conditions = ()) -> int:
        """How many rows satisfy the conditions."""
        with self._reported():
            return int(self._table.count_rows(to_sql(conditions, self.info.fields)))

    def optimize(self, *, index: bool) -> IndexReport | None:
        """Compact the table; from FEWEST_ROWS rows on also index fields and, with `index`, vectors.

        An index that has not fallen behind is only extended, unless its recall turns out too low.
        """
        began = time.monotonic()
        self._commit(partial(self._table.optimize, cleanup_older_than=FOREVER))
        self._commit(self._clean_up)  # now that the new version is synced
        rows = self.count()
        if rows < lance_index.FEWEST_ROWS:
            return self.index
        sample = draw_sample(self)
        self._commit(lambda: lance_index.index_fields(self._table, self.info.fields, sample))
        if not index:
            return self.index
        report, probes = self.index, draw_probes(self, sample)
        if report is not None and lance_index.is_fresh(self._table, report, rows):
            tuned = self._tune(probes, report.rows, report.effort, began)
            if tuned.recall >= MIN_RECALL:
                return tuned
        self._commit(lambda: lance_index.index_vectors(self._table, rows, self.info.dimension))
        return self._tune(probes, rows, lance_index.LEAST_EFFORT, began)

    def _clean_up(self) -> None:
        """Drop versions that newer ones replaced longer than KEPT ago; an old one that was just replaced is in use."""
        age = self._files.age_of_version_before(KEPT.total_seconds())
        if age is not None:
            self._table.optimize(cleanup_older_than=timedelta(seconds=age) + GRACE)

    def _tune(self, probes: Sequence[Probe], rows: int, effort: int, began: float) -> IndexReport:
        """Raise the effort until the recall is high enough or no effort helps, and note it with the table."""
        while True:
            recall = min(probe.recall(partial(self._search, effort=effort)) for probe in probes)
            if recall >= MIN_RECALL or effort >= lance_index.MOST_EFFORT:
                break
            effort *= 2
        report = IndexReport(rows, recall, time.monotonic() - began, effort)
        write_file(self._files.report, to_json(asdict(report)))
        return report

    def _search(self, queries: Vectors, k: int, conditions: Conditions, effort: int) -> list[list[Found]]:
        where = to_sql(conditions, self.info.fields)
        with self._reported():
            candidates = (lance_index.candidates(self._table, query, k, where, effort) for query in queries)
            return [best_rows(rows, query[None], k)[0] for query, rows in zip(queries, candidates, strict=True)]

    def _commit(self, change: Callable[[], object]) -> None:
        """Apply a change to the newest version, while no other process does, and sync it."""
        with self._reported(), self._files.commit():
            for attempt in range(_ATTEMPTS):
                self._table.checkout_latest()
                try:
                    change()
                    break
                except RuntimeError as error:
                    if "conflict" not in str(error).lower() or attempt + 1 == _ATTEMPTS:
                        raise

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            with reported(self._files.folder):
                yield
        except MachineError as error:
            if self._files.exists():
                raise
            what = "the table has been removed, some time after another one replaced it"
            raise MachineError(what, where=self._files.folder, remedy="Open the catalog again") from error


def _parts(ids: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _MAX_IDS):
        yield [*ids[start : start + _MAX_IDS]]
