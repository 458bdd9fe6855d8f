"""Indexes of a table in LanceDB: on ids and fields, and an approximate one on vectors.

The figures were measured on clustered unit vectors of 640 dimensions, 1,000,000 of them, on two cores.
"""

from typing import TYPE_CHECKING, cast

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from mlcl_cli.stores.conditions import is_ordered, is_text
from mlcl_cli.stores.lance_rows import to_column
from mlcl_cli.stores.scan import COLUMNS
from mlcl_cli.stores.store import FIELD_PREFIX, ID, VECTOR, IndexReport, Vectors

if TYPE_CHECKING:
    from lancedb.query import LanceVectorQueryBuilder
    from lancedb.table import Table

FEWEST_ROWS = 10_000  # below, reading all rows takes some milliseconds
LEAST_EFFORT, MOST_EFFORT = 24, 384  # partitions that a search reads at least, until it has enough candidates
_ROWS_A_PARTITION = 2_000
_CANDIDATES = 4  # for each row that is asked for: those whose stored vectors the database reads
_CANDIDATES_BY_EFFORT = 8  # for each partition, at least
_RANKED = 2  # for each row that is asked for: those that are ranked exactly, since the database rounds queries to fp16
_MAX_CATEGORIES = 1_000  # among a sample's values
_GROWTH = 1.5  # after which an index is built anew
_MAX_PARTS = 8  # of an index, one for each time that it was extended


def index_fields(table: "Table", fields: pa.Schema, sample: pa.Table) -> None:
    """Index ids and fields that are not indexed yet: categories by bitmaps, other words and numbers by a tree."""
    from lancedb.index import Bitmap, BTree

    indexed = {column for index in table.list_indices() for column in index.columns}
    kinds: dict[str, Bitmap | BTree] = {ID: BTree()}
    for field in fields:
        name = FIELD_PREFIX + field.name
        if is_text(field.type) or types.is_boolean(field.type):
            few = pc.count_distinct(sample[name]).as_py() <= _MAX_CATEGORIES
            kinds[to_column(name)] = Bitmap() if few else BTree()
        elif is_ordered(field.type):
            kinds[to_column(name)] = BTree()
    for column, kind in kinds.items():
        if column not in indexed:
            table.create_index(column, config=kind)


def index_vectors(table: "Table", rows: int, dimension: int) -> None:
    """Build the index of vectors, in place of an older one."""
    from lancedb.index import IvfFlat, IvfRq

    kind = IvfRq if dimension % 8 == 0 else IvfFlat  # the former packs a bit for each dimension
    partitions = max(1, rows // _ROWS_A_PARTITION)
    config = kind(distance_type="dot", num_partitions=partitions, sample_rate=64, max_iterations=15)
    table.create_index(VECTOR, config=config)


def is_fresh(table: "Table", report: IndexReport, rows: int) -> bool:
    """Whether the index of vectors needs no building anew. `report` is on its last building."""
    names = [index.name for index in table.list_indices() if VECTOR in index.columns]
    stats = table.index_stats(names[0]) if names else None
    parts = stats.num_indices if stats is not None else None
    return parts is not None and parts <= _MAX_PARTS and rows <= _GROWTH * report.rows


def candidate_count(k: int, effort: int) -> int:
    """How many rows' stored vectors the database reads in a search for the `k` best, about."""
    return max(_CANDIDATES * k, _CANDIDATES_BY_EFFORT * effort)


def candidates(table: "Table", query: Vectors, k: int, where: str | None, effort: int) -> list[pa.RecordBatch]:
    """Rows among which the `k` best are: by the index and then by their stored vectors, or not in the index yet."""
    count = _RANKED * k
    search = cast("LanceVectorQueryBuilder", table.search(query, vector_column_name=VECTOR)).distance_type("dot")
    search = search.minimum_nprobes(effort).maximum_nprobes(0).limit(count)
    search = search.refine_factor(-(-candidate_count(k, effort) // count)).select([*COLUMNS, "_distance"])
    found = (search.where(where) if where else search).to_arrow()
    rows: list[pa.RecordBatch] = found.combine_chunks().to_batches()
    return rows
