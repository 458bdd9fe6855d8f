"""Catalogs on a Milvus server: for rows that one machine does not hold, and for many machines that index and search.

Each table is a collection. What belongs to all of its rows are properties of the collection, which change one by one
and at once, so that any number of processes may index a catalog; an alias names the current table.
"""

import base64
import json
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import pyarrow as pa
from pydantic import TypeAdapter

from mlcl_cli.stores.conditions import Conditions
from mlcl_cli.stores.milvus_index import MOST_EFFORT, build, create_index, tune, wait_for_index
from mlcl_cli.stores.milvus_rows import (
    FIELDS,
    MAX_BYTES,
    further_fields,
    is_in,
    quote,
    stored_columns,
    to_batch,
    to_entities,
    to_expression,
)
from mlcl_cli.stores.milvus_server import TIMEOUT, MilvusServer
from mlcl_cli.stores.scan import COLUMNS, best_rows
from mlcl_cli.stores.store import (
    FIELD_PREFIX,
    ID,
    IMAGE,
    NORM,
    OWN_COLUMNS,
    POSITION,
    THUMBNAIL,
    VECTOR,
    Found,
    IndexReport,
    TableInfo,
    Vectors,
)

if TYPE_CHECKING:
    from pymilvus import CollectionSchema

Properties = dict[str, str]
_KEPT = 3_600  # seconds, for readers: tables that are no longer current
_STALENESS = 6  # seconds, after which a search with bounded consistency sees a change
_ABOUT, _FIELD, _VERSION, _REPORT = "mlcl.about", "mlcl.field.", "mlcl.version", "mlcl.index"
_DONE, _RETIRED, _COMPLETE = "mlcl.done.", "mlcl.retired", "mlcl.complete"
_MESSAGE_BYTES = 16 * 2**20  # about, of a request or an answer; the server takes four times as many
_MAX_IDS = 1_000  # in one expression
_MAX_HITS = 16_384  # that the server returns
_SPARE_HITS = 14  # beyond those that are asked for, to see whether the last one has equals
_ROUNDING = 1e-5  # a score in the server's arithmetic is off by less
_INDEX_REPORT = TypeAdapter(IndexReport)


class MilvusCatalog:
    """A catalog at an address such as milvus://localhost:19530."""

    def __init__(self, address: str, name: str) -> None:
        self._server = MilvusServer(address)
        self._name, self._catalog = name, f"mlcl_{_plain(name)}"
        self._alias = f"{self._catalog}_current"

    @property
    def place(self) -> str:
        """The address, and the name."""
        return f"{self._server.place}, catalog {self._name}"

    def current(self) -> "MilvusStore | None":
        """The table that the alias names."""
        table = self._current_table()
        return MilvusStore(self._server, table) if table is not None else None

    def open(self, encoder: str) -> "MilvusStore | None":
        """The table of an encoder."""
        table = self._table(encoder)
        return MilvusStore(self._server, table) if self._exists(table) else None

    def create(self, info: TableInfo) -> "MilvusStore":
        """The table of an encoder, made and loaded if it is not."""
        table = self._table(info.encoder)
        if not self._exists(table):
            fields = _noted(further_fields(info.fields, pa.schema([])), 0)
            about = json.dumps([info.encoder, info.clip, info.dimension, info.precision])
            properties, schema = {_ABOUT: about, _VERSION: secrets.token_hex(8), **fields}, _schema(info.dimension)
            self._server.ask(
                lambda client: client.create_collection(table, schema=schema, properties=properties, timeout=TIMEOUT)
            )
        self._server.ask(lambda client: _set_ready(client, table))
        store = MilvusStore(self._server, table)
        if store.properties().get(_RETIRED):
            store.note({_RETIRED: ""})
        return store

    def finish(self, encoder: str, shard: int, shards: int) -> bool:
        """Note a finished shard; the last one makes the table current."""
        store = MilvusStore(self._server, self._table(encoder))
        store.note({f"{_DONE}{shards}.{shard}": "yes"})
        noted = store.properties()
        complete = all(noted.get(f"{_DONE}{shards}.{number}") for number in range(shards))
        if complete:
            self._make_current(store.table)
            marks = {key: "" for key, value in noted.items() if key.startswith(_DONE) and value}
            store.note({_COMPLETE: "yes", _RETIRED: "", **marks})
        self._remove_old()
        return complete

    def _make_current(self, table: str) -> None:
        if self._current_table() is None:
            self._server.ask(lambda client: client.create_alias(table, self._alias, timeout=TIMEOUT))
        self._server.ask(lambda client: client.alter_alias(table, self._alias, timeout=TIMEOUT))

    def _remove_old(self) -> None:
        """Note when complete tables ceased to be current, and remove those that did so long ago."""
        current = self._current_table()
        if current is None:
            return
        tables = self._server.ask(lambda client: client.list_collections(timeout=TIMEOUT))
        for table in tables:
            if not table.startswith(self._table("")) or table == current:
                continue
            store = MilvusStore(self._server, table)
            noted = store.properties()
            if not noted.get(_COMPLETE):
                continue
            if not noted.get(_RETIRED):
                store.note({_RETIRED: str(time.time())})
            elif time.time() - float(noted[_RETIRED]) > _KEPT:
                store.remove()

    def _table(self, encoder: str) -> str:
        return f"{self._catalog}_t_{_plain(encoder)}"

    def _exists(self, table: str) -> bool:
        return bool(self._server.ask(lambda client: client.has_collection(table, timeout=TIMEOUT)))

    def _current_table(self) -> str | None:
        if not self._exists(self._alias):
            return None
        about = self._server.ask(lambda client: client.describe_collection(self._alias, timeout=TIMEOUT))
        return str(about["collection_name"])


class MilvusStore:
    """A table of a catalog.

    A row is safe once the server has it in its log: from a killed server, and from a power cut if that log is (on a
    cluster). Fields are one JSON value, at most 64 KiB a row, in which NaN and infinities are missing values. Vectors
    are stored in fp32, whatever their precision: servers before 2.4 have no other. A search by another process may miss
    the changes of the last seconds.
    """

    def __init__(self, server: MilvusServer, table: str) -> None:
        self._server, self.table = server, table
        self._changed = time.monotonic()  # by this process, or perhaps by another before this one opened the table

    @property
    def info(self) -> TableInfo:
        """What belongs to all rows, from the collection's properties."""
        noted = self.properties()
        encoder, clip, dimension, precision = json.loads(noted[_ABOUT])
        fields = sorted(value.split(":", 1) for key, value in noted.items() if key.startswith(_FIELD))
        schemas = [pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text))) for _, text in fields]
        return TableInfo(encoder, clip, dimension, precision, pa.schema([schema.field(0) for schema in schemas]))

    @property
    def index(self) -> IndexReport | None:
        """The approximate index."""
        report = self.properties().get(_REPORT)
        return _INDEX_REPORT.validate_json(report) if report else None

    @property
    def version(self) -> str:
        """A word that each writer draws before and after it changes rows."""
        return self.properties()[_VERSION]

    def properties(self) -> Properties:
        """What is noted with the table."""
        about = self._server.ask(lambda client: client.describe_collection(self.table, timeout=TIMEOUT))
        return dict(about["properties"])

    def note(self, properties: Properties) -> None:
        """Note something with the table."""
        self._server.ask(
            lambda client: client.alter_collection_properties(self.table, properties=properties, timeout=TIMEOUT)
        )

    def remove(self) -> None:
        """Remove the table."""
        self._server.ask(lambda client: client.drop_collection(self.table, timeout=TIMEOUT))

    def upsert(self, rows: pa.Table) -> None:
        """Add or replace rows by their ids."""
        if not len(rows):
            return
        info, incoming = self.info, _fields_of(rows.schema)
        if further := further_fields(incoming, info.fields):
            self.note(_noted(further, len(info.fields)))
            further_fields(incoming, self.info.fields)  # another process may have added one, with another type
        entities = to_entities(rows)
        width = 4 * info.dimension + rows.nbytes * 4 // (3 * len(rows))
        with self._changing():
            for part in _parts(entities, max(1, _MESSAGE_BYTES // width)):
                self._server.ask(partial(_upsert, table=self.table, entities=part))

    def delete(self, ids: Sequence[str]) -> None:
        """Remove rows by their ids."""
        if not ids:
            return
        with self._changing():
            for part in _parts(ids, _MAX_IDS):
                where = is_in(part)
                self._server.ask(partial(_delete, table=self.table, where=where))

    def fetch(
        self,
        columns: Sequence[str],
        *,
        ids: Sequence[str] | None = None,
        conditions: Conditions = (),
        batch_size: int = 8_192,
    ) -> Iterator[pa.RecordBatch]:
        """Rows in the order of ids; each page is of one moment."""
        info = self.info
        schema = pa.schema([info.schema().field(name) for name in columns])
        width = 1_024 + (4 * info.dimension if VECTOR in columns else 0) + (16_384 if THUMBNAIL in columns else 0)
        size = min(batch_size, _MAX_HITS, max(1, _MESSAGE_BYTES // width))
        where = to_expression(conditions, info.fields)
        if ids is None:
            pages = self._pages(where, stored_columns(columns), size)
        else:
            chosen = (is_in(part) for part in _parts([*dict.fromkeys(ids)], min(size, _MAX_IDS)))
            pages = (self._query(_all_of(choice, where), stored_columns(columns), None) for choice in chosen)
        for page in pages:
            if page:
                yield to_batch(page, schema)

    def search(self, queries: Vectors, k: int, conditions: Conditions = ()) -> list[list[Found]]:
        """The best rows of each query: candidates by the index, ranked by their stored vectors."""
        report = self.index if conditions or True else None
        return self._search(queries, k, conditions, report.effort if report is not None else MOST_EFFORT)
