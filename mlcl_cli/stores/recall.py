"""How well an approximate index finds what exact search finds, measured on rows of the table itself."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from mlcl_cli.stores.conditions import Condition, Conditions, is_ordered, is_text
from mlcl_cli.stores.scan import COLUMNS, best_rows, vectors_of
from mlcl_cli.stores.store import FIELD_PREFIX, ID, VECTOR, Found, Store, Vectors

RECALL_AT = 10
SHARES = (0.1, 0.001)  # of the rows that the narrow conditions keep, about
_ROUNDING = 2e-6  # by which a database's score may differ from ours
_QUERIES, _SAMPLE, _SEED = 100, 20_000, 0

Search = Callable[[Vectors, int, Conditions], list[list[Found]]]


@dataclass(frozen=True)
class Probe:
    """Rows as queries (Q, d), their ids, and the best other rows for each, among those that satisfy the conditions."""

    conditions: Conditions
    ids: Sequence[str]
    queries: Vectors
    best: Sequence[Sequence[Found]]

    def recall(self, search: Search) -> float:
        """The share of `best` that a search finds; 1 if there are none. A row that scores as high is as good."""
        found = search(self.queries, RECALL_AT + 1, self.conditions)
        hits = expected = 0
        for others, best in zip(map(_others, self.ids, found), self.best, strict=True):
            hits += sum(other.score >= best[-1].score - _ROUNDING for other in others) if best else 0
            expected += len(best)
        return hits / expected if expected else 1.0


def draw_probes(store: Store, sample: pa.Table) -> list[Probe]:
    """Queries without conditions, and with conditions on fields that keep few rows, as far as there are such fields.

    The queries are held out: a row never counts as its own neighbor. `sample` is what `draw_sample` gives. Reads all
    vectors once for each probe, in bounded memory.
    """
    rows = np.random.default_rng(_SEED).permutation(len(sample))[:_QUERIES]
    ids, vectors = [], []
    for batch in store.fetch([ID, VECTOR], ids=sample[ID].take(rows).to_pylist()):
        ids += batch.column(ID).to_pylist()
        vectors.append(vectors_of(batch))
    queries = np.concatenate(vectors or [np.empty((0, store.info.dimension), np.float32)])
    narrow = [narrow_condition(sample, store.info.fields, share) for share in SHARES]
    probes = []
    for conditions in ([], *([condition] for condition in narrow if condition is not None)):
        best = best_rows(store.fetch(COLUMNS, conditions=conditions), queries, RECALL_AT + 1)
        probes.append(
            Probe(conditions, ids, queries, [_others(id_, found) for id_, found in zip(ids, best, strict=True)])
        )
    return probes


def draw_sample(store: Store) -> pa.Table:
    """Ids and fields of rows that are drawn from all with equal chances; all rows, if they are few."""
    columns = [ID, *(FIELD_PREFIX + name for name in store.info.fields.names)]
    draw = np.random.default_rng(_SEED)
    kept: pa.Table | None = None
    keys: NDArray[np.float64] = np.empty(0)
    for batch in store.fetch(columns):
        keys = np.concatenate([keys, draw.random(len(batch))])
        rows = pa.Table.from_batches([batch])
        kept = rows if kept is None else pa.concat_tables([kept, rows])
        if len(keys) > 2 * _SAMPLE:
            kept, keys = _smallest(kept, keys)
    schema = store.info.schema()
    return schema.empty_table().select(columns) if kept is None else _smallest(kept, keys)[0]


def narrow_condition(sample: pa.Table, fields: pa.Schema, share: float) -> Condition | None:
    """A condition that keeps about `share` of the rows, at least half and at most twice as many; None if there is none.

    On numbers, dates and times it is an upper bound, on words a single one.
    """
    formed = [_condition(field.name, sample[FIELD_PREFIX + field.name], share) for field in fields]
    usable = [(abs(math.log(kept / share)), condition) for condition, kept in filter(None, formed) if kept]
    off, condition = min(usable, key=lambda pair: pair[0], default=(math.inf, None))
    return condition if off <= math.log(2) else None


def _condition(name: str, values: pa.ChunkedArray, share: float) -> tuple[Condition, float] | None:
    """The condition on one field that comes closest, and the share of rows that it keeps."""
    total, values = len(values), values.drop_null()
    if not len(values):
        return None
    if is_ordered(values.type) and not _has_nanoseconds(values.type):
        ordered = values.take(pc.array_sort_indices(values.combine_chunks()))
        bound = ordered[min(round(share * total), len(ordered) - 1)]
        return Condition(name, "<", bound.as_py()), pc.sum(pc.less(values, bound)).as_py() / total
    if is_text(values.type) or types.is_boolean(values.type):
        counts = values.value_counts()
        nearest = min(counts, key=lambda pair: abs(math.log(pair["counts"].as_py() / total / share)))
        return Condition(name, "=", nearest["values"].as_py()), nearest["counts"].as_py() / total
    return None


def _has_nanoseconds(type_: pa.DataType) -> bool:
    """Whether these are moments that Python cannot hold."""
    return bool(types.is_timestamp(type_) and type_.unit == "ns")


def _others(id_: str, found: Sequence[Found]) -> list[Found]:
    """What was found besides the query itself."""
    return [other for other in found if other.id != id_][:RECALL_AT]


def _smallest(rows: pa.Table, keys: NDArray[np.float64]) -> tuple[pa.Table, NDArray[np.float64]]:
    order = np.argsort(keys, kind="stable")[:_SAMPLE]
    return rows.take(order), keys[order]
