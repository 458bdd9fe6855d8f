"""Exact search: the scores of all rows of a table, on a CPU or a GPU."""

import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlcl_cli.stores.comparisons import group_column, satisfied, stored
from mlcl_cli.stores.conditions import Conditions
from mlcl_cli.stores.copies import Copy
from mlcl_cli.stores.scan import exact_scores
from mlcl_cli.stores.store import ID, POSITION, Found, Vectors

MAX_SCORES = 50_000_000  # fp32 scores in memory at once: 200 MB
_NARROW = 1 / 8  # the share of rows below which a CPU copies them faster than it multiplies all
_ROWS_AT_ONCE = 32_768  # that are copied to a GPU, or scored exactly
# How far a product of unit vectors is off, at most: in fp16, query and row are rounded, and their product is in fp32.
_ROUNDING = {torch.float32: 5e-6, torch.float16: 1.5e-3}
_Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Groups:
    """The number of each row's group (n,), below `count`."""

    numbers: Tensor
    count: int


class ExactRows:
    """The rows of a copy, searched by a matrix product and exact arithmetic.

    The product tells which rows can be among the best; their `exact_scores` tell which are, and equal ones are in the
    order of `position`. So the result does not depend on the device, on `dtype`, or on what is searched at once.
    """

    def __init__(self, copy: Copy, fields: pa.Schema, device: torch.device, dtype: torch.dtype) -> None:
        """`dtype` is that of the vectors in the product. Raises torch.OutOfMemoryError if a GPU cannot hold them."""
        self._copy, self._fields = copy, fields
        self._positions = copy.rows[POSITION].to_numpy()
        self._vectors = _as_tensor(copy.vectors, device, dtype)
        self._groups: dict[str, _Groups] = {}

    def search(
        self,
        queries: Vectors,
        k: int,
        conditions: Conditions = (),
        exclude: Sequence[Collection[str]] = (),
        group_by: str | None = None,
    ) -> list[list[Found]]:
        """As `Searcher.search`."""
        groups = self._groups_of(group_by) if group_by is not None else None
        kept = satisfied(self._copy.rows, conditions, self._fields) if conditions else None
        vectors, rows = self._vectors, None
        if kept is not None and vectors.device.type == "cpu" and kept.sum() < _NARROW * len(kept):
            rows = np.flatnonzero(kept)
            vectors = vectors[torch.from_numpy(rows)]
            groups = _Groups(groups.numbers[rows], groups.count) if groups is not None else None
        hidden = [self._rows_of(ids) for ids in exclude] if exclude else [None] * len(queries)
        found = []
        at_once = max(1, MAX_SCORES // max(1, len(vectors)))
        for start in range(0, len(queries), at_once):
            chunk = queries[start : start + at_once]
            every = _products(torch.from_numpy(chunk), vectors)
            if kept is not None and rows is None:
                every.masked_fill_(torch.from_numpy(~kept).to(every.device), -torch.inf)
            for query, scores, mask in zip(chunk, every, hidden[start : start + at_once], strict=True):
                if mask is not None:
                    scores[torch.from_numpy(mask if rows is None else mask[rows]).to(scores.device)] = -torch.inf
                found.append(self._best(query, scores, k, rows, groups))
        return found

    def _best(self, query: Vectors, scores: Tensor, k: int, rows: _Rows | None, groups: _Groups | None) -> list[Found]:
        """The best of the `rows` that the rough `scores` are of, by their exact scores."""
        near = _candidates(scores, k, 2 * _ROUNDING[self._vectors.dtype], groups)
        places = near.numpy(force=True)
        numbers = places if rows is None else rows[places]
        exact = np.concatenate([np.empty(0, np.float32), *self._exact_scores(numbers, query)])
        order = np.lexsort((self._positions[numbers], -exact))
        if groups is not None:
            _, first = np.unique(groups.numbers[near].numpy(force=True)[order], return_index=True)
            order = order[np.sort(first)]
        ids = self._copy.rows[ID]
        return [Found(ids[int(numbers[i])].as_py(), float(exact[i])) for i in order[:k]]

    def _exact_scores(self, numbers: _Rows, query: Vectors) -> Iterator[Vectors]:
        for start in range(0, len(numbers), _ROWS_AT_ONCE):
            yield exact_scores(self._copy.vectors[numbers[start : start + _ROWS_AT_ONCE]], query)

    def _rows_of(self, ids: Collection[str]) -> NDArray[np.bool_] | None:
        """Which rows have one of the ids; None if there are no ids."""
        if not ids:
            return None
        mask: NDArray[np.bool_] = pc.is_in(self._copy.rows[ID], value_set=pa.array([*ids], pa.string())).to_numpy()
        return mask

    def _groups_of(self, name: str) -> _Groups:
        """The rows with each value of a field. A row without a value is a group of its own."""
        if name not in self._groups:
            column = group_column(name, self._fields)
            values = stored(self._copy.rows[column.name]).combine_chunks()
            codes = values.dictionary_encode().indices
            missing = np.flatnonzero(codes.is_null())
            count = len(values.unique())
            numbers = pc.fill_null(codes, 0).to_numpy().astype(np.int64)
            numbers[missing] = count + np.arange(len(missing))
            tensor = torch.from_numpy(numbers).to(self._vectors.device)
            self._groups[name] = _Groups(tensor, count + len(missing))
        return self._groups[name]


def _as_tensor(vectors: NDArray[np.floating], device: torch.device, dtype: torch.dtype) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        mapped = torch.from_numpy(vectors)
    if device.type == "cpu":
        return mapped.to(dtype)
    tensor = torch.empty(mapped.shape, dtype=dtype, device=device)
    for start in range(0, len(mapped), _ROWS_AT_ONCE):
        tensor[start : start + _ROWS_AT_ONCE] = mapped[start : start + _ROWS_AT_ONCE]
    return tensor


def _products(queries: Tensor, vectors: Tensor) -> Tensor:
    """Scores (B, n) in fp32, to within _ROUNDING."""
    queries = queries.to(vectors.device, vectors.dtype)
    if vectors.device.type == "cpu":
        return queries.float() @ vectors.float().T
    return torch.mm(queries, vectors.T, out_dtype=torch.float32)


def _candidates(scores: Tensor, k: int, margin: float, groups: _Groups | None) -> Tensor:
    """The places in `scores` (n,) of all that can be among the `k` best, or the best of the `k` best groups.

    −∞ is the score of what does not compete.
    """
    best = scores
    if groups is not None:
        best = scores.new_full((groups.count,), -torch.inf).scatter_reduce(0, groups.numbers, scores, "amax")
    k = min(k, len(best))
    floor = best.topk(k).values[-1] if k else torch.inf
    competes = (scores >= floor - margin) & (scores > -torch.inf)
    if groups is not None:
        competes &= scores >= best[groups.numbers] - margin
    return competes.nonzero()[:, 0]
