"""A table on a Milvus server."""

import base64
import json
import math
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter

from mlcl_cli.stores import milvus_index
from mlcl_cli.stores.conditions import Conditions
from mlcl_cli.stores.milvus_rows import (
    EVERYTHING,
    Entity,
    all_of,
    further_fields,
    is_in,
    key_of,
    quote,
    stored_columns,
    to_batch,
    to_entities,
    to_expression,
)
from mlcl_cli.stores.milvus_server import TIMEOUT, MilvusServer
from mlcl_cli.stores.recall import draw_probes, draw_sample
from mlcl_cli.stores.scan import COLUMNS, best_rows
from mlcl_cli.stores.store import (
    FIELD_PREFIX,
    ID,
    MIN_RECALL,
    POSITION,
    THUMBNAIL,
    VECTOR,
    Found,
    IndexReport,
    TableInfo,
    Vectors,
)

T = TypeVar("T")
Properties: TypeAlias = dict[str, str]
Hit: TypeAlias = Mapping[str, Any]  # pymilvus' own: its score as "distance", its columns as "entity"
_STALENESS = 6  # seconds, after which a search with bounded consistency sees a change
ABOUT, VERSION, _FIELD, _REPORT = "mlcl.about", "mlcl.version", "mlcl.field.", "mlcl.index"
_MESSAGE_BYTES = 16 * 2**20  # about, of a request or an answer; the server takes four times as many
_MAX_IDS = 1_000  # in one expression
_MAX_HITS = 16_384  # that the server returns
_SPARE_HITS = 14  # beyond those that are asked for, to see whether the last one has equals
_CLOSE = 2e-6  # scores whose difference may be the server's rounding
_ROUNDING = 1e-5  # a score in the server's arithmetic is off by less
_INDEX_REPORT = TypeAdapter(IndexReport)


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
        self._noted: Properties = {}
        self._looked = -math.inf  # when what is noted was read

    @property
    def info(self) -> TableInfo:
        """What belongs to all rows, from the collection's properties."""
        return _info(self.properties())

    @property
    def index(self) -> IndexReport | None:
        """The approximate index."""
        return _index(self.properties())

    @property
    def version(self) -> str:
        """A word that each writer draws before and after it changes rows."""
        return self.properties()[VERSION]

    def properties(self) -> Properties:
        """What is noted with the table."""
        about = self._server.ask(lambda client: client.describe_collection(self.table, timeout=TIMEOUT))
        self._noted, self._looked = dict(about["properties"]), time.monotonic()
        return self._noted

    def note(self, properties: Properties) -> None:
        """Note something with the table."""
        self._looked = -math.inf
        self._server.ask(
            lambda client: client.alter_collection_properties(self.table, properties=properties, timeout=TIMEOUT)
        )

    def remove(self) -> None:
        """Remove the table."""
        self._server.ask(lambda client: client.drop_collection(self.table, timeout=TIMEOUT))

    def upsert(self, rows: pa.Table) -> None:
        """Add or replace rows by their ids."""
        from pymilvus import MilvusClient

        if not len(rows):
            return
        info, incoming = self.info, _fields_of(rows.schema)
        if further := further_fields(incoming, info.fields):
            self.note(noted_fields(further, len(info.fields)))
            further_fields(incoming, self.info.fields)  # another process may have added one, with another type
        entities = to_entities(rows)
        width = 4 * info.dimension + rows.nbytes * 4 // (3 * len(rows))
        with self._changing():
            for part in _parts(entities, max(1, _MESSAGE_BYTES // width)):
                self._server.ask(partial(MilvusClient.upsert, collection_name=self.table, data=part, timeout=TIMEOUT))

    def delete(self, ids: Sequence[str]) -> None:
        """Remove rows by their ids."""
        from pymilvus import MilvusClient

        if not ids:
            return
        with self._changing():
            for part in _parts(ids, _MAX_IDS):
                request = partial(MilvusClient.delete, collection_name=self.table, filter=is_in(part), timeout=TIMEOUT)
                self._server.ask(request)

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
            pages = (self._query(all_of(choice, where), stored_columns(columns)) for choice in chosen)
        for page in pages:
            if page:
                yield to_batch(page, schema)

    def search(self, queries: Vectors, k: int, conditions: Conditions = ()) -> list[list[Found]]:
        """The best rows of each query, by the index; those that score about the same, by their stored vectors."""
        report = _index(self._recent_properties())
        return self._search(queries, k, conditions, milvus_index.MOST_EFFORT if report is None else report.effort)

    def count(self, conditions: Conditions = ()) -> int:
        """How many rows satisfy the conditions."""
        (found,) = self._query(to_expression(conditions, self.info.fields), ["count(*)"])
        return int(str(found["count(*)"]))

    def optimize(self, *, index: bool) -> IndexReport | None:
        """With `index`, index vectors, from FEWEST_ROWS rows on, and measure the recall.

        Everything else the server does by itself, and it also indexes what is added later.
        """
        began, rows = time.monotonic(), self.count()
        is_approximate = milvus_index.is_approximate(self._server, self.table)
        if not index or (rows < milvus_index.FEWEST_ROWS and not is_approximate):
            return self.index
        milvus_index.compact(self._server, self.table)
        milvus_index.build(self._server, self.table)
        milvus_index.wait_until_used(self._server, self.table)
        probes, effort = draw_probes(self, draw_sample(self)), milvus_index.LEAST_EFFORT
        while True:
            recall = min(probe.recall(partial(self._search, effort=effort)) for probe in probes)
            if recall >= MIN_RECALL or effort >= milvus_index.MOST_EFFORT:
                break
            effort *= 2
        report = IndexReport(rows, recall, time.monotonic() - began, effort)
        self.note({_REPORT: json.dumps(asdict(report))})
        return report

    def _recent_properties(self) -> Properties:
        """As `properties`, but as they were some seconds ago: a search would take half as long again."""
        return self._noted if time.monotonic() < self._looked + _STALENESS else self.properties()

    def _search(self, queries: Vectors, k: int, conditions: Conditions, effort: int) -> list[list[Found]]:
        """As `search`. More candidates are taken while those beyond the last one asked for may be its equals.

        The server computes with the stored vectors, too, but rounds as it likes. They are read only where that matters.
        """
        where = to_expression(conditions, _info(self._recent_properties()).fields) if conditions else ""
        best: dict[int, list[Found]] = {}
        limit = min(k + _SPARE_HITS, _MAX_HITS)
        for number, hits in enumerate(self._candidates(queries, limit, where, effort, (ID,))):
            scores = [float(hit["distance"]) for hit in hits]
            if all(first - second > _CLOSE for first, second in pairwise(scores[: k + 1])):
                best[number] = [Found(str(hit[ID]), score) for hit, score in zip(hits[:k], scores, strict=False)]
        vector = pa.list_(pa.float32(), queries.shape[1])
        schema = pa.schema({ID: pa.string(), POSITION: pa.int64(), VECTOR: vector})
        while missing := [number for number in range(len(queries)) if number not in best]:
            for part in _parts(missing, max(1, _MESSAGE_BYTES // (4 * limit * queries.shape[1]))):
                several = self._candidates(queries[part], limit, where, effort, COLUMNS)
                for number, hits in zip(part, several, strict=True):
                    found = best_rows([to_batch([hit["entity"] for hit in hits], schema)], queries[number][None], k)[0]
                    fewer = len(hits) < limit or limit == _MAX_HITS
                    if fewer or hits[-1]["distance"] < found[-1].score - _ROUNDING:
                        best[number] = found
            limit = min(4 * limit, _MAX_HITS)
        return [best[number] for number in range(len(queries))]

    def _candidates(
        self, queries: Vectors, limit: int, where: str, effort: int, columns: Sequence[str]
    ) -> Sequence[Sequence[Hit]]:
        settled = time.monotonic() > self._changed + _STALENESS
        found: Sequence[Sequence[Hit]] = self._server.ask(
            lambda client: client.search(
                self.table,
                data=[*queries.astype(np.float32)],
                filter=where,
                limit=limit,
                output_fields=[*columns],
                search_params={"params": {"ef": max(effort, limit)}},
                consistency_level="Bounded" if settled else "Strong",
                timeout=TIMEOUT,
            )
        )
        return found

    def _pages(self, where: str, columns: Sequence[str], size: int) -> Iterator[Sequence[Entity]]:
        """All rows for which an expression holds, by ids. pymilvus' own iterator does not quote them.

        A page that is not full is not the last one: older servers also end one where a segment ends (issue 32059 of
        milvus-io/milvus).
        """
        page: Sequence[Entity] = self._query(where, columns, size)
        while page:
            yield page
            page = self._query(all_of(f"{ID} > {quote(str(page[-1][ID]))}", where), columns, size)

    def _query(self, where: str, columns: Sequence[str], limit: int | None = None) -> Sequence[Entity]:
        """The rows for which an expression holds; with a limit, those whose ids come first."""
        page = {} if limit is None else {"limit": limit, "iterator": "True", "reduce_stop_for_best": "True"}
        found: Sequence[Entity] = self._server.ask(
            lambda client: client.query(
                self.table,
                filter=where or (EVERYTHING if page else ""),
                output_fields=[*columns],
                consistency_level="Strong",
                timeout=TIMEOUT,
                **page,
            )
        )
        return found

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Rows change: the version does before and after, so that no copy made meanwhile passes for the newest."""
        self.note({VERSION: secrets.token_hex(8)})
        try:
            yield
        finally:
            self._changed = time.monotonic()
            self.note({VERSION: secrets.token_hex(8)})


def _info(noted: Properties) -> TableInfo:
    encoder, clip, dimension, precision = json.loads(noted[ABOUT])
    fields = sorted(value.split(":", 1) for key, value in noted.items() if key.startswith(_FIELD))
    schemas = [pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text))) for _, text in fields]
    return TableInfo(encoder, clip, dimension, precision, pa.schema([schema.field(0) for schema in schemas]))


def _index(noted: Properties) -> IndexReport | None:
    report = noted.get(_REPORT)
    return _INDEX_REPORT.validate_json(report) if report else None


def _fields_of(schema: pa.Schema) -> pa.Schema:
    """The fields among the columns of rows, under their own names."""
    return pa.schema(
        [(field.name.removeprefix(FIELD_PREFIX), field.type) for field in schema if field.name.startswith(FIELD_PREFIX)]
    )


def noted_fields(fields: Sequence[pa.Field], first: int) -> Properties:
    """Fields as properties, each of its own, numbered in their order."""
    texts = [base64.b64encode(pa.schema([field]).serialize().to_pybytes()).decode() for field in fields]
    return {
        _FIELD + key_of(field.name): f"{number:06}:{text}"
        for number, (field, text) in enumerate(zip(fields, texts, strict=True), first)
    }


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
