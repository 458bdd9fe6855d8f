"""Catalogs on a Milvus server: for rows that one machine does not hold, and for many machines that index and search.

Each table is a collection. What belongs to all of its rows are properties of the collection, which change one by one
and at once, so that any number of processes may index a catalog; an alias names the current table.
"""

import json
import re
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pyarrow as pa

from mlcl_cli.stores import milvus_index
from mlcl_cli.stores.milvus_rows import FIELDS, MAX_BYTES, further_fields
from mlcl_cli.stores.milvus_server import TIMEOUT, MilvusServer
from mlcl_cli.stores.milvus_store import ABOUT, VERSION, MilvusStore, noted_fields
from mlcl_cli.stores.store import ID, NORM, OWN_COLUMNS, POSITION, VECTOR, TableInfo

if TYPE_CHECKING:
    from pymilvus import CollectionSchema, MilvusClient

_KEPT = 3_600  # seconds, for readers: tables that are no longer current
_DONE, _RETIRED, _COMPLETE = "mlcl.done.", "mlcl.retired", "mlcl.complete"


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
        from pymilvus import MilvusException

        table = self._table(info.encoder)
        if not self._exists(table):
            fields = noted_fields(further_fields(info.fields, pa.schema([])), 0)
            about = json.dumps([info.encoder, info.clip, info.dimension, info.precision])
            properties, schema = {ABOUT: about, VERSION: secrets.token_hex(8), **fields}, _schema(info.dimension)

            def request(client: "MilvusClient") -> None:
                try:
                    client.create_collection(
                        table, schema=schema, properties=properties, consistency_level="Strong", timeout=TIMEOUT
                    )
                except MilvusException:
                    if not client.has_collection(table, timeout=TIMEOUT):  # else another process was faster
                        raise

            self._server.ask(request)
        milvus_index.load(self._server, table)
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
        from pymilvus import MilvusException

        def request(client: "MilvusClient") -> None:
            with suppress(MilvusException):  # it exists, or another process makes it at this moment
                client.create_alias(table, self._alias, timeout=TIMEOUT)
            client.alter_alias(table, self._alias, timeout=TIMEOUT)

        self._server.ask(request)

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


def _plain(name: str) -> str:
    """A name of letters, digits and underscores, as collections have them; different for different names."""
    return re.sub("[^A-Za-z0-9]", lambda match: "".join(f"_{byte:02x}" for byte in match[0].encode()), name)


def _schema(dimension: int) -> "CollectionSchema":
    """The columns of a collection: those of every row, and one for all fields."""
    from pymilvus import DataType, MilvusClient

    kinds = {POSITION: DataType.INT64, NORM: DataType.FLOAT, FIELDS: DataType.JSON}
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    for name in (*OWN_COLUMNS[:-1], FIELDS):
        if name in kinds:
            schema.add_field(name, kinds[name])
        else:
            schema.add_field(name, DataType.VARCHAR, max_length=MAX_BYTES, is_primary=name == ID)
    schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dimension)
    return schema
