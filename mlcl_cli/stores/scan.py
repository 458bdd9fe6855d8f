"""The best rows among batches of them, by exact arithmetic: what approximate searches end with and are measured by."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlcl_cli.stores.store import ID, POSITION, VECTOR, Found, Vectors

COLUMNS = (ID, POSITION, VECTOR)  # that `best_rows` reads
_ROUNDING = 1e-5  # a product of unit vectors in fp32 is off by less


def vectors_of(batch: pa.RecordBatch) -> Vectors:
    """The stored vectors (n, d) of a batch."""
    column = batch.column(VECTOR)
    values: Vectors = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return values.reshape(len(column), column.type.list_size)


def exact_scores(vectors: NDArray[np.floating], query: Vectors) -> Vectors:
    """The inner products of rows (n, d) with a query (d,), in fp64 and rounded to fp32: equal for equal rows.

    A matrix product would not do: how it rounds a row depends on how many rows there are, and where.
    """
    products = np.multiply(vectors, query, dtype=np.float64)
    scores: Vectors = products.sum(axis=1).astype(np.float32)
    return scores


def best_rows(batches: Iterable[pa.RecordBatch], queries: Vectors, k: int) -> list[list[Found]]:
    """The `k` rows with the largest inner product with each unit query (B, d), best first, in bounded memory.

    Scores are those of `exact_scores`. Equal scores are in the order of `position`.
    """
    best = [_Best(k) for _ in queries]
    for batch in batches:
        if not len(batch):
            continue
        vectors = vectors_of(batch)
        for query, scores, kept in zip(queries, queries @ vectors.T, best, strict=True):
            kept.add(batch, vectors, query, scores)
    return [kept.found() for kept in best]


@dataclass
class _Best:
    """The best rows of one query so far."""

    k: int
    scores: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    positions: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    ids: list[str] = field(default_factory=list)

    def add(self, batch: pa.RecordBatch, vectors: Vectors, query: Vectors, rough: Vectors) -> None:
        """Take the rows of a batch into account, whose scores in fp32 are `rough`."""
        floor = self.scores[-1] if len(self.ids) == self.k else -np.inf
        if len(rough) > self.k:
            floor = max(floor, np.partition(rough, -self.k)[-self.k])
        (rows,) = np.nonzero(rough >= floor - _ROUNDING)
        exact = exact_scores(vectors[rows], query)
        scores = np.concatenate([self.scores, exact])
        positions = np.concatenate([self.positions, batch.column(POSITION).to_numpy()[rows]])
        order = np.lexsort((positions, -scores))[: self.k]
        before, column = len(self.ids), batch.column(ID)
        self.ids = [self.ids[i] if i < before else column[int(rows[i - before])].as_py() for i in order]
        self.scores, self.positions = scores[order], positions[order]

    def found(self) -> list[Found]:
        return [Found(id_, float(score)) for id_, score in zip(self.ids, self.scores, strict=True)]
